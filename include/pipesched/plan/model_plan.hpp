// SPDX-License-Identifier: MIT
#pragma once

// A plan for a model: its layers among the stages, the stages that recompute, and the order of the cells, together.

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "pipesched/core/placement.hpp"
#include "pipesched/model/model.hpp"
#include "pipesched/plan/detail/model_planner.hpp"
#include "pipesched/plan/detail/shared_progress.hpp"
#include "pipesched/plan/model_problem.hpp"
#include "pipesched/plan/plan.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

namespace detail {

/// Two searches, for plans whose stages may recompute and for plans whose stages may not. After a look at the families, each has a
/// quarter of the evaluations, unless the first finds a plan that is as short as the bound of the second; the one with the
/// shorter plan has the rest.
/// @param known  a plan to begin with, or null
inline model_plan plan_with_recompute(const model& m, const model_problem& problem, const plan_limits& limits,
                                      const model_plan* known) {
  model_problem whole = problem;
  whole.may_recompute = false;
  const pass_pair_set pairs = pairs_for(m, problem, limits);
  const double bound = bound_over_partitions(m, problem, pairs),
               bound_of_whole = bound_over_partitions(m, whole, pairs);
  shared_progress progress(limits.progress, bound);
  plan_limits own[] = {limits, limits};
  for (plan_limits& l : own) l.progress = progress.of_search();
  model_planner planners[] = {{m, problem, own[0], bound}, {m, whole, own[1], bound_of_whole}};
  if (known != nullptr) planners[0].start_from(*known);
  if (known != nullptr && known->recomputed.empty()) planners[1].start_from(*known);

  planners[0].look_at_families();
  planners[1].take_families(planners[0]);
  std::optional<model_plan> found[2];
  double spent[] = {planners[0].evaluations(), 0};
  std::string refusal;
  const auto left = [&] { return static_cast<double>(limits.evaluations) - spent[0] - spent[1]; };
  const auto search = [&](std::size_t i, double evaluations) {
    try {
      found[i] = planners[i].run(spent[i] + evaluations);
    } catch (const no_fit_error& e) {
      refusal = e.what();
    }
    spent[i] = planners[i].evaluations();
  };
  const auto makespan = [&](std::size_t i) {
    return found[i] ? found[i]->plan.makespan : std::numeric_limits<double>::infinity();
  };
  const auto leader = [&]() -> std::size_t { return found[1] && makespan(1) <= makespan(0) ? 1 : 0; };
  const double quarter = left() / 4;
  search(0, quarter);
  if (bound_of_whole < makespan(0) && !(progress.stopped() && found[0])) search(1, quarter);
  if (!progress.stopped() && (left() > 0 || !found[leader()])) search(leader(), left());
  if (!found[0] && !found[1]) throw no_fit_error(refusal, spent[0] + spent[1]);

  model_plan result = *std::move(found[leader()]);
  result.lower_bound = std::min(result.lower_bound, bound);
  result.evaluations = spent[0] + spent[1];
  result.ops_simulated = planners[0].ops(result.evaluations);
  return result;
}

/// plan(), which may begin with a plan of the same problem.
inline model_plan plan_from(const model_plan* known, const model& m, const model_problem& problem,
                            const plan_limits& limits) {
  require_step(problem.placement, problem.micro);
  require_lengths(m, problem.micro);
  if (!limits.memory.empty() || !limits.starts.empty())
    throw schedule_error(
        "plan() of a model takes the memory of its ranks, and no starts; got limits of memory or starts");
  model_problem own = problem;
  own.placement = problem.placement.for_micro(problem.micro);
  if (own.may_recompute && recompute_may_help(m, own)) return plan_with_recompute(m, own, limits, known);
  model_planner planner(m, own, limits);
  if (known != nullptr) planner.start_from(*known);
  return planner.run(static_cast<double>(limits.evaluations));
}

}  // namespace detail

/// The shortest step found for a model, never longer than any family of the library on the same placement with the best
/// partition that divide() finds for it within the memory of the model's ranks. Weights, activations, what running ops need
/// and message buffers count.
/// Method: partitions with small lower bounds, and those of the families, are planned for shortly; the better half of them goes
/// on with twice the evaluations, until one is left; then layers move one at a time, with the order kept and planned anew.
/// If stages may recompute to fit, plans with and without that get a quarter of the evaluations each, and the shorter one the
/// rest.
/// @param limits  without memory, which is that of the model, and without starts
/// @throws schedule_error as plan() for costs and costs_of() do, and if nothing found fits into the memory.
/// Time: `evaluations` times a simulation of the step, and a lower bound for some thousands of partitions.
inline model_plan plan(const model& m, const model_problem& problem, const plan_limits& limits = {}) {
  return detail::plan_from(nullptr, m, problem, limits);
}

}  // namespace pipesched
