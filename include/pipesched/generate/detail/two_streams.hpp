// SPDX-License-Identifier: MIT
#pragma once

// The order that DualPipe and DualPipeV share: two streams of micro-batches meet on every rank, and the forwards of one
// are overlapped with the backwards of the other.
// Source: the eight steps of deepseek-ai/DualPipe 3da1bbe.

#include <cstdint>

#include "pipesched/generate/sink.hpp"
#include "pipesched/generate/truncate.hpp"

namespace pipesched::detail {

// Emits the row of a rank that is `h` ranks away from the outer end of `H` ranks. `a` is the stage whose micro-batches
// reach the rank first, `b` the other one; `n` micro-batches pass through each.
// @pre n >= 2H
template <cell_sink Sink>
constexpr void emit_two_streams(std::int64_t H, std::int64_t h, std::int64_t n, stage_ops a, stage_ops b, Sink& sink) {
  const std::int64_t inner = H - h - 1;         // ranks between this one and the middle
  std::int64_t Fa = 0, Fb = 0, Ba = 0, Bb = 0;  // the next micro-batch of each
  // 1. F0
  repeat(sink, 2 * inner, a.F(0));
  Fa = 2 * inner;
  // 2. F0 F1
  repeat(sink, h + 1, a.F(Fa), b.F(0));
  Fa += h + 1, Fb = h + 1;
  // 3. I1 W1 F1
  repeat(sink, inner, b.I(0), b.W(0), b.F(Fb));
  Bb = inner, Fb += inner;
  // 4. F0&B1 F1&B0. The first F0&B1 of the middle ranks is not overlapped, which shortens the bubble further.
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
  // 6. B1 B0, the second half of them as I. The W of each I goes into a FIFO queue.
  const std::int64_t whole = (h + 1) / 2;
  repeat(sink, whole, b.B(Bb), a.B(Ba));
  Bb += whole, Ba += whole;
  const std::int64_t Wa = Ba;  // the first W of each stream in the queue
  if (h % 2 == 0) {
    sink(b.B(Bb++));
    sink(a.I(Ba++));
  }
  const std::int64_t Wb = Bb;
  repeat(sink, whole, b.I(Bb), a.I(Ba));
  Ba += whole;
  // The queue holds the W's of the h + 1 I's of step 6, alternating and ending with one of a, then those of step 7, all
  // of a.
  const auto queued = [&](std::int64_t k) {
    if (k > h) return a.W(Wa + h / 2 + k - h);
    return (h - k) % 2 == 0 ? a.W(Wa + k / 2) : b.W(Wb + k / 2);
  };
  // 7. W I0
  std::int64_t k = 0;
  for (; k < inner; ++k) {
    if (drops_rest(sink, queued(k), queued(k + 1), a.I(Ba))) return;
    sink(queued(k));
    sink(a.I(Ba++));
  }
  // 8. W
  for (; k < H; ++k) {
    if (drops_rest(sink, queued(k), queued(k + 1))) return;
    sink(queued(k));
  }
}

}  // namespace pipesched::detail
