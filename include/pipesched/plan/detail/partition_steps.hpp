// SPDX-License-Identifier: MIT
#pragma once

// Pieces of searches for partitions: a step from one to another, and how alike the work of the ranks is.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/model/model.hpp"
#include "pipesched/model/partition.hpp"
#include "pipesched/simulate/schedule_class.hpp"
#include "pipesched/support/random_numbers.hpp"

namespace pipesched::detail {

/// Consecutive stages that are all trained or all frozen, and their layers: those of the uniform partition. They stay on these
/// stages, so that all partitions train the same layers.
struct stage_run {
  std::size_t first_stage, end_stage, first_layer, end_layer;
};
inline std::vector<stage_run> stage_runs(const model& m, std::size_t stages, const schedule_class& of) {
  const std::vector<std::size_t> first = first_layers(uniform_partition(m, stages));
  const auto trained = [&](std::size_t s) { return of.backward.empty() || of.backward[s] == stage_backward::full; };
  std::vector<stage_run> runs;
  for (std::size_t s = 0; s < stages; ++s) {
    if (runs.empty() || trained(s) != trained(s - 1)) runs.push_back({s, s, first[s], first[s]});
    runs.back().end_stage = s + 1, runs.back().end_layer = first[s + 1];
  }
  return runs;
}

/// The number of layers in front of the next stage, if a run ends with this one.
inline std::optional<std::size_t> end_of_run(const std::vector<stage_run>& runs, std::size_t stage) {
  for (const stage_run& run : runs)
    if (run.end_stage == stage + 1) return run.end_layer;
  return std::nullopt;
}

/// A layer moves from one stage to another, both at random; false if they are the same, or there is no layer.
inline bool move_layer(partition& p, random_numbers& random) {
  std::uint32_t &from = p.layers[random.below(p.stages())], &to = p.layers[random.below(p.stages())];
  if (&from == &to || from == 0) return false;
  --from, ++to;
  return true;
}

/// Moves layers from stage to stage, one at a time, as long as fewer bytes do not fit. Returns how many still do not.
/// @param excess_of  of the partition as it is: bytes that do not fit  @param go_on  before each further one; false: stop
template <typename ExcessOf, typename GoOn>
double move_layers_to_fit(partition& p, ExcessOf&& excess_of, GoOn&& go_on) {
  const std::size_t stages = p.stages(), all = stages * stages;
  double excess = excess_of();
  for (std::size_t step = 0, since = 0; since < all && excess > 0 && go_on(); step = (step + 1) % all, ++since) {
    std::uint32_t &from = p.layers[step / stages], &to = p.layers[step % stages];
    if (&from == &to || from == 0) continue;
    --from, ++to;
    if (const double then = excess_of(); then < excess)
      excess = then, since = 0;
    else
      ++from, --to;
  }
  return excess;
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
