// SPDX-License-Identifier: MIT
#pragma once

// The parameters that every family takes, and those of all families in one struct.

#include <concepts>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "pipesched/generate/parameters.hpp"

namespace pipesched {

struct stage_costs;  // cost/stage_costs.hpp: only the families that search on costs need it

struct pipeline_params;

/// The parameters of all families. A family refuses those that it does not take; see parameter and family::limits.
/// @tparam Costs  std::optional<stage_costs> in schedule_params, const stage_costs* in family_params
template <typename Costs>
struct all_params {
  std::int64_t pp;                           ///< pipeline ranks
  std::int64_t micro;                        ///< micro-batches per step
  bool forward_only = false;                 ///< evaluation
  std::optional<std::int64_t> chunks{};      ///< stages per rank on a looped placement; default 2
  std::optional<std::int64_t> group_size{};  ///< micro-batches per group; the default depends on the family
  bool extra_warm_up = false;                ///< one more forward before the first backward of each rank
  bool overlap = false;                      ///< F&B pairs in the steady state
  std::optional<std::int64_t> waves{};       ///< Hanayo's waves; default 1
  Costs costs{};                             ///< per stage; default: F = I = W = 1, free transfers
  std::optional<double> memory_limit{};      ///< activations of a rank's whole share; default pp

  constexpr operator pipeline_params() const;  // NOLINT: the three that every family takes
  template <std::same_as<const stage_costs*> View>
  constexpr operator all_params<View>() const  // NOLINT: a view
      requires std::is_class_v<Costs> {
    return {.pp = pp,
            .micro = micro,
            .forward_only = forward_only,
            .chunks = chunks,
            .group_size = group_size,
            .extra_warm_up = extra_warm_up,
            .overlap = overlap,
            .waves = waves,
            .costs = costs ? &*costs : nullptr,
            .memory_limit = memory_limit};
  }
};

/// The parameters as the functions of a family get them: all, with a view of the costs, so that a family without costs does
/// not include the cost model. @pre the costs outlive it
using family_params = all_params<const stage_costs*>;

/// Named arguments: `make_1f1b_schedule({.pp = 8, .micro = 20})`. The integers are wider than any legal value, so that
/// a value that is too large is refused instead of wrapping around.
struct pipeline_params {
  std::int64_t pp;            ///< pipeline ranks, 1 to 65536
  std::int64_t micro;         ///< micro-batches per step, 1 to 2^28 / stages
  bool forward_only = false;  ///< evaluation: the forwards in the same order, without backwards

  constexpr operator family_params() const {  // NOLINT: all else at its default
    return {.pp = pp, .micro = micro, .forward_only = forward_only};
  }
};

template <typename Costs>
constexpr all_params<Costs>::operator pipeline_params() const {
  return {.pp = pp, .micro = micro, .forward_only = forward_only};
}

/// The stages per rank on a looped placement, and the waves, of parameters that may leave them out.
constexpr std::int64_t chunks_of(const family_params& p) { return p.chunks.value_or(2); }
constexpr std::int64_t waves_of(const family_params& p) { return p.waves.value_or(1); }

/// Whether a value was given for the parameter. A flag counts as given when it is true.
template <typename Costs>
constexpr bool is_given(const all_params<Costs>& p, parameter which) {
  switch (which) {
    case parameter::chunks: return p.chunks.has_value();
    case parameter::group_size: return p.group_size.has_value();
    case parameter::extra_warm_up: return p.extra_warm_up;
    case parameter::overlap: return p.overlap;
    case parameter::waves: return p.waves.has_value();
    case parameter::costs: return static_cast<bool>(p.costs);
    case parameter::memory_limit: return p.memory_limit.has_value();
  }
  return false;
}

}  // namespace pipesched
