// SPDX-License-Identifier: MIT
#pragma once

// How alike the work of all ranks is.

#include <cstdint>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/cost/stage_costs.hpp"

namespace pipesched::detail {

/// The squares of the ranks' work on one micro-batch, added: the smaller the more alike, where the sum of the work is the same.
/// @param work_of  of a stage, alone on a rank of speed 1
template <typename WorkOf>
double squares_of_work(const placement& where, const stage_costs& costs, WorkOf&& work_of) {
  std::vector<double> work(where.ranks(), 0);
  for (std::uint32_t replica = 0; replica < where.replicas(); ++replica)
    for (std::uint32_t s = 0; s < where.stages(); ++s) {
      const std::uint16_t rank = where.rank_of_stage(replica)[s];
      work[rank] += work_of(s) / costs.speed_of(rank);
    }
  double sum = 0;
  for (const double w : work) sum += w * w;
  return sum;
}

}  // namespace pipesched::detail
