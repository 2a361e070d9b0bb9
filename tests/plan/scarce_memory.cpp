// SPDX-License-Identifier: MIT
// Plans with hardly enough memory, with and without recomputation.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "pipesched/core/verify.hpp"
#include "pipesched/plan/detail/one_at_a_time.hpp"
#include "pipesched/plan/model_pareto.hpp"
#include "pipesched/plan/model_plan.hpp"
#include "pipesched/plan/plan_in_memory.hpp"
#include "pipesched/program/fits.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/support/random_numbers.hpp"

using namespace pipesched;

namespace {

// Blocks that keep nothing where they recompute, and have weights.
model blocks_with_weights(double memory) {
  model m;
  m.layers = {{.kind = "block",
               .count = 16,
               .forward = 1,
               .backward_input = 1.65,
               .backward_weight = 0.22,
               .recompute = 0.3,
               .kept = 1,
               .weights = 1},
              {.kind = "head", .forward = 5.72, .backward_input = 1.21, .backward_weight = 0.58}};
  m.ranks = {{.memory = memory}};
  return m;
}

model_problem step_of(const placement& where, bool may_recompute) {
  return {.placement = where, .micro = 12, .may_recompute = may_recompute};
}

}  // namespace

TEST_CASE(
    "plan of a model: where stages may recompute, no longer here than without that and a quarter of the evaluations") {
  for (const double memory : {8.0, 10.0, 14.0})
    for (const placement& where : {placement::linear(4), placement::vee(4), placement::looped(4, 2)})
      for (const std::uint64_t evaluations : {1'200u, 3'000u}) {
        CAPTURE(memory);
        CAPTURE(to_string(where));
        const model m = blocks_with_weights(memory);
        const model_plan without =
            plan(m, step_of(where, false), {.pairs = pass_pair_set{}, .evaluations = evaluations});
        const model_plan with =
            plan(m, step_of(where, true), {.pairs = pass_pair_set{}, .evaluations = 4 * evaluations});
        CHECK(with.plan.makespan <= without.plan.makespan);
        CHECK(with.evaluations < 4.4 * static_cast<double>(evaluations));
        CHECK(with.lower_bound <= with.plan.makespan);
        CHECK(with.plan.bound.makespan <= with.plan.makespan);
      }
}

TEST_CASE("plan of a model: one that begins with a plan is never longer, with the same families") {
  for (const bool may_recompute : {false, true}) {
    const model m = blocks_with_weights(10);
    const model_problem step = step_of(placement::vee(4), may_recompute);
    const model_plan known = plan(m, step, {.pairs = pass_pair_set{}, .evaluations = 20'000}),
                     cold = plan(m, step, {.pairs = pass_pair_set{}, .evaluations = 400}),
                     warm = detail::plan_from(&known, m, step, {.pairs = pass_pair_set{}, .evaluations = 400});
    CHECK(known.plan.makespan < cold.plan.makespan);
    CHECK(warm.plan.makespan <= known.plan.makespan);
    CHECK(warm.divided.makespan == cold.divided.makespan);
    CHECK(warm.lower_bound == known.lower_bound);
    CHECK(fits(warm.plan.schedule, warm.costs, memory_limits(m, 4)));
  }
}

TEST_CASE("plan of a model: where nothing fits without recomputation, all evaluations are for that") {
  // A rank has 4 or 5 layers on four stages: 4 blocks' weights and the activations of one stage fit, those of all do not.
  const model m = blocks_with_weights(7.5);
  const model_problem step = step_of(placement::looped(4, 4), true);
  const plan_limits limits{.pairs = pass_pair_set{}, .evaluations = 12'000};
  CHECK_THROWS_AS(plan(m, step_of(placement::looped(4, 4), false), limits), no_fit_error);
  const model_plan found = plan(m, step, limits);
  CHECK(found.evaluations > 10'800);
  CHECK(found.evaluations < 13'200);
  CHECK(fits(found.plan.schedule, found.costs, memory_limits(m, 4)));
}

TEST_CASE("plan of a model: progress has the best so far, and one bound, with and without recomputation") {
  plan_limits limits{.pairs = pass_pair_set{}, .evaluations = 4'000};
  double shortest = std::numeric_limits<double>::infinity(), evaluations = 0;
  std::vector<double> bounds;
  limits.progress = [&](const plan_progress& p) {
    CHECK(p.makespan <= shortest);
    CHECK(p.evaluations >= evaluations);
    shortest = p.makespan, evaluations = p.evaluations;
    bounds.push_back(p.lower_bound);
    return true;
  };
  const model_plan found = plan(blocks_with_weights(10), step_of(placement::vee(4), true), limits);
  REQUIRE(!bounds.empty());
  for (const double bound : bounds) CHECK(bound == bounds.front());
  CHECK(found.lower_bound == bounds.front());
}

TEST_CASE("plan of a model: a partition that cuts at small messages fits, though the uniform one does not") {
  model m;
  for (int i = 0; i < 8; ++i) {
    layer l{.kind = "block", .forward = 1, .backward_input = 1, .backward_weight = 1, .kept = 1};
    l.message = i == 2 ? 1 : 100;
    m.layers.push_back(l);
  }
  m.ranks = {{.memory = 60}};
  const model_plan found =
      plan(m, {.placement = placement::linear(2), .micro = 6}, {.pairs = pass_pair_set{}, .evaluations = 2'000});
  CHECK(found.partition.layers == std::vector<std::uint32_t>{3, 5});
  CHECK(fits(found.plan.schedule, found.costs, memory_limits(m, 2)));
  CHECK(found.plan.makespan == doctest::Approx(found.plan.bound.makespan));
}

TEST_CASE("plan of a model: without a limit of memory, it makes no difference that stages may recompute") {
  model m = blocks_with_weights(8);
  m.ranks.clear();
  const plan_limits limits{.pairs = pass_pair_set{}, .evaluations = 3'000};
  const model_plan with = plan(m, step_of(placement::vee(4), true), limits),
                   without = plan(m, step_of(placement::vee(4), false), limits);
  CHECK(with.plan.schedule == without.plan.schedule);
  CHECK(with.partition == without.partition);
}

TEST_CASE("plan of a model: with exactly the memory of one micro-batch that recomputes, a plan is found") {
  struct least_memory {
    placement where;
    double bytes;  // of 4 blocks' weights, and of the activations of the largest stage
  };
  for (const least_memory& of : {least_memory{placement::linear(4), 8},
                                 {placement::vee(4), 6},
                                 {placement::looped(4, 2), 6},
                                 {placement::looped(4, 4), 5},
                                 {placement::wave(4, 2), 5}})
    for (const std::uint64_t evaluations : {500u, 5'000u}) {
      CAPTURE(to_string(of.where));
      const model m = blocks_with_weights(of.bytes);
      const model_plan found = plan(m, step_of(of.where, true), {.pairs = pass_pair_set{}, .evaluations = evaluations});
      CHECK(fits(found.plan.schedule, found.costs, memory_limits(m, 4)));
      CHECK(found.lower_bound <= found.plan.makespan);
      CHECK(found.plan.bound.makespan <= found.plan.makespan);
      CHECK_THROWS_AS(plan(blocks_with_weights(0.999 * of.bytes), step_of(of.where, true), {.evaluations = 500}),
                      no_fit_error);
    }
}

TEST_CASE("plan of a model: a rank need not hold two stages whole at a time where they recompute") {
  // 5 blocks on a rank: weights, and those of the larger stage.
  const model_plan found =
      plan(blocks_with_weights(9), step_of(placement::vee(4), true), {.pairs = pass_pair_set{}, .evaluations = 20'000});
  CHECK(found.lower_bound <= found.plan.makespan);
  CHECK(found.plan.makespan < 220);
}

TEST_CASE("pareto of a model: all placements, with scarce memory, lead to about as short a step as the best of them") {
  std::vector<model_problem> problems;
  for (const placement& where : placements_for(4, 12)) problems.push_back(step_of(where, true));
  for (const double memory : {7.0, 9.0}) {
    const plan_limits limits{.pairs = pass_pair_set{}, .evaluations = 8'000};
    const auto front = pareto(blocks_with_weights(memory), problems, {memory}, limits);
    REQUIRE(front.size() == 1);
    CHECK(front[0].lower_bound > 160);
    double best = std::numeric_limits<double>::infinity();
    for (const model_problem& p : problems) try {
        best = std::min(best, plan(blocks_with_weights(memory), p, limits).plan.makespan);
      } catch (const no_fit_error&) {
      }
    CHECK(front[0].plan.plan.makespan < 1.1 * best);
  }
}

TEST_CASE(
    "plan_in_memory: with exactly the bytes of one micro-batch at a time, weights and buffers too, a plan is found") {
  detail::random_numbers random(3);
  for (int i = 0; i < 60; ++i) {
    CAPTURE(i);
    const std::vector<placement> all = placements_for(2 + 2 * static_cast<std::int64_t>(random.below(2)), 6, 2);
    const plan_problem problem{.placement = all[random.below(all.size())].for_micro(6), .micro = 6};
    const auto draw = [&](std::uint64_t n) {
      std::vector<double> values;
      for (std::uint32_t s = 0; s < problem.placement.stages(); ++s)
        values.push_back(0.1 * static_cast<double>(1 + random.below(n)));
      return per_stage(values);
    };
    stage_costs costs{.forward = 1.1, .backward_input = 1.3, .backward_weight = 0.7};
    costs.kept_by_forward = draw(30), costs.weight_bytes = draw(50);
    costs.transient_forward = draw(20), costs.transient_backward = draw(20);
    costs.message_bytes = random.below(3) == 0 ? 0 : 0.3;
    const schedule smallest =
        detail::one_at_a_time(detail::planned_shape(problem.placement, 6, false), random.below(2) == 0);
    REQUIRE(verify(smallest));
    std::vector<double> memory;
    for (const rank_memory& r : fits(smallest, costs).ranks) memory.push_back(r.total());
    const plan_result found = plan_in_memory(problem, costs, memory, {.evaluations = 200});
    CHECK(fits(found.schedule, costs, memory));
    for (double& bytes : memory) bytes *= 0.9;
    CHECK_THROWS_AS(plan_in_memory(problem, costs, memory, {.evaluations = 200}), no_fit_error);
  }
}
