// SPDX-License-Identifier: MIT
#pragma once

// Group-interleaved 1F1B: interleaved 1F1B with half the warm-up and the backward split, each W right after its I,
// which keeps fewer activations.
// Source: Wan et al., "PipeOffload" (arXiv 2503.01328), section 3; the order is that of the authors' scheduler.

#include <cstdint>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/chunk_walk.hpp"
#include "pipesched/generate/emitter.hpp"
#include "pipesched/generate/interleaved_params.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

inline constexpr family_limits group_interleaved_limits{.family = "group_interleaved",
                                                        .takes = {parameter::chunks, parameter::group_size}};

namespace detail {

constexpr void require_group(const interleaved_params& p) {
  if (!p.group_size) return;
  const std::int64_t least = (p.pp + 1) / 2;
  if (*p.group_size < least || *p.group_size > p.pp)
    throw schedule_error(concat({group_interleaved_limits.family, " needs groups of pp/2 = ", least, " to pp = ", p.pp,
                                 " micro-batches; got group_size = ", *p.group_size, ", nearest ",
                                 *p.group_size < least ? least : p.pp}));
}

}  // namespace detail

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_group_interleaved(const interleaved_params& p, std::int64_t rank, Sink&& sink) {
  detail::require_rank(group_interleaved_limits, p, rank);
  detail::require_group(p);
  detail::pad_to_whole_groups(p, p.group_size.value_or(p.pp), sink, [&](const interleaved_params& whole, auto& to) {
    detail::emit_whole_interleaved_zb(whole, rank, 0, to);
  });
}

/// Group-interleaved 1F1B for every pp, micro, chunks >= 1. Rank r keeps (chunks-1) group_size + pp - r activations of
/// one stage. Groups are of pp micro-batches (GIS, the default) or, down to pp/2, of fewer (GIS-H: less memory, a
/// bubble that is (pp - group_size)(chunks - 1) F longer); the surplus of the last group is left out. With groups of
/// pp, micro a multiple of pp and F = I = W, the bubble is 2(pp-1)F of one stage. Takes neither extra_warm_up nor
/// overlap.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_group_interleaved_schedule(const interleaved_params& p) {
  detail::require(group_interleaved_limits, p);
  detail::require_group(p);
  return detail::assemble(group_interleaved_limits, {.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only},
                          placement::looped(p.pp, p.chunks),
                          [&](std::int64_t r, auto& sink) { emit_group_interleaved(p, r, sink); });
}

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_group_interleaved_row(const interleaved_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_group_interleaved(p, r, sink); }, rank);
}

}  // namespace pipesched
