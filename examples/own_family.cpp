// SPDX-License-Identifier: MIT
// A custom family: a value whose rule emits the row of a rank; the library checks its parameters, makes, verifies and
// draws the schedule.
//
//   build/examples/example_own_family
//
// time    0              5              10             15
// rank 0  F0 F1 .  .  .  B0    B1    F2 F3 .  .  .  B2    B3
// rank 1  .  F0 F1 B0    B1    .  .  .  F2 F3 B2    B3    .  .

#include <cstdio>
#include <pipesched/pipesched.hpp>

using namespace pipesched;

constexpr family half_gpipe{.name = "half_gpipe",
                            .summary = "GPipe in two halves: half the activations, twice the bubble",
                            .place = linear_placement,
                            .emit = [](const pipeline_params& p, std::int64_t rank, auto& sink) {
                              const stage_ops stage(rank);
                              const std::int64_t half = p.micro / 2;
                              repeat(sink, half, stage.F(0));
                              repeat(sink, half, stage.B(0));
                              repeat(sink, p.micro - half, stage.F(half));
                              repeat(sink, p.micro - half, stage.B(half));
                            }};

int main() {
  const schedule s = half_gpipe.make({.pp = 2, .micro = 4});
  std::printf("%s", render_text(s).c_str());
}
