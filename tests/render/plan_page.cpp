// SPDX-License-Identifier: MIT

#include "pipesched/render/plan_page.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "pipesched/generate/families.hpp"
#include "pipesched/plan/model_plan.hpp"
#include "support/page_data.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

const plan_problem step_of_page{.placement = placement::linear(4), .micro = 6};

plan_limits limits_of_page() {
  plan_limits limits;
  limits.evaluations = 300;
  return limits;
}

stage_costs costs_of_page() {
  stage_costs costs;
  costs.forward = 1, costs.backward = 2, costs.transfer_time = 0.25;
  return costs;
}

std::vector<std::string> names_in(const nlohmann::json& page) {
  std::vector<std::string> names;
  for (const auto& panel : page["panels"]) names.push_back(panel["name"]);
  return names;
}

using names = std::vector<std::string>;

}  // namespace

TEST_CASE("page of a plan: the plan, then the best published schedule and others, the shortest first") {
  const stage_costs costs = costs_of_page();
  const plan_result found = plan(step_of_page, costs, limits_of_page());
  REQUIRE(found.published_schedule.pp() == 4);
  const nlohmann::json page = data_in(page_of_plan(found, costs));
  CHECK(names_in(page) == names{"planned", found.published + ", best parameters"});
  CHECK(page["panels"][0]["planned"] == true);
  CHECK(page["panels"][0]["makespan"] == found.makespan);
  CHECK(page["panels"][0]["bound"] == found.bound.makespan);
  CHECK(page["panels"][1]["planned"] == false);
  CHECK(page["panels"][1]["makespan"] == found.published_makespan);

  const std::vector<html_panel> beside = {
      make_panel(simulate(make_gpipe_schedule({.pp = 4, .micro = 6}), costs), costs),
      make_panel(simulate(found.published_schedule, costs), costs)};
  const std::string published(found.published_schedule.name.view());
  CHECK(names_in(data_in(page_of_plan(found, costs, beside))) == names{"planned", published, "gpipe"});
}

TEST_CASE("page of a plan: the same order with other times is another schedule") {
  const stage_costs costs = costs_of_page();
  const plan_result found = plan(step_of_page, costs, limits_of_page());
  stage_costs others = costs;
  others.forward = 3;
  const std::vector<html_panel> beside = {make_panel(simulate(found.published_schedule, others), others)};
  CHECK(data_in(page_of_plan(found, costs, beside))["panels"].size() == 3);
}

TEST_CASE("pages of plans and fronts: times have the unit of the costs, unless the style has one") {
  stage_costs costs = costs_of_page();
  const plan_result found = plan(step_of_page, costs, limits_of_page());
  const std::vector<pareto_point> front = pareto(step_of_page, costs, {4}, limits_of_page());
  model_plan of_model;
  of_model.costs = costs, of_model.plan = found;
  CHECK(data_in(page_of_plan(found, costs))["unit"] == "");
  costs.time_unit = of_model.costs.time_unit = time_unit::ms;
  CHECK(data_in(page_of_plan(found, costs))["unit"] == "ms");
  CHECK(data_in(page_of_plan(of_model))["unit"] == "ms");
  CHECK(data_in(page_of_front(front, costs))["unit"] == "ms");
  CHECK(data_in(page_of_plan(found, costs, {}, {.unit = "s"}))["unit"] == "s");
}

TEST_CASE("page of a plan without a published schedule: the plan alone") {
  const stage_costs costs = costs_of_page();
  plan_result found = plan(step_of_page, costs, limits_of_page());
  found.published_schedule = {};
  CHECK(names_in(data_in(page_of_plan(found, costs))) == names{"planned"});
}

TEST_CASE("page of the plan of a model: its own costs, and the room of each rank for activations") {
  model m;
  m.layers = {{.count = 6, .forward = 1, .backward = 2, .kept = 1, .weights = 1}};
  m.ranks = {{.memory = 100}};
  model_plan found = plan(m, model_problem{.placement = placement::linear(2), .micro = 4}, limits_of_page());
  found.plan.published = "gpipe", found.plan.published_schedule = make_gpipe_schedule({.pp = 2, .micro = 4});
  const nlohmann::json page = data_in(page_of_plan(found));
  CHECK(names_in(page) == names{"planned", "gpipe, same layers"});
  CHECK(page["panels"][0]["makespan"] == found.plan.makespan);
  CHECK(page["panels"][0]["limits"] == room_of(found.memory));
  CHECK(page["panels"][1]["limits"] == room_of(fits(found.plan.published_schedule, found.costs, std::vector{100.0})));
  m.ranks.clear();
  const model_plan without = plan(m, model_problem{.placement = placement::linear(2), .micro = 4}, limits_of_page());
  CHECK(room_of(without.memory).empty());
  CHECK(data_in(page_of_plan(without))["panels"][0]["limits"].is_null());
}

TEST_CASE("page of a front: each point opens its plan and the best published schedule") {
  const stage_costs costs = costs_of_page();
  const std::vector<pareto_point> front = pareto(step_of_page, costs, {1, 2, 4}, limits_of_page());
  html_style style{.subject = "Mine"};
  style.front = {{.point = {}, .plan = 77}};  // replaced
  const nlohmann::json page = data_in(page_of_front(front, costs, style));
  REQUIRE(page["front"].size() == front.size());
  CHECK(page["subject"] == "Mine");
  for (std::size_t i = 0; i < front.size(); ++i) {
    const auto& point = page["front"][i];
    CHECK(point["memory"] == front[i].cap);
    CHECK(point["bound"] == front[i].plan.bound.makespan);
    CHECK(page["panels"][point["plan"].get<std::size_t>()]["makespan"] == front[i].plan.makespan);
    if (front[i].plan.published.empty())
      CHECK(point["published"] == -1);
    else
      CHECK(page["panels"][point["published"].get<std::size_t>()]["makespan"] == front[i].plan.published_makespan);
  }
  CHECK_THROWS_AS(page_of_front({}, costs), schedule_error);
}

TEST_CASE("page of a front: plans that are the same are one panel") {
  const stage_costs costs = costs_of_page();
  std::vector<pareto_point> front = pareto(step_of_page, costs, {4}, limits_of_page());
  front.push_back(front[0]), front[1].cap = 8;
  const nlohmann::json page = data_in(page_of_front(front, costs));
  CHECK(page["panels"].size() == 2);
  CHECK(page["front"][0]["plan"] == page["front"][1]["plan"]);
  CHECK(names_in(page)[0] == "planned, limit 4");
}
