// SPDX-License-Identifier: MIT
#pragma once

// v_min.

#include <cstdint>

#include "pipesched/generate/detail/split_v.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

inline constexpr family_limits v_min_limits{.family = "v_min", .stages_per_rank = 2};

/// V-Min for every pp >= 1 and micro >= 1: the least memory at full rate, floor((pp+4)/3) activations of two stages, at
/// about two thirds of 1F1B's bubble, if F, I and W last equally long; with other times the bubble may grow with
/// every micro-batch (it does for I > F = W), so simulate before you use it. Source: section 4 of the paper; a slot a
/// stage.
/// @throws schedule_error on bad parameters. Linear in the number of ops but for a logarithm and, with many ranks, pp^3 of
/// small steps; memory likewise, and pp^2.
constexpr schedule make_v_min_schedule(const pipeline_params& p) {
  require(v_min_limits, p);
  const auto P = static_cast<std::int32_t>(p.pp);
  const std::int32_t pause = P % 3 == 0 ? 2 : 0;  // keeps slots apart
  detail::building_block block;
  for (std::int32_t i = 0; i < 2 * P; ++i) block.first.push_back(i);
  for (std::int32_t i = 0; i < 2 * P; ++i) block.first.push_back(2 * P + pause + i);
  return detail::make_split_v(v_min_limits, p, block);
}

}  // namespace pipesched
