// SPDX-License-Identifier: MIT
#pragma once

// ZB-V by greedy search on the costs of each stage and under a memory limit: two stages per rank, the last one on the
// same rank as the first. Four combinations of rules are tried, and the order with the shortest span wins, unless a
// known order keeps the limit and ends earlier.

#include <concepts>
#include <cstdint>
#include <limits>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/order_choice.hpp"
#include "pipesched/generate/detail/zbv_search.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/v_half.hpp"
#include "pipesched/generate/v_min.hpp"
#include "pipesched/generate/zb_params.hpp"
#include "pipesched/generate/zbv.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

namespace detail {

// The greedy order under a limit in activations of a rank's whole share. @pre limit >= 1
inline rows<cell> zbv_rows(const family_params& p, const placement& where, double limit) {
  const pipeline_params sizes = p;
  if (p.forward_only) return zbv_family.emit.rows(sizes);
  const stage_costs costs = costs_of(p);
  zbv_search search(where, p.micro, costs, limit);
  order_choice<zbv_search::rules> choice;
  for (int combination = 0; combination < 4; ++combination) {
    zbv_search::rules rules{.fill_before_backward = (combination & 2) == 0,
                            .fill_before_forward = (combination & 1) == 0};
    for (double before = std::numeric_limits<double>::infinity();;) {
      if (!search.run(rules, [&] { return search.longest_bubble() < before; })) break;
      choice.consider(search, rules);
      rules.idle_before = search.bubbles();
      before = search.longest_bubble();
    }
  }
  if (!choice.known_may_win(search)) return choice.take(search);
  choice.consider_known(make_zbv_schedule(sizes), costs, limit);
  if (limit < static_cast<double>(p.pp))  // only there zbv does not fit, and each of these takes as long as the search
    for (const auto make : {make_v_half_schedule, make_v_min_schedule})
      choice.consider_known(make(sizes), costs, limit);
  return choice.take(search);
}

}  // namespace detail

inline constexpr family zbv_greedy_family{
    .name = "zbv_greedy",
    .summary = "zero bubble on a V by greedy search on your costs, under your memory limit",
    .source =
        "Qi et al., Pipeline Parallelism with Controllable Memory (arXiv 2405.15362); the authors' zbv.py "
        "(sail-sg/zero-bubble-pipeline-parallelism 39f2c186)",
    .limits = {.stages_per_rank = 2, .takes = {parameter::costs, parameter::memory_limit}},
    .place = vee_placement,
    .search = [](const family_params& p,
                 const placement& where) { return detail::zbv_rows(p, where, detail::memory_limit_of(p)); },
    .check =
        [](const family& f, const family_params& p) {
          detail::require_costs(f, p);
          detail::require_memory_limit(f, p);
        },
    .peak = [](const family_params& p,
               std::int64_t) { return detail::peak_of_search(p, 2, detail::memory_limit_of(p)); }};

/// ZB-V by greedy search for every pp >= 1 and micro >= 1, on these costs, of 2 pp stages. The default limit is the
/// memory of 1F1B; with F = I = W the span then has no bubble for micro >= 2 pp. Below that limit, where the source
/// gives up, forwards wait for memory; there a little more memory can even make a longer order. The makespan is at most
/// that of zbv where zbv keeps the limit and, below the default limit, that of v_half and v_min where they keep it.
/// The search ignores lengths of micro-batches and links that keep ranks busy; the guarantee holds without them.
/// @throws schedule_error on bad parameters, inconsistent costs, a limit below 1, or a limit where the stages keep
/// different bytes. O(pp * micro) for each search; four searches, each repeated with the idle times of the one before
/// as long as that helps.
inline schedule make_zbv_greedy_schedule(const zb_params& p) { return zbv_greedy_family.make(p); }

/// The row of one rank. It makes the whole schedule first.
inline std::vector<cell> make_zbv_greedy_row(const zb_params& p, std::integral auto rank) {
  return zbv_greedy_family.row(p, rank);
}

}  // namespace pipesched
