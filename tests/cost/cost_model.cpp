// SPDX-License-Identifier: MIT

#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/split_costs.hpp"
#include "pipesched/cost/stage_costs.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "pipesched/cost/presets.hpp"
#include "support/families.hpp"
#include "support/golden.hpp"
#include "support/random_costs.hpp"

using namespace pipesched;
using namespace pipesched::tests;
using nlohmann::json;

namespace {
constexpr op F0{pass::forward, 0, 0, 0}, B1{pass::backward, 0, 1, 0}, I1{pass::backward_input, 0, 1, 0};
}

TEST_CASE("costs: the time of an overlapped pair is given, derived from an efficiency, or the sum of its ops") {
  stage_costs c{.forward = 10, .backward_input = 12, .backward_weight = 4};
  CHECK(c.duration(cell(F0, B1)) == 26);
  c.overlap_efficiency = 1;
  CHECK(c.duration(cell(F0, B1)) == 16);  // the longer op
  c.overlap_efficiency = 0.8;
  CHECK(c.duration(cell(F0, B1)) == doctest::Approx(20));
  CHECK(c.duration(cell(F0, I1)) == doctest::Approx(15));
  c.overlap_efficiency = 0.1;
  CHECK(c.duration(cell(F0, B1)) == 26);  // never more than the sum of the ops
  c.forward_communication = 6, c.backward_input_communication = 5, c.overlap_efficiency = 1;
  CHECK(c.duration(cell(F0, B1)) == 15);  // compute 4 + 11, communication 11
  c.overlapped = per_stage{21, 22};
  CHECK(c.duration(cell(F0, B1)) == 21);
  CHECK(c.duration(cell(B1, F0)) == 22);
}

TEST_CASE("costs: the DeepSeek-V3 preset equals its published traces") {
  const stage_costs c = deepseek_v3_costs();
  const json profile = json::parse(golden_text("deepseek_v3_profile.json"));
  CHECK(c.forward[0] == doctest::Approx(profile["derived"]["forward"].get<double>()));
  CHECK(c.backward_input[0] == doctest::Approx(profile["derived"]["backward_input"].get<double>()));
  CHECK(c.backward_weight[0] == doctest::Approx(profile["derived"]["backward_weight"].get<double>()));
  CHECK(c.duration(cell(F0, B1)) == profile["overlapped_pair_span"].get<double>());
  CHECK(c.duration(B1) == doctest::Approx(135.32));
  const auto& parts = profile["communication"];
  CHECK(c.forward_communication[0] ==
        doctest::Approx(parts["dispatch(F)"].get<double>() + parts["combine(F)"].get<double>()));
  CHECK(c.backward_input_communication[0] ==
        doctest::Approx(parts["dispatch(B)"].get<double>() + parts["combine(B)"].get<double>()));
  // The model of split ops predicts the measured pair with an efficiency of 91.6 %.
  stage_costs split = c;
  split.overlapped.reset();
  split.overlap_efficiency = 1;
  CHECK(split.duration(cell(F0, B1)) / 129.01 == doctest::Approx(0.916).epsilon(0.001));
}

TEST_CASE("costs: dividing a share among the stages of a rank keeps its total") {
  const stage_costs c{.forward = {10, 20}, .backward_input = 6, .transfer_time = 3, .kept_by_forward = 8};
  const stage_costs d = split_stage_costs(c, placement::looped(2, 2));
  CHECK(d.forward == per_stage{5, 10, 5, 10});
  CHECK(split_stage_costs(c, placement::vee(2)).forward == per_stage{5, 10, 10, 5});
  CHECK(d.backward_input == per_stage(3));
  CHECK(d.transfer_time == per_stage(3));
  CHECK(d.kept_by_forward == per_stage(4));
  CHECK(split_stage_costs(c, placement::linear(2)) == c);
  const stage_costs by_rank{.forward = {1, 2, 30, 40}};  // of two stages, each on two ranks: no number is dropped
  CHECK(split_stage_costs(by_rank, placement::custom(4, 4, {{0, 1}, {2, 3}})) == by_rank);
  CHECK_THROWS_WITH_AS(split_stage_costs(c, placement()),
                       "costs are divided among the stages of 1 rank or more; got 0, nearest 1", schedule_error);
  CHECK_THROWS_AS(describe_split(c, placement()), schedule_error);
}
