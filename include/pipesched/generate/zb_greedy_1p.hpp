// SPDX-License-Identifier: MIT
#pragma once

// ZB-1p: zero bubble by greedy search on the costs of each stage, with the memory of 1F1B.

#include <concepts>
#include <cstdint>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/zb_rows.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/zb_params.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

inline constexpr family zb_greedy_1p_family{
    .name = "zb_greedy_1p",
    .summary = "zero bubble by greedy search with the memory of 1F1B (ZB-1p)",
    .source = "Qi et al., Zero Bubble Pipeline Parallelism (arXiv 2401.10241), section 3, table 5",
    .limits = {.takes = {parameter::costs}},
    .place = linear_placement,
    .search = [](const family_params& p,
                 const placement& where) { return detail::zb_rows(p, where, static_cast<double>(p.pp)); },
    .check = [](const family& f, const family_params& p) { detail::require_costs(f, p); },
    .peak = [](const family_params& p,
               std::int64_t) { return detail::peak_of_search(p, 1, static_cast<double>(p.pp)); }};

/// The greedy order of zb_greedy with a limit of pp activations. It takes no memory_limit. All values of table 5 of the
/// paper are reproduced.
/// @throws schedule_error on bad parameters and inconsistent costs. O(pp * micro).
inline schedule make_zb_greedy_1p_schedule(const zb_params& p) { return zb_greedy_1p_family.make(p); }

/// The row of one rank. It makes the whole schedule first.
inline std::vector<cell> make_zb_greedy_1p_row(const zb_params& p, std::integral auto rank) {
  return zb_greedy_1p_family.row(p, rank);
}

}  // namespace pipesched
