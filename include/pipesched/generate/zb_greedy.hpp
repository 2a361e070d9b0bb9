// SPDX-License-Identifier: MIT
#pragma once

// Zero bubble by greedy search on the costs of each stage and under a memory limit: ZB-1p, ZB-2p, ZB-H1, ZB-H2 and any
// limit between and below, with one stage per rank. The search has three switches; all combinations are tried, and the
// order with the shortest span wins, unless ZB1P or 1F1B with a split backward keeps the limit and ends earlier.
// Source: Qi et al., "Zero Bubble Pipeline Parallelism" (arXiv 2401.10241), sections 2, 3 and 6 and appendix B; the
// authors' zb.py (sail-sg/zero-bubble-pipeline-parallelism 39f2c186), which reduces stages to their median: here each
// stage counts.

#include <cstdint>
#include <utility>

#include "pipesched/core/schedule.hpp"
#include "pipesched/core/transform.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/1f1b.hpp"
#include "pipesched/generate/detail/order_choice.hpp"
#include "pipesched/generate/detail/zb_search.hpp"
#include "pipesched/generate/emitter.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/generate/zb1p.hpp"
#include "pipesched/generate/zb_params.hpp"

namespace pipesched {

inline constexpr family_limits zb_greedy_limits{.family = "zb_greedy",
                                                .takes = {parameter::costs, parameter::memory_limit}};
inline constexpr family_limits zb_greedy_1p_limits{.family = "zb_greedy_1p", .takes = {parameter::costs}};
inline constexpr family_limits zb_greedy_2p_limits{.family = "zb_greedy_2p", .takes = {parameter::costs}};
inline constexpr family_limits zb_h1_limits{.family = "zb_h1"};
inline constexpr family_limits zb_h2_limits{.family = "zb_h2"};

namespace detail {

// The greedy order under a limit in activations per rank. @pre limit >= 1
inline schedule make_zb(const family_limits& limits, const zb_params& p, double limit) {
  require(limits, p);
  const pipeline_params sizes{.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only};
  placement where = placement::linear(p.pp);
  if (p.forward_only)
    return assemble(limits, sizes, std::move(where),
                    [&](std::int64_t rank, auto& sink) { repeat(sink, p.micro, stage_ops(rank).F(0)); });
  zb_search search(where, p.micro, p.costs, limit);
  order_choice<zb_search::switches> choice;
  for (int combination = 0; combination < 8; ++combination) {
    const zb_search::switches s{.keep_first_backward = (combination & 4) == 0,
                                .prioritize_backward = (combination & 2) == 0,
                                .fill_every_gap = (combination & 1) == 0};
    search.run(s);
    choice.consider(search, s);
  }
  choice.consider_known(make_zb1p_schedule(sizes), p.costs, limit);
  choice.consider_known(split_backward(make_1f1b_schedule(sizes)), p.costs, limit);
  return assemble(limits, sizes, std::move(where), choice.take(search));
}

// ZB-1p and ZB-2p set the limit themselves.
inline void refuse_memory_limit(const family_limits& limits, const zb_params& p) {
  if (p.memory_limit) refuse_parameter(limits.family, parameter::memory_limit, *p.memory_limit);
}

}  // namespace detail

/// The greedy order for every pp >= 1 and micro >= 1, on these costs. Each rank keeps at most `memory_limit` times the
/// bytes that one of its forwards keeps. If the limit stops a forward that the next backward does not need, the
/// forward waits (the source gives up). With a limit of 1 the ranks take turns; for F = I = W and free transfers, more
/// than 2 pp does not help. The makespan is at most that of ZB1P, and of 1F1B with a split backward, where those keep
/// the limit.
/// @throws schedule_error on bad parameters, inconsistent costs, a limit below 1, or a limit where the stages keep
/// different bytes. O(pp * micro) for each of the eight combinations.
inline schedule make_zb_greedy_schedule(const zb_params& p) {
  detail::require(zb_greedy_limits, p);
  return detail::make_zb(zb_greedy_limits, p, detail::memory_limit_of(zb_greedy_limits, p));
}

/// ZB-1p and ZB-2p: the greedy order with limits of pp and of 2 pp activations. They take no memory_limit.
/// Source: section 3 of the paper; all values of its table 5 are reproduced.
inline schedule make_zb_greedy_1p_schedule(const zb_params& p) {
  detail::refuse_memory_limit(zb_greedy_1p_limits, p);
  return detail::make_zb(zb_greedy_1p_limits, p, static_cast<double>(p.pp));
}
inline schedule make_zb_greedy_2p_schedule(const zb_params& p) {
  detail::refuse_memory_limit(zb_greedy_2p_limits, p);
  return detail::make_zb(zb_greedy_2p_limits, p, 2 * static_cast<double>(p.pp));
}

/// ZB-H1 and ZB-H2: the greedy order for F = I = W and free transfers, with limits of pp and of 2 pp - 1 activations.
/// For micro >= pp, W <= F and W <= I, the bubble of ZB-H1 is (pp-1)(F+I-W); for micro >= 2 pp - 1 and F = I = W, the
/// span of ZB-H2 has no bubble. Source: section 2 and table 2 of the paper.
inline schedule make_zb_h1_schedule(const pipeline_params& p) {
  return detail::make_zb(zb_h1_limits, {.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only},
                         static_cast<double>(p.pp));
}
inline schedule make_zb_h2_schedule(const pipeline_params& p) {
  return detail::make_zb(zb_h2_limits, {.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only},
                         2 * static_cast<double>(p.pp) - 1);
}

}  // namespace pipesched
