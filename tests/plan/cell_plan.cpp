// SPDX-License-Identifier: MIT
// cell_plan(): exact lengths against all orders, proofs, DeepSeek-V3's measured pair, refusals.

#include "pipesched/plan/cell_plan.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "pipesched/cost/presets.hpp"
#include "pipesched/plan/cell_presets.hpp"
#include "pipesched/plan/cell_text.hpp"
#include "support/golden.hpp"
#include "support/random_cells.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

planned_cell plan(const two_ops& ops, const cell_plan_options& options = {}) {
  return cell_plan(ops[0], ops[1], options);
}

// The plan of a cell, as short as the best of all orders and proved so.
planned_cell proved_best(const two_ops& ops) {
  const planned_cell cell = plan(ops);
  REQUIRE(cell.length == exact_cell(ops).length());
  REQUIRE(cell.lower_bound == cell.length);
  REQUIRE(broken_rule(cell, ops) == "");
  return cell;
}

// Each chain computes for 2 and communicates for 3; W takes 1.
constexpr double small_length(bool with_weight) {
  op_tasks a{.chain = {{"f", 2, compute}, {"s", 3, communication}}};
  op_tasks b = a;
  if (with_weight) b.movable = {{"w", 1, 0}};
  return cell_plan(a, b).length;
}
static_assert(small_length(false) == 8);
static_assert(small_length(true) == 8);

two_ops deepseek_v3_pair_of(std::size_t layers) {
  const std::vector<layer_tasks> all(layers, deepseek_v3_layer_tasks());
  return {tasks_of(all, pass::forward), tasks_of(all, pass::backward)};
}

}  // namespace

TEST_CASE("cell_plan: two chains are as short as the best of all orders") {
  std::mt19937_64 random(16);
  int shorter_than_serial = 0;
  for (int i = 0; i < 3000; ++i) {
    const two_ops ops = random_ops(random, 5, 0);
    CAPTURE(i);
    const planned_cell cell = proved_best(ops);
    REQUIRE(cell.chains == cell.length);
    double serial = 0;
    for (const op_tasks& of : ops)
      for (const cell_task& t : of.chain) serial += t.duration;
    shorter_than_serial += cell.length < serial;
  }
  CHECK(shorter_than_serial > 1000);
}

TEST_CASE("cell_plan: with movable tasks it is as short as the best of all orders, and says so") {
  std::mt19937_64 random(17);
  int longer_than_chains = 0;
  for (int i = 0; i < 1500; ++i) {
    const two_ops ops = random_ops(random, 3, 3);
    CAPTURE(i);
    const planned_cell cell = proved_best(ops);
    longer_than_chains += cell.length > cell.chains;
  }
  CHECK(longer_than_chains > 300);
}

TEST_CASE("cell_plan: without a search the bound is no longer than the best order, and the order no shorter") {
  std::mt19937_64 random(18);
  int open = 0;
  for (int i = 0; i < 3000; ++i) {
    const two_ops ops = random_ops(random, 6, 5);
    const planned_cell best = plan(ops), filled = plan(ops, {.max_states = 0});
    CAPTURE(i);
    REQUIRE(best.lower_bound == best.length);
    REQUIRE(filled.lower_bound <= best.length);
    REQUIRE(filled.length >= best.length);
    REQUIRE(filled.states == 0);
    REQUIRE(broken_rule(filled, ops) == "");
    open += filled.gap() > 0;
  }
  CHECK(open > 100);
}

TEST_CASE("cell_plan: four layers per chain with W are as short as by an exact search") {
  std::mt19937_64 random(19);
  for (int i = 0; i < 16; ++i) {
    const two_ops ops = random_layers(random, i < 8 ? 3 : 4, i % 2 == 0);
    CAPTURE(i);
    CHECK(exact_cell(ops, 1e9).length() == doctest::Approx(plan(ops).length).epsilon(1e-9));
  }
  for (int i = 0; i < 60; ++i) {  // no order is shorter than the one planned
    const two_ops ops = random_layers(random, 4, i % 2 == 0);
    const double length = plan(ops).length;
    CAPTURE(i);
    CHECK(exact_cell(ops, length).length() >= length * (1 - 1e-9));
  }
}

TEST_CASE("cell_plan: 600 pairs of the published shape, each at most 0.1 % above its bound") {
  std::mt19937_64 random(20);
  int proved = 0;
  std::size_t states = 0;
  for (int i = 0; i < 600; ++i) {
    const two_ops ops = random_layers(random, 4, i % 2 == 0);
    const planned_cell cell = plan(ops);
    CAPTURE(i);
    REQUIRE(broken_rule(cell, ops) == "");
    REQUIRE(cell.lower_bound >= cell.chains * (1 - 1e-12));
    REQUIRE(cell.gap() <= 0.001);
    proved += cell.gap() == 0, states += cell.states;
    // The ops are unordered.
    REQUIRE(plan({ops[1], ops[0]}).length == doctest::Approx(cell.length).epsilon(1e-9));
  }
  CHECK(proved == 600);
  CHECK(states < 600 * 1000);
}

TEST_CASE("cell_plan: more states never lengthen an order or lower its bound") {
  std::mt19937_64 random(21);
  int gained = 0;
  for (int i = 0; i < 20; ++i) {
    const two_ops ops = random_layers(random, 9, false);
    planned_cell before = plan(ops, {.max_states = 0});
    for (const std::size_t states : {1u, 500u, 2000u, 20'000u}) {
      const planned_cell now = plan(ops, {.max_states = states});
      CAPTURE(i);
      CAPTURE(states);
      REQUIRE(broken_rule(now, ops) == "");
      REQUIRE(now.length <= before.length * (1 + 1e-9));
      REQUIRE(now.lower_bound <= now.length);
      REQUIRE(now.states <= 2 * states + 500);
      gained += now.length < before.length;
      before = now;
    }
  }
  CHECK(gained > 20);
}

TEST_CASE("cell_plan: more than 128 movable tasks fill the gaps, with a bound") {
  const planned_cell most = plan(deepseek_v3_pair_of(64), {.max_states = 1});
  CHECK(most.states > 0);
  CHECK(most.gap() < 0.03);
  const two_ops ops = deepseek_v3_pair_of(65);
  const planned_cell cell = plan(ops);
  CHECK(cell.states == 0);
  CHECK(broken_rule(cell, ops) == "");
  CHECK(cell.lower_bound <= cell.length);
  CHECK(cell.gap() < 0.15);
}

TEST_CASE("cell_plan: DeepSeek-V3's pair beside its measured time and order") {
  const two_ops ops = deepseek_v3_pair_of(4);
  const planned_cell seen = cell_in_order(ops[0], ops[1], deepseek_v3_order());
  CHECK(broken_rule(seen, ops) == "");
  CHECK(seen.length == doctest::Approx(122.50));
  const planned_cell best = plan(ops);
  CHECK(best.chains == doctest::Approx(117.15));
  CHECK(best.length == doctest::Approx(120.31));  // the compute alone takes 118.18
  CHECK(best.gap() == 0);
  CHECK(broken_rule(best, ops) == "");

  // The kernels slow each other down: the measured pair takes 5 % longer than its tasks.
  const double efficiency = seen.length / deepseek_v3_pair;
  CHECK(efficiency == doctest::Approx(0.9495).epsilon(1e-4));
  const planned_cell scaled = plan(ops, {.efficiency = efficiency});
  CHECK(scaled.length == doctest::Approx(126.70).epsilon(1e-4));
  CHECK(scaled.lower_bound == scaled.length);
  CHECK(broken_rule(scaled, ops, efficiency) == "");
  CHECK(end_of(scaled, 1) <= scaled.length);
  CHECK(chain_end_of(scaled, 1) < end_of(scaled, 1));
  CHECK(cell_in_order(ops[0], ops[1], deepseek_v3_order(), efficiency).length == doctest::Approx(deepseek_v3_pair));
}

TEST_CASE("cell_plan: DeepSeek-V3's tasks are those of the profile and of the costs") {
  const auto profile = nlohmann::json::parse(golden_text("deepseek_v3_profile.json"));
  const two_ops ops = deepseek_v3_pair_of(4);
  const auto sum = [](const auto& tasks, std::string_view name) {
    double all = 0;
    for (const auto& t : tasks)
      if (name.empty() || t.name == name) all += t.duration;
    return all;
  };
  int found = 0;
  for (const char* resource : {"compute", "communication"})
    for (const auto& entry : profile.at(resource).items()) {
      const std::string name = entry.key();
      if (name == "mlp(W) on a second stream") continue;  // a part of mlp(W)
      CAPTURE(name);
      const double all = sum(ops[0].chain, name) + sum(ops[1].chain, name) + sum(ops[1].movable, name);
      CHECK(all == doctest::Approx(entry.value().get<double>()));
      ++found;
    }
  CHECK(found == 10);
  const stage_costs costs = deepseek_v3_costs();
  CHECK(sum(ops[0].chain, "") == doctest::Approx(costs.forward[0]));
  CHECK(sum(ops[1].chain, "") == doctest::Approx(costs.backward_input[0]));
  CHECK(sum(ops[1].movable, "") == doctest::Approx(costs.backward_weight[0]));
  CHECK(costs.overlapped[0] == deepseek_v3_pair);
}

TEST_CASE("cell_in_order: a planned order has its planned length") {
  std::mt19937_64 random(22);
  for (int i = 0; i < 300; ++i) {
    const two_ops ops = i % 10 == 0 ? random_layers(random, 3, false) : random_ops(random, 5, 4);
    const planned_cell cell = plan(ops);
    std::vector<task_ref> order;
    for (const timed_task& t : cell.tasks) order.push_back(t.task);
    const planned_cell again = cell_in_order(ops[0], ops[1], order);
    CAPTURE(i);
    REQUIRE(broken_rule(again, ops) == "");
    REQUIRE(again.length <= cell.length * (1 + 1e-12));
    REQUIRE(again.chains == cell.chains);
    REQUIRE(again.lower_bound <= again.length);
  }
}

TEST_CASE("cell_plan: tasks that are short beyond rounding do not end the search") {
  const op_tasks a{.chain = {{"long", 1e6, compute}, {"send", 1e6, communication}}};
  const op_tasks b{.chain = {{"recv", 1e6, communication}, {"short", 1e-12, compute}, {"long", 1e6, compute}},
                   .movable = {{"w", 1e-13, 1}, {"v", 1e6, 0}}};
  const two_ops both{a, b};
  const planned_cell cell = plan(both);
  CHECK(broken_rule(cell, both) == "");
  CHECK(cell.length == doctest::Approx(3e6));
  CHECK(cell.length == doctest::Approx(exact_cell(both).length()));
}

TEST_CASE("cell_plan: empty ops, tasks without length, a single op") {
  CHECK(cell_plan({}, {}).length == 0);
  CHECK(cell_plan({}, {}).gap() == 0);
  const op_tasks one{.chain = {{"a", 2, compute}, {"b", 0, communication}, {"c", 3, communication}},
                     .movable = {{"w", 4, 1}, {"v", 0, 2}, {"u", 1, {}, communication}}};
  const planned_cell cell = cell_plan(one, {});
  CHECK(cell.length == 6);
  CHECK(cell.tasks.size() == 6);
  CHECK(broken_rule(cell, {one, {}}) == "");
  const op_tasks weight{.chain = {}, .movable = {{"w", 4}, {"v", 2}}};
  CHECK(cell_plan(weight, weight).length == 12);
}

TEST_CASE("cell_plan: bad input is refused in one sentence") {
  const op_tasks good{.chain = {{"a", 1, compute}}};
  op_tasks bad = good;
  bad.chain[0].duration = -1;
  CHECK_THROWS_WITH(
      cell_plan(good, bad),
      "cell_plan: task \"a\" of op 1 has a duration that is negative; expected a finite number that is not "
      "negative, nearest 0");
  bad.chain[0].duration = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH(cell_plan(bad, good), doctest::Contains("op 0 has a duration that is not a number"));
  bad.chain[0].duration = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH(cell_plan(bad, good), doctest::Contains("is infinite"));
  bad.chain[0].duration = 1e308;
  CHECK_THROWS_WITH(cell_plan(bad, bad),
                    "cell_plan: the durations add up to more than a double holds; give them in a larger unit");
  CHECK_THROWS(cell_plan(bad, good, {.efficiency = 0.5}));
  bad = good, bad.movable = {{"w", 1, 1}};
  CHECK_THROWS_WITH(
      cell_plan(good, bad),
      "cell_plan: movable task \"w\" of op 1 comes after task 1 of the chain; expected 0 to 0, nearest 0");
  bad.chain.clear();
  CHECK_THROWS_WITH(cell_plan(bad, good),
                    "cell_plan: movable task \"w\" of op 0 comes after task 1 of an empty chain; expected no task");
  for (const double efficiency : {0.0, -1.0, 1.5, std::numeric_limits<double>::quiet_NaN()})
    CHECK_THROWS_WITH(cell_plan(good, good, {.efficiency = efficiency}),
                      doctest::Contains("cell_plan: efficiency is more than 0 and at most 1; got "));

  const op_tasks two{.chain = {{"a", 1, compute}, {"b", 1, compute}}, .movable = {{"w", 1, 0}}};
  CHECK_THROWS_WITH(cell_in_order(two, {}, {{0, false, 1}}),
                    "cell_in_order: task 1 of op 0 comes before task 0, which it needs");
  CHECK_THROWS_WITH(cell_in_order(two, {}, {{0, true, 0}}),
                    "cell_in_order: movable task 0 of op 0 comes before task 0, which it needs");
  CHECK_THROWS_WITH(cell_in_order(two, {}, {{0, false, 0}, {0, false, 0}}),
                    "cell_in_order: task 0 of op 0 is given twice; expected once");
  CHECK_THROWS_WITH(cell_in_order(two, {}, {{1, false, 0}}),
                    "cell_in_order: there is no task 0 of op 1; expected a task of the two ops");
  CHECK_THROWS_WITH(cell_in_order(two, {}, {{0, false, 0}}), "cell_in_order: got 1 task; expected all 3");
}

TEST_CASE("render_cell: two lines, to scale") {
  const op_tasks forward{.chain = {{"attn", 8, compute}, {"send", 8, communication}}};
  const op_tasks backward{.chain = {{"recv", 8, communication}, {"mlp", 4, compute}}, .movable = {{"w", 4, 1}}};
  const planned_cell cell = cell_plan(forward, backward);
  CHECK(cell.length == 16);
  CHECK(render_cell(cell, forward, backward, 33) ==
        "compute       |attn-----------|mlp----|w------|\n"
        "communication |recv-----------|send-----------|\n");
  CHECK(render_cell(cell_plan({}, {}), {}, {}, 8) == "compute\ncommunication\n");
  CHECK_THROWS_WITH(render_cell(cell, forward, backward, 7),
                    "render_cell() takes 8 to 10000 columns; got 7, nearest 8");
  CHECK_THROWS_WITH(render_cell(cell, forward, backward, 10001),
                    "render_cell() takes 8 to 10000 columns; got 10001, nearest 10000");
  CHECK_THROWS_WITH(deepseek_v3_order(max_layers + 1),
                    "deepseek_v3_order() takes at most 1048576 layers; got 1048577, nearest 1048576");
}
