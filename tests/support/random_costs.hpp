// SPDX-License-Identifier: MIT
#pragma once

// Seeded random cost models of whole numbers, so that all times are exact.

#include <pipesched/core/schedule.hpp>
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

  /// Random costs; with probability 1/2 each, also speeds of ranks, lengths of micro-batches, and links. Speeds divide whole
  /// numbers exactly.
  stage_costs make(const schedule& s) {
    stage_costs c = make(s.stages());
    if (maybe())
      for (std::uint32_t r = 0; r < s.pp(); ++r) c.rank_speeds.push_back(1.0 / (1 << number(0, 2)));
    if (maybe())
      for (std::uint32_t m = 0; m < s.micro; ++m) c.micro_batches.push_back(number(1, 4));
    if (maybe())
      for (std::uint32_t from = 0; from < s.pp(); ++from)
        for (std::uint32_t to = 0; to < s.pp(); ++to)
          if (from != to && maybe()) c.links.push_back({from, to, static_cast<double>(number(0, 15)), {}});
    if (maybe()) {
      c.message_bytes = per_stage_numbers(s.stages(), 0, 9);
      c.links.change_each([&](rank_link& l) { l.bandwidth = 1.0 / (1 << number(0, 2)); });
    }
    return c;
  }

  std::mt19937_64& engine() { return random_; }

 private:
  std::mt19937_64 random_;
};

}  // namespace pipesched::tests
