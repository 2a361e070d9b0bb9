// SPDX-License-Identifier: MIT
// Prints the README's table: published bubble formulas beside simulated bubbles, for 8 stages and 20 micro-batches
// with F = I = W = 1, B = I + W and F&B = F + B.
//
//   build/examples/example_readme_table

#include <algorithm>
#include <cstdio>
#include <pipesched/generate/families.hpp>
#include <pipesched/pipesched.hpp>
#include <string>

using namespace pipesched;

int main() {
  const struct {
    const char* name;
    schedule_params params;
    int parameters;  // copies per device of an eighth of the model
  } lines[] = {{"1f1b", {.pp = 8, .micro = 20}, 1},
               {"zb1p", {.pp = 8, .micro = 20}, 1},
               {"dualpipe", {.pp = 8, .micro = 20}, 2},
               {"dualpipev", {.pp = 4, .micro = 20}, 2}};
  std::printf("| schedule | devices | bubble | by formula | simulated | idle | activations kept | parameters |\n");
  std::printf("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (const auto& l : lines) {
    const closed_form form = closed_form_of(l.name, l.params, {}).value();
    const metrics m = measure(simulate(make_schedule(l.name, l.params)));
    double bubble = 0;
    for (const rank_metrics& r : m.ranks) bubble = std::max(bubble, r.bubble);
    std::printf("| `%s` | %d | %s | %g | %g | %.1f %% | %g | %d× |\n", l.name, static_cast<int>(l.params.pp),
                std::string(form.formula).c_str(), form.bubble, bubble, 100 * m.bubble_ratio, m.peak_activations,
                l.parameters);
  }
}
