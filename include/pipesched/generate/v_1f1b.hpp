// SPDX-License-Identifier: MIT
#pragma once

// 1F1B-V: a building block on the V placement, where rank r hosts stages r and 2pp-1-r, with two thirds of the
// activations of 1F1B and whole backwards.

#include <concepts>
#include <cstdint>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/building_block.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched {

inline constexpr family v_1f1b_family{
    .name = "v_1f1b",
    .summary = "a V with two thirds of the memory of 1F1B and whole backwards",
    .source = "the order of the authors' v1f1b.py (sail-sg/zero-bubble-pipeline-parallelism 39f2c186)",
    .limits = {.stages_per_rank = 2},
    .place = vee_placement,
    .search = [](const family_params& p, const placement& where) -> rows<cell> {
      const auto P = static_cast<std::int32_t>(p.pp);
      detail::building_block block{.split = false};
      for (std::int32_t i = 0; i < 2 * P; ++i) block.first.push_back(i);
      std::int32_t slot = 2 * P + (P % 3 == 0 ? 3 : 0);
      std::int32_t until_pause = (P + 2) % 3 == 0 ? 3 : (P + 2) % 3;
      for (std::int32_t i = 0; i < 2 * P; ++i) {
        block.first.push_back(slot);
        slot += 2;
        if (--until_pause == 0) slot += 3, until_pause = 3;
      }
      detail::slot_table table(where, block, p.micro);
      table.reorder_all();
      return table.cells(p.forward_only);
    },
    .search_bytes = detail::bytes_of_slots,
    .peak =
        [](const family_params& p, std::int64_t) {
          return activation_peak{(2 * p.pp + 3) / 3 * 2, false};
        }};

/// 1F1B-V for every pp >= 1 and micro >= 1. A rank keeps at most floor((2pp+3)/3) activations of its two stages. A
/// forward takes one slot per stage, a backward two, with a pause of three slots after every third backward.
/// @throws schedule_error on bad parameters. O(n log n + pp^3) time and O(n + pp^2) memory for n ops.
constexpr schedule make_v_1f1b_schedule(const pipeline_params& p) { return v_1f1b_family.make(p); }

/// The row of one rank. It makes the whole schedule first.
constexpr std::vector<cell> make_v_1f1b_row(const pipeline_params& p, std::integral auto rank) {
  return v_1f1b_family.row(p, rank);
}

}  // namespace pipesched
