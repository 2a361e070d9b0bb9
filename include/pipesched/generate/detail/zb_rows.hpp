// SPDX-License-Identifier: MIT
#pragma once

// The rows of the families that search with one stage per rank. The search has three switches; all combinations are
// tried, and the order with the shortest span wins, unless ZB1P or 1F1B with a split backward keeps the limit and ends
// earlier.
// Source: Qi et al., "Zero Bubble Pipeline Parallelism" (arXiv 2401.10241), sections 2, 3 and 6 and appendix B; the
// authors' zb.py (sail-sg/zero-bubble-pipeline-parallelism 39f2c186), which reduces stages to their median: here each
// stage counts.

#include "pipesched/core/transform.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/1f1b.hpp"
#include "pipesched/generate/detail/order_choice.hpp"
#include "pipesched/generate/detail/zb_search.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/zb1p.hpp"
#include "pipesched/generate/zb_params.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched::detail {

/// The greedy order under a limit in activations per rank. @pre limit >= 1
inline rows<cell> zb_rows(const family_params& p, const placement& where, double limit) {
  const pipeline_params sizes = p;
  if (p.forward_only) return one_f_one_b_family.emit.rows(sizes);
  const stage_costs costs = costs_of(p);
  zb_search search(where, p.micro, costs, limit);
  order_choice<zb_search::switches> choice;
  for (int combination = 0; combination < 8; ++combination) {
    const zb_search::switches s{.keep_first_backward = (combination & 4) == 0,
                                .prioritize_backward = (combination & 2) == 0,
                                .fill_every_gap = (combination & 1) == 0};
    if (search.run(s, [&] { return choice.worth_going_on(search); })) choice.consider(search, s);
  }
  if (choice.known_may_win(search)) {
    choice.consider_known(make_zb1p_schedule(sizes), costs, limit);
    choice.consider_known(split_backward(make_1f1b_schedule(sizes)), costs, limit);
  }
  return choice.take(search);
}

}  // namespace pipesched::detail
