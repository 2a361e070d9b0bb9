// SPDX-License-Identifier: MIT
#pragma once

// Chimera and Hanayo: a micro-batch runs down all stages, one a slot, and back up, and micro-batches start every second
// slot, so that every rank sees two streams of ops, one on even and one on odd slots. Chimera feeds the two streams from
// both ends of the pipeline and keeps every stage twice; Hanayo folds the pipeline into waves and needs one copy. With one
// wave it is Chimera cut in half.
// Source: Li and Hoefler, "Chimera" (arXiv 2107.06925), section 3, with more micro-batches than ranks by direct
// concatenation; Liu et al., "Hanayo" (arXiv 2308.15762).

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pipesched/error.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

/// `make_hanayo_schedule({.pp = 4, .micro = 8, .waves = 2})`
struct hanayo_params {
  std::int64_t pp;         ///< pipeline ranks
  std::int64_t micro;      ///< micro-batches of the step, any number
  std::int64_t waves = 1;  ///< how often the stages run down the ranks and back: 2 stages a rank each time, 1 ... 128
  bool forward_only = false;  ///< evaluation
};

inline constexpr family_limits chimera_rule{.family = "chimera", .even_pp = true};
inline constexpr family_limits hanayo_rule{.family = "hanayo"};

namespace detail {

// One of the two streams of a rank h ranks away from the crest of the wave: `unit` micro-batches forward through every
// second of the stages it visits there, then backward through the others, then the next unit. The early stream begins with
// the rank's first stage, the late one with its second.
template <typename Stage>
class wave_stream {
 public:
  constexpr wave_stream(std::int64_t unit, std::int64_t waves, bool late, const Stage& stage)
      : unit_(unit), waves_(waves), late_(late), stage_(stage) {}

  constexpr cell next() const {
    if (turn_ < waves_) return stage_(2 * turn_ + late_).F(micro_);
    return stage_(2 * (2 * waves_ - 1 - turn_) + !late_).B(micro_);
  }
  // How many micro-batches follow each other.
  constexpr std::int64_t run() const { return unit_ - done_; }
  constexpr void advance(std::int64_t n) {
    done_ += n, micro_ += n;
    if (done_ < unit_) return;
    done_ = 0;
    if (++turn_ < 2 * waves_)
      micro_ -= unit_;
    else
      turn_ = 0;
  }

 private:
  std::int64_t unit_, waves_;
  bool late_;
  const Stage& stage_;
  std::int64_t turn_ = 0, done_ = 0, micro_ = 0;
};

// The row of a rank h ranks away from the crest of a wave over `unit` ranks, which is also how many micro-batches a unit
// has. `stage(j)` makes the ops of the j-th stage that a micro-batch visits there. The late stream is unit - h ops behind.
template <cell_sink Sink, typename Stage>
constexpr void emit_waves(std::int64_t unit, std::int64_t h, std::int64_t waves, std::int64_t units, const Stage& stage,
                          Sink& sink) {
  wave_stream early(unit, waves, false, stage), late(unit, waves, true, stage);
  repeat(sink, unit - h, early.next());
  early.advance(unit - h);
  for (std::int64_t left = units * 2 * waves * unit - (unit - h); left > 0;) {
    const std::int64_t run = std::min({left, early.run(), late.run()});
    repeat(sink, run, late.next(), early.next());
    early.advance(run), late.advance(run);
    left -= run;
  }
  repeat(sink, unit - h, late.next());
}

constexpr void require(const hanayo_params& p) {
  if (p.waves < 1 || p.waves > max_chunks / 2)
    throw schedule_error(
        concat({"hanayo needs 1 to 128 waves; got waves = ", p.waves, ", nearest ", p.waves < 1 ? 1 : max_chunks / 2}));
  family_limits rule = hanayo_rule;
  rule.stages_per_rank = 2 * p.waves;
  pipesched::require(rule, {.pp = p.pp, .micro = p.micro});
}

}  // namespace detail

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_chimera(const pipeline_params& p, std::int64_t rank, Sink&& sink) {
  require(chimera_rule, p, rank);
  const std::int64_t half = p.pp / 2, first_up = (p.micro + 1) / 2, units = (first_up + half - 1) / half;
  const stage_ops down(rank, 0), up(p.pp - 1 - rank, 1, first_up);
  const auto stage = [&](std::int64_t j) { return (j == 0) == (rank < half) ? down : up; };
  const auto emit = [&](auto& to) { detail::emit_waves(half, std::min(rank, p.pp - 1 - rank), 1, units, stage, to); };
  emit_truncated(sink, p.micro == units * p.pp, first_up, p.micro, p.forward_only, emit);
}

/// Chimera for every even pp and every micro >= 1: units of pp micro-batches, half of them from each end, directly
/// concatenated; where pp does not divide micro, the last unit is left incomplete. The bubble is (pp-2)B for one whole unit
/// and F <= B, and for any number of them if F = B; otherwise every further unit adds to it, as the paper says. Rank r
/// keeps at most pp/2 + 1 + min(r, pp-1-r) activations. The parameters of every stage are held twice.
/// @throws schedule_error on bad parameters. Linear in the number of cells.
constexpr schedule make_chimera_schedule(const pipeline_params& p) {
  require(chimera_rule, p);
  return make_schedule(chimera_rule, p, placement::bidirectional(p.pp, p.micro),
                       [&](std::int64_t r, auto& sink) { emit_chimera(p, r, sink); });
}

/// Emits the row of one rank. @throws schedule_error on bad parameters.
template <cell_sink Sink>
constexpr void emit_hanayo(const hanayo_params& p, std::int64_t rank, Sink&& sink) {
  detail::require(p);
  require(hanayo_rule, {.pp = p.pp, .micro = 1}, rank);
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
  return make_schedule(hanayo_rule, {.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only},
                       placement::wave(p.pp, p.waves), [&](std::int64_t r, auto& sink) { emit_hanayo(p, r, sink); });
}

/// The row of one rank alone; linear in its length.
constexpr std::vector<cell> make_chimera_row(const pipeline_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_chimera(p, r, sink); }, rank);
}
constexpr std::vector<cell> make_hanayo_row(const hanayo_params& p, std::int64_t rank) {
  return make_row([&](std::int64_t r, auto& sink) { emit_hanayo(p, r, sink); }, rank);
}

}  // namespace pipesched
