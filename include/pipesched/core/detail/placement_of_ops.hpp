// SPDX-License-Identifier: MIT
#pragma once

// The placement of a step whose cells alone are known: a stage is where its ops are.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched::detail {

/// The ranks of the stages, of some micro-batches.
class stage_ranks {
 public:
  constexpr void add(std::uint32_t rank, op o) {
    if (o.stage >= rank_of_.size()) rank_of_.resize(o.stage + 1u, none);
    std::uint32_t& own = rank_of_[o.stage];
    if (own == none) own = rank;
    if (own != rank && other_rank_ == none) split_stage_ = o.stage, other_rank_ = rank;
  }
  /// True if one rank runs all ops of each stage.
  constexpr bool whole() const { return other_rank_ == none; }
  [[noreturn]] void refuse() const {
    throw schedule_error(concat({"stage ", split_stage_, " has ops on ranks ", rank_of_[split_stage_], " and ",
                                 other_rank_, "; expected one of them"}));
  }
  constexpr std::size_t stages() const { return rank_of_.size(); }
  /// @throws schedule_error if a stage has no op
  constexpr std::vector<std::uint16_t> table() const {
    std::vector<std::uint16_t> ranks;
    for (const std::uint32_t rank : rank_of_) {
      if (rank == none)
        throw schedule_error(
            concat({"stage ", ranks.size(), " has no op; expected ops of stages 0 to ", stages() - 1}));
      ranks.push_back(static_cast<std::uint16_t>(rank));
    }
    return ranks;
  }

 private:
  static constexpr std::uint32_t none = ~std::uint32_t{0};

  std::vector<std::uint32_t> rank_of_;
  std::uint32_t other_rank_ = none;  // the first rank that runs a stage beside its own one,
  std::uint16_t split_stage_ = 0;    // and that stage
};

/// Stages that two ranks run have two replicas, each for one half of the micro-batches, as in DualPipe and Chimera. The kind
/// is the simplest that has these stages on these ranks.
/// @param for_each_op  calls `f(rank, op)` for every op, each time alike
/// @throws schedule_error for a stage without ops, or on ranks that no placement gives it
template <typename ForEachOp>
constexpr placement placement_of_ops(std::uint32_t ranks, std::uint32_t micro, ForEachOp&& for_each_op) {
  stage_ranks all, first, second;
  for_each_op([&](std::uint32_t rank, op o) { all.add(rank, o); });
  std::vector<std::vector<std::uint16_t>> tables;  // by replica
  if (all.whole()) {
    tables.push_back(all.table());
  } else {
    const std::uint32_t half = micro - micro / 2;
    for_each_op([&](std::uint32_t rank, op o) { (o.micro < half ? first : second).add(rank, o); });
    if (!first.whole() || !second.whole() || first.stages() != second.stages()) all.refuse();
    tables.push_back(first.table()), tables.push_back(second.table());
  }
  return simplest_kind(placement::custom(ranks, std::max(micro, 1u), tables));
}

}  // namespace pipesched::detail
