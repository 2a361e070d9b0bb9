// SPDX-License-Identifier: MIT

#include "pipesched/simulate/simulate.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "pipesched/generate/families.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "support/families.hpp"
#include "support/random_costs.hpp"
#include "support/slow_simulator.hpp"

using namespace pipesched;
using namespace pipesched::tests;

static_assert(measure(simulate(make_dualpipe_schedule({.pp = 4, .micro = 8}))).makespan == 26);

TEST_CASE("simulate: a cell starts when its rank is free and its inputs have arrived") {
  const timeline t =
      simulate(make_gpipe_schedule({.pp = 2, .micro = 2}), uniform_costs{.forward = 2, .transfer_time = 5});
  CHECK(t.intervals == rows<interval>{{{0, 2}, {2, 4}, {18, 20}, {20, 22}}, {{7, 9}, {9, 11}, {11, 13}, {13, 15}}});
}

TEST_CASE("simulate: dualpipe 8 x 20 takes 66 with a bubble of 6 on every rank, as in the published figure") {
  const metrics m = measure(simulate(make_dualpipe_schedule({.pp = 8, .micro = 20})));
  CHECK(m.makespan == 66);
  for (const rank_metrics& r : m.ranks) {
    CHECK(r.bubble == 6);
    CHECK(r.busy == 60);
    CHECK(r.peak_activations == 9);
  }
}

TEST_CASE("simulate: early release of a pair's outputs shortens dualpipe below its formula") {
  stage_costs costs;
  CHECK(measure(simulate(make_dualpipe_schedule({.pp = 8, .micro = 20}), costs)).ranks[0].bubble == 6);
  costs.release_forward =
      1;  // at the end of F, not of the pair: no gain alone, as the next pair also needs the gradient
  CHECK(measure(simulate(make_dualpipe_schedule({.pp = 8, .micro = 20}), costs)).ranks[0].bubble == 6);
  costs.release_backward = 2;  // at the end of F and I: only W of the pair remains
  CHECK(measure(simulate(make_dualpipe_schedule({.pp = 8, .micro = 20}), costs)).ranks[0].bubble == 3);
  CHECK(measure(simulate(make_dualpipe_schedule({.pp = 4, .micro = 10}), costs)).ranks[0].bubble == 1);
}

TEST_CASE("simulate: equals the slow twin for random costs by stage, transfers and release points, over all families") {
  random_costs random(20260202);
  int compared = 0;
  for_all_families(6, 13, [&](const family& f, const schedule_params& p) {
    const schedule s = f.make(p);
    for (int round = 0; round < 2; ++round) {
      const stage_costs costs = random.make(s);
      const timeline t = simulate(s, costs);
      const auto expected = slow_simulation(s, costs);
      CAPTURE(f.name);
      CAPTURE(p.pp);
      CAPTURE(p.micro);
      for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
        for (std::size_t i = 0; i < s[rank].size(); ++i)
          REQUIRE((t[rank][i].start == expected[rank][i].first && t[rank][i].end == expected[rank][i].second));
      ++compared;
    }
  });
  CHECK(compared > 500);
}

TEST_CASE("simulate: latency and bandwidth of each cut") {
  stage_costs costs{
      .forward = 1, .transfer_time = {1, 2, 0}, .message_bytes = {10, 20, 0}, .bandwidth = per_stage{5, 4, 1}};
  const timeline t = simulate(make_1f1b_schedule({.pp = 3, .micro = 1, .forward_only = true}), costs);
  CHECK(t[1][0].start == 1 + 1 + 10.0 / 5);
  CHECK(t[2][0].start == t[1][0].end + 2 + 20.0 / 4);
}

TEST_CASE("simulate: an invalid schedule is refused with the report of verify") {
  schedule s = make_1f1b_schedule({.pp = 2, .micro = 2});
  std::swap(s[1][1], s[1][2]);
  std::swap(s[0][1], s[0][2]);
  REQUIRE(verify(s).names(rule::cycle));
  const std::string text = refusal_of([&] { simulate(s); });
  CHECK(text == refusal_of([&] { require_valid(s); }));
  CHECK(text.find("cycle") != text.npos);
}

TEST_CASE("simulate: impossible costs are refused with one sentence") {
  const auto refused = [](const stage_costs& costs) {
    return refusal_of([&] { simulate(make_1f1b_schedule({.pp = 2, .micro = 2}), costs); });
  };
  constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(refused({.forward = -1}) ==
        "costs: forward is negative; expected a finite number that is not negative, nearest 0");
  CHECK(refused({.backward_input = {1, nan}}) ==
        "costs: backward_input of stage 1 is not a number; expected a finite number that is not negative, nearest 0");
  CHECK(refused({.transfer_time = infinity}) ==
        "costs: transfer is infinite; expected a finite number that is not negative, nearest 0");
  CHECK(refused({.backward_weight = {1, 2, 3}}) ==
        "costs: backward_weight has 3 numbers; expected 1 or 2, one per stage");
  CHECK(refusal_of([] {
          stage_costs{.forward = {1, 2}}.check(1);
        }) == "costs: forward has 2 numbers; expected 1, for 1 stage");
  CHECK(refusal_of([] {
          stage_costs{.transfer_time = {1, 2}}.check(1);
        }) == "costs: transfer has 2 numbers; expected 1, for 1 stage");
  CHECK(refused({.forward = per_stage(std::vector<double>{})}) ==
        "costs: forward has 0 numbers; expected 1 or 2, one per stage");
  CHECK(refused({.forward = 1e308}) ==
        "costs: the times add up to more than a double holds; give them in a larger unit");
  CHECK(refused({.bandwidth = 0}) == "costs: bandwidth is 0; expected more than 0");
  CHECK(refused({.overlap_efficiency = 0}) ==
        "costs: overlap_efficiency is more than 0 and at most 1; got 0, nearest 0.01");
  CHECK(refused({.overlap_efficiency = nan}) != "");
  CHECK(refused({.forward = 1, .forward_communication = 2}) ==
        "costs: communication.forward of stage 0 is 2, more than the op's 1; nearest 1");
  CHECK(refused({.kept_by_forward = 1, .freed_by_input = 2}) ==
        "costs: stage 0 frees 2 bytes, more than the 1 that its forward keeps; nearest 1");
  CHECK(refusal_of([] { simulate(make_1f1b_schedule({.pp = 2, .micro = 2}), uniform_costs{.overlapped = -2}); }) ==
        "costs: overlapped is negative; expected a finite number that is not negative, nearest 0");
}

TEST_CASE("timeline: scaled and moved to zero, its metrics scale alike; a factor of no use is refused") {
  timeline t = simulate(make_dualpipe_schedule({.pp = 4, .micro = 8}), uniform_costs{.forward = 1.5});
  for (interval& i : t.intervals.all()) i = {i.start + 7, i.end + 7};
  const timeline at_zero = starting_at_zero(t);
  CHECK(at_zero == simulate(t.schedule, uniform_costs{.forward = 1.5}));
  CHECK(starting_at_zero(at_zero) == at_zero);
  CHECK(measure(scaled(at_zero, 1000)).makespan == 1000 * measure(at_zero).makespan);
  CHECK(scaled(scaled(t, 4), 0.25) == t);
  for (double factor : {0.0, -1.0, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()})
    CHECK(refusal_of([&] { scaled(t, factor); }).starts_with("scaled() takes a positive, finite factor; got "));
}
