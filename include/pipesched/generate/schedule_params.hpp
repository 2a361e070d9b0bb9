// SPDX-License-Identifier: MIT
#pragma once

// The parameters of all families with their costs, for programs that choose the family at run time (families.hpp).

#include <optional>

#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/params.hpp"

namespace pipesched {

/// The parameters of all families: `schedule_params{.pp = 4, .micro = 8, .chunks = 3}`. Converts to family_params.
using schedule_params = all_params<std::optional<stage_costs>>;

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
