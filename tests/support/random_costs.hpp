// SPDX-License-Identifier: MIT
#pragma once

// Seeded random cost models of whole numbers, so that all times are exact.

#include <pipesched/cost/stage_costs.hpp>
#include <random>
#include <vector>

namespace pipesched::tests {

class random_costs {
 public:
  explicit random_costs(std::uint64_t seed) : random_(seed) {}

  int number(int least, int most) { return std::uniform_int_distribution<int>(least, most)(random_); }
  bool maybe() { return number(0, 1) == 1; }

  per_stage per_stage_numbers(std::uint32_t stages, int least, int most) {
    std::vector<double> values;
    for (std::uint32_t s = 0; s < stages; ++s) values.push_back(number(least, most));
    return per_stage(std::move(values));
  }

  /// Random costs; each optional field is given with probability 1/2.
  stage_costs make(std::uint32_t stages) {
    stage_costs c;
    c.forward = per_stage_numbers(stages, 0, 20);
    c.backward_input = per_stage_numbers(stages, 0, 20);
    c.backward_weight = per_stage_numbers(stages, 0, 20);
    if (maybe()) c.backward = per_stage_numbers(stages, 5, 40);
    if (maybe()) c.overlapped = per_stage_numbers(stages, 10, 60);
    if (maybe()) c.release_forward = per_stage_numbers(stages, 0, 40);
    if (maybe()) c.release_backward = per_stage_numbers(stages, 0, 60);
    if (maybe()) c.transfer_time = per_stage_numbers(stages, 0, 15);
    if (maybe())
      c.kept_by_forward = per_stage_numbers(stages, 10, 20), c.freed_by_input = per_stage_numbers(stages, 0, 10);
    return c;
  }

  std::mt19937_64& engine() { return random_; }

 private:
  std::mt19937_64 random_;
};

}  // namespace pipesched::tests
