// SPDX-License-Identifier: MIT
#pragma once

// Looped BFS: all micro-batches pass through a chunk before the next chunk starts, and back in reverse order, so that
// every rank gathers the parameters of each stage once per direction.

#include <concepts>
#include <cstdint>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/interleaved_params.hpp"
#include "pipesched/generate/sink.hpp"

namespace pipesched {

inline constexpr family looped_bfs_family{
    .name = "looped_bfs",
    .summary = "several stages per rank; all micro-batches pass one before the next starts",
    .source =
        "Lamy-Poirier, Breadth-First Pipeline Parallelism (arXiv 2211.05953); the order is that of PyTorch's "
        "ScheduleLoopedBFS",
    .limits = {.takes = {parameter::chunks}},
    .place = looped_placement,
    .emit =
        [](const family_params& p, std::int64_t rank, auto& sink) {
          const std::int64_t chunks = chunks_of(p);
          for (std::int64_t chunk = 0; chunk < chunks; ++chunk)
            repeat(sink, p.micro, stage_ops(chunk * p.pp + rank, chunk).F(0));
          if (p.forward_only) return;
          for (std::int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
            const stage_ops stage(chunk * p.pp + rank, chunk);
            for (std::int64_t k = p.micro - 1; k >= 0; --k) sink(stage.B(k));
          }
        },
    .peak = [](const family_params& p, std::int64_t) { return activation_peak{p.micro * chunks_of(p)}; }};

/// Looped BFS for every pp, micro, chunks >= 1. Every rank keeps micro * chunks activations of one stage. Takes neither
/// group_size nor extra_warm_up nor overlap.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_looped_bfs_schedule(const interleaved_params& p) { return looped_bfs_family.make(p); }

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_looped_bfs_row(const interleaved_params& p, std::integral auto rank) {
  return looped_bfs_family.row(p, rank);
}

}  // namespace pipesched
