// SPDX-License-Identifier: MIT
#pragma once

// The parameters of the families by greedy search, zb_greedy and zbv_greedy.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// `make_zb_greedy_schedule({.pp = 8, .micro = 24, .costs = measured, .memory_limit = 12})`
struct zb_params {
  std::int64_t pp;                       ///< pipeline ranks
  std::int64_t micro;                    ///< micro-batches per step
  stage_costs costs{};                   ///< per stage; without bytes an F keeps 1 until its W
  std::optional<double> memory_limit{};  ///< activations of a rank's whole share, at least 1; default pp
  bool forward_only = false;             ///< evaluation
};

namespace detail {

// The costs must fit the stages, and I and W must free what F keeps.
inline void require(const family_limits& limits, const zb_params& p) {
  pipesched::require(limits, pipeline_params{.pp = p.pp, .micro = p.micro});
  const auto stages = static_cast<std::uint32_t>(p.pp * limits.stages_per_rank);
  p.costs.check(stages);
  for (std::uint32_t s = 0; p.costs.freed_by_weight && s < stages; ++s) {
    const double kept = p.costs.kept_by_forward[s], freed = p.costs.freed_by_input[s] + (*p.costs.freed_by_weight)[s];
    if (std::abs(kept - freed) > 1e-9 * kept)
      throw schedule_error(
          concat({limits.family, " needs costs whose I and W free all that F keeps; stage ", s, " keeps ", kept,
                  " and frees ", freed, ", nearest freed_by_weight = ", kept - p.costs.freed_by_input[s]}));
  }
}

// The memory limit in use. A number of activations is clear only where all stages keep the same bytes.
inline double memory_limit_of(const family_limits& limits, const zb_params& p) {
  if (!p.memory_limit) return static_cast<double>(p.pp);
  if (!(*p.memory_limit >= 1))
    throw schedule_error(concat({limits.family, " needs a memory limit of at least 1 activation per rank; got ",
                                 *p.memory_limit, ", nearest 1"}));
  const auto& kept = p.costs.kept_by_forward.values();
  for (std::size_t s = 1; s < kept.size(); ++s)
    if (kept[s] != kept[0])
      throw schedule_error(concat({limits.family,
                                   " takes a memory limit in activations only where all stages keep the same bytes; "
                                   "stage 0 keeps ",
                                   kept[0], " and stage ", s, " keeps ", kept[s],
                                   ", nearest: no limit, which means pp = ", p.pp, " activations per rank"}));
  return *p.memory_limit;
}

}  // namespace detail

}  // namespace pipesched
