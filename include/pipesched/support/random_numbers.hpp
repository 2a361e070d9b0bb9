// SPDX-License-Identifier: MIT
#pragma once

// Random numbers that are the same on every platform.

#include <cstddef>
#include <cstdint>

namespace pipesched::detail {

/// A sequence of random numbers, the same for the same seed. Source: splitmix64, Steele, Lea and Flood, OOPSLA 2014.
class random_numbers {
 public:
  constexpr explicit random_numbers(std::uint64_t seed) noexcept : state_(seed) {}

  constexpr std::uint64_t next() noexcept {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  /// From 0 to `end` - 1. @pre end > 0
  constexpr std::size_t below(std::size_t end) noexcept { return static_cast<std::size_t>(next() % end); }
  /// From 0 to less than 1.
  constexpr double unit() noexcept { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  std::uint64_t state_;
};

}  // namespace pipesched::detail
