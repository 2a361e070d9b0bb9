// SPDX-License-Identifier: MIT
#pragma once

// Placement of recomputation: each R in a stall before its backward, or beside another op.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "pipesched/core/ops.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/pass_pairs.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

namespace detail {

template <typename Costs>
class recompute_placement {
 public:
  recompute_placement(schedule s, const Costs& costs) : costs_(costs), t_(simulate(std::move(s), costs)) {
    if constexpr (requires { costs.may_overlap(); }) pairs_ = costs.may_overlap();
  }

  schedule run() {
    constexpr int max_rounds = 8;
    bool better = true;
    for (int round = 0; round < max_rounds && std::exchange(better, false); ++round)
      for (std::uint32_t rank = 0; rank < t_.schedule.pp(); ++rank) better = improve(rank) || better;
    return std::move(t_.schedule);
  }

 private:
  static bool is_lone_recompute(const cell& c) { return !c.overlapped() && c[0].pass == pass::recompute; }
  static bool has_forward_of(const cell& c, op again) {
    return std::any_of(c.begin(), c.end(), [&](op o) { return o == with_pass(again, pass::forward); });
  }

  // Tries the changes of a rank at once; true if the step gets shorter.
  bool improve(std::uint32_t rank) {
    std::vector<cell> row = changed_row(rank);
    if (std::ranges::equal(row, t_.schedule[rank])) return false;
    schedule other = t_.schedule;
    other.edit(rank, [&](std::vector<cell>& of) { of = std::move(row); });
    timeline then = simulate(std::move(other), costs_, verified);
    if (!(last_end(then) < last_end(t_))) return false;
    t_ = std::move(then);
    return true;
  }

  // The row with each R that delays its backward in the last stall that has room for it; else in a cell with the last op
  // before it with which that is allowed and saves time.
  std::vector<cell> changed_row(std::uint32_t rank) const {
    const auto row = t_.schedule[rank];
    const auto times = t_[rank];
    std::vector<double> room(row.size(), 0);  // of the stall before each cell
    for (std::size_t i = 0; i < row.size(); ++i) room[i] = times[i].start - (i == 0 ? 0 : times[i - 1].end);
    std::vector<std::vector<cell>> before(row.size());
    std::vector<std::optional<cell>> now(row.begin(), row.end());
    for (std::size_t i = 0; i + 1 < row.size(); ++i) {
      if (!is_lone_recompute(row[i]) || room[i + 1] > 0) continue;
      const op again = row[i][0];
      const double takes = duration_of(costs_, rank, row[i]);
      if (const auto at = last_room(row, room, i, again, takes)) {
        before[*at].push_back(row[i]), room[*at] -= takes, now[i].reset();
        continue;
      }
      for (std::size_t after = i; after > 0 && !has_forward_of(row[after - 1], again); --after)
        if (auto& other = now[after - 1]; other && saves_beside(rank, *other, again, takes)) {
          other = cell((*other)[0], again), now[i].reset();
          break;
        }
    }
    std::vector<cell> result;
    for (std::size_t i = 0; i < row.size(); ++i) {
      result.insert(result.end(), before[i].begin(), before[i].end());
      if (now[i]) result.push_back(*now[i]);
    }
    return result;
  }
  // The last cell after the F of `again` and not after i with that much room before it.
  std::optional<std::size_t> last_room(std::span<const cell> row, const std::vector<double>& room, std::size_t i,
                                       op again, double takes) const {
    for (std::size_t at = i; at > 0 && !has_forward_of(row[at - 1], again); --at)
      if (at < i && room[at] >= takes) return at;
    return std::nullopt;
  }
  bool saves_beside(std::uint32_t rank, const cell& c, op again, double takes) const {
    if (c.overlapped() || c[0].micro == again.micro || !pairs_.contains({c[0].pass, pass::recompute})) return false;
    return duration_of(costs_, rank, cell(c[0], again)) < duration_of(costs_, rank, c) + takes;
  }

  const Costs& costs_;
  timeline t_;
  pass_pair_set pairs_;
};

}  // namespace detail

/// Moves every R that delays its backward into the nearest stall before that, or beside the nearest op before it with which the
/// costs allow a pair and price it below the sum. The step is never longer than before; an activation that is made again earlier
/// is kept longer. At most 8 simulations a rank.
/// @throws schedule_error as simulate() does
template <cost_model Costs>
schedule place_recompute(const schedule& s, const Costs& costs) {
  return detail::recompute_placement(s, costs).run();
}

}  // namespace pipesched
