// SPDX-License-Identifier: MIT
#pragma once

// Hanayo.

#include <cstdint>
#include <vector>

#include "pipesched/error.hpp"
#include "pipesched/generate/detail/waves.hpp"
#include "pipesched/generate/emitter.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/generate/truncate.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

/// `make_hanayo_schedule({.pp = 4, .micro = 8, .waves = 2})`
struct hanayo_params {
  std::int64_t pp;         ///< pipeline ranks
  std::int64_t micro;      ///< micro-batches of the step, any number
  std::int64_t waves = 1;  ///< how often the stages run down the ranks and back: 2 stages a rank each time, 1 ... 128
  bool forward_only = false;  ///< evaluation
};

inline constexpr family_limits hanayo_limits{.family = "hanayo", .takes = {parameter::waves}};

namespace detail {

constexpr void require(const hanayo_params& p) {
  if (p.waves < 1 || p.waves > max_chunks / 2)
    throw schedule_error(
        concat({"hanayo needs 1 to 128 waves; got waves = ", p.waves, ", nearest ", p.waves < 1 ? 1 : max_chunks / 2}));
  family_limits rule = hanayo_limits;
  rule.stages_per_rank = 2 * p.waves;
  pipesched::require(rule, {.pp = p.pp, .micro = p.micro});
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

/// Hanayo for every pp >= 1, micro >= 1 and wave number: 2 waves stages a rank, units of pp micro-batches. The paper gives
/// its order in pictures; this is the one that its construction from Chimera leads to. The bubble is 2(pp-1)B of one stage
/// where Chimera's is (pp-2)B, and grows where Chimera's does, whatever the waves: the more waves, the smaller the stages.
/// Rank r keeps at most 2 waves pp - pp + 1 + r activations of one stage.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_hanayo_schedule(const hanayo_params& p) {
  detail::require(p);
  return detail::assemble(hanayo_limits, {.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only},
                          placement::wave(p.pp, p.waves), [&](std::int64_t r, auto& sink) { emit_hanayo(p, r, sink); });
}

/// The row of one rank; linear in its length.
constexpr std::vector<cell> make_hanayo_row(const hanayo_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_hanayo(p, r, sink); }, rank);
}

}  // namespace pipesched
