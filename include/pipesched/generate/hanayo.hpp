// SPDX-License-Identifier: MIT
#pragma once

// Hanayo: Chimera's two directions folded into waves, so that one copy of the parameters is enough. In each wave a
// micro-batch runs down the ranks and back up.
// Source: Liu et al., "Hanayo" (arXiv 2308.15762). The paper gives its order in pictures; this order follows from its
// construction out of Chimera.

#include <cstdint>
#include <vector>

#include "pipesched/core/schedule.hpp"
#include "pipesched/generate/detail/waves.hpp"
#include "pipesched/generate/emitter.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/generate/truncate.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// `make_hanayo_schedule({.pp = 4, .micro = 8, .waves = 2})`
struct hanayo_params {
  std::int64_t pp;            ///< pipeline ranks
  std::int64_t micro;         ///< micro-batches per step, any number
  std::int64_t waves = 1;     ///< 2 stages per rank and wave, 1 to 128
  bool forward_only = false;  ///< evaluation
};

inline constexpr family_limits hanayo_limits{.family = "hanayo", .takes = {parameter::waves}};

namespace detail {

constexpr void require(const hanayo_params& p) {
  if (p.waves < 1 || p.waves > max_chunks / 2)
    throw schedule_error(
        concat({"hanayo needs 1 to 128 waves; got waves = ", p.waves, ", nearest ", p.waves < 1 ? 1 : max_chunks / 2}));
  family_limits with_waves = hanayo_limits;
  with_waves.stages_per_rank = 2 * p.waves;
  pipesched::require(with_waves, {.pp = p.pp, .micro = p.micro});
}

}  // namespace detail

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_hanayo(const hanayo_params& p, std::int64_t rank, Sink&& sink) {
  detail::require(p);
  require(hanayo_limits, {.pp = p.pp, .micro = 1}, rank);
  const std::int64_t units = (p.micro + p.pp - 1) / p.pp;
  const auto stage = [&](std::int64_t j) {
    return stage_ops(j % 2 == 0 ? j * p.pp + rank : (j + 1) * p.pp - 1 - rank, j);
  };
  const auto emit = [&](auto& to) { detail::emit_waves(p.pp, rank, p.waves, units, stage, to); };
  emit_truncated(sink, p.micro == units * p.pp, p.micro, p.micro, p.forward_only, emit);
}

/// Hanayo for every pp >= 1, micro >= 1 and number of waves: 2 waves stages per rank, units of pp micro-batches. The
/// bubble of one unit, and of any number of units if F = B, is 2(pp-1)B of one stage, for any number of waves; more
/// waves mean smaller stages. For F != B it grows with the number of units, like Chimera's. Rank r keeps at most 2
/// waves pp - pp + 1 + r activations of one stage.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_hanayo_schedule(const hanayo_params& p) {
  detail::require(p);
  return detail::assemble(hanayo_limits, {.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only},
                          placement::wave(p.pp, p.waves), [&](std::int64_t r, auto& sink) { emit_hanayo(p, r, sink); });
}

/// The row of one rank. Linear in its length, independent of the number of ranks.
constexpr std::vector<cell> make_hanayo_row(const hanayo_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_hanayo(p, r, sink); }, rank);
}

}  // namespace pipesched
