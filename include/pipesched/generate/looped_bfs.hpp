// SPDX-License-Identifier: MIT
#pragma once

// Looped BFS: all micro-batches pass through a chunk before the next chunk starts, and back in reverse order, so that
// every rank gathers the parameters of each stage once per direction.
// Source: Lamy-Poirier, "Breadth-First Pipeline Parallelism" (arXiv 2211.05953); the order is that of PyTorch's
// ScheduleLoopedBFS.

#include <cstdint>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/emitter.hpp"
#include "pipesched/generate/interleaved_params.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"

namespace pipesched {

inline constexpr family_limits looped_bfs_limits{.family = "looped_bfs", .takes = {parameter::chunks}};

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_looped_bfs(const interleaved_params& p, std::int64_t rank, Sink&& sink) {
  detail::require_rank(looped_bfs_limits, p, rank);
  for (std::int64_t chunk = 0; chunk < p.chunks; ++chunk)
    repeat(sink, p.micro, stage_ops(chunk * p.pp + rank, chunk).F(0));
  if (p.forward_only) return;
  for (std::int64_t chunk = p.chunks - 1; chunk >= 0; --chunk)
    for (std::int64_t k = p.micro - 1; k >= 0; --k) sink(stage_ops(chunk * p.pp + rank, chunk).B(k));
}

/// Looped BFS for every pp, micro, chunks >= 1. Every rank keeps micro * chunks activations of one stage. Takes neither
/// group_size nor extra_warm_up nor overlap.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_looped_bfs_schedule(const interleaved_params& p) {
  detail::require(looped_bfs_limits, p);
  return detail::assemble(looped_bfs_limits, {.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only},
                          placement::looped(p.pp, p.chunks),
                          [&](std::int64_t r, auto& sink) { emit_looped_bfs(p, r, sink); });
}

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_looped_bfs_row(const interleaved_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_looped_bfs(p, r, sink); }, rank);
}

}  // namespace pipesched
