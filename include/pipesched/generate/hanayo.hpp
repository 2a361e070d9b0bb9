// SPDX-License-Identifier: MIT
#pragma once

// Hanayo: Chimera's two directions folded into waves, so that one copy of the parameters is enough. In each wave a
// micro-batch runs down the ranks and back up.

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

/// `make_hanayo_schedule({.pp = 4, .micro = 8, .waves = 2})`
struct hanayo_params {
  std::int64_t pp;            ///< pipeline ranks
  std::int64_t micro;         ///< micro-batches per step, any number
  std::int64_t waves = 1;     ///< 2 stages per rank and wave, 1 to 128
  bool forward_only = false;  ///< evaluation

  constexpr operator family_params() const {  // NOLINT: all else at its default
    return {.pp = pp, .micro = micro, .forward_only = forward_only, .waves = waves};
  }
};

inline constexpr family hanayo_family{
    .name = "hanayo",
    .summary = "Chimera folded into waves: two stages per rank and wave, one copy of the parameters",
    .source =
        "Liu et al., Hanayo (arXiv 2308.15762), which gives its order in pictures; this order follows from its "
        "construction out of Chimera",
    .limits = {.takes = {parameter::waves}},
    .place = [](const family_params& p) { return placement::wave(p.pp, waves_of(p)); },
    .emit =
        [](const family_params& p, std::int64_t rank, auto& sink) {
          const std::int64_t units = (p.micro + p.pp - 1) / p.pp;
          const auto stage = [&](std::int64_t j) {
            return stage_ops(j % 2 == 0 ? j * p.pp + rank : (j + 1) * p.pp - 1 - rank, j);
          };
          emit_truncated(sink, p.micro == units * p.pp, p.micro, p.micro,
                         [&](auto& to) { detail::emit_waves(p.pp, rank, waves_of(p), units, stage, to); });
        },
    .peak =
        [](const family_params& p, std::int64_t rank) {
          return activation_peak{(2 * waves_of(p) - 1) * p.pp + 1 + rank, p.micro >= p.pp};
        },
    .unit_bubble = [](const family_params& p) -> std::optional<std::int64_t> {
      if (p.micro != p.pp) return std::nullopt;  // for F != B it grows with the number of units
      return 2 * (p.pp - 1) * 2;
    }};

/// Hanayo for every pp >= 1, micro >= 1 and number of waves: 2 waves stages per rank, units of pp micro-batches. The
/// bubble of one unit, and of any number of units if F = B, is 2(pp-1)B of one stage, for any number of waves; more
/// waves mean smaller stages. For F != B it grows with the number of units, like Chimera's. Rank r keeps at most 2
/// waves pp - pp + 1 + r activations of one stage.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_hanayo_schedule(const hanayo_params& p) { return hanayo_family.make(p); }

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_hanayo_row(const hanayo_params& p, std::integral auto rank) {
  return hanayo_family.row(p, rank);
}

}  // namespace pipesched
