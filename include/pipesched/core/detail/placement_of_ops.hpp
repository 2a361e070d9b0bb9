// SPDX-License-Identifier: MIT
#pragma once

// The placement of a step whose cells alone are known: a stage is where its ops are.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
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
  /// @pre not whole(). @param halves  ", or one for micro-batches 0 to 3 and the other for 4 to 7"; empty for one micro-batch
  [[noreturn]] void refuse(std::string_view halves) const {
    throw schedule_error(concat({"stage ", split_stage_, " has ops on ranks ", rank_of_[split_stage_], " and ",
                                 other_rank_, "; expected one of them", halves}));
  }
  /// Refuses a half that has fewer stages than the other. @param micros  of that half
  [[noreturn]] static void refuse_half(std::size_t stage, std::string_view micros) {
    throw schedule_error(concat({"stage ", stage, " has no op of ", micros,
                                 "; expected ops of all stages in either half, as some are on two ranks"}));
  }

 private:
  static constexpr std::uint32_t none = ~std::uint32_t{0};

  std::vector<std::uint32_t> rank_of_;
  std::uint32_t other_rank_ = none;  // the first rank that runs a stage beside its own one,
  std::uint16_t split_stage_ = 0;    // and that stage
};

// "micro-batch 3", "micro-batches 0 to 3".
inline std::string micros_text(std::uint32_t first, std::uint32_t end) {
  return end - first == 1 ? concat({"micro-batch ", first}) : concat({"micro-batches ", first, " to ", end - 1});
}

/// Stages that two ranks run have two replicas, each for one half of the micro-batches, as in DualPipe and Chimera. The kind
/// is the simplest that has these stages on these ranks.
/// @param for_each_op  calls `f(rank, op)` for every op, each time alike
/// @throws schedule_error for a stage without ops, or on ranks that no placement gives it
template <typename ForEachOp>
constexpr placement placement_of_ops(std::uint32_t ranks, std::uint32_t micro, ForEachOp&& for_each_op) {
  stage_ranks all;
  for_each_op([&](std::uint32_t rank, op o) { all.add(rank, o); });
  if (all.whole()) return simplest_kind(placement::custom(ranks, std::max(micro, 1u), {all.table()}));
  if (micro < 2) all.refuse({});
  const std::uint32_t half = micro - micro / 2;
  stage_ranks halves[2];
  for_each_op([&](std::uint32_t rank, op o) { halves[o.micro < half ? 0 : 1].add(rank, o); });
  const auto& [first, second] = halves;
  if (!first.whole() || !second.whole())
    all.refuse(concat({", or one for ", micros_text(0, half), " and the other for ", micros_text(half, micro)}));
  if (first.stages() < second.stages()) stage_ranks::refuse_half(first.stages(), micros_text(0, half));
  if (second.stages() < first.stages()) stage_ranks::refuse_half(second.stages(), micros_text(half, micro));
  return simplest_kind(placement::custom(ranks, micro, {first.table(), second.table()}));
}

}  // namespace pipesched::detail
