// SPDX-License-Identifier: MIT
#pragma once

// DualPipeV: DualPipe folded in half ("cut in half"), so that one copy of the parameters is enough. Rank r hosts stages
// r and 2pp-1-r.
// Source: deepseek-ai/DualPipe 3da1bbe, whose order this is.

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

inline constexpr family_limits dualpipev_limits{.family = "dualpipev", .stages_per_rank = 2};

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_dualpipev(const pipeline_params& p, std::int64_t rank, Sink&& sink) {
  require(dualpipev_limits, p, rank);
  const std::int64_t accepted = std::max(p.micro, 2 * p.pp);
  const stage_ops down(rank, 0), back(2 * p.pp - 1 - rank, 1);
  const auto emit = [&](auto& to) { detail::emit_two_streams(p.pp, rank, accepted, down, back, to); };
  emit_truncated(sink, p.micro == accepted, p.micro, p.micro, p.forward_only, emit);
}

/// DualPipeV for every pp >= 1 and micro >= 1, of 2 pp stages. If the reference accepts the numbers (micro >= 2 pp),
/// the order is that of the reference; otherwise it is that of micro = 2 pp without the surplus. For micro >= 2 pp, F =
/// I = W and F&B = F + B, the bubble is (pp-1)(F&B + B - 3W) of one stage, and every rank keeps 2 pp + 1 activations of
/// one stage.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_dualpipev_schedule(const pipeline_params& p) {
  require(dualpipev_limits, p);
  return detail::assemble(dualpipev_limits, p, placement::vee(p.pp),
                          [&](std::int64_t r, auto& sink) { emit_dualpipev(p, r, sink); });
}

/// The row of one rank. Linear in its length and, if micro < 2 pp, in pp.
constexpr std::vector<cell> make_dualpipev_row(const pipeline_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_dualpipev(p, r, sink); }, rank);
}

}  // namespace pipesched
