// SPDX-License-Identifier: MIT
#pragma once

// V-Half: a building block on the V placement, where rank r hosts stages r and 2pp-1-r, with half the activations of
// 1F1B.

#include <concepts>
#include <cstdint>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/split_v.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

inline constexpr family v_half_family{.name = "v_half",
                                      .summary = "a V with half the memory of 1F1B and half its bubble",
                                      .source =
                                          "Qi et al., Pipeline Parallelism with Controllable Memory (arXiv "
                                          "2405.15362), section 4; the order is that of the "
                                          "authors' scheduler (sail-sg/zero-bubble-pipeline-parallelism 39f2c186)",
                                      .limits = {.stages_per_rank = 2},
                                      .place = vee_placement,
                                      .search = [](const family_params& p, const placement& where) -> rows<cell> {
                                        const auto P = static_cast<std::int32_t>(p.pp);
                                        const std::int32_t pause =
                                            P % 2 == 0 ? 3 : 0;  // so that no two ops share a slot
                                        detail::building_block block;
                                        for (std::int32_t i = 0; i < P; ++i) block.first.push_back(2 * i);
                                        for (std::int32_t i = 0; i < P; ++i) block.first.push_back(2 * P - 1 + i);
                                        for (std::int32_t i = 0; i < P; ++i)
                                          block.first.push_back(3 * P - 1 + pause + 2 * i);
                                        for (std::int32_t i = 0; i < P; ++i)
                                          block.first.push_back(5 * P - 1 + pause + i);
                                        return detail::split_v_rows(where, p, block);
                                      },
                                      .search_bytes = detail::bytes_of_slots,
                                      .peak =
                                          [](const family_params& p, std::int64_t) {
                                            return activation_peak{(p.pp + 2) / 2 * 2, false};
                                          }};

/// V-Half for every pp >= 1 and micro >= 1. A rank keeps at most floor((pp+2)/2) activations of its two stages, half of
/// 1F1B, with about half the bubble for F = I = W and micro >= pp. The bubble does not grow with micro as long as W +
/// 2I >= 2F and W + 2F >= 2I. Forwards and backwards take two slots per stage on the way down and one on the way back.
/// @throws schedule_error on bad parameters. O(n log n + pp^3) time and O(n + pp^2) memory for n ops.
constexpr schedule make_v_half_schedule(const pipeline_params& p) { return v_half_family.make(p); }

/// The row of one rank. It makes the whole schedule first.
constexpr std::vector<cell> make_v_half_row(const pipeline_params& p, std::integral auto rank) {
  return v_half_family.row(p, rank);
}

}  // namespace pipesched
