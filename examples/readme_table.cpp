// SPDX-License-Identifier: MIT
// Prints the README's table: the published bubble formulas beside what the simulator finds, for 8 stages and 20
// micro-batches with F = I = W = 1, B = I + W and F&B = F + B. As in DeepSeek's table, activations and parameters are counted
// in those of an eighth of the model, whatever a device holds.
//
//   build/examples/example_readme_table

#include <cstdio>
#include <pipesched/generate/families.hpp>
#include <pipesched/pipesched.hpp>
#include <pipesched/simulate/closed_form_of.hpp>
#include <string>

using namespace pipesched;

int main() {
  const struct {
    const char* name;
    schedule_params params;
    int parameters;  // copies of an eighth of the model on a device
  } lines[] = {{"1f1b", {.pp = 8, .micro = 20}, 1},
               {"zb1p", {.pp = 8, .micro = 20}, 1},
               {"dualpipe", {.pp = 8, .micro = 20}, 2},
               {"dualpipev", {.pp = 4, .micro = 20}, 2}};
  std::printf("| schedule | devices | bubble | by formula | simulated | idle | activations kept | parameters |\n");
  std::printf("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (const auto& l : lines) {
    const closed_form form = closed_form_of(l.name, l.params, {}).value();
    const metrics m = measure(simulate(make_schedule(l.name, l.params)));
    std::printf("| `%s` | %d | %s | %g | %g | %.1f %% | %g | %d× |\n", l.name, static_cast<int>(l.params.pp),
                std::string(form.formula).c_str(), form.bubble, m.max_bubble, 100 * m.bubble_ratio,
                8 * m.peak_activations / static_cast<double>(l.params.pp), l.parameters);
  }
}
