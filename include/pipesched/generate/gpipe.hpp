// SPDX-License-Identifier: MIT
#pragma once

// GPipe: all forwards, then all backwards.
// Source: Huang et al., "GPipe" (arXiv 1811.06965), figure 2c; the backward order is that of PyTorch's ScheduleGPipe.

#include <cstdint>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/emitter.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"

namespace pipesched {

inline constexpr family_limits gpipe_limits{.family = "gpipe"};

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_gpipe(const pipeline_params& p, std::int64_t rank, Sink&& sink) {
  require(gpipe_limits, p, rank);
  const stage_ops s(rank);
  repeat(sink, p.micro, s.F(0));
  if (!p.forward_only) repeat(sink, p.micro, s.B(0));
}

/// GPipe for every pp >= 1 and micro >= 1. The bubble is (pp-1)(F+B); every rank keeps all `micro` activations.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_gpipe_schedule(const pipeline_params& p) {
  require(gpipe_limits, p);
  return detail::assemble(gpipe_limits, p, placement::linear(p.pp),
                          [&](std::int64_t r, auto& sink) { emit_gpipe(p, r, sink); });
}

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_gpipe_row(const pipeline_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_gpipe(p, r, sink); }, rank);
}

}  // namespace pipesched
