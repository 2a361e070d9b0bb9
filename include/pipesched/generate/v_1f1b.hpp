// SPDX-License-Identifier: MIT
#pragma once

// 1F1B-V: a building block on the V placement, where rank r hosts stages r and 2pp-1-r, with two thirds of the
// activations of 1F1B and whole backwards.
// Source: the authors' v1f1b.py (sail-sg/zero-bubble-pipeline-parallelism 39f2c186), whose order this is.

#include <cstdint>
#include <utility>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/building_block.hpp"
#include "pipesched/generate/emitter.hpp"
#include "pipesched/generate/params.hpp"

namespace pipesched {

inline constexpr family_limits v_1f1b_limits{.family = "v_1f1b", .stages_per_rank = 2};

/// 1F1B-V for every pp >= 1 and micro >= 1. A forward takes one slot per stage, a backward two, with a pause of three
/// slots after every third backward.
/// @throws schedule_error on bad parameters. O(n log n + pp^3) time and O(n + pp^2) memory for n ops.
constexpr schedule make_v_1f1b_schedule(const pipeline_params& p) {
  require(v_1f1b_limits, p);
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
  placement where = placement::vee(p.pp);
  detail::slot_table table(where, block, p.micro);
  table.reorder_all();
  return detail::assemble(v_1f1b_limits, p, std::move(where), table.cells(p.forward_only));
}

}  // namespace pipesched
