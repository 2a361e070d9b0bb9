// SPDX-License-Identifier: MIT
// Prints a table of include/pipesched/plan/README.md: the layers of two models, divided uniformly, divided for the best family, and
// planned together with the order, below limits of memory. A limit counts layers: each keeps 1 per micro-batch from F to W, the
// head nothing. With recomputation, R takes 0.3 of F, and nothing is kept before it.
//
//   build/examples/example_joint_table EVALUATIONS [MODEL PLACEMENT LIMIT [recompute]]      without a row: all 36 of them

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <pipesched/model/presets.hpp>
#include <pipesched/plan/model_plan.hpp>
#include <string>
#include <string_view>

using namespace pipesched;

namespace {

constexpr std::uint32_t ranks = 8, micro_batches = 32;

model limited(std::string_view name, double limit, bool recompute) {
  model m = name == "gemma" ? gemma_model() : deepseek_like_model();
  for (layer& l : m.layers) {
    if (l.kind == "head") continue;
    l.kept = 1;
    if (recompute) l.recompute = 0.3 * l.forward;
  }
  m.ranks = {{.memory = limit}};
  return m;
}

placement placement_of(std::string_view name) {
  if (name == "linear") return placement::linear(ranks);
  if (name == "vee") return placement::vee(ranks);
  return placement::of_kind(placement_kind::looped, ranks, 2 * ranks, micro_batches);
}

std::string family(const divided_family& of) {
  if (of.name.empty()) return "none fits";
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%s %.2f", of.name.c_str(), of.makespan);
  return text.data();
}

void print_row(std::string_view name, std::string_view on, double limit, bool recompute, std::uint64_t evaluations) {
  const model_plan p = plan(limited(name, limit, recompute),
                            {.placement = placement_of(on), .micro = micro_batches, .may_recompute = recompute},
                            {.pairs = pass_pair_set{}, .evaluations = evaluations});
  std::printf("| %s | %s | %.0f | %s | %s | %s | %.2f | %.2f | %.1f %% |\n", std::string(name).c_str(),
              std::string(on).c_str(), limit, recompute ? "yes" : "no", family(p.uniform).c_str(),
              family(p.divided).c_str(), p.plan.makespan, p.lower_bound, 100 * (p.plan.makespan / p.lower_bound - 1));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 5 && argc != 6) {
    std::fprintf(stderr, "usage: joint_table EVALUATIONS [MODEL PLACEMENT LIMIT [recompute]]\n");
    return 2;
  }
  const std::uint64_t evaluations = std::strtoull(argv[1], nullptr, 10);
  try {
    if (argc > 2) {
      print_row(argv[2], argv[3], std::strtod(argv[4], nullptr), argc == 6, evaluations);
      return 0;
    }
    for (const bool recompute : {false, true})
      for (const double limit : {16, 32, 64})
        for (const std::string_view name : {"gemma", "deepseek"})
          for (const std::string_view on : {"linear", "vee", "looped"})
            print_row(name, on, limit, recompute, evaluations);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "joint_table: %s\n", e.what());
    return 2;
  }
}
