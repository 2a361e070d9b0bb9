// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"

namespace pipesched::tests {

/// A schedule of three stages on three ranks, with two replicas wherever `homes` has them, and four micro-batches. Each rank
/// runs all forwards, by micro-batch and stage, then all backwards.
inline schedule two_replicas(const std::vector<std::vector<std::uint16_t>>& homes) {
  schedule s{.name = "two_replicas", .placement = placement::custom(3, 4, homes), .micro = 4};
  std::vector<std::vector<cell>> rows_of(3);
  const auto put = [&](pass kind, std::uint32_t micro, std::uint16_t stage) {
    const std::uint32_t rank = s.placement.rank_of(stage, micro);
    rows_of[rank].push_back(
        op{.pass = kind, .chunk = s.placement.chunk_of(stage, micro), .stage = stage, .micro = micro});
  };
  for (std::uint32_t m = 0; m < 4; ++m)
    for (std::uint16_t stage = 0; stage < 3; ++stage) put(pass::forward, m, stage);
  for (std::uint32_t m = 0; m < 4; ++m)
    for (std::uint16_t stage = 3; stage-- > 0;) put(pass::backward, m, stage);
  s.cells = rows<cell>(rows_of);
  return s;
}

}  // namespace pipesched::tests
