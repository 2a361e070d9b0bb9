// SPDX-License-Identifier: MIT
// A schedule is a value: make it, verify it, measure it. Making and verifying also work at compile time.
//
//   build/examples/example_first_schedule
//
// dualpipe, 8 ranks, 20 micro-batches
// rank 0 starts with 0F0 0F1 0F2 0F3 and holds 38 cells
// valid: true
// makespan 66, bubble of rank 0: 6, its peak: 9 activations

#include <cstdio>
#include <pipesched/pipesched.hpp>

using namespace pipesched;

static_assert(verify(make_dualpipe_schedule({.pp = 4, .micro = 8})));

int main() {
  const schedule s = make_dualpipe_schedule({.pp = 8, .micro = 20});
  std::printf("%s, %u ranks, %u micro-batches\n", s.name.str().c_str(), s.pp(), s.micro);
  std::printf("rank 0 starts with %s and holds %zu cells\n", to_string(s[0].first(4)).c_str(), s[0].size());

  const report proof = verify(s);
  std::printf("valid: %s\n", proof ? "true" : to_string(proof).c_str());

  const metrics m = measure(simulate(s));
  std::printf("makespan %g, bubble of rank 0: %g, its peak: %g activations\n", m.makespan, m.ranks[0].bubble,
              m.ranks[0].peak_activations);
}
