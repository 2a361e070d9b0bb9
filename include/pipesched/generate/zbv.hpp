// SPDX-License-Identifier: MIT
#pragma once

// ZB-V: zero bubble on the V placement, where rank r hosts stages r and 2pp-1-r, so that the first and the last stage
// are on the same rank and the first backward starts there. This is the hand-made order; zbv_greedy.hpp searches for
// one.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <optional>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/generate/truncate.hpp"

namespace pipesched {

namespace detail {

// The order of n >= 2pp-1 micro-batches; stage a is on the way down the V, stage b on the way back up.
template <cell_sink Sink>
constexpr void emit_whole_zbv(std::int64_t P, std::int64_t r, std::int64_t n, Sink& sink) {
  const stage_ops a(r, 0), b(2 * P - 1 - r, 1);
  const std::int64_t ahead = 2 * P - r - 1;  // forwards of a before the steady state
  const std::int64_t with_a = n - ahead;     // rounds of the steady state that have a forward of a
  repeat(sink, 2 * (P - r) - 1, a.F(0));
  repeat(sink, r, b.F(0), a.F(2 * (P - r) - 1));
  repeat(sink, P - r, b.F(r), b.I(0), b.W(0));
  repeat(sink, with_a, a.F(ahead), a.I(0), a.W(0), b.F(P), b.I(P - r), b.W(P - r));
  repeat(sink, n - P - with_a, a.I(with_a), a.W(with_a), b.F(P + with_a), b.I(P - r + with_a), b.W(P - r + with_a));
  repeat(sink, r, a.I(n - P), b.I(n - r));
  repeat(sink, P - r, a.I(n - P + r), a.W(n - P));
  repeat(sink, r, b.W(n - r));
  repeat(sink, r, a.W(n - r));
}

}  // namespace detail

inline constexpr family zbv_family{
    .name = "zbv",
    .summary = "zero bubble on a V: two stages per rank, the memory of 1F1B",
    .source =
        "Qi et al., Pipeline Parallelism with Controllable Memory (arXiv 2405.15362), and PyTorch's "
        "ScheduleZBVZeroBubble, whose order this is",
    .limits = {.stages_per_rank = 2},
    .place = vee_placement,
    .emit =
        [](const family_params& p, std::int64_t rank, auto& sink) {
          const std::int64_t whole = std::max(p.micro, 2 * p.pp - 1);
          emit_truncated(sink, p.micro == whole, p.micro, p.micro,
                         [&](auto& to) { detail::emit_whole_zbv(p.pp, rank, whole, to); });
        },
    .peak =
        [](const family_params& p, std::int64_t) {
          return activation_peak{2 * p.pp, p.micro >= 2 * p.pp};
        },
    .unit_bubble = [](const family_params& p) -> std::optional<std::int64_t> {
      if (p.micro < 2 * p.pp) return std::nullopt;
      return p.pp - 1;
    }};

/// ZB-V for every pp >= 1 and micro >= 1. Below 2 pp - 1 micro-batches it is the order of 2 pp - 1 without the surplus,
/// as in PyTorch. For micro >= 2 pp and F = I = W, the span has no bubble, and the makespan has one of pp - 1, as each
/// rank starts one F after the rank before it. Every rank keeps 2 pp activations of one stage, the memory of rank 0 of
/// 1F1B.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_zbv_schedule(const pipeline_params& p) { return zbv_family.make(p); }

/// The row of one rank. Linear in its length and, if micro < 2 pp - 1, in pp.
constexpr std::vector<cell> make_zbv_row(const pipeline_params& p, std::integral auto rank) {
  return zbv_family.row(p, rank);
}

}  // namespace pipesched
