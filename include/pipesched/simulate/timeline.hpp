// SPDX-License-Identifier: MIT
#pragma once

// When every cell ran: simulated or measured, one type, so that every metric and picture works on both.

#include <cstddef>
#include <cstdint>
#include <span>

#include "pipesched/rows.hpp"
#include "pipesched/schedule.hpp"
#include "pipesched/verify.hpp"

namespace pipesched {

struct interval {
  double start = 0;
  double end = 0;

  friend constexpr bool operator==(const interval&, const interval&) = default;
};

/// `t[rank][i]` is when cell `i` of that rank ran, `t.schedule[rank][i]` what it was.
struct timeline {
  pipesched::schedule schedule;
  rows<interval> intervals{};  ///< one for every cell of the schedule, unless there is a report
  pipesched::report report{};  ///< why there are no intervals: the schedule is not valid

  /// False when there is no timeline but a report.
  constexpr explicit operator bool() const noexcept { return static_cast<bool>(report); }

  constexpr std::span<const interval> operator[](std::size_t rank) const noexcept { return intervals[rank]; }
  constexpr std::span<interval> operator[](std::size_t rank) noexcept { return intervals[rank]; }

  friend constexpr bool operator==(const timeline&, const timeline&) = default;
};

}  // namespace pipesched
