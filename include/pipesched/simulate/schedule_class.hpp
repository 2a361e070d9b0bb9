// SPDX-License-Identifier: MIT
#pragma once

// Classes of schedules, by the cells that they may use, and what a lower bound says about one.

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/cost/pass_pairs.hpp"

namespace pipesched {

/// The schedules that a lower bound holds for.
struct schedule_class {
  bool split_backward = true;  ///< B may be split into I and W
  /// Passes that may share a cell.
  pass_pair_set pairs = pass_pair_set::forward_with_backward();
  bool either_order = false;  ///< the ops of a cell may be in any order; else F before B before I before W
  bool forward_only = false;
  bool recompute = false;                  ///< activations may be recomputed; the bound does not count that work
  std::vector<stage_backward> backward{};  ///< by stage; empty: all are full
  std::optional<double> memory_cap{};      ///< live activations per rank at a time, in shares as in rank_metrics
  /// By rank, or one for all: bytes for what ops keep and what they need while they run, as rank_metrics::peak_bytes counts
  /// them. Infinite or empty: no limit. The bytes of ops are those of the costs.
  std::vector<double> memory_limits{};
};

/// The smallest class that holds the schedule, without a memory cap. Linear in the number of cells.
constexpr schedule_class schedule_class_of(const schedule& s) {
  schedule_class of{.split_backward = false, .pairs = {}, .forward_only = s.forward_only, .backward = s.backward};
  for (const cell& c : s.cells.all()) {
    if (c.overlapped()) {
      of.pairs.insert(pair_of(c));
      of.either_order = of.either_order || c[0].pass > c[1].pass;
    }
    for (op o : c) {
      of.recompute = of.recompute || recomputes(o.pass);
      of.split_backward = of.split_backward || o.pass == pass::backward_weight;
    }
  }
  return of;
}

/// A lower bound of makespans.
struct lower_bound_result {
  double makespan = 0;
  std::uint32_t rank = 0;  ///< the rank that it comes from; 0 for one micro-batch end to end
  std::string_view reason =
      "ops alone take no time";  ///< the bound that is largest; describe_bound() gives its numbers

  double first_forward = 0;  ///< of a bound of one rank: no forward of the rank starts earlier

  // Of a bound by pairs, for the schedules that it is least for; 0 where it says nothing of them.
  double first_backward = 0;    ///< no backward of the rank starts earlier
  std::uint32_t forwards = 0;   ///< those of the rank that start before its first backward
  std::uint32_t max_pairs = 0;  ///< most pairs of a forward and a backward then
  std::uint32_t min_pairs = 0;  ///< fewest pairs with which the rank can end in time
  std::uint32_t max_live = 0;   ///< most activations of one stage that the memory of the rank holds

  /// Distance of a makespan from the bound: (of - bound) / bound; 0 if it is rounding alone, infinite above a bound of 0.
  constexpr double gap(double of) const noexcept { return of - makespan > 1e-9 * of ? (of - makespan) / makespan : 0; }
};

}  // namespace pipesched
