// SPDX-License-Identifier: MIT
#pragma once

// Chimera: micro-batches enter from both ends of the pipeline and every stage is held twice, so that each rank fills
// the bubbles of one direction with ops of the other.
// Source: Li and Hoefler, "Chimera" (arXiv 2107.06925), section 3, with direct concatenation for more micro-batches
// than ranks.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/waves.hpp"
#include "pipesched/generate/emitter.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/generate/truncate.hpp"

namespace pipesched {

inline constexpr family_limits chimera_limits{.family = "chimera", .even_pp = true};

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_chimera(const pipeline_params& p, std::int64_t rank, Sink&& sink) {
  require(chimera_limits, p, rank);
  const std::int64_t half = p.pp / 2, first_up = (p.micro + 1) / 2, units = (first_up + half - 1) / half;
  const stage_ops down(rank, 0), up(p.pp - 1 - rank, 1, first_up);
  const auto stage = [&](std::int64_t j) { return (j == 0) == (rank < half) ? down : up; };
  const auto emit = [&](auto& to) { detail::emit_waves(half, std::min(rank, p.pp - 1 - rank), 1, units, stage, to); };
  emit_truncated(sink, p.micro == units * p.pp, first_up, p.micro, p.forward_only, emit);
}

/// Chimera for every even pp and every micro >= 1: units of pp micro-batches, half of them from each end, directly
/// concatenated; if pp does not divide micro, the last unit is incomplete. For F <= B the bubble of one whole unit is
/// (pp-2)B. For F = B it is the same for any number of units; otherwise every further unit adds to it, as the paper
/// says. Rank r keeps at most pp/2 + 1 + min(r, pp-1-r) activations. The parameters of every stage are held twice.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_chimera_schedule(const pipeline_params& p) {
  require(chimera_limits, p);
  return detail::assemble(chimera_limits, p, placement::bidirectional(p.pp, p.micro),
                          [&](std::int64_t r, auto& sink) { emit_chimera(p, r, sink); });
}

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_chimera_row(const pipeline_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_chimera(p, r, sink); }, rank);
}

}  // namespace pipesched
