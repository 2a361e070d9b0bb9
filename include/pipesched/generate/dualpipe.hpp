// SPDX-License-Identifier: MIT
#pragma once

// DualPipe: micro-batches enter from both ends of the pipeline and every stage is held twice. In the steady state each
// cell is the forward of one direction overlapped with the backward of the other.
// Source: DeepSeek-AI, "DeepSeek-V3 Technical Report" (arXiv 2412.19437), section 3.2.1, figure 5, table 2; the order
// of the reference code (deepseek-ai/DualPipe 3da1bbe), including the first pair of the middle ranks, which is not
// overlapped.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/two_streams.hpp"
#include "pipesched/generate/emitter.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/generate/truncate.hpp"

namespace pipesched {

inline constexpr family_limits dualpipe_limits{.family = "dualpipe", .even_pp = true};

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_dualpipe(const pipeline_params& p, std::int64_t rank, Sink&& sink) {
  require(dualpipe_limits, p, rank);
  const std::int64_t accepted = std::max(p.micro + p.micro % 2, 2 * p.pp);
  const std::int64_t first_up = (p.micro + 1) / 2;  // the first micro-batch of replica 1
  const stage_ops down(rank, 0), up(p.pp - 1 - rank, 1, first_up);
  const bool upper = rank < p.pp / 2;
  const auto emit = [&](auto& to) {
    detail::emit_two_streams(p.pp / 2, std::min(rank, p.pp - 1 - rank), accepted / 2, upper ? down : up,
                             upper ? up : down, to);
  };
  emit_truncated(sink, p.micro == accepted, first_up, p.micro, p.forward_only, emit);
}

/// DualPipe for every even pp and every micro >= 1. If the reference accepts the numbers (micro even and at least 2
/// pp), the order is that of the reference; otherwise it is that of the next accepted number of micro-batches, without
/// the surplus. In the accepted range, with F = I = W and F&B = F + B, the bubble is (pp/2-1)(F&B + B - 3W) and every
/// rank keeps pp + 1 activations; otherwise at most as many. The parameters of every stage are held twice.
/// `static_assert(verify(make_dualpipe_schedule({.pp = 8, .micro = 20})))` compiles within the default limits of g++
/// and clang.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_dualpipe_schedule(const pipeline_params& p) {
  require(dualpipe_limits, p);
  return detail::assemble(dualpipe_limits, p, placement::bidirectional(p.pp, p.micro),
                          [&](std::int64_t r, auto& sink) { emit_dualpipe(p, r, sink); });
}

/// The row of one rank. Linear in its length.
constexpr std::vector<cell> make_dualpipe_row(const pipeline_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_dualpipe(p, r, sink); }, rank);
}

}  // namespace pipesched
