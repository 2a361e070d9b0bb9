// SPDX-License-Identifier: MIT

#include "pipesched/plan/pareto.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "pipesched/core/verify.hpp"
#include "pipesched/cost/presets.hpp"
#include "pipesched/cost/split_costs.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/plan/model_pareto.hpp"
#include "pipesched/plan/plan_in_memory.hpp"
#include "pipesched/program/fits.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/support/random_numbers.hpp"

using namespace pipesched;

namespace {

std::vector<placed_step<>> steps_over_all(const stage_costs& given, std::uint32_t pp, std::uint32_t micro) {
  std::vector<placed_step<>> steps;
  for (const placement& where : placements_for(pp, micro))
    steps.push_back({{.placement = where, .micro = micro}, split_stage_costs(given, where)});
  return steps;
}

// Every family on the placement of a step, with default parameters.
std::vector<schedule> families_on(const placed_step<>& step) {
  std::vector<schedule> all;
  const placement& where = step.problem.placement;
  const std::int64_t pp = where.ranks(), per_rank = where.stages() / where.ranks();
  for (const family& f : families) {
    schedule_params p{.pp = pp, .micro = step.problem.micro};
    if (f.limits.takes.contains(parameter::chunks)) p.chunks = per_rank;
    if (f.limits.takes.contains(parameter::waves)) p.waves = per_rank / 2;
    if (f.limits.takes.contains(parameter::costs)) p.costs = step.costs;
    try {
      if (same_stages_on_ranks(f.place(p), where)) all.push_back(f.make(p));
    } catch (const schedule_error&) {  // not for these sizes
    }
  }
  return all;
}

double makespan_of_step(const schedule& s, const stage_costs& costs) {
  return measure(simulate(s, costs), costs).makespan;
}

const stage_costs with_bytes{.forward = 10,
                             .backward_input = 9,
                             .backward_weight = 6,
                             .overlap_efficiency = 0.9,
                             .forward_communication = 4,
                             .backward_input_communication = 4,
                             .transfer_time = 3,
                             .message_bytes = 2,
                             .kept_by_forward = 12,
                             .weight_bytes = 100};

// Steps whose plans are given numbers: makespans and bounds by step and limit. Notes the evaluations of every plan, and the
// makespan of the plan that it last began from.
struct numbered_steps {
  struct result {
    double time, bound, cap;
  };
  static constexpr double least_evaluations = 1;

  std::vector<std::vector<double>> times, bounds;  // by step and limit
  mutable std::vector<std::vector<std::uint64_t>> evaluations{times.size(), {0, 0}};
  mutable std::vector<std::vector<double>> begun_from{times.size(), {0, 0}};

  std::size_t size() const { return times.size(); }
  result plan(std::size_t i, double cap, const plan_limits& limits, const result* known) const {
    const std::size_t c = cap < 2 ? 0 : 1;
    evaluations[i][c] += limits.evaluations;
    if (known != nullptr) begun_from[i][c] = known->time;
    if (times[i][c] == 0) throw no_fit_error("does not fit");
    return {times[i][c], bounds[i][c], cap};
  }
  static void set_bound(result& r, double bound) { r.bound = std::min(r.bound, bound); }
  static double makespan(const result& r) { return r.time; }
  static double bound(const result& r) { return r.bound; }
  static double published(const result& r) { return r.time; }
  static void add_work(result&, const result&) {}
  static void take_published(result&, const result&) {}
  void carry(result& own, const result& below, std::size_t, double) const { own.time = below.time; }
  double bound(std::size_t i, double cap) const { return bounds[i][cap < 2 ? 0 : 1]; }
};

}  // namespace

TEST_CASE(
    "search of a front: less memory's plan is kept, the better half continues, and none whose bound is too high") {
  // Limits 1 and 2. Step 0 is the best at 1 and finds a longer plan at 2; step 1 does not fit at 1; step 2's bound is too high;
  // step 3 is the longest.
  const numbered_steps steps{.times = {{10, 12}, {0, 11}, {11, 11}, {30, 30}},
                             .bounds = {{5, 5}, {3, 3}, {10, 10.5}, {4, 2}}};
  const auto points = detail::front_search(steps, {1, 2}, plan_limits{.evaluations = 2400}).run();
  REQUIRE(points.size() == 2);
  CHECK((points[0].step == 0 && points[0].plan.time == 10 && points[0].lower_bound == 3));
  CHECK((points[1].step == 0 && points[1].plan.time == 10 && points[1].lower_bound == 2));
  // For each limit a rough plan with 12 for each of four steps. Of the other 1152 half are for two rounds: 72 for each of four,
  // then, at 2, 144 for each of two. The rest is for step 0.
  using all = std::vector<std::vector<std::uint64_t>>;
  CHECK(steps.evaluations == all{{948, 804}, {84, 228}, {84, 84}, {84, 84}});
  CHECK(steps.begun_from == std::vector<std::vector<double>>{{10, 10}, {0, 11}, {11, 11}, {30, 30}});
}

TEST_CASE("search of a front: stopped after the first plans, it has a plan with each limit's own memory") {
  const std::vector<placed_step<>> steps = {
      {{.placement = placement::bidirectional(4, 8), .micro = 8}, deepseek_v3_costs()}};
  plan_limits limits{.evaluations = 1'000'000'000};
  limits.progress = [&](const plan_progress& p) { return p.evaluations < 10'000; };
  const auto front = pareto(steps, {3, 4, 5}, memory_unit::activations, limits);
  REQUIRE(front.size() == 3);
  CHECK(front[1].plan.makespan < front[0].plan.makespan);
  CHECK(front[2].plan.makespan < front[1].plan.makespan);
  CHECK(front[2].plan.peak_activations > 4);
}

TEST_CASE("pareto on one placement: no longer than plan() after a rough plan; no evaluations are one") {
  const plan_problem problem{.placement = placement::bidirectional(4, 64), .micro = 64};
  const auto front = pareto(problem, deepseek_v3_costs(), {4}, {.evaluations = 2000});
  const plan_result alone = plan(problem, deepseek_v3_costs(), {.memory = {.activations = 4}, .evaluations = 1920});
  CHECK(front.front().plan.makespan <= alone.makespan);
  CHECK(front.front().plan.evaluations > alone.evaluations);
  CHECK(pareto(problem, deepseek_v3_costs(), {4, 5}, {.evaluations = 0}).size() == 2);
}

TEST_CASE("placements for a front: each once, as far as the ranks, the stages and the micro-batches allow") {
  const auto names = [](std::int64_t pp, std::int64_t micro, std::int64_t per_rank) {
    std::string text;
    for (const placement& p : placements_for(pp, micro, per_rank)) text += to_string(p) + "; ";
    return text;
  };
  CHECK(names(8, 20, 4) == "linear; looped 2; looped 3; looped 4; vee; wave 4; bidirectional; ");
  CHECK(names(8, 20, 1) == "linear; bidirectional; ");
  CHECK(names(8, 1, 2) == "linear; looped 2; vee; ");
  CHECK(names(1, 20, 4) == "linear; looped 2; looped 3; looped 4; bidirectional; ");
  CHECK(placements_for(2, 8, 300).size() == 1 + 255 + 128 + 1);
  CHECK_THROWS_AS(placements_for(0, 4), schedule_error);
}

TEST_CASE("pareto over placements: valid plans within the limits, more memory never worse, bounds of one and of all") {
  const std::vector<placed_step<>> steps = steps_over_all(deepseek_v3_costs(), 4, 8);
  const auto front = pareto(steps, {6, 2, 4, 3}, memory_unit::activations, {.evaluations = 6000});
  REQUIRE(front.size() == 4);
  for (std::size_t i = 0; i < front.size(); ++i) {
    const pareto_point& p = front[i];
    CAPTURE(p.cap);
    const placed_step<>& step = steps[p.step];
    CHECK(same_stages_on_ranks(p.plan.schedule.placement, step.problem.placement));
    CHECK(verify(p.plan.schedule));
    CHECK(makespan_of_step(p.plan.schedule, step.costs) == p.plan.makespan);
    CHECK(measure(simulate(p.plan.schedule, step.costs), step.costs).peak_activations <= p.cap);
    CHECK(p.plan.bound.makespan <= p.plan.makespan);
    CHECK(p.lower_bound <= p.plan.bound.makespan);
    if (i > 0) CHECK((p.cap > front[i - 1].cap && p.plan.makespan <= front[i - 1].plan.makespan));
    // No longer than any family on any of the placements, and the best of them is named.
    double best = std::numeric_limits<double>::infinity();
    for (const placed_step<>& other : steps)
      for (const schedule& s : families_on(other))
        if (measure(simulate(s, other.costs), other.costs).peak_activations <= p.cap)
          best = std::min(best, makespan_of_step(s, other.costs));
    CHECK(p.plan.makespan <= best);
    CHECK(p.plan.published_makespan <= best);
    const schedule& family = p.plan.published_schedule;
    const auto of_family = std::find_if(steps.begin(), steps.end(), [&](const placed_step<>& other) {
      return same_stages_on_ranks(other.problem.placement, family.placement);
    });
    REQUIRE(of_family != steps.end());
    CHECK(makespan_of_step(family, of_family->costs) == p.plan.published_makespan);
    CHECK(family.name == p.plan.published);
    CHECK(measure(simulate(family, of_family->costs), of_family->costs).peak_activations <= p.cap);
  }
}

TEST_CASE("pareto over placements: the bound for any placement is below plans with many evaluations on each") {
  const std::vector<placed_step<>> steps = steps_over_all(deepseek_v3_costs(), 2, 4);
  int planned = 0;
  for (const pareto_point& p : pareto(steps, {1, 2, 3}, memory_unit::activations, {.evaluations = 400}))
    for (const auto& [problem, costs] : steps) {
      plan_limits limits;
      limits.memory.activations = p.cap, limits.evaluations = 3000;
      try {
        CHECK(p.lower_bound <= plan(problem, costs, limits).makespan);
        ++planned;
      } catch (const no_fit_error&) {
      }
    }
  CHECK(planned > 15);
}

TEST_CASE("pareto in bytes: a second copy of the weights and the buffers of messages count") {
  const std::vector<placed_step<>> steps = steps_over_all(with_bytes, 4, 8);
  const auto front = pareto(steps, {150, 170, 190, 230, 260, 320}, memory_unit::bytes, {.evaluations = 6000});
  REQUIRE(front.size() == 6);
  for (const pareto_point& p : front) {
    CAPTURE(p.cap);
    CHECK(fits(p.plan.schedule, steps[p.step].costs, std::vector{p.cap}));
    if (p.cap < 200) CHECK(p.plan.schedule.placement.replicas() == 1);
    CHECK(p.lower_bound <= p.plan.bound.makespan);
    for (const placed_step<>& other : steps)
      for (const schedule& s : families_on(other))
        if (fits(s, other.costs, std::vector{p.cap})) CHECK(p.plan.makespan <= makespan_of_step(s, other.costs));
  }
  // With long transfers the bidirectional placement is the best as soon as two copies fit.
  CHECK(front.back().plan.schedule.placement.replicas() == 2);
  CHECK(pareto(steps, {100.5, 170}, memory_unit::bytes, {.evaluations = 700}).size() == 1);
  CHECK_THROWS_AS(pareto(steps, {99}, memory_unit::bytes, {.evaluations = 700}), schedule_error);
}

TEST_CASE("pareto over placements: deterministic for any number of threads, stopped with what it has, and bad input") {
  const std::vector<placed_step<>> steps = steps_over_all(deepseek_v3_costs(), 4, 8);
  const auto once = [&](unsigned threads) {
    std::string text;
    for (const pareto_point& p :
         pareto(steps, {3, 5}, memory_unit::activations, {.evaluations = 3000, .threads = threads}))
      text += to_string(p.plan.schedule.placement) + std::to_string(p.plan.makespan) + " ";
    return text;
  };
  CHECK(once(1) == once(3));
  for (const memory_unit unit : {memory_unit::activations, memory_unit::bytes}) {
    const bool in_bytes = unit == memory_unit::bytes;
    const std::vector<placed_step<>> of_unit = in_bytes ? steps_over_all(with_bytes, 4, 8) : steps;
    const std::vector<double> caps = in_bytes ? std::vector<double>{190, 260} : std::vector<double>{3, 5};
    for (const int most : {20, 400}) {
      int calls = 0;
      plan_limits limits{.evaluations = most == 20 ? 1'000'000'000u : 3'000u};
      double last = 0;
      limits.progress = [&](const plan_progress& p) {
        CHECK(p.evaluations >= last);
        last = p.evaluations;
        return ++calls < most;
      };
      const auto stopped = pareto(of_unit, caps, unit, limits);
      REQUIRE(stopped.size() == 2);
      for (const pareto_point& p : stopped) {
        CHECK(verify(p.plan.schedule));
        CHECK(p.plan.bound.makespan <= p.plan.makespan);
      }
      CHECK(stopped[1].plan.makespan <= stopped[0].plan.makespan);
      CHECK((most > 20 || calls == 20));
    }
  }
  using nothing = std::vector<placed_step<>>;
  CHECK_THROWS_WITH_AS(pareto(nothing{}, {3}, memory_unit::bytes), "pareto() needs at least 1 placement; got none",
                       schedule_error);
  CHECK_THROWS_WITH_AS(pareto(steps, {}, memory_unit::bytes), "pareto() needs at least 1 limit of memory; got none",
                       schedule_error);
  CHECK_THROWS_WITH_AS(pareto(steps, {2, 0}, memory_unit::activations),
                       "a limit of memory is finite and more than 0; got 0", schedule_error);
  std::vector<placed_step<>> two = steps_over_all(deepseek_v3_costs(), 4, 8);
  two.back().problem.micro = 4;
  CHECK_THROWS_WITH_AS(pareto(two, {2}, memory_unit::activations),
                       "pareto() takes placements of one step; got 4 and 4 ranks, 8 and 4 micro-batches",
                       schedule_error);
  CHECK_THROWS_AS(placements_for(4, 0), schedule_error);
  CHECK_THROWS_AS(placements_for(4, 8, 0), schedule_error);
  plan_limits with_memory;
  with_memory.memory.activations = 3;
  CHECK_THROWS_AS(pareto(steps, {2}, memory_unit::activations, with_memory), schedule_error);
  plan_limits with_start;
  with_start.starts = {make_1f1b_schedule({.pp = 4, .micro = 8})};
  CHECK_THROWS_AS(pareto(steps, {2}, memory_unit::activations, with_start), schedule_error);
}

TEST_CASE(
    "plan_in_memory: random costs with messages; all bytes fit, never longer than a family that fits, bounds hold") {
  detail::random_numbers random(7);
  int planned = 0;
  for (int i = 0; i < 120; ++i) {
    CAPTURE(i);
    const auto pick = [&](std::uint64_t n) { return static_cast<double>(random.below(n)); };
    const std::vector<placement> all = placements_for(2 + 2 * static_cast<std::int64_t>(random.below(2)), 6, 2);
    const placement where = all[random.below(all.size())];
    stage_costs costs{.forward = 1 + pick(5), .backward_input = 1 + pick(5), .backward_weight = 1 + pick(4)};
    costs.message_bytes = pick(4), costs.kept_by_forward = 1 + pick(6), costs.weight_bytes = pick(20);
    costs.transient_forward = pick(3), costs.transfer_time = 0.25 * pick(3);
    const placed_step<> step{{.placement = where, .micro = 6}, costs};
    std::vector<double> memory;
    for (std::uint32_t r = 0; r < where.ranks(); ++r) memory.push_back(20 + pick(60));
    try {
      const plan_result p = plan_in_memory(step.problem, costs, memory, {.evaluations = i % 2 == 0 ? 1u : 300u});
      ++planned;
      CHECK(verify(p.schedule));
      CHECK(fits(p.schedule, costs, memory));
      CHECK(p.bound.makespan <= p.makespan * (1 + 1e-12));
      for (const schedule& s : families_on(step))
        if (fits(s, costs, memory)) CHECK(p.makespan <= makespan_of_step(s, costs));
    } catch (const schedule_error& e) {
      CAPTURE(e.what());
      for (const schedule& s : families_on(step)) CHECK(!fits(s, costs, memory));
    }
  }
  CHECK(planned > 40);
}

TEST_CASE("plan_in_memory: what is refused, and why") {
  const plan_problem problem{.placement = placement::bidirectional(4, 8), .micro = 8};
  CHECK_THROWS_WITH_AS(plan_in_memory(problem, with_bytes, {190}),
                       "plan_in_memory() finds nothing that fits: rank 0 has 190 bytes, and its weights take 200",
                       schedule_error);
  CHECK_THROWS_WITH_AS(plan_in_memory(problem, with_bytes, {205}),
                       "plan() finds no schedule with at most 5 bytes on rank 0; nearest 12, beside its weights",
                       schedule_error);
  CHECK_THROWS_WITH_AS(plan_in_memory(problem, with_bytes, {212.5}),
                       "plan_in_memory() finds no schedule whose message buffers fit into the memory of the ranks, too",
                       schedule_error);
  CHECK_THROWS_AS(plan_in_memory(problem, with_bytes, {300, 300}), schedule_error);
  CHECK_THROWS_AS(plan_in_memory(problem, with_bytes, {-1}), schedule_error);
  plan_limits limits;
  limits.memory.activations = 3;
  CHECK_THROWS_AS(plan_in_memory(problem, with_bytes, {300}, limits), schedule_error);
  limits = {.evaluations = 100, .starts = {make_1f1b_schedule({.pp = 4, .micro = 6})}};
  CHECK_THROWS_WITH_AS(
      plan_in_memory(problem, with_bytes, {300}, limits),
      "plan() starts from schedules of its own problem; got 1f1b with 6 micro-batches on 4 ranks and 4 stages",
      schedule_error);
  plan_problem short_list = problem;
  short_list.recomputed = {true};
  for (const auto& call :
       std::vector<std::function<void()>>{[&] { plan_in_memory(short_list, with_bytes, {300}, {.evaluations = 1}); },
                                          [&] { plan(short_list, with_bytes, {.evaluations = 1}); },
                                          [&] { pareto(short_list, with_bytes, {5}, {.evaluations = 1}); }})
    CHECK_THROWS_WITH_AS(call(), "plan() takes one entry of recomputed per stage, or none; got 1 for 4 stages",
                         schedule_error);
  CHECK(plan_in_memory(problem, with_bytes, {}, {.evaluations = 200}).makespan ==
        plan(problem, with_bytes, {.evaluations = 200}).makespan);
}

TEST_CASE("pareto of a model: partitions within each limit of bytes, over placements") {
  model m;
  m.layers = {{.count = 9, .forward = 2, .backward = 4, .kept = 3, .weights = 10, .message = 0.5},
              {.count = 1, .forward = 3, .backward = 6, .kept = 2, .weights = 25}};
  std::vector<model_problem> problems;
  for (const placement& where : placements_for(2, 6, 2)) problems.push_back({.placement = where, .micro = 6});
  const auto front = pareto(m, problems, {90, 150, 300, 100}, {.evaluations = 4000});
  REQUIRE(front.size() == 4);
  for (std::size_t i = 0; i < front.size(); ++i) {
    const model_pareto_point& p = front[i];
    CAPTURE(p.cap);
    CHECK(verify(p.plan.plan.schedule));
    CHECK(fits(p.plan.plan.schedule, p.plan.costs, std::vector{p.cap}));
    CHECK(p.plan.costs == costs_of(m, p.plan.partition, p.plan.plan.schedule.placement));
    CHECK(makespan_of_step(p.plan.plan.schedule, p.plan.costs) == p.plan.plan.makespan);
    CHECK(p.lower_bound <= p.plan.lower_bound);
    CHECK(p.plan.lower_bound <= p.plan.plan.makespan);
    CHECK(p.plan.plan.bound.makespan <= p.plan.plan.makespan);
    for (const rank_memory& r : p.plan.memory.ranks) CHECK(r.limit == p.cap);
    if (i > 0) CHECK(p.plan.plan.makespan <= front[i - 1].plan.plan.makespan);
    CHECK(p.plan.plan.makespan <= p.plan.divided.makespan);
  }
  CHECK_THROWS_AS(pareto(m, problems, {20}, {.evaluations = 400}), schedule_error);
  CHECK_THROWS_AS(pareto(m, std::vector<model_problem>{}, {20}), schedule_error);
}
