// SPDX-License-Identifier: MIT
#pragma once

// Interleaved zero bubble: interleaved 1F1B with the backward split. I sends the gradient on at once; rank r runs each
// W r I's later.
// Source: the order of PyTorch's ScheduleInterleavedZeroBubble.

#include <cstdint>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/chunk_walk.hpp"
#include "pipesched/generate/emitter.hpp"
#include "pipesched/generate/interleaved_params.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"

namespace pipesched {

inline constexpr family_limits interleaved_zb_limits{.family = "interleaved_zb",
                                                     .takes = {parameter::chunks, parameter::group_size}};

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_interleaved_zb(const interleaved_params& p, std::int64_t rank, Sink&& sink) {
  detail::require_rank(interleaved_zb_limits, p, rank);
  detail::require_long_groups(interleaved_zb_limits, p);
  detail::pad_to_whole_groups(p, detail::group_size_of(p), sink, [&](const interleaved_params& whole, auto& to) {
    detail::emit_whole_interleaved_zb(whole, rank, rank, to);
  });
}

/// Interleaved zero bubble for every pp, micro, chunks >= 1, with half the warm-up of interleaved 1F1B. Groups and
/// departures from PyTorch are those of interleaved 1F1B. Takes neither extra_warm_up nor overlap.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_interleaved_zb_schedule(const interleaved_params& p) {
  detail::require(interleaved_zb_limits, p);
  detail::require_long_groups(interleaved_zb_limits, p);
  return detail::assemble(interleaved_zb_limits, {.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only},
                          placement::looped(p.pp, p.chunks),
                          [&](std::int64_t r, auto& sink) { emit_interleaved_zb(p, r, sink); });
}

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_interleaved_zb_row(const interleaved_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_interleaved_zb(p, r, sink); }, rank);
}

}  // namespace pipesched
