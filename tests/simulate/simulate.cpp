// SPDX-License-Identifier: MIT

#include "pipesched/simulate/simulate.hpp"

#include <doctest/doctest.h>

#include "pipesched/generate/by_name.hpp"
#include "pipesched/simulate/metrics.hpp"

using namespace pipesched;

static_assert(measure(simulate(make_dualpipe_schedule({.pp = 4, .micro = 8}))).makespan == 26);

TEST_CASE("simulate: a cell starts when its rank is free and its inputs have arrived") {
  const timeline t = simulate(make_gpipe_schedule({.pp = 2, .micro = 2}), uniform_costs{.forward = 2, .transfer_time = 5});
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

TEST_CASE("simulate: a schedule that is not valid yields the report of verify") {
  schedule s = make_1f1b_schedule({.pp = 2, .micro = 2});
  std::swap(s[1][1], s[1][2]);
  std::swap(s[0][1], s[0][2]);
  const timeline t = simulate(s);
  CHECK_FALSE(t);
  CHECK(t.report == verify(s));
  CHECK(t.report.names(rule::cycle));
}
