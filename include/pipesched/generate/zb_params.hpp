// SPDX-License-Identifier: MIT
#pragma once

// The parameters of the families by greedy search, zb_greedy and zbv_greedy.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/closed_form.hpp"
#include "pipesched/generate/detail/greedy_ranks.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// `make_zb_greedy_schedule({.pp = 8, .micro = 24, .costs = measured, .memory_limit = 12})`
struct zb_params {
  std::int64_t pp;     ///< pipeline ranks
  std::int64_t micro;  ///< micro-batches per step
  /// Per stage; without bytes an F keeps 1 until its W. The search ignores lengths of micro-batches and links that keep ranks
  /// busy; the guarantee of the families, to end no later than closed orders that keep the limit, holds without them.
  stage_costs costs{};
  /// Activations of a rank's whole share, each at the most bytes that it takes at a time; at least 1; default pp.
  std::optional<double> memory_limit{};
  bool forward_only = false;  ///< evaluation

  constexpr operator family_params() const {  // NOLINT: a view of the costs
    return {.pp = pp, .micro = micro, .forward_only = forward_only, .costs = &costs, .memory_limit = memory_limit};
  }
};

namespace detail {

// The searches take micro-batches in order, and all of them as alike.
inline stage_costs costs_of(const family_params& p) {
  stage_costs costs = p.costs ? *p.costs : stage_costs{};
  costs.micro_batches.clear();
  return costs;
}

// The costs must fit the stages, and I and W must free what F keeps.
inline void require_costs(const family& f, const family_params& p) {
  if (!p.costs) return;
  const stage_costs& costs = *p.costs;
  const auto stages = static_cast<std::uint32_t>(p.pp * f.limits.stages_per_rank);
  costs.check(stages, static_cast<std::uint32_t>(p.pp), static_cast<std::uint32_t>(p.micro));
  for (std::uint32_t s = 0; costs.freed_by_weight && s < stages; ++s) {
    const double kept = costs.kept_by_forward[s], freed = costs.freed_by_input[s] + (*costs.freed_by_weight)[s];
    if (std::abs(kept - freed) > 1e-9 * kept)
      throw schedule_error(
          concat({f.name, " needs costs whose I and W free all that F keeps; stage ", s, " keeps ", kept, " and frees ",
                  freed, ", nearest freed_by_weight = ", kept - costs.freed_by_input[s]}));
  }
}

// A number of activations is clear only where all stages keep the same bytes. @pre require_costs() holds
inline void require_memory_limit(const family& f, const family_params& p) {
  if (!p.memory_limit) return;
  if (!(*p.memory_limit >= 1))
    throw schedule_error(concat(
        {f.name, " needs a memory limit of at least 1 activation per rank; got ", *p.memory_limit, ", nearest 1"}));
  if (!p.costs) return;
  const double first = bytes_of_activation(*p.costs, 0);
  for (std::uint32_t s = 1; s < p.pp * f.limits.stages_per_rank; ++s)
    if (const double kept = bytes_of_activation(*p.costs, s); kept != first)
      throw schedule_error(concat({f.name,
                                   " takes a memory limit in activations only where all stages keep the same bytes; "
                                   "stage 0 keeps ",
                                   first, " and stage ", s, " keeps ", kept, ", nearest: no limit, which means pp = ",
                                   count_text(p.pp, "activation"), " per rank"}));
}

// The memory limit in use, in activations of a rank's whole share.
constexpr double memory_limit_of(const family_params& p) { return p.memory_limit.value_or(static_cast<double>(p.pp)); }

// With bytes from the costs, an activation may count less after its I, or less on one stage than on another: then only
// the number of all activations limits them.
inline activation_peak peak_of_search(const family_params& p, std::int64_t stages_per_rank, double limit) {
  const std::int64_t all = p.micro * stages_per_rank;
  if (p.costs && p.costs->kept_by_forward != per_stage(0)) return {all, false};
  const double most = limit * static_cast<double>(stages_per_rank) * (1 + 1e-9);
  return {most < static_cast<double>(all) ? static_cast<std::int64_t>(most) : all, false};
}

}  // namespace detail

}  // namespace pipesched
