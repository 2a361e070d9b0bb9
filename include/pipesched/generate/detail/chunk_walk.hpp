// SPDX-License-Identifier: MIT
#pragma once

// The order in which interleaved families pass micro-batches through the chunks of a rank, and the interleaved order
// with the backward split.

#include <algorithm>
#include <cstdint>

#include "pipesched/core/op.hpp"
#include "pipesched/generate/interleaved_params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/generate/truncate.hpp"

namespace pipesched::detail {

// The group size of interleaved 1F1B and zero bubble. PyTorch makes micro / pp rounds and requires micro to be a
// multiple of that; otherwise groups are of pp micro-batches, as in Megatron.
constexpr std::int64_t group_size_of(const interleaved_params& p) {
  if (p.group_size) return std::min(*p.group_size, p.micro);
  const std::int64_t rounds = std::max<std::int64_t>(1, p.micro / p.pp);
  return p.micro % rounds == 0 ? p.micro / rounds : p.pp;
}

// Emits whole groups and drops the surplus micro-batches of the last one.
template <cell_sink Sink, typename Emit>
constexpr void pad_to_whole_groups(interleaved_params p, std::int64_t group, Sink& sink, Emit&& emit) {
  const std::int64_t micro = p.micro;
  p.group_size = group;
  p.micro = (micro + group - 1) / group * group;
  emit_truncated(sink, p.micro == micro, micro, micro, [&](auto& to) { emit(p, to); });
}

// A cursor over all micro-batches of all chunks, group by group, through the chunks in ascending or descending order.
// @pre group_size is given and divides micro
class chunk_walk {
 public:
  constexpr chunk_walk(const interleaved_params& p, std::int64_t rank, bool backwards)
      : p_(p), rank_(rank), group_(*p.group_size), backwards_(backwards) {
    start_group(0);
  }

  /// The ops of the current chunk, starting with its next micro-batch: `ops().F(0)`.
  constexpr stage_ops ops() const {
    const std::int64_t chunk = backwards_ ? p_.chunks - 1 - turn_ : turn_;
    return {chunk * p_.pp + rank_, chunk, next_};
  }
  /// The number of consecutive micro-batches left in this chunk.
  constexpr std::int64_t run() const { return end_ - next_; }
  constexpr void advance(std::int64_t n) {
    next_ += n;
    if (next_ < end_) return;
    if (++turn_ < p_.chunks)
      next_ = begin_;
    else if (end_ < p_.micro)
      start_group(end_);
  }

 private:
  constexpr void start_group(std::int64_t begin) {
    turn_ = 0;
    begin_ = next_ = begin;
    end_ = begin + group_;
  }

  const interleaved_params& p_;
  std::int64_t rank_, group_;
  bool backwards_;
  std::int64_t turn_ = 0, begin_ = 0, next_ = 0, end_ = 0;
};

// Emits the next `n` ops of one walk.
template <cell_sink Sink>
constexpr void emit_walk(Sink& sink, std::int64_t n, chunk_walk& walk, pass p) {
  while (n > 0) {
    const std::int64_t run = std::min(n, walk.run());
    repeat(sink, run, cell(walk.ops().make(p, 0)));
    walk.advance(run);
    n -= run;
  }
}

// The interleaved order with the backward split, each W `delay` I's after its own I.
template <cell_sink Sink>
constexpr void emit_whole_interleaved_zb(const interleaved_params& p, std::int64_t rank, std::int64_t delay,
                                         Sink& sink) {
  const std::int64_t all = p.micro * p.chunks;
  chunk_walk forwards(p, rank, false), inputs(p, rank, true), weights(p, rank, true);
  if (p.forward_only) return emit_walk(sink, p.micro * p.chunks, forwards, pass::forward);
  const std::int64_t warm_up = std::min((p.chunks - 1) * *p.group_size + p.pp - 1 - rank, all);
  emit_walk(sink, warm_up, forwards, pass::forward);
  // The k-th I follows a forward while forwards are left, and from k = delay on the oldest pending W follows it.
  for (std::int64_t k = 0; k < all;) {
    const bool has_forward = k < all - warm_up, has_weight = k >= delay;
    std::int64_t run = std::min(inputs.run(), (has_forward ? all - warm_up : all) - k);
    if (has_forward) run = std::min(run, forwards.run());
    run = std::min(run, has_weight ? weights.run() : delay - k);
    const cell F = forwards.ops().F(0), I = inputs.ops().I(0), W = weights.ops().W(0);
    if (has_forward && has_weight)
      repeat(sink, run, F, I, W);
    else if (has_forward)
      repeat(sink, run, F, I);
    else if (has_weight)
      repeat(sink, run, I, W);
    else
      repeat(sink, run, I);
    if (has_forward) forwards.advance(run);
    if (has_weight) weights.advance(run);
    inputs.advance(run);
    k += run;
  }
  emit_walk(sink, std::min(delay, all), weights, pass::backward_weight);
}

}  // namespace pipesched::detail
