// SPDX-License-Identifier: MIT
// Prints the README's table: the published bubble formulas beside what the simulator finds, for 8 stages and 20
// micro-batches with F = I = W = 1, B = I + W and F&B = F + B.
//
//   build/examples/example_readme_table

#include <algorithm>
#include <cstdio>
#include <pipesched/pipesched.hpp>

using namespace pipesched;

int main() {
  constexpr double F = 1, W = 1, B = 2, FB = F + B, stages = 8;
  const struct {
    const char* name;
    pipeline_params params;
    const char* formula;
    double bubble;
    int parameters;  // copies of the rank's share at 8 devices
  } lines[] = {
      {"1f1b", {.pp = 8, .micro = 20}, "(PP-1)(F+B)", (stages - 1) * (F + B), 1},
      {"zb1p", {.pp = 8, .micro = 20}, "(PP-1)(F+B-2W)", (stages - 1) * (F + B - 2 * W), 1},
      {"dualpipe", {.pp = 8, .micro = 20}, "(PP/2-1)(F&B+B-3W)", (stages / 2 - 1) * (FB + B - 3 * W), 2},
      {"dualpipev", {.pp = 4, .micro = 20}, "(PP/2-1)(F&B+B-3W)", (stages / 2 - 1) * (FB + B - 3 * W), 2},
  };
  std::printf("| schedule | devices | bubble | by formula | simulated | idle | activations kept | parameters |\n");
  std::printf("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (const auto& l : lines) {
    const metrics m = measure(simulate(make_schedule(l.name, l.params)));
    double bubble = 0;
    unsigned peak = 0;
    for (const rank_metrics& r : m.ranks) bubble = std::max(bubble, r.bubble), peak = std::max(peak, r.peak_activations);
    std::printf("| `%s` | %d | %s | %g | %g | %.1f %% | %u | %d× |\n", l.name, static_cast<int>(l.params.pp), l.formula,
                l.bubble, bubble, 100 * m.bubble_ratio, peak, l.parameters);
  }
}
