// SPDX-License-Identifier: MIT
#pragma once

// The order that Chimera and Hanayo share. A micro-batch runs down all stages, one per slot, and back up, and a new one
// starts every second slot, so that every rank sees two streams of ops, one in even and one in odd slots. Chimera feeds
// the streams from both ends; Hanayo folds the pipeline.

#include <algorithm>
#include <cstdint>

#include "pipesched/core/op.hpp"
#include "pipesched/generate/sink.hpp"

namespace pipesched::detail {

// One of the two streams of a rank: `unit` micro-batches forward through every second stage of the rank, then backward
// through the other stages, then the next unit. The early stream begins with the rank's first stage, the late one with
// its second.
template <typename Stage>
class wave_stream {
 public:
  constexpr wave_stream(std::int64_t unit, std::int64_t waves, bool late, const Stage& stage)
      : unit_(unit), waves_(waves), late_(late), stage_(stage) {}

  constexpr cell next() const {
    if (turn_ < waves_) return stage_(2 * turn_ + late_).F(micro_);
    return stage_(2 * (2 * waves_ - 1 - turn_) + !late_).B(micro_);
  }
  // The number of consecutive micro-batches left in this stage.
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

// Emits the row of a rank that is h ranks away from the first rank of a wave over `unit` ranks; a unit has as many
// micro-batches. `stage(j)` gives the ops of the j-th stage that a micro-batch visits on the rank. The late stream
// starts after unit - h ops of the early one.
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

}  // namespace pipesched::detail
