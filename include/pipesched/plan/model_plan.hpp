// SPDX-License-Identifier: MIT
#pragma once

// A plan for a model: its layers among the stages, the stages that recompute, and the order of the cells, together.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
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

/// A plan whose stages may recompute, and one whose stages may not: the first with a quarter of the evaluations, the second with
/// the rest; or only the first, if it is shorter than the bound of the second, or the second does not fit.
inline model_plan plan_with_recompute(const model& m, const model_problem& problem, const plan_limits& limits,
                                      const model_plan* known) {
  const auto all = static_cast<double>(limits.evaluations), most = std::floor(0.75 * all);
  model_problem whole = problem;
  whole.may_recompute = false;
  const pass_pair_set pairs = pairs_for(m, problem, limits);
  const double bound = bound_over_partitions(m, problem, pairs), without = bound_over_partitions(m, whole, pairs);
  shared_progress progress(limits.progress, bound);
  plan_limits first = limits, second = limits;
  first.progress = progress.of_search(), second.progress = progress.of_search();
  second.evaluations = static_cast<std::uint64_t>(most);
  model_planner planner(m, problem, first, bound), other_planner(m, whole, second, without);
  if (known != nullptr) planner.start_from(*known);
  if (known != nullptr && known->recomputed.empty()) other_planner.start_from(*known);
  std::optional<model_plan> best;
  double spent = 0;
  try {
    best = planner.run(all - most);
    spent = best->evaluations;
  } catch (const no_fit_error& e) {  // more choices, and fewer evaluations for each
    spent = e.evaluations;
  }
  if (progress.stopped() && best) return *best;
  if (without == std::numeric_limits<double>::infinity() || (best && best->plan.makespan < without))
    return planner.run(all);
  model_plan other;
  try {
    other = other_planner.run(most);
  } catch (const no_fit_error& e) {
    model_plan found = planner.run(all - e.evaluations);
    found.evaluations += e.evaluations;
    return found;
  }
  spent += other.evaluations;
  const std::uint64_t ops = (best ? best->ops_simulated : 0) + other.ops_simulated;
  const auto shorter = [](const divided_family& a, const divided_family& b) { return a.makespan < b.makespan ? a : b; };
  const divided_family uniform = best ? shorter(best->uniform, other.uniform) : other.uniform,
                       divided = best ? shorter(best->divided, other.divided) : other.divided;
  if (!best || other.plan.makespan < best->plan.makespan) best = std::move(other);
  best->lower_bound = std::min(best->lower_bound, bound);
  best->evaluations = spent, best->ops_simulated = ops, best->uniform = uniform, best->divided = divided;
  return *best;
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
/// If stages may recompute to fit, a quarter of the evaluations is spent with that, and the others without, unless the plan is
/// shorter than any without can be. So it is never longer than one that may not recompute, from three quarters of the
/// evaluations and the same seed.
/// @param limits  without memory, which is that of the model, and without starts
/// @throws schedule_error as plan() for costs and costs_of() do, and if nothing found fits into the memory.
/// Time: `evaluations` times a simulation of the step, and a lower bound for some thousands of partitions.
inline model_plan plan(const model& m, const model_problem& problem, const plan_limits& limits = {}) {
  return detail::plan_from(nullptr, m, problem, limits);
}

}  // namespace pipesched
