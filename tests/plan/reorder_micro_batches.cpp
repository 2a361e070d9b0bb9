// SPDX-License-Identifier: MIT
// reorder_micro_batches(): a reported case, and never longer.

#include "pipesched/plan/reorder_micro_batches.hpp"

#include <doctest/doctest.h>

#include <random>
#include <set>
#include <string>

#include "pipesched/core/verify.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "support/families.hpp"
#include "support/makespan.hpp"

using namespace pipesched;
using namespace pipesched::tests;

TEST_CASE("reorder_micro_batches: lengths 8 to 1 on 1F1B") {
  const schedule s = make_1f1b_schedule({.pp = 4, .micro = 8});
  stage_costs costs{.backward = 2, .micro_batches = {8, 7, 6, 5, 4, 3, 2, 1}};
  CHECK(makespan(s, costs) == 162);
  const schedule better = reorder_micro_batches(s, costs);
  CHECK(makespan(better, costs) <= 160);
  CHECK(verify(better));
  CHECK(reorder_micro_batches(better, costs) == better);
  costs.micro_batches.clear();
  CHECK(reorder_micro_batches(s, costs) == s);
}

TEST_CASE("reorder_micro_batches: valid, never longer, with every micro-batch once") {
  std::mt19937_64 random(21);
  int shorter = 0;
  for_all_families(4, 7, [&](const family& f, const schedule_params& p) {
    const schedule s = f.make(p);
    stage_costs costs{.backward = 2, .transfer_time = 0.25};
    for (std::uint32_t m = 0; m < s.micro; ++m) costs.micro_batches.push_back(static_cast<double>(1 + random() % 8));
    const schedule other = reorder_micro_batches(s, costs);
    CAPTURE(to_string(other));
    REQUIRE(to_string(verify(other)) == "");
    REQUIRE(makespan(other, costs) <= makespan(s, costs));
    shorter += makespan(other, costs) < makespan(s, costs);
  });
  CHECK(shorter > 50);
}
