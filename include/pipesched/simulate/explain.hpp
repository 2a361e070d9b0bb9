// SPDX-License-Identifier: MIT
#pragma once

// Explanation of a makespan: the input that every cell waited for, and the critical path, the chain of cells that leads to
// the last end.

#include <algorithm>
#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

/// A cell of a timeline.
struct cell_ref {
  std::uint32_t rank = 0;
  std::uint32_t index = 0;

  friend constexpr bool operator==(const cell_ref&, const cell_ref&) = default;
  friend constexpr auto operator<=>(const cell_ref&, const cell_ref&) = default;
};

/// Idle time of a rank before a cell that waits for a tensor.
struct stall {
  cell_ref before;   ///< the cell that waits
  double start = 0;  ///< end of the cell before it, or 0
  double end = 0;    ///< start of the cell
  op waiting;        ///< the op of the cell whose input arrived last
  op made_by;        ///< the op that produced this input
  cell_ref made_in;  ///< the cell of that op

  friend constexpr bool operator==(const stall&, const stall&) = default;
};

struct explanation {
  std::vector<cell_ref> critical_path;  ///< first to last: each cell delays the start of the next
  std::vector<stall> stalls;            ///< by rank, then by time
};

namespace detail {

// Stands for the costs of a measured timeline.
struct as_measured {};

template <typename Costs>
class explainer {
 public:
  constexpr explainer(const timeline& t, const Costs& costs) : t_(t), s_(t.schedule), costs_(costs), makers_(s_, {}) {
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank)
      for (std::uint32_t i = 0; i < s_[rank].size(); ++i)
        for (op o : s_[rank][i])
          if (const auto out = output_of(o, s_.chain())) makers_[*out] = {rank, i};
  }

  constexpr explanation explain() {
    explanation e;
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank)
      for (std::uint32_t i = 0; i < t_[rank].size(); ++i) {
        const double idle_from = free_before({rank, i}), start = t_[rank][i].start;
        if (!(start - idle_from > 1e-9 * start)) continue;  // less is rounding
        if (const auto last = last_arrival({rank, i}))
          e.stalls.push_back({{rank, i}, idle_from, start, last->waiting, last->made_by, last->made_in});
      }
    std::optional<cell_ref> at = last_cell();
    std::size_t left = t_.intervals.all().size();  // a longer path loops: its times are impossible
    while (at && left-- > 0) {
      e.critical_path.push_back(*at);
      at = cause_of(*at);
    }
    std::reverse(e.critical_path.begin(), e.critical_path.end());
    return e;
  }

 private:
  struct arrival {
    double time;
    op waiting, made_by;
    cell_ref made_in;
  };

  // The time from which a rank could run a cell if its inputs were there.
  constexpr double free_before(cell_ref at) const {
    const auto row = s_[at.rank];
    double time = at.index == 0 ? 0 : t_[at.rank][at.index - 1].end;
    if constexpr (cost_model<Costs>)
      if (may_be_busy(costs_)) {
        if (at.index > 0) time += time_to_send(s_, costs_, at.rank, row[at.index - 1]);
        time += time_to_receive(s_, costs_, at.rank, row[at.index]);
      }
    return time;
  }

  // The input of a cell that arrives last; nothing if it has none.
  constexpr std::optional<arrival> last_arrival(cell_ref at) {
    std::optional<arrival> last;
    for (op o : s_[at.rank][at.index])
      if (const auto in = input_of(o, s_.chain())) {
        const cell_ref from = makers_[*in];
        const cell& maker = s_[from.rank][from.index];
        const std::size_t k = output_of(maker[0], s_.chain()) == in ? 0 : 1;
        double time = t_[from.rank][from.index].end;
        if constexpr (cost_model<Costs>)
          time = t_[from.rank][from.index].start + time_to_arrive(s_, costs_, from.rank, maker, k, *in);
        if (!last || time > last->time) last = {time, o, maker[k], from};
      }
    return last;
  }

  constexpr std::optional<cell_ref> last_cell() const {
    std::optional<cell_ref> last;
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank)
      if (const auto row = t_[rank]; !row.empty() && (!last || row.back().end > t_[last->rank][last->index].end))
        last = {rank, static_cast<std::uint32_t>(row.size() - 1)};
    return last;
  }

  // The cell that delays the start of this one: the one before it on its rank or, if later, the producer of its last input.
  constexpr std::optional<cell_ref> cause_of(cell_ref at) {
    const auto input = last_arrival(at);
    if (at.index > 0 && (!input || free_before(at) >= input->time)) return cell_ref{at.rank, at.index - 1};
    if (input) return input->made_in;
    return std::nullopt;
  }

  const timeline& t_;
  const schedule& s_;
  const Costs& costs_;
  tensor_table<cell_ref> makers_;
};

}  // namespace detail

/// Stalls and critical path of a timeline that was simulated with these costs, by a caller who has verified its schedule.
/// Linear in the number of ops. @pre verify(t.schedule)
template <cost_model Costs>
constexpr explanation explain(const timeline& t, const Costs& costs, verified_t) {
  detail::require_intervals(t);
  return detail::explainer(t, costs).explain();
}

/// Stalls and critical path of a timeline that was simulated with these costs. Linear in the number of ops.
/// @throws schedule_error unless the timeline has one interval of finite times per cell and its schedule is valid, and if the
/// costs' own check() refuses them.
template <cost_model Costs>
constexpr explanation explain(const timeline& t, const Costs& costs) {
  detail::require_timeline(t);
  detail::check_costs(costs, t.schedule.stages(), t.schedule.pp(), t.schedule.micro);
  return explain(t, costs, verified);
}

/// Stalls and critical path of a measured timeline. Its transfers are unknown: a tensor counts as arrived at the end of the
/// cell that produced it. A template, so that it is compiled only where it is used.
/// @throws schedule_error as above
template <std::same_as<timeline> Timeline>
constexpr explanation explain(const Timeline& t) {
  detail::require_timeline(t);
  const detail::as_measured none;
  return detail::explainer(t, none).explain();
}

}  // namespace pipesched
