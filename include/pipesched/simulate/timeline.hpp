// SPDX-License-Identifier: MIT
#pragma once

// Start and end of every cell, simulated or measured: one type, so that every metric and picture works on both.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

struct interval {
  double start = 0;
  double end = 0;

  friend constexpr bool operator==(const interval&, const interval&) = default;
};

/// `t[rank][i]` is the time of cell `i` of that rank, `t.schedule[rank][i]` the cell.
struct timeline {
  pipesched::schedule schedule;
  rows<interval> intervals{};  ///< one per cell of the schedule

  constexpr std::span<const interval> operator[](std::integral auto rank) const noexcept { return intervals[rank]; }
  constexpr std::span<interval> operator[](std::integral auto rank) noexcept { return intervals[rank]; }

  friend constexpr bool operator==(const timeline&, const timeline&) = default;
};

namespace detail {

/// Refuses a timeline whose intervals do not match its schedule. @throws schedule_error unless there is one interval per
/// cell. Linear in the number of ranks.
constexpr void require_intervals(const timeline& t) {
  const schedule& s = t.schedule;
  if (s.cells.size() != s.pp() || t.intervals.size() != s.pp())
    throw schedule_error(concat({"a timeline needs one row of cells and one of intervals per rank; got ",
                                 s.cells.size(), " and ", t.intervals.size(), " for ", count_text(s.pp(), "rank")}));
  for (std::size_t rank = 0; rank < s.pp(); ++rank)
    if (t[rank].size() != s[rank].size())
      throw schedule_error(concat({"a timeline needs one interval per cell; rank ", rank, " has ", t[rank].size(),
                                   " for ", count_text(s[rank].size(), "cell")}));
}

/// The makespan. Linear in the number of ranks. @pre each row is in the order of its times, as simulate() makes it
constexpr double last_end(const timeline& t) {
  double end = 0;
  for (const auto row : t.intervals)
    if (!row.empty()) end = std::max(end, row.back().end);
  return end;
}

/// Refuses whatever the functions on timelines cannot take. @throws schedule_error unless there is one interval per cell, all
/// times are finite, each end is at or after its start, and the schedule is valid. Linear in the number of ops.
constexpr void require_timeline(const timeline& t) {
  require_intervals(t);
  for (std::size_t rank = 0; rank < t.schedule.pp(); ++rank)
    for (std::size_t i = 0; i < t[rank].size(); ++i) {
      const auto [start, end] = t[rank][i];
      constexpr double limit = std::numeric_limits<double>::max();
      if (!(start >= -limit && end <= limit && start <= end))
        throw schedule_error(concat({"a timeline needs finite times, each end at or after its start; got ", start,
                                     " to ", end, " for cell ", i, " of rank ", rank}));
    }
  require_valid(t.schedule);
}

}  // namespace detail

/// The timeline with every time multiplied: `scaled(t, 1000)` is in milliseconds if `t` is in seconds. Linear.
/// @throws schedule_error unless the factor is positive and finite
constexpr timeline scaled(timeline t, double factor) {
  if (!(factor > 0 && factor <= std::numeric_limits<double>::max()))
    throw schedule_error(detail::concat({"scaled() takes a positive, finite factor; got ", factor}));
  for (interval& i : t.intervals.all()) i = {i.start * factor, i.end * factor};
  return t;
}

/// The timeline moved in time, so that its first cell starts at 0: for measured times. Linear.
constexpr timeline starting_at_zero(timeline t) {
  double first = std::numeric_limits<double>::infinity();
  for (const interval& i : t.intervals.all()) first = std::min(first, i.start);
  for (interval& i : t.intervals.all()) i = {i.start - first, i.end - first};
  return t;
}

}  // namespace pipesched
