// SPDX-License-Identifier: MIT
#pragma once

// Pieces of searches for partitions: a step from one to another, and how alike the work of the ranks is.

#include <cstdint>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/model/partition.hpp"
#include "pipesched/support/random_numbers.hpp"

namespace pipesched::detail {

/// A layer moves from one stage to another, both at random; false if they are the same, or there is no layer.
inline bool move_layer(partition& p, random_numbers& random) {
  std::uint32_t &from = p.layers[random.below(p.stages())], &to = p.layers[random.below(p.stages())];
  if (&from == &to || from == 0) return false;
  --from, ++to;
  return true;
}

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
