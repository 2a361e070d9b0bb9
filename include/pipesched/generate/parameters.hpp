// SPDX-License-Identifier: MIT
#pragma once

// The names of the optional parameters of families. A family lists those that it takes; a tool can print them, and
// make_schedule() refuses the others.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace pipesched {

/// An optional member of schedule_params. Every family takes pp, micro and forward_only.
enum class parameter : std::uint8_t { chunks, group_size, extra_warm_up, overlap, waves, costs, memory_limit };

inline constexpr parameter all_parameters[] = {parameter::chunks,      parameter::group_size, parameter::extra_warm_up,
                                               parameter::overlap,     parameter::waves,      parameter::costs,
                                               parameter::memory_limit};

/// The name of the member of schedule_params.
constexpr std::string_view to_string(parameter p) noexcept {
  switch (p) {
    case parameter::chunks: return "chunks";
    case parameter::group_size: return "group_size";
    case parameter::extra_warm_up: return "extra_warm_up";
    case parameter::overlap: return "overlap";
    case parameter::waves: return "waves";
    case parameter::costs: return "costs";
    case parameter::memory_limit: return "memory_limit";
  }
  return "?";
}

/// A set of parameters: `parameter_set{parameter::chunks, parameter::overlap}`.
class parameter_set {
 public:
  constexpr parameter_set() = default;
  constexpr parameter_set(std::initializer_list<parameter> all) {
    for (parameter p : all) bits_ |= bit_of(p);
  }

  constexpr bool contains(parameter p) const noexcept { return (bits_ & bit_of(p)) != 0; }
  constexpr std::size_t size() const noexcept { return static_cast<std::size_t>(std::popcount(bits_)); }

  friend constexpr bool operator==(parameter_set, parameter_set) = default;

 private:
  static constexpr std::uint32_t bit_of(parameter p) noexcept { return std::uint32_t{1} << static_cast<unsigned>(p); }

  std::uint32_t bits_ = 0;
};

}  // namespace pipesched
