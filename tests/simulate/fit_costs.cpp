// SPDX-License-Identifier: MIT

#include "pipesched/simulate/fit_costs.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <random>

#include "pipesched/core/recompute.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/families.hpp"
#include "support/makespan.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

stage_costs costs_of(std::uint32_t stages, std::mt19937_64& random, double transfer) {
  const auto some = [&] {
    std::vector<double> values;
    for (std::uint32_t i = 0; i < stages; ++i) values.push_back(static_cast<double>(4 + random() % 5));
    return per_stage(std::move(values));
  };
  return {.forward = some(), .backward_input = some(), .backward_weight = some(), .transfer_time = per_stage(transfer)};
}

}  // namespace

TEST_CASE("fit costs: recovers the costs of a simulated timeline and predicts its makespan") {
  std::mt19937_64 random(4);
  for_all_families(4, 9, [&](const family& f, const schedule_params& p) {
    if (p.forward_only) return;
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    const schedule s = f.make(p);
    const stage_costs costs = costs_of(s.stages(), random, 0);
    const stage_costs fitted = fit_costs(simulate(s, costs));
    bool pairs = false;
    for (const cell& c : s.cells.all()) pairs = pairs || c.overlapped();
    if (pairs) return;  // a pair by the stage of its first op is not the sum of two
    REQUIRE(makespan(s, fitted) == doctest::Approx(makespan(s, costs)).epsilon(1e-9));
    for (std::uint32_t stage = 0; stage < s.stages(); ++stage)
      REQUIRE(fitted.forward[stage] == doctest::Approx(costs.forward[stage]));
    stage_costs again = costs;
    again.recompute = 3;
    for (const bool inside : {false, true}) {
      const schedule r = recompute(s, {.inside_backward = inside});
      const stage_costs known = fit_costs(simulate(r, again));
      REQUIRE(makespan(r, known) == doctest::Approx(makespan(r, again)).epsilon(1e-9));
      if (!inside) REQUIRE(known.recompute.has_value());
    }
  });
}

TEST_CASE("fit costs: one schedule's timeline predicts another's makespan, with transfers and noise") {
  std::mt19937_64 random(5);
  for (int round = 0; round < 50; ++round) {
    const stage_costs costs = costs_of(8, random, 2);
    timeline t = simulate(make_schedule("zbv", {.pp = 4, .micro = 16}), costs);
    const stage_costs exact = fit_costs(t);
    for (const char* name : {"v_half", "dualpipev", "zbv_greedy"}) {
      const schedule other = make_schedule(name, {.pp = 4, .micro = 16});
      CHECK(makespan(other, exact) == doctest::Approx(makespan(other, costs)).epsilon(0.15));
    }
    // A tenth of the cells take ten times as long, as if another process held the core.
    double late = 0;
    for (std::uint32_t rank = 0; rank < 4; ++rank, late = 0)
      for (interval& i : t[rank]) {
        i.start += late;
        if (random() % 10 == 0) late += 9 * (i.end - (i.start - late));
        i.end += late;
      }
    const stage_costs noisy = fit_costs(t);
    for (std::uint32_t stage = 0; stage < 8; ++stage)
      CHECK(noisy.forward[stage] == doctest::Approx(costs.forward[stage]));
  }
}

TEST_CASE("fit costs: pairs, whole backwards, and estimates of missing values") {
  const stage_costs costs{.forward = 3, .backward_input = 2, .backward_weight = 1, .overlapped = per_stage(5)};
  const stage_costs fitted = fit_costs(simulate(make_dualpipev_schedule({.pp = 4, .micro = 12}), costs));
  CHECK(fitted.overlapped.has_value());
  CHECK((*fitted.overlapped)[2] == 5);
  CHECK(fitted.forward[0] == 3);
  CHECK(fitted.backward_input[7] == 2);
  CHECK(makespan(make_dualpipev_schedule({.pp = 4, .micro = 20}), fitted) ==
        makespan(make_dualpipev_schedule({.pp = 4, .micro = 20}), costs));
  const stage_costs whole = fit_costs(simulate(make_1f1b_schedule({.pp = 2, .micro = 3}), costs));
  CHECK(whole.backward.has_value());
  CHECK((*whole.backward)[1] == 3);
  CHECK(whole.backward_input[1] == 1.5);
  CHECK(!whole.overlapped.has_value());
}
