// SPDX-License-Identifier: MIT
#pragma once

// ZB-V by greedy search on the costs of each stage and under a memory limit: two stages per rank, the last one on the
// same rank as the first. Four combinations of rules are tried, and the order with the shortest span wins, unless a
// known order keeps the limit and ends earlier.
// Source: Qi et al., "Pipeline Parallelism with Controllable Memory" (arXiv 2405.15362); the authors' zbv.py
// (sail-sg/zero-bubble-pipeline-parallelism 39f2c186).

#include <cstdint>
#include <utility>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/order_choice.hpp"
#include "pipesched/generate/detail/zbv_search.hpp"
#include "pipesched/generate/emitter.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/v_half.hpp"
#include "pipesched/generate/v_min.hpp"
#include "pipesched/generate/zb_params.hpp"
#include "pipesched/generate/zbv.hpp"

namespace pipesched {

inline constexpr family_limits zbv_greedy_limits{
    .family = "zbv_greedy", .stages_per_rank = 2, .takes = {parameter::costs, parameter::memory_limit}};

namespace detail {

// The greedy order under a limit in activations of a rank's whole share. @pre limit >= 1
inline schedule make_zbv(const zb_params& p, double limit) {
  const pipeline_params sizes{.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only};
  placement where = placement::vee(p.pp);
  if (p.forward_only)
    return assemble(zbv_greedy_limits, sizes, std::move(where),
                    [&](std::int64_t r, auto& sink) { emit_zbv(sizes, r, sink); });
  zbv_search search(where, p.micro, p.costs, limit);
  order_choice<zbv_search::rules> choice;
  for (int combination = 0; combination < 4; ++combination) {
    zbv_search::rules rules{.fill_before_backward = (combination & 2) == 0,
                            .fill_before_forward = (combination & 1) == 0};
    for (double before = 0;;) {
      search.run(rules);
      const double bubble = search.longest_bubble();
      if (!rules.idle_before.empty() && !(bubble < before)) break;
      choice.consider(search, rules);
      rules.idle_before = search.bubbles();
      before = bubble;
    }
  }
  choice.consider_known(make_zbv_schedule(sizes), p.costs, limit);
  if (limit < static_cast<double>(p.pp))  // only there zbv does not fit, and each of these takes as long as the search
    for (const auto make : {make_v_half_schedule, make_v_min_schedule})
      choice.consider_known(make(sizes), p.costs, limit);
  return assemble(zbv_greedy_limits, sizes, std::move(where), choice.take(search));
}

}  // namespace detail

/// ZB-V by greedy search for every pp >= 1 and micro >= 1, on these costs, of 2 pp stages. The default limit is the
/// memory of 1F1B; with F = I = W the span then has no bubble for micro >= 2 pp. Below that limit, where the source
/// gives up, forwards wait for memory; there a little more memory can even make a longer order. The makespan is at most
/// that of zbv where zbv keeps the limit and, below the default limit, that of v_half and v_min where they keep it.
/// @throws schedule_error on bad parameters, inconsistent costs, a limit below 1, or a limit where the stages keep
/// different bytes. O(pp * micro) for each search; four searches, each repeated with the idle times of the one before
/// as long as that helps.
inline schedule make_zbv_greedy_schedule(const zb_params& p) {
  detail::require(zbv_greedy_limits, p);
  return detail::make_zbv(p, detail::memory_limit_of(zbv_greedy_limits, p));
}

}  // namespace pipesched
