// SPDX-License-Identifier: MIT
#pragma once

// The partition of a model's layers among the stages of a schedule that makes its step shortest.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/schedule_params.hpp"
#include "pipesched/model/costs_of.hpp"
#include "pipesched/model/model.hpp"
#include "pipesched/model/partition.hpp"
#include "pipesched/plan/detail/partition_bound.hpp"
#include "pipesched/plan/detail/partition_search.hpp"
#include "pipesched/simulate/lower_bound.hpp"
#include "pipesched/simulate/schedule_class.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// How far divide() is.
struct divide_progress {
  double evaluations = 0;
  double makespan = 0;  ///< of the best partition so far
};

/// How long divide() searches. The result depends on these numbers and never on time.
struct divide_limits {
  std::uint64_t evaluations =
      20'000;  ///< simulations of a step; partitions that a bound rules out cost an eighth of one
  std::uint64_t seed = 1;
  /// Called after each partition; false: stop with the best so far.
  std::function<bool(const divide_progress&)> progress{};
};

/// The result of divide().
struct division {
  pipesched::partition partition;
  pipesched::schedule schedule;  ///< the one given, or the family's for this partition
  stage_costs costs;             ///< of this partition
  double makespan = 0;
  double uniform_makespan = 0;           ///< of uniform_partition()
  double lower_bound = 0;                ///< for all partitions of the placement that train the same layers
  lower_bound_result partition_bound{};  ///< for this one
  bool fits = true;                      ///< fits() for the memory of the model's ranks
  bool uniform_fits = true;              ///< the same for uniform_partition()
  std::uint64_t evaluations = 0;
};

namespace detail {

inline division divide(const model& m, const placement& where, const partition_search::maker& make, bool anew,
                       const divide_limits& limits) {
  const stage_sums sums(m, where);
  partition_search search(m, sums, where, make, anew);
  search.run(limits.evaluations, limits.seed, [&](double evaluations, double makespan) {
    return !limits.progress || limits.progress({.evaluations = evaluations, .makespan = makespan});
  });
  division d{.partition = search.best(), .schedule = {}, .costs = sums(search.best())};
  d.schedule = make(d.costs);
  d.makespan = search.makespan(), d.uniform_makespan = search.uniform_makespan();
  const schedule_class of = schedule_class_of(d.schedule);
  d.lower_bound = partition_bound(m, d.schedule, of).bound();
  d.partition_bound = pipesched::lower_bound(d.schedule, d.costs);
  d.fits = search.fits(), d.uniform_fits = search.uniform_fits(), d.evaluations = search.evaluations();
  return d;
}

}  // namespace detail

/// The best partition found for a schedule, whose order is kept: by simulated makespan, under the memory of the model's
/// ranks. Never worse than uniform_partition(), if that fits; where nothing that fits is found, `fits` is false and the bytes
/// beyond the memories are the fewest found. Deterministic. Method: if there are fewer partitions than
/// evaluations, all are tried; else a layer moves from one stage to another as long as that is better, from the uniform partition,
/// a balanced one, and places near the best. The search ends early where the makespan reaches the bound, unless the order
/// depends on the costs. Layers of frozen stages, as the uniform partition has them, stay on frozen stages, so that all
/// partitions train the same layers.
/// @throws schedule_error as require_valid(), check() and costs_of() do
inline division divide(const model& m, const schedule& s, const divide_limits& limits = {}) {
  require_valid(s);
  return detail::divide(
      m, s.placement, [&](const stage_costs&) { return s; }, false, limits);
}

/// The same for schedules that depend on the costs: `make` is called for every partition. For what is done to the schedule of a
/// family, such as recompute() and place_recompute(), so that the partition is the best one for what will run.
/// @param make  returns a valid schedule on the placement for the costs of a partition
/// @throws schedule_error as check(), costs_of() and `make` do
inline division divide(const model& m, const placement& where, const std::function<schedule(const stage_costs&)>& make,
                       const divide_limits& limits = {}) {
  return detail::divide(m, where, make, true, limits);
}

/// The same for a family. One that takes costs is made anew for every partition.
/// @throws schedule_error as family::make(), check() and costs_of() do, and for costs among the parameters
inline division divide(const model& m, const family& f, schedule_params p, const divide_limits& limits = {}) {
  if (p.costs) throw schedule_error("divide() takes the costs from the model; got costs among the parameters as well");
  require(f, p);
  require_lengths(m, static_cast<std::uint32_t>(p.micro));
  const bool anew = f.limits.takes.contains(parameter::costs);
  const auto make = [&](const stage_costs& costs) {
    family_params with = p;
    if (anew) with.costs = &costs;
    return f.make(with);
  };
  return detail::divide(m, f.place(p), make, anew, limits);
}

}  // namespace pipesched
