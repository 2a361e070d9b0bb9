// SPDX-License-Identifier: MIT
#pragma once

// ZB1P, the ZB-H1 order: 1F1B with the backward split into I and W. I sends the gradient on at once; rank r runs each W
// r micro-batches after its I, which fills the bubbles of the cool-down with no more memory than rank 0 of 1F1B.
// Source: Qi et al., "Zero Bubble Pipeline Parallelism" (arXiv 2401.10241), section 2.1, figure 2, table 2.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/emitter.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"

namespace pipesched {

inline constexpr family_limits zb1p_limits{.family = "zb1p"};

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_zb1p(const pipeline_params& p, std::int64_t rank, Sink&& sink) {
  require(zb1p_limits, p, rank);
  const stage_ops s(rank);
  if (p.forward_only) return repeat(sink, p.micro, s.F(0));
  const std::int64_t warm_up = std::min(p.micro, p.pp - rank);
  const std::int64_t steady = p.micro - warm_up;      // a forward follows I(k) for k < steady ...
  const std::int64_t late = std::min(rank, p.micro);  // ... and before it W(k - late) for k >= late
  const std::int64_t both = std::max(steady, late);
  repeat(sink, warm_up, s.F(0));
  repeat(sink, std::min(steady, late), s.I(0), s.F(warm_up));
  repeat(sink, steady - late, s.I(late), s.W(0), s.F(warm_up + late));
  repeat(sink, late - steady, s.I(steady));
  repeat(sink, p.micro - both, s.I(both), s.W(both - late));
  repeat(sink, late, s.W(p.micro - late));
}

/// ZB1P for every pp >= 1 and micro >= 1. For micro >= pp, W <= F and W <= I, the bubble is (pp-1)(F+I-W), which is
/// (pp-1)(F+B-2W) with B the full backward. Every rank keeps min(micro, pp) activations until their W's.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_zb1p_schedule(const pipeline_params& p) {
  require(zb1p_limits, p);
  return detail::assemble(zb1p_limits, p, placement::linear(p.pp),
                          [&](std::int64_t r, auto& sink) { emit_zb1p(p, r, sink); });
}

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_zb1p_row(const pipeline_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_zb1p(p, r, sink); }, rank);
}

}  // namespace pipesched
