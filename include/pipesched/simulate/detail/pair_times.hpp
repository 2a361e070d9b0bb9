// SPDX-License-Identifier: MIT
#pragma once

// The durations of the overlapped cells of one rank that a class of schedules allows.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "pipesched/core/op.hpp"

namespace pipesched::detail {

/// Least durations of cells of two ops, by their passes (F, B, I, W, without recomputation) and units. A unit is a place in the
/// list of those that the rank hosts.
class pair_times {
 public:
  static constexpr double none = std::numeric_limits<double>::infinity();

  constexpr explicit pair_times(std::size_t units = 0) : units_(units) {}

  constexpr void note(pass a, std::size_t u, pass b, std::size_t v, double duration) {
    note_in_order(a, u, b, v, duration);
    if (a != b || u != v) note_in_order(b, v, a, u, duration);
  }
  /// True if there is a cell with an op of each pass.
  constexpr bool any(pass a, pass b) const { return !at(a, b).empty(); }
  /// Infinite if there is no such cell. Cells of a unit with itself hold two of its micro-batches.
  constexpr double of(pass a, std::size_t u, pass b, std::size_t v) const {
    const std::vector<double>& times = at(a, b);
    return times.empty() ? none : times[u * units_ + v];
  }

 private:
  static constexpr std::size_t index(pass a, pass b) {
    return (static_cast<std::size_t>(a) - 1) * 4 + static_cast<std::size_t>(b) - 1;
  }
  constexpr const std::vector<double>& at(pass a, pass b) const { return times_[index(a, b)]; }
  constexpr void note_in_order(pass a, std::size_t u, pass b, std::size_t v, double duration) {
    std::vector<double>& times = times_[index(a, b)];
    if (times.empty()) times.assign(units_ * units_, none);
    double& least = times[u * units_ + v];
    least = std::min(least, duration);
  }

  std::size_t units_;
  std::array<std::vector<double>, 16> times_{};
};

}  // namespace pipesched::detail
