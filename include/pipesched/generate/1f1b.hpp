// SPDX-License-Identifier: MIT
#pragma once

// 1F1B, also called PipeDream-Flush and DAPPLE: rank r runs pp-r forwards, then one backward and one forward in turn,
// so that it keeps at most pp-r activations.
// Source: Narayanan et al., "Memory-Efficient Pipeline-Parallel DNN Training" (arXiv 2006.09503), section 3.2.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/emitter.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"

namespace pipesched {

inline constexpr family_limits one_f_one_b_limits{.family = "1f1b"};

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_1f1b(const pipeline_params& p, std::int64_t rank, Sink&& sink) {
  require(one_f_one_b_limits, p, rank);
  const stage_ops s(rank);
  if (p.forward_only) return repeat(sink, p.micro, s.F(0));
  const std::int64_t warm_up = std::min(p.micro, p.pp - rank);
  const std::int64_t steady = p.micro - warm_up;
  repeat(sink, warm_up, s.F(0));
  repeat(sink, steady, s.B(0), s.F(warm_up));
  repeat(sink, warm_up, s.B(steady));
}

/// 1F1B for every pp >= 1 and micro >= 1. The bubble is (pp-1)(F+B); rank r keeps min(micro, pp-r) activations.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_1f1b_schedule(const pipeline_params& p) {
  require(one_f_one_b_limits, p);
  return detail::assemble(one_f_one_b_limits, p, placement::linear(p.pp),
                          [&](std::int64_t r, auto& sink) { emit_1f1b(p, r, sink); });
}

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_1f1b_row(const pipeline_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_1f1b(p, r, sink); }, rank);
}

}  // namespace pipesched
