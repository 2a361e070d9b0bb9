// SPDX-License-Identifier: MIT
#pragma once

// A plan for a model: its layers among the stages, the stages that recompute, and the order of the cells, together.

#include "pipesched/core/placement.hpp"
#include "pipesched/model/model.hpp"
#include "pipesched/plan/detail/model_planner.hpp"
#include "pipesched/plan/model_problem.hpp"
#include "pipesched/plan/plan.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// The shortest step found for a model, never longer than any family of the library on the same placement with the best
/// partition that divide() finds for it within the memory of the model's ranks. Weights, activations, what running ops need
/// and message buffers count.
/// Method: partitions with small lower bounds, and those of the families, are planned for shortly; the better half of them goes
/// on with twice the evaluations, until one is left; then layers move one at a time, with the order kept and planned anew.
/// If stages may recompute to fit, three quarters of the evaluations are spent without that first: the plan is never longer
/// than one that may not recompute, from so many evaluations and the same seed.
/// @param limits  without memory, which is that of the model, and without starts
/// @throws schedule_error as plan() for costs and costs_of() do, and if nothing found fits into the memory.
/// Time: `evaluations` times a simulation of the step, and a lower bound for some thousands of partitions.
inline model_plan plan(const model& m, const model_problem& problem, const plan_limits& limits = {}) {
  detail::require_step(problem.placement, problem.micro);
  require_lengths(m, problem.micro);
  if (!limits.memory.empty() || !limits.starts.empty())
    throw schedule_error(
        "plan() of a model takes the memory of its ranks, and no starts; got limits of memory or starts");
  model_problem own = problem;
  own.placement = problem.placement.for_micro(problem.micro);
  return detail::model_planner(m, own, limits).run();
}

}  // namespace pipesched
