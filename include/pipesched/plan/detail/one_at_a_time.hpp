// SPDX-License-Identifier: MIT
#pragma once

// The order that needs the least memory: each micro-batch goes forward and back before the next one begins.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pipesched/core/ops.hpp"
#include "pipesched/core/recompute.hpp"
#include "pipesched/core/schedule.hpp"

namespace pipesched::detail {

/// @param s           without cells
/// @param split       backwards are I and W in place of B
/// @param recomputed  by stage: its backwards recompute inside; empty: none
inline schedule one_at_a_time(schedule s, bool split, const std::vector<bool>& recomputed = {}) {
  std::vector<cell> row;
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
    row.clear();
    for (std::uint32_t micro = 0; micro < s.micro; ++micro) {
      std::vector<std::uint16_t> stages;
      const auto ranks = s.placement.rank_of_stage(s.placement.replica_of(micro));
      for (std::uint32_t stage = 0; stage < s.stages(); ++stage)
        if (ranks[stage] == rank) stages.push_back(static_cast<std::uint16_t>(stage));
      const auto add = [&](pass p, std::uint16_t stage) {
        row.emplace_back(op{p, s.placement.chunk_of(stage, micro), stage, micro});
      };
      for (const std::uint16_t stage : stages) add(pass::forward, stage);
      for (std::size_t i = stages.size(); i-- > 0 && !s.forward_only;) {
        add(split ? pass::backward_input : pass::backward, stages[i]);
        if (split) add(pass::backward_weight, stages[i]);
      }
    }
    s.cells.append(row);
  }
  recompute_choice which{.inside_backward = true};
  for (std::size_t i = 0; i < recomputed.size(); ++i)
    if (recomputed[i]) which.stages.push_back(static_cast<std::int64_t>(i));
  return which.stages.empty() || s.forward_only ? s : recompute(s, which);
}

}  // namespace pipesched::detail
