// SPDX-License-Identifier: MIT
#pragma once

// The library's families on a given placement, as starts of a search and as what a plan must not be longer than.

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/generate/schedule_params.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched::detail {

// All parameters of a family that lead to a number of stages on as many ranks.
inline std::vector<schedule_params> parameters_for(const family& f, const placement& where, std::uint32_t micro,
                                                   bool forward_only, const std::optional<stage_costs>& costs,
                                                   std::optional<double> memory_limit) {
  const std::int64_t pp = where.ranks(), per_rank = where.stages() / where.ranks();
  schedule_params p{.pp = pp, .micro = micro, .forward_only = forward_only};
  if (f.limits.takes.contains(parameter::chunks)) p.chunks = per_rank;
  if (f.limits.takes.contains(parameter::waves)) p.waves = per_rank / 2;
  if (f.limits.takes.contains(parameter::costs)) p.costs = costs;
  std::vector<schedule_params> all{p};
  const auto vary = [&](parameter which, auto member, auto... values) {
    if (!f.limits.takes.contains(which)) return;
    for (std::size_t i = 0, n = all.size(); i < n; ++i) ((all.push_back(all[i]), all.back().*member = values), ...);
  };
  vary(parameter::overlap, &schedule_params::overlap, true);
  vary(parameter::extra_warm_up, &schedule_params::extra_warm_up, true);
  vary(parameter::group_size, &schedule_params::group_size, pp, pp + 1, 2 * pp, std::int64_t{micro});
  const double twice = 2.0 * static_cast<double>(pp);
  if (memory_limit)
    vary(parameter::memory_limit, &schedule_params::memory_limit, *memory_limit, twice);
  else
    vary(parameter::memory_limit, &schedule_params::memory_limit, twice);
  return all;
}

/// Every family with this placement, with its default parameters and some others. Families that refuse the numbers are left
/// out. @param costs  for those that search
inline std::vector<schedule> published_schedules(const placement& where, std::uint32_t micro, bool forward_only,
                                                 const std::optional<stage_costs>& costs,
                                                 std::optional<double> memory_limit) {
  std::vector<schedule> all;
  for (const family& f : families)
    for (const schedule_params& p : parameters_for(f, where, micro, forward_only, costs, memory_limit)) {
      try {
        if (!same_stages_on_ranks(f.place(p), where)) continue;
        schedule s = f.make(p);
        if (std::find(all.begin(), all.end(), s) == all.end()) all.push_back(std::move(s));
      } catch (const schedule_error&) {  // not for these numbers
      }
    }
  return all;
}

/// The schedule with two replicas that runs one on a V with half as many ranks and micro-batches twice, in opposite
/// directions: stages below pp / 2 of the V are those of replica 0 on the same ranks, the others are those of replica 1, and
/// the other half of the ranks is the mirror image. @pre s is on a vee
inline schedule twice_mirrored(const schedule& s, const placement& where) {
  schedule both{.name = s.name, .placement = where, .micro = 2 * s.micro, .forward_only = s.forward_only, .cells = {}};
  const auto image = [&](op o, bool mirrored) {
    const bool second = (o.stage >= s.pp()) != mirrored;
    o.micro += second ? s.micro : 0;
    o.chunk = where.chunk_of(o.stage, o.micro);
    return o;
  };
  for (std::uint32_t rank = 0; rank < where.ranks(); ++rank) {
    const bool mirrored = rank >= s.pp();
    std::vector<cell> row;
    for (const cell& c : s[mirrored ? where.ranks() - 1 - rank : rank])
      row.push_back(c.overlapped() ? cell(image(c[0], mirrored), image(c[1], mirrored)) : cell(image(c[0], mirrored)));
    both.cells.append(row);
  }
  return both;
}

}  // namespace pipesched::detail
