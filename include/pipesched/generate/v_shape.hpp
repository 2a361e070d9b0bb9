// SPDX-License-Identifier: MIT
#pragma once

// V-Half, V-Min and 1F1B-V: building blocks on the V placement, rank r hosting stages r and 2pp-1-r, so that the last stage
// lies where the first does and memory can be given up for idle time by how far apart the passes of a block are.
// Source: Qi et al., "Pipeline Parallelism with Controllable Memory" (arXiv 2405.15362); the authors' scheduler
// (sail-sg/zero-bubble-pipeline-parallelism 39f2c186), whose orders these are.

#include <cstdint>
#include <utility>

#include "pipesched/generate/building_block.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/placement.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

inline constexpr family_limits v_half_rule{.family = "v_half", .stages_per_rank = 2};
inline constexpr family_limits v_min_rule{.family = "v_min", .stages_per_rank = 2};
inline constexpr family_limits v_1f1b_rule{.family = "v_1f1b", .stages_per_rank = 2};

namespace detail {

// A block of I's, and W's wherever they fit.
constexpr schedule make_split_v(const family_limits& rule, const pipeline_params& p, const building_block& block) {
  placement where = placement::vee(p.pp);
  slot_table table(where, block, p.micro);
  table.fill_weights();
  table.reorder_outside_steady();
  table.squeeze();
  table.fill_weights();
  table.reorder_after_steady();
  table.squeeze();
  table.fill_weights();
  return make_schedule(rule.family, p, std::move(where), table.cells(p.forward_only));
}

}  // namespace detail

/// V-Half for every pp >= 1 and micro >= 1: the activations of 1F1B halved, floor((pp+2)/2) of two stages, at about half
/// its bubble for F = I = W and micro >= pp; the bubble does not grow with micro as long as W + 2I >= 2F and W + 2F >= 2I.
/// Source: section 4 of the paper; a forward takes two slots a stage on the way down and one on the way back, a backward
/// likewise.
/// @throws schedule_error on bad parameters. Linear in the number of ops but for a logarithm and, with many ranks, pp^3 of
/// small steps; memory likewise, and pp^2.
constexpr schedule make_v_half_schedule(const pipeline_params& p) {
  require(v_half_rule, p);
  const auto P = static_cast<std::int32_t>(p.pp);
  const std::int32_t pause = P % 2 == 0 ? 3 : 0;  // keeps slots apart
  detail::building_block block;
  for (std::int32_t i = 0; i < P; ++i) block.first.push_back(2 * i);
  for (std::int32_t i = 0; i < P; ++i) block.first.push_back(2 * P - 1 + i);
  for (std::int32_t i = 0; i < P; ++i) block.first.push_back(3 * P - 1 + pause + 2 * i);
  for (std::int32_t i = 0; i < P; ++i) block.first.push_back(5 * P - 1 + pause + i);
  return detail::make_split_v(v_half_rule, p, block);
}

/// V-Min for every pp >= 1 and micro >= 1: the least memory at full rate, floor((pp+4)/3) activations of two stages, at
/// about two thirds of 1F1B's bubble, if F, I and W last equally long; with other times the bubble may grow with
/// every micro-batch (it does for I > F = W), so simulate before you use it. Source: section 4 of the paper; a slot a
/// stage.
/// @throws schedule_error on bad parameters. Linear in the number of ops but for a logarithm and, with many ranks, pp^3 of
/// small steps; memory likewise, and pp^2.
constexpr schedule make_v_min_schedule(const pipeline_params& p) {
  require(v_min_rule, p);
  const auto P = static_cast<std::int32_t>(p.pp);
  const std::int32_t pause = P % 3 == 0 ? 2 : 0;  // keeps slots apart
  detail::building_block block;
  for (std::int32_t i = 0; i < 2 * P; ++i) block.first.push_back(i);
  for (std::int32_t i = 0; i < 2 * P; ++i) block.first.push_back(2 * P + pause + i);
  return detail::make_split_v(v_min_rule, p, block);
}

/// 1F1B-V for every pp >= 1 and micro >= 1: two thirds of 1F1B's activations without splitting the backward.
/// Source: the authors' v1f1b.py; a forward takes a slot a stage, a backward two, and three more after every third one.
/// @throws schedule_error on bad parameters. Linear in the number of ops but for a logarithm and, with many ranks, pp^3 of
/// small steps; memory likewise, and pp^2.
constexpr schedule make_v_1f1b_schedule(const pipeline_params& p) {
  require(v_1f1b_rule, p);
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
  return make_schedule(v_1f1b_rule.family, p, std::move(where), table.cells(p.forward_only));
}

}  // namespace pipesched
