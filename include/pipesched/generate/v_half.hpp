// SPDX-License-Identifier: MIT
#pragma once

// v_half.

#include <cstdint>

#include "pipesched/generate/detail/split_v.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

inline constexpr family_limits v_half_limits{.family = "v_half", .stages_per_rank = 2};

/// V-Half for every pp >= 1 and micro >= 1: the activations of 1F1B halved, floor((pp+2)/2) of two stages, at about half
/// its bubble for F = I = W and micro >= pp; the bubble does not grow with micro as long as W + 2I >= 2F and W + 2F >= 2I.
/// Source: section 4 of the paper; a forward takes two slots a stage on the way down and one on the way back, a backward
/// likewise.
/// @throws schedule_error on bad parameters. Linear in the number of ops but for a logarithm and, with many ranks, pp^3 of
/// small steps; memory likewise, and pp^2.
constexpr schedule make_v_half_schedule(const pipeline_params& p) {
  require(v_half_limits, p);
  const auto P = static_cast<std::int32_t>(p.pp);
  const std::int32_t pause = P % 2 == 0 ? 3 : 0;  // keeps slots apart
  detail::building_block block;
  for (std::int32_t i = 0; i < P; ++i) block.first.push_back(2 * i);
  for (std::int32_t i = 0; i < P; ++i) block.first.push_back(2 * P - 1 + i);
  for (std::int32_t i = 0; i < P; ++i) block.first.push_back(3 * P - 1 + pause + 2 * i);
  for (std::int32_t i = 0; i < P; ++i) block.first.push_back(5 * P - 1 + pause + i);
  return detail::make_split_v(v_half_limits, p, block);
}

}  // namespace pipesched
