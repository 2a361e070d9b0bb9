// SPDX-License-Identifier: MIT
#pragma once

// The families on a looped placement, rank r hosting stages r, P + r, 2P + r, ...: interleaved 1F1B, its zero-bubble form,
// group-interleaved 1F1B and looped BFS. Micro-batches go through a rank's chunks in groups: a group through the first
// chunk, then through the second, ..., then the next group.
// Source: Narayanan et al., "Efficient Large-Scale Language Model Training" (arXiv 2104.04473), section 2.2, and the orders
// of PyTorch's ScheduleInterleaved1F1B, ScheduleInterleavedZeroBubble and ScheduleLoopedBFS; looped BFS: Lamy-Poirier,
// "Breadth-First Pipeline Parallelism" (arXiv 2211.05953).

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pipesched/error.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

/// `make_interleaved_1f1b_schedule({.pp = 4, .micro = 8, .chunks = 2})`
struct interleaved_params {
  std::int64_t pp;              ///< pipeline ranks
  std::int64_t micro;           ///< micro-batches of the step, any number
  std::int64_t chunks;          ///< stages a rank, 1 ... 256
  bool forward_only = false;    ///< evaluation
  std::int64_t group_size = 0;  ///< micro-batches a group; 0: the family's own, see there
  bool extra_warm_up = false;   ///< one more forward before the first backward of each rank
  bool overlap = false;         ///< F&B pairs in the steady state; takes the extra forward along
};

/// Those of a tool's parameters that interleaved families know.
constexpr interleaved_params interleaved_of(const schedule_params& p) {
  return {.pp = p.pp,
          .micro = p.micro,
          .chunks = p.chunks,
          .forward_only = p.forward_only,
          .group_size = p.group_size,
          .extra_warm_up = p.extra_warm_up,
          .overlap = p.overlap};
}

inline constexpr family_limits interleaved_1f1b_rule{.family = "interleaved_1f1b"};
inline constexpr family_limits interleaved_zb_rule{.family = "interleaved_zb"};
inline constexpr family_limits looped_bfs_rule{.family = "looped_bfs"};
inline constexpr family_limits group_interleaved_rule{.family = "group_interleaved"};

namespace detail {

constexpr void require(const family_limits& family, const interleaved_params& p) {
  if (p.chunks < 1 || p.chunks > max_chunks)
    throw schedule_error(concat({family.family, " needs 1 to 256 chunks a rank; got chunks = ", p.chunks, ", nearest ",
                                 p.chunks < 1 ? 1 : max_chunks}));
  family_limits rule = family;
  rule.stages_per_rank = p.chunks;
  pipesched::require(rule, {.pp = p.pp, .micro = p.micro});
  if (p.group_size == 0 || family.family == looped_bfs_rule.family) return;
  if (family.family == group_interleaved_rule.family) {
    const std::int64_t least = (p.pp + 1) / 2;
    if (p.group_size < least || p.group_size > p.pp)
      throw schedule_error(concat({family.family, " needs groups of pp/2 = ", least, " to pp = ", p.pp,
                                   " micro-batches; got group_size = ", p.group_size, ", nearest ",
                                   p.group_size < least ? least : p.pp}));
    return;
  }
  const std::int64_t least = std::min(p.pp, p.micro);
  if (p.group_size < least)
    throw schedule_error(
        concat({family.family, " needs groups of at least pp micro-batches, or of all of them; got group_size = ",
                p.group_size, ", nearest ", least}));
}

constexpr void require_rank(const family_limits& family, const interleaved_params& p, std::int64_t rank) {
  require(family, p);
  pipesched::require(family, {.pp = p.pp, .micro = 1}, rank);
}

// PyTorch makes as many rounds as pp goes into micro and asks that micro be a multiple of that; where it is not, groups are
// of pp micro-batches, as Megatron's are.
constexpr std::int64_t group_size_of(const interleaved_params& p) {
  if (p.group_size != 0) return std::min(p.group_size, p.micro);
  const std::int64_t rounds = std::max<std::int64_t>(1, p.micro / p.pp);
  return p.micro % rounds == 0 ? p.micro / rounds : p.pp;
}

// Runs a rule for whole groups, and leaves out the micro-batches that the last group has too many.
template <cell_sink Sink, typename Rule>
constexpr void pad_to_whole_groups(interleaved_params p, std::int64_t group, Sink& sink, Rule&& rule) {
  const std::int64_t micro = p.micro;
  p.group_size = group;
  p.micro = (micro + group - 1) / group * group;
  emit_truncated(sink, p.micro == micro, micro, micro, false, [&](auto& to) { rule(p, to); });
}

// Goes through all micro-batches of all chunks, group by group, forwards through the chunks or backwards.
// @pre micro is a multiple of group_size
class chunk_walk {
 public:
  constexpr chunk_walk(const interleaved_params& p, std::int64_t rank, bool backwards)
      : p_(p), rank_(rank), group_(p.group_size), backwards_(backwards) {
    start_group(0);
  }

  /// The ops of the chunk that is next, as of its next micro-batch: `ops().F(0)`.
  constexpr stage_ops ops() const {
    const std::int64_t chunk = backwards_ ? p_.chunks - 1 - turn_ : turn_;
    return {chunk * p_.pp + rank_, chunk, next_};
  }
  /// How many micro-batches of this chunk follow each other.
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

// The next `n` of one walk.
template <cell_sink Sink>
constexpr void emit_walk(Sink& sink, std::int64_t n, chunk_walk& walk, pass p) {
  while (n > 0) {
    const std::int64_t run = std::min(n, walk.run());
    repeat(sink, run, cell(walk.ops().make(p, 0)));
    walk.advance(run);
    n -= run;
  }
}

template <cell_sink Sink>
constexpr void emit_whole_interleaved_1f1b(const interleaved_params& p, std::int64_t rank, Sink& sink) {
  const std::int64_t all = p.micro * p.chunks;
  chunk_walk forwards(p, rank, false), backwards(p, rank, true);
  if (p.forward_only) return emit_walk(sink, all, forwards, pass::forward);
  const std::int64_t ahead = (p.chunks - 1) * p.group_size + 2 * (p.pp - 1 - rank);
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

// The backward split, each W `behind` I's behind its own.
template <cell_sink Sink>
constexpr void emit_whole_interleaved_zb(const interleaved_params& p, std::int64_t rank, std::int64_t behind,
                                         Sink& sink) {
  const std::int64_t all = p.micro * p.chunks;
  chunk_walk forwards(p, rank, false), inputs(p, rank, true), weights(p, rank, true);
  if (p.forward_only) return emit_walk(sink, all, forwards, pass::forward);
  const std::int64_t warm_up = std::min((p.chunks - 1) * p.group_size + p.pp - 1 - rank, all);
  emit_walk(sink, warm_up, forwards, pass::forward);
  // The k-th I follows a forward while there are any, and is followed by the oldest W that waits from k = behind on.
  for (std::int64_t k = 0; k < all;) {
    const bool has_forward = k < all - warm_up, has_weight = k >= behind;
    std::int64_t run = std::min(inputs.run(), (has_forward ? all - warm_up : all) - k);
    if (has_forward) run = std::min(run, forwards.run());
    run = std::min(run, has_weight ? weights.run() : behind - k);
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
  emit_walk(sink, std::min(behind, all), weights, pass::backward_weight);
}

}  // namespace detail

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_interleaved_1f1b(const interleaved_params& p, std::int64_t rank, Sink&& sink) {
  detail::require_rank(interleaved_1f1b_rule, p, rank);
  detail::pad_to_whole_groups(p, detail::group_size_of(p), sink, [&](const interleaved_params& whole, auto& to) {
    detail::emit_whole_interleaved_1f1b(whole, rank, to);
  });
}

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_interleaved_zb(const interleaved_params& p, std::int64_t rank, Sink&& sink) {
  detail::require_rank(interleaved_zb_rule, p, rank);
  detail::pad_to_whole_groups(p, detail::group_size_of(p), sink, [&](const interleaved_params& whole, auto& to) {
    detail::emit_whole_interleaved_zb(whole, rank, rank, to);
  });
}

/// Emits the row of one rank. @throws schedule_error on bad parameters. @pre extra_warm_up, overlap are not used
template <cell_sink Sink>
constexpr void emit_group_interleaved(const interleaved_params& p, std::int64_t rank, Sink&& sink) {
  detail::require_rank(group_interleaved_rule, p, rank);
  const std::int64_t group = p.group_size != 0 ? p.group_size : p.pp;
  detail::pad_to_whole_groups(p, group, sink, [&](const interleaved_params& whole, auto& to) {
    detail::emit_whole_interleaved_zb(whole, rank, 0, to);
  });
}

/// Emits the row of one rank. @throws schedule_error on bad parameters. @pre group_size, extra_warm_up, overlap are not
/// used
template <cell_sink Sink>
constexpr void emit_looped_bfs(const interleaved_params& p, std::int64_t rank, Sink&& sink) {
  detail::require_rank(looped_bfs_rule, p, rank);
  for (std::int64_t chunk = 0; chunk < p.chunks; ++chunk)
    repeat(sink, p.micro, stage_ops(chunk * p.pp + rank, chunk).F(0));
  if (p.forward_only) return;
  for (std::int64_t chunk = p.chunks - 1; chunk >= 0; --chunk)
    for (std::int64_t k = p.micro - 1; k >= 0; --k) sink(stage_ops(chunk * p.pp + rank, chunk).B(k));
}

/// Interleaved 1F1B for every pp, micro, chunks >= 1. Where PyTorch accepts the numbers (micro a multiple of
/// max(1, micro / pp)) and no group size is given, the order is PyTorch's; elsewhere, which PyTorch refuses, groups are of
/// pp micro-batches and the surplus of the last one is left out. For micro a multiple of pp and
/// groups of pp: bubble (pp-1)(F+B) of one chunk. Rank r keeps min(micro * chunks, (chunks-1) group + 2(pp-1-r) + 1) chunk
/// activations, one more with extra_warm_up or overlap.
/// With `overlap`, cells F&B as Megatron, MindSpeed and Kimi K2 run them to hide expert all-to-all without DualPipe.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_interleaved_1f1b_schedule(const interleaved_params& p) {
  detail::require(interleaved_1f1b_rule, p);
  return make_schedule(interleaved_1f1b_rule, {.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only},
                       placement::looped(p.pp, p.chunks),
                       [&](std::int64_t r, auto& sink) { emit_interleaved_1f1b(p, r, sink); });
}

/// Interleaved zero bubble: the warm-up of half the depth, the backward split, W one rank's number behind I. Limits and
/// departures from PyTorch as for interleaved 1F1B; extra_warm_up and overlap are not used.
constexpr schedule make_interleaved_zb_schedule(const interleaved_params& p) {
  detail::require(interleaved_zb_rule, p);
  return make_schedule(interleaved_zb_rule, {.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only},
                       placement::looped(p.pp, p.chunks),
                       [&](std::int64_t r, auto& sink) { emit_interleaved_zb(p, r, sink); });
}

/// Looped BFS: all micro-batches through a chunk before the next chunk, backwards in the reverse of that; every rank keeps
/// all micro * chunks activations, and gathers each stage's parameters once. Any micro >= 1.
constexpr schedule make_looped_bfs_schedule(const interleaved_params& p) {
  detail::require(looped_bfs_rule, p);
  return make_schedule(looped_bfs_rule, {.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only},
                       placement::looped(p.pp, p.chunks),
                       [&](std::int64_t r, auto& sink) { emit_looped_bfs(p, r, sink); });
}

/// Group-interleaved 1F1B for every pp, micro, chunks >= 1: half the warm-up of interleaved 1F1B, each W right behind its
/// I, so that a rank keeps (chunks-1) group_size + pp - r activations of one stage. Groups are of pp micro-batches (GIS)
/// or, down to pp/2, of fewer (GIS-H: less memory, a bubble of (pp - group_size)(chunks - 1) F more); the surplus of the
/// last one is left out. With groups of pp, micro a multiple of pp and F = I = W the bubble is 2(pp-1)F of one stage.
/// extra_warm_up and overlap are not used.
/// Source: Wan et al., "PipeOffload" (arXiv 2503.01328), section 3, and the authors' scheduler, whose order this is.
constexpr schedule make_group_interleaved_schedule(const interleaved_params& p) {
  detail::require(group_interleaved_rule, p);
  return make_schedule(group_interleaved_rule, {.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only},
                       placement::looped(p.pp, p.chunks),
                       [&](std::int64_t r, auto& sink) { emit_group_interleaved(p, r, sink); });
}

/// The row of one rank alone; its cost does not depend on the number of ranks. (All four.)
constexpr std::vector<cell> make_interleaved_1f1b_row(const interleaved_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_interleaved_1f1b(p, r, sink); }, rank);
}
constexpr std::vector<cell> make_interleaved_zb_row(const interleaved_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_interleaved_zb(p, r, sink); }, rank);
}
constexpr std::vector<cell> make_group_interleaved_row(const interleaved_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_group_interleaved(p, r, sink); }, rank);
}
constexpr std::vector<cell> make_looped_bfs_row(const interleaved_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_looped_bfs(p, r, sink); }, rank);
}

}  // namespace pipesched
