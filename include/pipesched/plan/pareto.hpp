// SPDX-License-Identifier: MIT
#pragma once

// The front of step time against memory: one plan per limit of memory.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "pipesched/cost/cost_model.hpp"
#include "pipesched/plan/plan.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// A point of a front.
struct pareto_point {
  double cap = 0;  ///< live activations per rank, in shares
  plan_result plan;
};

/// Plans for several limits of live activations, in rising order; a plan for less memory is kept where it is the shorter one,
/// so that more memory is never worse. The evaluations of `limits` are for all points together; its memory is not looked at.
/// Limits that are too small for any schedule are left out.
/// @throws schedule_error as plan() does, for no limits, and for one that is not more than 0
template <cost_model Costs>
std::vector<pareto_point> pareto(const plan_problem& problem, const Costs& costs, std::vector<double> caps,
                                 plan_limits limits = {}) {
  if (caps.empty()) throw schedule_error("pareto() needs at least 1 limit of memory; got none");
  std::sort(caps.begin(), caps.end());
  caps.erase(std::unique(caps.begin(), caps.end()), caps.end());
  limits.evaluations = std::max<std::uint64_t>(1, limits.evaluations / caps.size());
  std::vector<pareto_point> front;
  bool stopped = false;
  if (limits.progress)
    limits.progress = [&stopped, ask = std::move(limits.progress)](const plan_progress& p) {
      stopped = stopped || !ask(p);
      return !stopped;
    };
  for (const double cap : caps) {
    limits.memory = {.activations = cap};
    check(limits.memory, problem.placement.ranks());
    try {
      front.push_back({cap, plan(problem, costs, limits)});
    } catch (const schedule_error&) {
      if (cap == caps.back() && front.empty()) throw;
      continue;
    }
    plan_result& now = front.back().plan;
    if (front.size() > 1 && front.rbegin()[1].plan.makespan < now.makespan) {
      const plan_result& below = front.rbegin()[1].plan;
      now.schedule = below.schedule, now.makespan = below.makespan, now.peak_activations = below.peak_activations;
    }
    if (stopped) break;
  }
  return front;
}

}  // namespace pipesched
