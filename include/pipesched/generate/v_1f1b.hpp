// SPDX-License-Identifier: MIT
#pragma once

// v_1f1b.

#include <cstdint>
#include <utility>

#include "pipesched/generate/detail/building_block.hpp"
#include "pipesched/generate/emitter.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/placement.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

inline constexpr family_limits v_1f1b_limits{.family = "v_1f1b", .stages_per_rank = 2};

/// 1F1B-V for every pp >= 1 and micro >= 1: two thirds of 1F1B's activations without splitting the backward.
/// Source: the authors' v1f1b.py; a forward takes a slot a stage, a backward two, and three more after every third one.
/// @throws schedule_error on bad parameters. Linear in the number of ops but for a logarithm and, with many ranks, pp^3 of
/// small steps; memory likewise, and pp^2.
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
