// SPDX-License-Identifier: MIT
#pragma once

// The parameters of all families in one struct, for programs that choose the family at run time (families.hpp).

#include <cstdint>
#include <optional>

#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/params.hpp"

namespace pipesched {

/// The parameters of all families. make_schedule() refuses those that the family does not take; see parameter and
/// family::limits.
struct schedule_params {
  std::int64_t pp;                           ///< pipeline ranks
  std::int64_t micro;                        ///< micro-batches per step
  bool forward_only = false;                 ///< evaluation
  std::optional<std::int64_t> chunks{};      ///< stages per rank on a looped placement; default 2
  std::optional<std::int64_t> group_size{};  ///< micro-batches per group; the default depends on the family
  bool extra_warm_up = false;                ///< one more forward before the first backward of each rank
  bool overlap = false;                      ///< F&B pairs in the steady state
  std::optional<std::int64_t> waves{};       ///< Hanayo's waves; default 1
  std::optional<stage_costs> costs{};        ///< per stage; default: F = I = W = 1, free transfers
  std::optional<double> memory_limit{};      ///< activations of a rank's whole share; default pp

  constexpr operator pipeline_params() const {  // NOLINT: the three that every family takes
    return {.pp = pp, .micro = micro, .forward_only = forward_only};
  }
};

/// Whether a value was given for the parameter. A flag counts as given when it is true.
constexpr bool is_given(const schedule_params& p, parameter which) {
  switch (which) {
    case parameter::chunks: return p.chunks.has_value();
    case parameter::group_size: return p.group_size.has_value();
    case parameter::extra_warm_up: return p.extra_warm_up;
    case parameter::overlap: return p.overlap;
    case parameter::waves: return p.waves.has_value();
    case parameter::costs: return p.costs.has_value();
    case parameter::memory_limit: return p.memory_limit.has_value();
  }
  return false;
}

/// The parameters without those that a family with these limits does not take.
inline schedule_params keep_taken(schedule_params p, const family_limits& limits) {
  if (!limits.takes.contains(parameter::chunks)) p.chunks.reset();
  if (!limits.takes.contains(parameter::group_size)) p.group_size.reset();
  if (!limits.takes.contains(parameter::extra_warm_up)) p.extra_warm_up = false;
  if (!limits.takes.contains(parameter::overlap)) p.overlap = false;
  if (!limits.takes.contains(parameter::waves)) p.waves.reset();
  if (!limits.takes.contains(parameter::costs)) p.costs.reset();
  if (!limits.takes.contains(parameter::memory_limit)) p.memory_limit.reset();
  return p;
}

}  // namespace pipesched
