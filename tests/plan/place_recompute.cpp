// SPDX-License-Identifier: MIT
// place_recompute(): never longer, valid, and better where there is a stall.

#include "pipesched/plan/place_recompute.hpp"

#include <doctest/doctest.h>

#include <random>
#include <string>

#include "pipesched/core/recompute.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/simulate/lower_bound.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "support/any_variant.hpp"
#include "support/families.hpp"
#include "support/makespan.hpp"

using namespace pipesched;
using namespace pipesched::tests;

TEST_CASE("place_recompute: an R that delays its backward goes into an earlier stall") {
  const schedule s = parse_schedule("0F0 0F1 0R0 0B0 0R1 0B1\n1F0 1F1 1B0 1B1", placement::linear(2));
  const stage_costs costs{.forward = {1, 2}, .backward = {2, 1}};
  const schedule placed = place_recompute(s, costs);
  CHECK(to_string(placed[0]) == "0F0 0F1 0R0 0R1 0B0 0B1");
  CHECK(makespan(s, costs) == 11);
  CHECK(makespan(placed, costs) == 10);
}

TEST_CASE("place_recompute: an R goes beside another op where the costs allow it and it saves time") {
  const schedule s = recompute(make_gpipe_schedule({.pp = 1, .micro = 3}));
  stage_costs costs{.backward = 2};
  costs.pairs = {{.passes = {pass::forward, pass::recompute}, .time = 1.5},
                 {.passes = {pass::backward, pass::recompute}, .time = 2.5}};
  CHECK(makespan(s, costs) == 12);
  const schedule placed = place_recompute(s, costs);
  CHECK(makespan(placed, costs) < 12);
  CHECK(verify(placed));
  costs.allowed_pairs = pass_pair_set::forward_with_backward();  // a price alone allows nothing
  CHECK(place_recompute(s, costs) == s);
}

TEST_CASE("place_recompute: valid, never longer, the same ops, and never below the bound") {
  std::mt19937_64 random(8);
  int better = 0;
  for_all_families(4, 6, [&](const family& f, const schedule_params& p) {
    if (p.forward_only) return;
    const schedule s = any_variant(f.make(p), random);
    const auto number = [&] { return static_cast<double>(random() % 8); };
    stage_costs costs{
        .forward = number(), .backward = number() + 1, .recompute = number(), .transfer_time = number() / 4};
    if (random() % 2 == 0) costs.pairs = {{.passes = {pass::forward, pass::recompute}, .time = number()}};
    const schedule placed = place_recompute(s, costs);
    CAPTURE(to_string(s));
    CAPTURE(to_string(placed));
    REQUIRE(to_string(verify(placed)) == "");
    REQUIRE(makespan(placed, costs) <= makespan(s, costs));
    REQUIRE(keep_activations(placed).cells.all().size() == keep_activations(s).cells.all().size());
    REQUIRE(lower_bound(placed, costs).makespan <= makespan(placed, costs));
    better += makespan(placed, costs) < makespan(s, costs);
  });
  CHECK(better > 20);
}
