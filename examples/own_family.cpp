// SPDX-License-Identifier: MIT
// A custom family: one function emits the row of a rank; the library makes, verifies and draws the schedule.
//
//   build/examples/example_own_family
//
// time    0              5              10             15
// rank 0  F0 F1 .  .  .  B0    B1    F2 F3 .  .  .  B2    B3
// rank 1  .  F0 F1 B0    B1    .  .  .  F2 F3 B2    B3    .  .

#include <cstdio>
#include <pipesched/pipesched.hpp>

using namespace pipesched;

int main() {
  const pipeline_params p{.pp = 2, .micro = 4};
  // GPipe in two halves: half the activations, twice the bubble.
  const schedule s = make_schedule({.family = "half_gpipe"}, p, placement::linear(p.pp), [&](auto rank, auto& sink) {
    const stage_ops stage(rank);
    for (std::int64_t first : {std::int64_t{0}, p.micro / 2}) {
      repeat(sink, p.micro / 2, stage.F(first));
      repeat(sink, p.micro / 2, stage.B(first));
    }
  });
  std::printf("%s", render_text(s).c_str());
}
