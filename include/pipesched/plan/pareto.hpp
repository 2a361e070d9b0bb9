// SPDX-License-Identifier: MIT
#pragma once

// The front of step time against memory: the best plan for every limit of memory, on one placement or over several.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/memory_unit.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/plan/detail/front_search.hpp"
#include "pipesched/plan/memory_caps.hpp"
#include "pipesched/plan/plan.hpp"
#include "pipesched/plan/plan_in_memory.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// A step on one placement, and what it costs there.
template <cost_model Costs = stage_costs>
struct placed_step {
  plan_problem problem;
  Costs costs;
};

/// A point of a front.
struct pareto_point {
  double cap = 0;          ///< the limit of each rank: live activations, in shares, or bytes
  plan_result plan;        ///< its published schedule is the best one on any of the placements
  std::size_t step = 0;    ///< the index of its step among those given
  double lower_bound = 0;  ///< for any schedule of any of the steps within the limit
};

/// Placements with up to `per_rank` stages per rank: linear, looped, V, wave of several V's, and, for 2 micro-batches or
/// more, bidirectional. Placements that coincide are listed once.
inline std::vector<placement> placements_for(std::int64_t ranks, std::int64_t micro, std::int64_t per_rank = 4) {
  std::vector<placement> all;
  const auto add = [&](const placement& where) {
    for (const placement& known : all)
      if (same_stages_on_ranks(known, where)) return;
    all.push_back(where);
  };
  if (micro < 1 || per_rank < 1)
    throw schedule_error(detail::concat({"placements_for() takes at least 1 micro-batch and 1 stage per rank; got ",
                                         micro, " and ", per_rank, ", nearest ", std::max<std::int64_t>(1, micro),
                                         " and ", std::max<std::int64_t>(1, per_rank)}));
  add(placement::linear(ranks));
  per_rank = std::min<std::int64_t>(per_rank, max_chunks);
  for (std::int64_t chunks = 2; chunks <= per_rank && ranks * chunks <= max_stages; ++chunks)
    add(placement::looped(ranks, chunks));
  for (std::int64_t waves = 1; 2 * waves <= per_rank && 2 * ranks * waves <= max_stages; ++waves)
    add(waves == 1 ? placement::vee(ranks) : placement::wave(ranks, waves));
  if (micro > 1) add(placement::bidirectional(ranks, micro));
  return all;
}

namespace detail {

// The plans of a front of costs.
template <typename Costs>
class front_of_costs {
 public:
  using result = plan_result;
  static constexpr double least_evaluations = 1;

  front_of_costs(const std::vector<placed_step<Costs>>& steps, memory_unit unit, const plan_limits& limits)
      : steps_(steps), unit_(unit), limits_(limits) {}

  std::size_t size() const { return steps_.size(); }
  // Does not begin with the known plan: a long search does better from the families.
  plan_result plan(std::size_t i, double cap, plan_limits limits, const plan_result*) const {
    const auto& [problem, costs] = steps_[i];
    if (unit_ == memory_unit::bytes) return plan_in_memory(problem, costs, {cap}, limits);
    limits.memory.activations = cap;
    return pipesched::plan(problem, costs, limits);
  }
  static double makespan(const plan_result& r) { return r.makespan; }
  static double bound(const plan_result& r) { return r.bound.makespan; }
  static void set_bound(plan_result& r, double bound) { r.bound.makespan = std::min(r.bound.makespan, bound); }
  static double published(const plan_result& r) { return r.published_makespan; }
  static void add_work(plan_result& own, const plan_result& other) {
    own.evaluations += other.evaluations, own.ops_simulated += other.ops_simulated;
  }
  static void take_published(plan_result& own, const plan_result& other) {
    if (other.published_makespan >= own.published_makespan) return;
    own.published = other.published, own.published_makespan = other.published_makespan;
    own.published_schedule = other.published_schedule;
  }
  static void carry(plan_result& own, const plan_result& below, std::size_t, double) {
    own.schedule = below.schedule, own.makespan = below.makespan, own.peak_activations = below.peak_activations;
  }
  double bound(std::size_t i, double cap) const {
    const auto& [problem, costs] = steps_[i];
    std::optional<memory_caps> caps = memory_caps{.activations = cap};
    if (unit_ == memory_unit::bytes)
      caps = room_beside_weights(problem.placement, costs, std::vector<double>(problem.placement.ranks(), cap));
    if (!caps) return std::numeric_limits<double>::infinity();
    return bound_for(problem, costs, pairs_for(costs, limits_), *caps).makespan;
  }

 private:
  const std::vector<placed_step<Costs>>& steps_;
  memory_unit unit_;
  const plan_limits& limits_;
};

}  // namespace detail

/// The best plan for every limit of memory over several placements of a step, in rising order of the limits. A plan for less
/// memory is kept where it is the shorter one, so that more memory is never worse. First all steps get a rough plan for every
/// limit, so that a search that is stopped then has one for each. Half of the evaluations are for rounds of longer searches, after
/// each of which the worse half of the steps drops out, with those whose bound is no less than the shortest plan; the rest is for
/// the step that is left.
/// @param steps  one a placement, with the costs there: those of split_stage_costs(), say
/// @param caps  limits for each rank; those that are too small for any schedule found are left out
/// @param unit  of the limits: activations, or bytes as plan_in_memory() counts them, with a second copy of the weights on
///   placements with two replicas
/// @param limits  evaluations are for all points together; without memory, and without starts for more than one step
/// @throws schedule_error as plan() does, for no steps or limits, and if nothing fits
template <cost_model Costs>
std::vector<pareto_point> pareto(const std::vector<placed_step<Costs>>& steps, std::vector<double> caps,
                                 memory_unit unit, const plan_limits& limits = {}) {
  if (steps.empty()) throw schedule_error("pareto() needs at least 1 placement; got none");
  if (steps.size() > 1 && !limits.starts.empty())
    throw schedule_error("pareto() over several placements takes no schedules to start from");
  if (!limits.memory.empty()) throw schedule_error("pareto() takes limits of memory by themselves; got one for plan()");
  for (const auto& [problem, costs] : steps) {
    detail::require_plan(problem, costs, limits);
    detail::require_one_step(problem, steps.front().problem);
  }
  const detail::front_of_costs<Costs> planned(steps, unit, limits);
  std::vector<pareto_point> front;
  for (auto& p : detail::front_search(planned, detail::rising_caps(std::move(caps)), limits).run())
    front.push_back({p.cap, std::move(p.plan), p.step, p.lower_bound});
  return front;
}

/// The same on one placement, for limits of live activations.
template <cost_model Costs>
std::vector<pareto_point> pareto(const plan_problem& problem, const Costs& costs, std::vector<double> caps,
                                 const plan_limits& limits = {}) {
  return pareto(std::vector<placed_step<Costs>>{{problem, costs}}, std::move(caps), memory_unit::activations, limits);
}

}  // namespace pipesched
