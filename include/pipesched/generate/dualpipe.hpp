// SPDX-License-Identifier: MIT
#pragma once

// DualPipe and DualPipeV: two streams of micro-batches meet on every rank, so that in the steady state each cell is
// the forward of one stream overlapped with the backward of the other. DualPipe feeds the streams from both ends of
// the pipeline and keeps every stage twice; DualPipeV folds the pipeline in half and needs one copy.
// Source: DeepSeek-AI, "DeepSeek-V3 Technical Report" (arXiv 2412.19437), section 3.2.1, figure 5, table 2; the order
// of the reference code (deepseek-ai/DualPipe 3da1bbe), its middle ranks' first pair that is not overlapped included.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

inline constexpr family_limits dualpipe_rule{.family = "dualpipe", .even_pp = true};
inline constexpr family_limits dualpipev_rule{.family = "dualpipev", .stages_per_rank = 2};

namespace detail {

// The eight steps, as one rule for both families. A rank is `h` ranks away from the outer end of a stretch of `H`; `a`
// is the stage at that end's side of the stream, whose micro-batches it sees first, `b` the other; both see `n`.
// @pre n >= 2H
template <cell_sink Sink>
constexpr void emit_two_streams(std::int64_t H, std::int64_t h, std::int64_t n, stage_ops a, stage_ops b, Sink& sink) {
  const std::int64_t inner = H - h - 1;         // ranks between this one and the middle
  std::int64_t Fa = 0, Fb = 0, Ba = 0, Bb = 0;  // how many of each have been emitted
  // 1. F0
  repeat(sink, 2 * inner, a.F(0));
  Fa = 2 * inner;
  // 2. F0 F1
  repeat(sink, h + 1, a.F(Fa), b.F(0));
  Fa += h + 1, Fb = h + 1;
  // 3. I1 W1 F1
  repeat(sink, inner, b.I(0), b.W(0), b.F(Fb));
  Bb = inner, Fb += inner;
  // 4. F0&B1 F1&B0; the first F0&B1 of the middle ranks is not overlapped, which shortens the bubble further
  std::int64_t pairs = n - 2 * H + h + 1;
  if (inner == 0) {
    sink(a.F(Fa++));
    sink(b.B(Bb++));
    sink(overlap(b.F(Fb++), a.B(Ba++)));
    --pairs;
  }
  repeat(sink, pairs, overlap(a.F(Fa), b.B(Bb)), overlap(b.F(Fb), a.B(Ba)));
  Bb += pairs, Fb += pairs, Ba += pairs;
  // 5. B1 F1&B0
  repeat(sink, inner, b.B(Bb), overlap(b.F(Fb), a.B(Ba)));
  Bb += inner, Ba += inner;
  // 6. B1 B0, turning half way from B to I; the W of every I waits in a queue, first in, first out
  const std::int64_t whole = (h + 1) / 2;
  repeat(sink, whole, b.B(Bb), a.B(Ba));
  Bb += whole, Ba += whole;
  const std::int64_t Wa = Ba;  // the first of each stream to wait
  if (h % 2 == 0) {
    sink(b.B(Bb++));
    sink(a.I(Ba++));
  }
  const std::int64_t Wb = Bb;
  repeat(sink, whole, b.I(Bb), a.I(Ba));
  Ba += whole;
  // The queue holds the h + 1 I of step 6, alternating and ending with one of a, then the I of step 7, all of a.
  const auto waiting = [&](std::int64_t k) {
    if (k > h) return a.W(Wa + h / 2 + k - h);
    return (h - k) % 2 == 0 ? a.W(Wa + k / 2) : b.W(Wb + k / 2);
  };
  // 7. W I0
  std::int64_t k = 0;
  for (; k < inner; ++k) {
    sink(waiting(k));
    sink(a.I(Ba++));
  }
  // 8. W
  for (; k < H; ++k) sink(waiting(k));
}

}  // namespace detail

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_dualpipe(const pipeline_params& p, std::int64_t rank, Sink&& sink) {
  require(dualpipe_rule, p, rank);
  const std::int64_t accepted = std::max(p.micro + p.micro % 2, 2 * p.pp);
  const std::int64_t first_up = (p.micro + 1) / 2;  // replica 1 starts with this micro-batch
  const stage_ops down(rank, 0), up(p.pp - 1 - rank, 1, first_up);
  const bool upper = rank < p.pp / 2;
  const auto emit = [&](auto& to) {
    detail::emit_two_streams(p.pp / 2, std::min(rank, p.pp - 1 - rank), accepted / 2, upper ? down : up,
                             upper ? up : down, to);
  };
  emit_truncated(sink, p.micro == accepted, first_up, p.micro, p.forward_only, emit);
}

/// DualPipe for every even pp and every micro >= 1. Where the reference accepts the numbers (micro even and at least
/// 2 pp) the order is its own; elsewhere it is that of the next accepted number of micro-batches without the surplus
/// ones. In the accepted range, with F = I = W and F&B = F + B, the bubble is (pp/2-1)(F&B + B - 3W); every rank keeps
/// pp + 1 activations there, and no more elsewhere. The parameters of every stage are held twice.
/// `static_assert(verify(make_dualpipe_schedule({.pp = 8, .micro = 20})))` compiles within the default limits of g++ and
/// clang. @throws schedule_error on bad parameters. Linear in the number of cells, but for pp^2 if micro < 2 pp.
constexpr schedule make_dualpipe_schedule(const pipeline_params& p) {
  require(dualpipe_rule, p);
  return make_schedule(dualpipe_rule, p, placement::bidirectional(p.pp, p.micro),
                       [&](std::int64_t r, auto& sink) { emit_dualpipe(p, r, sink); });
}

/// The row of one rank alone; linear in its length and, if micro < 2 pp, in pp.
constexpr std::vector<cell> make_dualpipe_row(const pipeline_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_dualpipe(p, r, sink); }, rank);
}

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_dualpipev(const pipeline_params& p, std::int64_t rank, Sink&& sink) {
  require(dualpipev_rule, p, rank);
  const std::int64_t accepted = std::max(p.micro, 2 * p.pp);
  const stage_ops down(rank, 0), back(2 * p.pp - 1 - rank, 1);
  const auto emit = [&](auto& to) { detail::emit_two_streams(p.pp, rank, accepted, down, back, to); };
  emit_truncated(sink, p.micro == accepted, p.micro, p.micro, p.forward_only, emit);
}

/// DualPipeV ("cut in half") for every pp >= 1 and micro >= 1: 2 pp stages, rank r hosts r and 2pp-1-r. Where the
/// reference accepts the numbers (micro >= 2 pp) the order is its own; elsewhere it is that of micro = 2 pp without the
/// surplus micro-batches. For micro >= 2 pp, F = I = W and F&B = F + B, all of one stage: bubble (pp-1)(F&B + B - 3W);
/// every rank keeps 2 pp + 1 activations of one stage.
/// @throws schedule_error on bad parameters. Linear in the number of cells, but for pp^2 if micro < 2 pp.
constexpr schedule make_dualpipev_schedule(const pipeline_params& p) {
  require(dualpipev_rule, p);
  return make_schedule(dualpipev_rule, p, placement::vee(p.pp),
                       [&](std::int64_t r, auto& sink) { emit_dualpipev(p, r, sink); });
}

/// The row of one rank alone; linear in its length and, if micro < 2 pp, in pp.
constexpr std::vector<cell> make_dualpipev_row(const pipeline_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_dualpipev(p, r, sink); }, rank);
}

}  // namespace pipesched
