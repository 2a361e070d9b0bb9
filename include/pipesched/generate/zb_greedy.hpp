// SPDX-License-Identifier: MIT
#pragma once

// Zero bubble by greedy search on the costs of each stage and under a memory limit: ZB-1p, ZB-2p, ZB-H1, ZB-H2 and any
// limit between and below, with one stage per rank.

#include <concepts>
#include <cstdint>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/zb_rows.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/zb_params.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

inline constexpr family zb_greedy_family{
    .name = "zb_greedy",
    .summary = "zero bubble by greedy search on your costs, under your memory limit",
    .source = "Qi et al., Zero Bubble Pipeline Parallelism (arXiv 2401.10241), sections 2, 3 and 6 and appendix B",
    .limits = {.takes = {parameter::costs, parameter::memory_limit}},
    .place = linear_placement,
    .search = [](const family_params& p,
                 const placement& where) { return detail::zb_rows(p, where, detail::memory_limit_of(p)); },
    .check =
        [](const family& f, const family_params& p) {
          detail::require_costs(f, p);
          detail::require_memory_limit(f, p);
        },
    .peak = [](const family_params& p,
               std::int64_t) { return detail::peak_of_search(p, 1, detail::memory_limit_of(p)); }};

/// The greedy order for every pp >= 1 and micro >= 1, on these costs. Each rank keeps at most `memory_limit` times the
/// bytes that one of its forwards keeps. If the limit stops a forward that the next backward does not need, the
/// forward waits (the source gives up). With a limit of 1 the ranks take turns; for F = I = W and free transfers, more
/// than 2 pp does not help. The makespan is at most that of ZB1P, and of 1F1B with a split backward, where those keep
/// the limit. The search ignores lengths of micro-batches and links that keep ranks busy; the guarantee holds without them.
/// @throws schedule_error on bad parameters, inconsistent costs, a limit below 1, or a limit where the stages keep
/// different bytes. O(pp * micro) for each of the eight combinations.
inline schedule make_zb_greedy_schedule(const zb_params& p) { return zb_greedy_family.make(p); }

/// The row of one rank. It makes the whole schedule first.
inline std::vector<cell> make_zb_greedy_row(const zb_params& p, std::integral auto rank) {
  return zb_greedy_family.row(p, rank);
}

}  // namespace pipesched
