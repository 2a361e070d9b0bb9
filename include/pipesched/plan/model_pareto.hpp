// SPDX-License-Identifier: MIT
#pragma once

// The front of step time against memory for a model: partition, recomputation and order for every limit of bytes.

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "pipesched/model/model.hpp"
#include "pipesched/plan/detail/front_search.hpp"
#include "pipesched/plan/detail/model_planner.hpp"
#include "pipesched/plan/model_plan.hpp"
#include "pipesched/plan/model_problem.hpp"
#include "pipesched/plan/pareto.hpp"
#include "pipesched/plan/plan.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// A point of a model's front.
struct model_pareto_point {
  double cap = 0;          ///< bytes of each rank
  model_plan plan;         ///< its families are the best ones on any of the placements
  std::size_t step = 0;    ///< the index of its problem, that is, of its placement, among those given
  double lower_bound = 0;  ///< for all partitions and orders of all problems within the limit
};

namespace detail {

/// The same point without its partition: the bound of its plan is for all partitions, the family has its own best one.
inline pareto_point plain_point(const model_pareto_point& p) {
  pareto_point plain{p.cap, p.plan.plan, p.step, p.lower_bound};
  plain.plan.bound.makespan = p.plan.lower_bound;
  plain.plan.published = p.plan.divided.name, plain.plan.published_makespan = p.plan.divided.makespan;
  return plain;
}

// The plans of a front of a model.
class front_of_model {
 public:
  using result = model_plan;
  static constexpr double least_evaluations = 100;  // families and partitions are looked at in each plan anew

  front_of_model(const model& m, const std::vector<model_problem>& problems, const plan_limits& limits)
      : m_(m), problems_(problems), limits_(limits) {}

  std::size_t size() const { return problems_.size(); }
  model_plan plan(std::size_t i, double cap, const plan_limits& limits, const model_plan* known) const {
    return plan_from(known, with_memory(cap), problems_[i], limits);
  }
  static double makespan(const model_plan& p) { return p.plan.makespan; }
  static double bound(const model_plan& p) { return p.lower_bound; }
  static void set_bound(model_plan& p, double bound) { p.lower_bound = std::min(p.lower_bound, bound); }
  static double published(const model_plan& p) { return p.divided.makespan; }
  static void add_work(model_plan& own, const model_plan& other) {
    own.evaluations += other.evaluations, own.ops_simulated += other.ops_simulated;
  }
  static void take_published(model_plan& own, const model_plan& other) {
    if (other.divided.makespan < own.divided.makespan) own.divided = other.divided;
    if (other.uniform.makespan < own.uniform.makespan) own.uniform = other.uniform;
  }
  void carry(model_plan& own, const model_plan& below, std::size_t i, double cap) const {
    model_plan p = below;
    p.lower_bound = own.lower_bound, p.uniform = own.uniform, p.divided = own.divided;
    p.evaluations = own.evaluations, p.ops_simulated = own.ops_simulated;
    for (rank_memory& r : p.memory.ranks) r.limit = cap;
    const std::vector<double> memory(problems_[i].placement.ranks(), cap);
    const pass_pair_set pairs = pairs_for(m_, problems_[i], limits_);
    p.plan.bound = bound_of_partition(problems_[i], p.costs, pairs, !p.recomputed.empty(), memory);
    own = std::move(p);
  }
  double bound(std::size_t i, double cap) const {
    return bound_over_partitions(with_memory(cap), problems_[i], pairs_for(m_, problems_[i], limits_));
  }

 private:
  model with_memory(double bytes) const {
    model m = m_;
    if (m.ranks.empty()) m.ranks.emplace_back();
    for (model_rank& r : m.ranks) r.memory = bytes;
    return m;
  }

  const model& m_;
  const std::vector<model_problem>& problems_;
  const plan_limits& limits_;
};

}  // namespace detail

/// The best plan of a model for every limit of bytes over several placements, as pareto() of costs has it.
/// @param problems  one a placement
/// @param bytes  limits for each rank, in place of those of the model; those that are too small for any plan found are left out
/// @param limits  evaluations are for all points together; without memory and starts
/// @throws schedule_error as plan() of a model does, for no problems or limits, and if nothing fits
inline std::vector<model_pareto_point> pareto(const model& m, const std::vector<model_problem>& problems,
                                              std::vector<double> bytes, const plan_limits& limits = {}) {
  if (problems.empty()) throw schedule_error("pareto() needs at least 1 placement; got none");
  for (const model_problem& p : problems) {
    detail::require_step(p.placement, p.micro);
    detail::require_one_step(p, problems.front());
    require_lengths(m, p.micro);
  }
  if (!limits.memory.empty() || !limits.starts.empty())
    throw schedule_error("pareto() of a model takes limits of bytes by themselves; got limits of memory or starts");
  const detail::front_of_model planned(m, problems, limits);
  std::vector<model_pareto_point> front;
  for (auto& p : detail::front_search(planned, detail::rising_caps(std::move(bytes)), limits).run())
    front.push_back({p.cap, std::move(p.plan), p.step, p.lower_bound});
  return front;
}

}  // namespace pipesched
