// SPDX-License-Identifier: MIT
#pragma once

// Interleaved 1F1B: 1F1B with several stages per rank on a looped placement, which divides the bubble by their number.
// Source: Narayanan et al., "Efficient Large-Scale Language Model Training" (arXiv 2104.04473), section 2.2; the order
// is that of PyTorch's ScheduleInterleaved1F1B.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/chunk_walk.hpp"
#include "pipesched/generate/emitter.hpp"
#include "pipesched/generate/interleaved_params.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"

namespace pipesched {

inline constexpr family_limits interleaved_1f1b_limits{
    .family = "interleaved_1f1b",
    .takes = {parameter::chunks, parameter::group_size, parameter::extra_warm_up, parameter::overlap}};

namespace detail {

template <cell_sink Sink>
constexpr void emit_whole_interleaved_1f1b(const interleaved_params& p, std::int64_t rank, Sink& sink) {
  const std::int64_t all = p.micro * p.chunks;
  chunk_walk forwards(p, rank, false), backwards(p, rank, true);
  if (p.forward_only) return emit_walk(sink, all, forwards, pass::forward);
  const std::int64_t ahead = (p.chunks - 1) * *p.group_size + 2 * (p.pp - 1 - rank);
  const std::int64_t warm_up = std::min(ahead + (p.extra_warm_up || p.overlap ? 1 : 0), all);
  emit_walk(sink, warm_up, forwards, pass::forward);
  for (std::int64_t left = all - warm_up; left > 0;) {
    const std::int64_t run = std::min({left, forwards.run(), backwards.run()});
    const cell F = forwards.ops().F(0), B = backwards.ops().B(0);
    if (p.overlap)
      repeat(sink, run, overlap(F, B));
    else
      repeat(sink, run, F, B);
    forwards.advance(run), backwards.advance(run);
    left -= run;
  }
  emit_walk(sink, warm_up, backwards, pass::backward);
}

}  // namespace detail

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_interleaved_1f1b(const interleaved_params& p, std::int64_t rank, Sink&& sink) {
  detail::require_rank(interleaved_1f1b_limits, p, rank);
  detail::require_long_groups(interleaved_1f1b_limits, p);
  detail::pad_to_whole_groups(p, detail::group_size_of(p), sink, [&](const interleaved_params& whole, auto& to) {
    detail::emit_whole_interleaved_1f1b(whole, rank, to);
  });
}

/// Interleaved 1F1B for every pp, micro, chunks >= 1 and groups of at least pp micro-batches. The default groups are
/// PyTorch's where PyTorch accepts the numbers (micro a multiple of max(1, micro / pp)); otherwise groups are of pp
/// micro-batches, without the surplus of the last one. For micro a multiple of pp and groups of pp, the bubble is
/// (pp-1)(F+B) of one stage. Rank r keeps min(micro * chunks, (chunks-1) group_size + 2(pp-1-r) + 1) activations of one
/// stage, one more with extra_warm_up or overlap. With `overlap`, the steady state consists of F&B cells, as in
/// Megatron, MindSpeed and Kimi K2, which hide expert all-to-all without DualPipe.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_interleaved_1f1b_schedule(const interleaved_params& p) {
  detail::require(interleaved_1f1b_limits, p);
  detail::require_long_groups(interleaved_1f1b_limits, p);
  return detail::assemble(interleaved_1f1b_limits, {.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only},
                          placement::looped(p.pp, p.chunks),
                          [&](std::int64_t r, auto& sink) { emit_interleaved_1f1b(p, r, sink); });
}

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_interleaved_1f1b_row(const interleaved_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_interleaved_1f1b(p, r, sink); }, rank);
}

}  // namespace pipesched
