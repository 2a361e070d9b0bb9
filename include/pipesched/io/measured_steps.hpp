// SPDX-License-Identifier: MIT
#pragma once

// Measured steps: the cells that ranks ran, with their times, as timelines. The schedule is that of the events: cells of a rank in
// the order of their starts, stages where they ran. Costs of them: fit_costs(), fit_model().

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/detail/placement_of_ops.hpp"
#include "pipesched/core/notation.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/simulate/fit_costs.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// A cell that a rank ran, at any time of the run.
struct measured_cell {
  std::uint32_t rank = 0;
  cell what{};
  interval time{};

  friend constexpr bool operator==(const measured_cell&, const measured_cell&) = default;
};

/// The steps of a run.
struct measured_steps {
  std::vector<timeline> steps;
  rank_clocks clocks = rank_clocks::common;
  std::vector<std::string> notes{};  ///< facts that the times do not show, one sentence each
};

namespace detail {

inline void require_measured(const measured_cell& m) {
  if (m.rank >= max_stages) throw schedule_error(concat({"ranks are 0 to ", max_stages - 1, "; got ", m.rank}));
  if (!std::isfinite(m.time.start) || !std::isfinite(m.time.end))
    throw schedule_error(concat({"the times of ", to_string(m.what), " on rank ", m.rank,
                                 " are not finite: ", m.time.start, " to ", m.time.end}));
}

// One step of one rank.
using measured_row = std::vector<measured_cell>;

// A rank's cells in the order of their starts; a new step begins where an op comes again.
inline std::vector<measured_row> rows_of_rank(const measured_row& unordered) {
  std::vector<std::size_t> order(unordered.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const interval x = unordered[a].time, y = unordered[b].time;
    return std::tuple(x.start, x.end, a) < std::tuple(y.start, y.end, b);
  });
  std::vector<measured_row> steps;
  std::map<op, std::size_t> seen;  // the number of steps with this op
  for (const std::size_t i : order) {
    const measured_cell& m = unordered[i];
    std::size_t step = 0;
    for (const op o : m.what) step = std::max(step, seen[o]++);
    if (step >= steps.size()) steps.resize(step + 1);
    steps[step].push_back(m);
  }
  return steps;
}

inline std::uint32_t micro_batches_of(const std::vector<measured_row>& rows) {
  std::uint32_t micro = 0;
  for (const measured_row& row : rows)
    for (const measured_cell& m : row)
      for (const op o : m.what) micro = std::max(micro, o.micro + 1);
  return micro;
}

// The placement of all cells. @pre ranks are 0 to rows.size() - 1
inline placement placement_of_cells(const std::vector<measured_row>& rows) {
  return placement_of_ops(static_cast<std::uint32_t>(rows.size()), micro_batches_of(rows), [&](auto&& f) {
    for (std::uint32_t rank = 0; rank < rows.size(); ++rank)
      for (const measured_cell& m : rows[rank])
        for (const op o : m.what) f(rank, o);
  });
}

// The backwards that stages have, empty if all are full.
inline std::vector<stage_backward> backwards_of(const std::vector<measured_row>& rows, std::size_t stages) {
  std::vector<stage_backward> backward(stages, stage_backward::none);
  for (const measured_row& row : rows)
    for (const measured_cell& m : row)
      for (const op o : m.what)
        if (yields_weight_gradient(o.pass))
          backward[o.stage] = stage_backward::full;
        else if (yields_input_gradient(o.pass) && backward[o.stage] == stage_backward::none)
          backward[o.stage] = stage_backward::input;
  const bool all = std::all_of(backward.begin(), backward.end(), [](auto b) { return b == stage_backward::full; });
  return all ? std::vector<stage_backward>() : backward;
}

// Refuses numbers of micro-batches that no step with so many cells has, before anything of that size is made.
inline void require_forwards(const schedule& s, std::size_t step) {
  const std::uint64_t expected = std::uint64_t{s.stages()} * s.micro;
  if (const std::size_t cells = s.cells.all().size(); cells < expected)
    throw schedule_error(concat({"step ", step, " is not whole: ", count_text(cells, "cell"), " for ",
                                 count_text(s.micro, "micro-batch"), " and ", count_text(s.stages(), "stage")}));
}

inline timeline timeline_of_rows(const std::vector<measured_row>& rows, const placement& of_run, std::size_t step) {
  const std::uint32_t micro = micro_batches_of(rows);
  const placement where = of_run.for_micro(std::max(micro, 1u));
  timeline t{.schedule = {.name = "measured", .placement = where, .micro = micro, .forward_only = true}};
  for (const measured_row& row : rows) {
    std::vector<cell> cells;
    std::vector<interval> times;
    for (measured_cell m : row) {
      for (op& o : m.what) {
        o.chunk = where.chunk_of(o.stage, o.micro);
        t.schedule.forward_only = t.schedule.forward_only && o.pass == pass::forward;
      }
      cells.push_back(m.what), times.push_back(m.time);
    }
    t.schedule.cells.append(cells), t.intervals.append(times);
  }
  require_forwards(t.schedule, step);
  if (!t.schedule.forward_only) t.schedule.backward = backwards_of(rows, where.stages());
  if (const report r = verify(t.schedule); !r)
    throw schedule_error(concat({"step ", step, " is not whole: ", first_violation(r)}));
  return starting_at_zero(std::move(t));
}

// An op that starts before its input has ended on another rank: their clocks differ.
inline std::string clock_fault(const timeline& t) {
  const schedule& s = t.schedule;
  tensor_table<std::pair<double, std::uint32_t>> made(s, {0.0, 0});
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
    for (std::size_t i = 0; i < s[rank].size(); ++i)
      for (const op o : s[rank][i])
        if (const auto out = output_of(o, s.chain())) made[*out] = {t[rank][i].end, rank};
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
    for (std::size_t i = 0; i < s[rank].size(); ++i)
      for (const op o : s[rank][i])
        if (const auto in = input_of(o, s.chain());
            in && made[*in].second != rank && made[*in].first > t[rank][i].start)
          return concat({to_string(o), " of rank ", rank, " starts before its input ends on rank ", made[*in].second});
  return {};
}

// A cell that starts before the one before it on its rank has ended: a rank runs one at a time.
inline std::string overlap_fault(const timeline& t) {
  for (std::uint32_t rank = 0; rank < t.schedule.pp(); ++rank)
    for (std::size_t i = 1; i < t[rank].size(); ++i) {
      const interval before = t[rank][i - 1], now = t[rank][i];
      if (now.start < before.end - 1e-9 * std::max(std::fabs(before.end), std::fabs(now.end)))
        return concat({to_string(t.schedule[rank][i]), " of rank ", rank, " starts before ",
                       to_string(t.schedule[rank][i - 1]), " ends"});
    }
  return {};
}

// One note, of the first step with cells that overlap.
inline void note_overlaps(measured_steps& measured) {
  for (std::size_t step = 0; step < measured.steps.size(); ++step)
    if (const std::string fault = overlap_fault(measured.steps[step]); !fault.empty()) {
      measured.notes.push_back(concat({"times of cells that ran at once count twice: ", fault, " in step ", step}));
      return;
    }
}

}  // namespace detail

/// The steps of a run, each a timeline that starts at 0. A rank's step ends where an op of it comes again. A stage on two ranks has
/// two replicas, if each runs one half of the micro-batches.
/// @throws schedule_error for a rank that is max_stages or more, a rank or a stage without cells, any other stage on two ranks,
/// ranks with different numbers of steps, a step that is not a valid schedule, times that are not finite. Linear, but for a
/// logarithm of the cells.
inline measured_steps steps_of(const std::vector<measured_cell>& cells) {
  using detail::concat;
  if (cells.empty()) throw schedule_error("no op was measured");
  std::vector<detail::measured_row> by_rank;
  for (const measured_cell& m : cells) {
    detail::require_measured(m);
    if (m.rank >= by_rank.size()) by_rank.resize(m.rank + 1);
    by_rank[m.rank].push_back(m);
  }
  std::vector<std::vector<detail::measured_row>> rows;  // [rank][step]
  for (std::size_t rank = 0; rank < by_rank.size(); ++rank) {
    if (by_rank[rank].empty()) throw schedule_error(concat({"rank ", rank, " has no op"}));
    rows.push_back(detail::rows_of_rank(by_rank[rank]));
    if (rows[rank].size() != rows[0].size())
      throw schedule_error(concat({"rank 0 ran ", detail::count_text(rows[0].size(), "step"), " and rank ", rank,
                                   " ran ", rows[rank].size(), "; expected as many"}));
  }
  const placement where = detail::placement_of_cells(by_rank);
  measured_steps measured;
  for (std::size_t step = 0; step < rows[0].size(); ++step) {
    std::vector<detail::measured_row> of_step;
    for (const auto& of_rank : rows) of_step.push_back(of_rank[step]);
    measured.steps.push_back(detail::timeline_of_rows(of_step, where, step));
    if (measured.clocks == rank_clocks::own) continue;
    if (const std::string fault = detail::clock_fault(measured.steps.back()); !fault.empty()) {
      measured.clocks = rank_clocks::own;
      measured.notes.push_back(
          concat({"transfers are unknown: the ranks have no common clock, as ", fault, " in step ", step}));
    }
  }
  detail::note_overlaps(measured);
  return measured;
}

}  // namespace pipesched
