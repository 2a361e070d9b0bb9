// SPDX-License-Identifier: MIT
#pragma once

// Chimera: micro-batches enter from both ends of the pipeline and every stage is held twice, so that each rank fills
// the bubbles of one direction with ops of the other.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <optional>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/waves.hpp"
#include "pipesched/generate/family.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/generate/truncate.hpp"

namespace pipesched {

inline constexpr family chimera_family{
    .name = "chimera",
    .summary = "micro-batches from both ends, in units of pp micro-batches; even pp",
    .source =
        "Li and Hoefler, Chimera (arXiv 2107.06925), section 3, with direct concatenation for more micro-batches "
        "than ranks",
    .limits = {.even_pp = true},
    .place = bidirectional_placement,
    .emit =
        [](const family_params& p, std::int64_t rank, auto& sink) {
          const std::int64_t half = p.pp / 2, first_up = (p.micro + 1) / 2, units = (first_up + half - 1) / half;
          const stage_ops down(rank, 0), up(p.pp - 1 - rank, 1, first_up);
          const auto stage = [&](std::int64_t j) { return (j == 0) == (rank < half) ? down : up; };
          emit_truncated(sink, p.micro == units * p.pp, first_up, p.micro, [&](auto& to) {
            detail::emit_waves(half, std::min(rank, p.pp - 1 - rank), 1, units, stage, to);
          });
        },
    .peak =
        [](const family_params& p, std::int64_t rank) {
          return activation_peak{p.pp / 2 + 1 + std::min(rank, p.pp - 1 - rank), p.micro >= p.pp};
        },
    // Printed as the ratio (D-2)/(2N+D-2) for D ranks, N micro-batches and F = B. The peak is on the middle ranks.
    .formula = [](const family_params& p, const pass_times& t) -> std::optional<closed_form> {
      if (p.forward_only) return std::nullopt;
      return closed_form{
          .formula = "(PP-2)B",
          .source = "Chimera, arXiv 2107.06925, table 2",
          .assumes = "micro a multiple of pp, F = B",
          .bubble = static_cast<double>(p.pp - 2) * t.B,
          .peak_activations = static_cast<double>(std::min(p.micro, p.pp)),
          .fails = detail::first_failing({{p.micro % p.pp == 0, "micro a multiple of pp"}, {t.F == t.B, "F = B"}})};
    },
    .unit_bubble = [](const family_params& p) -> std::optional<std::int64_t> {
      if (p.micro != p.pp) return std::nullopt;  // for F < B every further unit adds to it
      return (p.pp - 2) * 2;
    }};

/// Chimera for every even pp and every micro >= 1: units of pp micro-batches, half of them from each end, directly
/// concatenated; if pp does not divide micro, the last unit is incomplete. For F <= B the bubble of one whole unit is
/// (pp-2)B. For F = B it is the same for any number of units; otherwise every further unit adds to it, as the paper
/// says. Rank r keeps at most pp/2 + 1 + min(r, pp-1-r) activations. The parameters of every stage are held twice.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_chimera_schedule(const pipeline_params& p) { return chimera_family.make(p); }

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_chimera_row(const pipeline_params& p, std::integral auto rank) {
  return chimera_family.row(p, rank);
}

}  // namespace pipesched
