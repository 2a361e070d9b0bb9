// SPDX-License-Identifier: MIT
#pragma once

// V-Min: a building block on the V placement, where rank r hosts stages r and 2pp-1-r, with a third of the activations
// of 1F1B, the least at full rate.

#include <concepts>
#include <cstdint>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/split_v.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

inline constexpr family v_min_family{.name = "v_min",
                                     .summary = "a V with a third of the memory of 1F1B, for F = I = W",
                                     .source =
                                         "Qi et al., Pipeline Parallelism with Controllable Memory (arXiv 2405.15362), "
                                         "section 4; the order is that of the "
                                         "authors' scheduler (sail-sg/zero-bubble-pipeline-parallelism 39f2c186)",
                                     .limits = {.stages_per_rank = 2},
                                     .place = vee_placement,
                                     .search = [](const family_params& p, const placement& where) -> rows<cell> {
                                       const auto P = static_cast<std::int32_t>(p.pp);
                                       const std::int32_t pause =
                                           P % 3 == 0 ? 2 : 0;  // so that no two ops share a slot
                                       detail::building_block block;
                                       for (std::int32_t i = 0; i < 2 * P; ++i) block.first.push_back(i);
                                       for (std::int32_t i = 0; i < 2 * P; ++i)
                                         block.first.push_back(2 * P + pause + i);
                                       return detail::split_v_rows(where, p, block);
                                     },
                                     .search_bytes = detail::bytes_of_slots,
                                     .peak =
                                         [](const family_params& p, std::int64_t) {
                                           return activation_peak{(p.pp + 4) / 3 * 2, false};
                                         }};

/// V-Min for every pp >= 1 and micro >= 1. A rank keeps at most floor((pp+4)/3) activations of its two stages, with
/// about two thirds of the bubble of 1F1B for F = I = W. With other times the bubble may grow with every micro-batch
/// (it does for I > F = W): simulate before you use it. Every op takes one slot per stage.
/// @throws schedule_error on bad parameters. O(n log n + pp^3) time and O(n + pp^2) memory for n ops.
constexpr schedule make_v_min_schedule(const pipeline_params& p) { return v_min_family.make(p); }

/// The row of one rank. It makes the whole schedule first.
constexpr std::vector<cell> make_v_min_row(const pipeline_params& p, std::integral auto rank) {
  return v_min_family.row(p, rank);
}

}  // namespace pipesched
