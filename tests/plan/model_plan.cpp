// SPDX-License-Identifier: MIT
// Plans of models: against all partitions of small ones, and within the memory of their ranks.

#include "pipesched/plan/model_plan.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "pipesched/core/verify.hpp"
#include "pipesched/model/costs_of.hpp"
#include "pipesched/model/partition.hpp"
#include "pipesched/plan/detail/layer_packing.hpp"
#include "pipesched/plan/plan.hpp"
#include "pipesched/program/fits.hpp"
#include "pipesched/simulate/simulate.hpp"

using namespace pipesched;

namespace {

// Calls f for every partition of so many layers among so many stages.
void for_each_partition(std::uint32_t layers, std::size_t stages, const std::function<void(const partition&)>& f,
                        partition p = {}) {
  if (stages == 1) {
    p.layers.push_back(layers);
    return f(p);
  }
  for (std::uint32_t n = 0; n <= layers; ++n) {
    p.layers.push_back(n);
    for_each_partition(layers - n, stages - 1, f, p);
    p.layers.pop_back();
  }
}

model small_model() {
  model m;
  m.layers = {{.kind = "block", .count = 4, .forward = 1, .backward_input = 2, .backward_weight = 0.5, .kept = 1},
              {.kind = "head", .forward = 3, .backward_input = 1, .backward_weight = 1}};
  return m;
}

std::string refusal_of(const model& m, const model_problem& problem, const plan_limits& limits = {}) {
  try {
    plan(m, problem, limits);
  } catch (const schedule_error& e) {
    return e.what();
  }
  return {};
}

}  // namespace

TEST_CASE("plan of a model: as short as the plans for all its partitions, and its bound is below all of them") {
  const model m = small_model();
  for (const placement& where : {placement::linear(2), placement::linear(3), placement::vee(2),
                                 placement::of_kind(placement_kind::looped, 2, 4, 4)}) {
    CAPTURE(to_string(where.kind()));
    CAPTURE(where.ranks());
    double best = std::numeric_limits<double>::infinity();
    for_each_partition(5, where.stages(), [&](const partition& p) {
      const stage_costs costs = costs_of(m, p, where);
      best = std::min(best, plan({.placement = where, .micro = 4}, costs, {.evaluations = 300}).makespan);
    });
    const model_plan found = plan(m, {.placement = where, .micro = 4}, {.evaluations = 40'000});
    CHECK(found.plan.makespan <= best);
    CHECK(found.lower_bound <= best);
    CHECK(found.plan.bound.makespan <= found.plan.makespan);
    CHECK(found.plan.bound.makespan == lower_bound(where, 4, found.costs).makespan);
    CHECK(static_cast<double>(found.ops_simulated) ==
          doctest::Approx(found.evaluations * 4 * 2 * where.stages()).epsilon(1e-6));
    CHECK(found.plan.makespan <= found.divided.makespan);
    CHECK(found.divided.makespan <= found.uniform.makespan);
    CHECK(static_cast<bool>(verify(found.plan.schedule)));
    CHECK(detail::last_end(simulate(found.plan.schedule, costs_of(m, found.partition, where))) == found.plan.makespan);
  }
}

TEST_CASE("plan of a model: weights, activations and buffers stay within the memory of every rank") {
  model m = small_model();
  m.layers[0].weights = 2, m.layers[0].message = 0.5, m.layers[1].weights = 1;
  const placement where = placement::vee(2);
  for (const double memory : {10.0, 12.0, 14.0}) {
    CAPTURE(memory);
    m.ranks = {{.memory = memory}};
    const model_plan found = plan(m, {.placement = where, .micro = 6}, {.evaluations = 20'000});
    const memory_report report = fits(found.plan.schedule, found.costs, memory_limits(m, 2));
    CHECK(report);
    for (const rank_memory& r : report.ranks) CHECK(r.total() <= memory);
    CHECK(found.memory.ranks.size() == 2);
  }
  m.ranks = {{.memory = 3}};
  CHECK(refusal_of(m, {.placement = where, .micro = 6}) ==
        "plan() finds no partition of the model whose step fits into the memory of the ranks");
}

TEST_CASE("plan of a model: stages recompute where the memory asks for it, and only if they may") {
  model m = small_model();
  for (layer& l : m.layers) l.recompute = 0.3 * l.forward;
  m.layers[0].kept = 4, m.layers[0].kept_input = 1;
  m.ranks = {{.memory = 14}};
  const model_problem whole{.placement = placement::linear(2), .micro = 6};
  model_problem again = whole;
  again.may_recompute = true;
  const model_plan a = plan(m, whole, {.evaluations = 20'000}), b = plan(m, again, {.evaluations = 20'000});
  CHECK(a.recomputed.empty());
  CHECK(b.plan.makespan < a.plan.makespan);
  CHECK(std::count(b.recomputed.begin(), b.recomputed.end(), true) > 0);
  CHECK(fits(b.plan.schedule, b.costs, memory_limits(m, 2)));
  CHECK(b.lower_bound <= b.plan.makespan);
}

TEST_CASE("plan of a model: threads make no difference, seeds may") {
  const model m = small_model();
  const model_problem problem{.placement = placement::vee(2), .micro = 6};
  const model_plan one = plan(m, problem, {.evaluations = 10'000, .seed = 3, .threads = 1}),
                   three = plan(m, problem, {.evaluations = 10'000, .seed = 3, .threads = 3});
  CHECK(one.plan.schedule == three.plan.schedule);
  CHECK(one.partition == three.partition);
  CHECK(one.evaluations == three.evaluations);
}

TEST_CASE("plan of a model: progress stops it, with the best so far") {
  const model m = small_model();
  int calls = 0;
  plan_limits limits{.evaluations = 1'000'000};
  limits.progress = [&](const plan_progress& p) {
    CHECK(p.lower_bound <= p.makespan);
    return ++calls < 3;
  };
  const model_plan found = plan(m, {.placement = placement::vee(2), .micro = 6}, limits);
  CHECK(calls == 3);
  CHECK(found.evaluations < 500'000);
  CHECK(static_cast<bool>(verify(found.plan.schedule)));
}

TEST_CASE("plan of a model: refuses no micro-batches, and limits that are the model's") {
  const model m = small_model();
  CHECK(refusal_of(m, {.placement = placement::linear(2)}) == "plan() needs at least 1 micro-batch; got 0, nearest 1");
  CHECK(refusal_of(m, {.placement = placement::linear(2), .micro = 2}, {.memory = {.activations = 2}}) ==
        "plan() of a model takes the memory of its ranks, and no starts; got limits of memory or starts");
}

TEST_CASE("layers on ranks: the least of the largest loads is that of all ways to put them") {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const std::size_t ranks = 1 + random() % 3, layers = 1 + random() % 6;
    std::vector<double> work;
    for (std::size_t i = 0; i < layers; ++i) work.push_back(static_cast<double>(random() % 4) - 0.5);
    std::vector<detail::packed_rank> on;
    for (std::size_t r = 0; r < ranks; ++r)
      on.push_back({.speed = 1 + static_cast<double>(random() % 2), .wait = static_cast<double>(random() % 3)});
    double best = std::numeric_limits<double>::infinity();
    std::vector<std::size_t> at(layers, 0);
    for (bool more = true; more;) {
      std::vector<double> load(ranks, 0);
      std::vector<bool> has(ranks, false);
      for (std::size_t i = 0; i < layers; ++i) load[at[i]] += work[i], has[at[i]] = true;
      double most = 0;
      bool any = false;
      for (std::size_t r = 0; r < ranks; ++r)
        if (has[r]) {
          const double end = on[r].wait + load[r] / on[r].speed;
          most = any ? std::max(most, end) : end, any = true;
        }
      best = std::min(best, std::max(0.0, most));
      std::size_t i = 0;
      while (i < layers && ++at[i] == ranks) at[i++] = 0;
      more = i < layers;
    }
    CAPTURE(round);
    CHECK(detail::least_largest_load(detail::grouped(work), on) == doctest::Approx(best));
  }
}
