// SPDX-License-Identifier: MIT
// Times of pairs from the tasks of layers.

#include "pipesched/plan/cell_costs.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "pipesched/cost/presets.hpp"
#include "pipesched/generate/dualpipe.hpp"
#include "pipesched/generate/zbv.hpp"
#include "pipesched/model/costs_of.hpp"
#include "pipesched/model/presets.hpp"
#include "pipesched/plan/cell_presets.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/random_cells.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

constexpr pass F = pass::forward, B = pass::backward, I = pass::backward_input;

cell pair(pass x, std::uint16_t a, pass y, std::uint16_t b) { return {op{x, 0, a, 0}, op{y, 0, b, 1}}; }

}  // namespace

TEST_CASE("tasks_of: passes through two layers") {
  const layer_tasks a{.kind = "a",
                      .forward = {{"fa", 1, compute}},
                      .backward = {{"ra", 2, communication}, {"ba", 3, compute}},
                      .weight = {{"wa", 4, 1}, {"va", 5}}};
  layer_tasks b = a;
  b.forward[0].name = "fb", b.backward[0].name = "rb", b.backward[1].name = "bb", b.weight[0].name = "wb";
  const auto names = [&](pass p) {
    const op_tasks tasks = tasks_of({a, b}, p);
    std::string text;
    for (const cell_task& t : tasks.chain) text += t.name.str() + ' ';
    for (const movable_task& t : tasks.movable)
      text += t.name.str() + (t.after ? ':' + std::to_string(*t.after) : "") + ' ';
    return text;
  };
  CHECK(names(F) == "fa fb ");
  CHECK(names(pass::recompute) == "fa fb ");
  CHECK(names(I) == "rb bb ra ba ");
  CHECK(names(B) == "rb bb ra ba wb:1 va wa:3 va ");
  CHECK(names(pass::backward_weight) == "wb va wa va ");
  CHECK(names(pass::recompute_backward_input) == "fb rb bb fa ra ba ");
  CHECK(names(pass::recompute_backward) == "fb rb bb fa ra ba wb:2 va wa:5 va ");
}

TEST_CASE("with_planned_pairs: stages of DeepSeek-V3, planned and measured") {
  const schedule s = make_dualpipe_schedule({.pp = 8, .micro = 20});
  const std::vector<layer_tasks> four(4, deepseek_v3_layer_tasks());
  const std::vector stages(8, four);
  const double efficiency =
      cell_in_order(tasks_of(four, F), tasks_of(four, B), deepseek_v3_order()).length / deepseek_v3_pair;
  const stage_costs measured = deepseek_v3_costs();
  const stage_costs planned = with_planned_pairs(measured, stages, s.placement, {.cell = {.efficiency = efficiency}});
  planned.check(8);
  CHECK(planned.duration(pair(F, 0, B, 7)) == doctest::Approx(126.70).epsilon(1e-4));
  CHECK(planned.duration(pair(B, 7, F, 0)) == planned.duration(pair(F, 0, B, 7)));
  CHECK(planned.duration(pair(F, 3, I, 3)) == doctest::Approx(123.38).epsilon(1e-4));
  CHECK(planned.duration(pair(F, 0, F, 7)) == measured.duration(pair(F, 0, F, 7)));  // not asked for
  CHECK(planned.pairs.size() == 2 * 4 * 4);  // FB and FI; stages s and 7-s; four ordered pairs of these
  CHECK(planned.may_overlap() == measured.may_overlap());
  const double before = measure(simulate(s, measured)).makespan, now = measure(simulate(s, planned)).makespan;
  CHECK(before == doctest::Approx(4088.30));
  CHECK(now < before);
  CHECK(now > before * 0.97);

  // Any pair: those of two backwards take as long as their compute, and no longer than one after the other.
  pair_plan_options any{.pairs = {{F, B}, {F, I}, {F, F}, {B, B}, {I, I}}, .cell = {.efficiency = efficiency}};
  const stage_costs all = with_planned_pairs(measured, stages, s.placement, any);
  CHECK(all.duration(pair(F, 0, F, 7)) == doctest::Approx(134.14).epsilon(1e-4));
  CHECK(all.duration(pair(B, 0, B, 7)) == doctest::Approx(179.40).epsilon(1e-4));
  CHECK(all.duration(pair(B, 7, B, 0)) == all.duration(pair(B, 0, B, 7)));
  CHECK(all.may_overlap().contains({B, B}));
  all.check(8);
  // Planned again: nothing is priced twice.
  CHECK(with_planned_pairs(all, stages, s.placement, any) == all);
}

TEST_CASE("with_planned_pairs: a cell never takes longer than its ops one after the other") {
  const schedule s = make_zbv_schedule({.pp = 2, .micro = 4});
  const std::vector<layer_tasks> dense{
      {.kind = "dense", .forward = {{"F", 3, compute}}, .backward = {{"I", 4, compute}}, .weight = {{"W", 2, 0}}}};
  stage_costs costs{.forward = 3, .backward_input = 4, .backward_weight = 2};
  costs.pairs = {{.passes = {F, B}, .stages = std::array<std::uint16_t, 2>{0, 3}, .time = 77},
                 {.passes = {F, B}, .stages = std::array<std::uint16_t, 2>{0, 2}, .time = 78},
                 {.passes = {F, B}, .stages = {}, .time = 79}};
  const stage_costs planned =
      with_planned_pairs(costs, std::vector(4, dense), s.placement, {.cell = {.efficiency = 0.5}});
  CHECK(planned.duration(pair(F, 0, B, 3)) == 9);   // planned, in place of 77
  CHECK(planned.duration(pair(F, 0, B, 2)) == 78);  // of two ranks: as it was
  CHECK(planned.duration(pair(F, 0, B, 1)) == 79);
  CHECK_THROWS_WITH(with_planned_pairs(costs, std::vector(3, dense), s.placement),
                    "cell_plan: there are tasks for 3 stages; expected 4, as in the placement");
}

TEST_CASE("with_planned_pairs: a model's pairs of layers") {
  const layer_tasks moe = deepseek_v3_layer_tasks();
  const model m = deepseek_v3_model(8);
  const model planned = with_planned_pairs(m, {moe});
  REQUIRE(planned.pairs.size() == 2);
  const std::vector<layer_tasks> four(4, moe);
  CHECK(planned.pairs[0].time == cell_plan(tasks_of(four, F), tasks_of(four, B)).length / 4);
  CHECK(planned.pairs[1].time == cell_plan(tasks_of(four, F), tasks_of(four, I)).length / 4);
  CHECK(with_planned_pairs(m, {moe}, {.layers = 1}).pairs[0].time > planned.pairs[0].time);

  // Two kinds: every ordered pair of them once.
  model mixed = m;
  mixed.layers.push_back({.kind = "dense", .count = 2, .forward = 10, .backward_input = 12, .backward_weight = 8});
  const layer_tasks dense{
      .kind = "dense", .forward = {{"F", 10, compute}}, .backward = {{"I", 12, compute}}, .weight = {{"W", 8, 0}}};
  const model both = with_planned_pairs(mixed, {moe, dense}, {.pairs = {{F, B}, {F, F}}});
  check(both);
  CHECK(both.pairs.size() == 4 + 3 + 1);  // FB, FF, and the FI that was there
  const auto price = [&](const std::string& a, const std::string& b, pass_pair passes) {
    const auto found = std::find_if(both.pairs.begin(), both.pairs.end(), [&](const layer_pair& p) {
      return p.passes == passes && p.kinds[0] == a && p.kinds[1] == b;
    });
    REQUIRE(found != both.pairs.end());
    return found->time;
  };
  CHECK(price("dense", "dense", {F, B}) == 30);
  CHECK(price("moe", "dense", {F, B}) < mixed.layers[0].forward + 20);
  CHECK(price("moe", "dense", {F, B}) != price("dense", "moe", {F, B}));

  // The costs of stages: those of a partition with planned cells, at most the sum of planned pairs of layers.
  const partition p{{3, 3, 2, 2}};
  const schedule s = make_zbv_schedule({.pp = 2, .micro = 4});
  const stage_costs by_stage =
      with_planned_pairs(costs_of(mixed, p, s.placement), stage_tasks(mixed, p, {moe}), s.placement);
  by_stage.check(4);
  const stage_costs by_layer = costs_of(both, p, s.placement);
  CHECK(by_stage.duration(pair(F, 3, B, 3)) == 60);
  CHECK(by_stage.duration(pair(F, 0, B, 0)) <= by_layer.duration(pair(F, 0, B, 0)) * 1.02);

  CHECK_THROWS_WITH(with_planned_pairs(m, {moe, moe}), "cell_plan: the kind \"moe\" has tasks twice; expected once");
  CHECK_THROWS_WITH(stage_tasks(m, {{8}}, {moe, moe}), "cell_plan: the kind \"moe\" has tasks twice; expected once");
  CHECK_THROWS_WITH(with_planned_pairs(m, {dense}),
                    "cell_plan: there are tasks for the kind \"dense\", which no layer has");
  CHECK_THROWS_WITH(with_planned_pairs(m, {moe}, {.layers = 0}),
                    "cell_plan: pairs are planned with 0 layers in a row; expected 1 or more, nearest 1");
}
