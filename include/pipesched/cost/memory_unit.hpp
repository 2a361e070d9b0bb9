// SPDX-License-Identifier: MIT
#pragma once

// How the memory of a rank is counted, and bytes in words.

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace pipesched {

enum class memory_unit : std::uint8_t {
  activations,  ///< live activations, of one micro-batch through the whole share of a rank each
  bytes         ///< weights, activations, what running ops need, and message buffers
};

inline constexpr std::string_view memory_unit_names[] = {"activations", "bytes"};

constexpr std::string_view to_string(memory_unit u) { return memory_unit_names[static_cast<std::size_t>(u)]; }

namespace detail {

/// A limit with room for the rounding of sums.
constexpr double with_rounding(double limit) noexcept { return limit * (1 + 1e-12); }

/// A larger unit of bytes, for output.
struct byte_scale {
  double bytes;
  std::string_view name;
};

/// The unit for numbers up to `most`: bytes where they are few.
constexpr byte_scale byte_scale_for(double most) noexcept {
  for (const byte_scale s : {byte_scale{1e12, "TB"}, byte_scale{1e9, "GB"}, byte_scale{1e6, "MB"}})
    if (most >= s.bytes) return s;
  return {1, "bytes"};
}

}  // namespace detail

}  // namespace pipesched
