// SPDX-License-Identifier: MIT

#include "pipesched/io/costs_json.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/cost/presets.hpp"
#include "support/any_costs.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;
using nlohmann::json;

namespace {

std::string refusal_of_costs(const std::string& text) {
  return refusal_of([&] { read_costs(std::istringstream(text)); });
}

stage_costs costs_of(const std::string& text) { return read_costs(std::istringstream(text)); }

}  // namespace

TEST_CASE("costs json: writing and reading is the identity, by document and by text, for random models") {
  any_costs random(5);
  for (int i = 0; i < 3000; ++i) {
    const stage_costs c = random.make();
    const std::string text = json(c).dump();
    CAPTURE(text);
    REQUIRE(json(c).get<stage_costs>() == c);
    REQUIRE(nlohmann::ordered_json(c).get<stage_costs>() == c);
    REQUIRE(costs_of(text) == c);
    REQUIRE(json(costs_of(text)).dump() == text);
  }
  CHECK(json(deepseek_v3_costs()).get<stage_costs>() == deepseek_v3_costs());
  CHECK(json(stage_costs{}) == json::parse(R"({"forward": 1.0})"));
  CHECK(costs_of("{}") == stage_costs{});
}

TEST_CASE("costs json: the document of the header") {
  const stage_costs c = costs_of(R"(
    {"format": "pipesched.costs", "version": 1,
     "time_unit": "us", "forward": 1, "backward": 2, "backward_input": [1, 2], "backward_weight": 1,
     "overlap_efficiency": 0.9,
     "pairs": [{"ops": "FF", "time": 3}, {"ops": "FB", "stages": [0, 3], "time": 2.5}], "allowed_pairs": ["FB", "IF"],
     "communication": {"forward": 0.5},
     "release": {"backward": 3},
     "transfer": 0.5, "message_bytes": [8, 9], "bandwidth": 1,
     "memory": {"kept_by_forward": 7, "weights": 5}})");
  CHECK(c.time_unit == time_unit::us);
  CHECK(c.backward == per_stage(2));
  CHECK(c.backward_input == per_stage{1, 2});
  CHECK(c.backward_weight == per_stage(1));
  CHECK(c.overlap_efficiency == 0.9);
  REQUIRE(c.pairs.size() == 2);
  CHECK(c.pairs[0] == pair_time{.passes = {pass::forward, pass::forward}, .time = 3});
  CHECK(c.pairs[1] == pair_time{.passes = {pass::forward, pass::backward}, .stages = {{0, 3}}, .time = 2.5});
  CHECK(c.allowed_pairs == pass_pair_set::forward_with_backward());
  CHECK(c.forward_communication == per_stage(0.5));
  CHECK(c.release_backward == per_stage(3));
  CHECK(!c.release_forward);
  CHECK(c.transfer_time == per_stage(0.5));
  CHECK(c.message_bytes == per_stage{8, 9});
  CHECK(c.kept_by_forward == per_stage(7));
  CHECK(c.weight_bytes == per_stage(5));
}

TEST_CASE("costs json: the document of the design") {
  const stage_costs c =
      costs_of(R"({"forward": 1, "backward_input": [1, 2], "backward_weight": 1, "overlapped": 3, "transfer": 0.5,
      "memory": {"kept_by_forward": 7}})");
  CHECK(c.backward_input == per_stage{1, 2});
  CHECK(c.overlapped == per_stage(3));
  CHECK(c.transfer_time == per_stage(0.5));
  CHECK(c.kept_by_forward == per_stage(7));
}

TEST_CASE("costs json: a backward alone stays alone, so that its halves are half of it") {
  const stage_costs c = costs_of(R"({"forward": 10, "backward": 20})");
  CHECK(!c.backward_input);
  CHECK(!c.backward_weight);
  CHECK(c.duration(op{pass::backward_input, 0, 0, 0}) == 10);
  CHECK(c.duration(op{pass::backward_weight, 0, 0, 0}) == 10);
  CHECK(json(c) == json::parse(R"({"forward": 10.0, "backward": 20.0})"));
}

TEST_CASE("costs json: a malformed document is refused with its entry, line and column") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "costs: empty; expected an object such as {\"forward\": 1, \"transfer\": 0.1}"},
      {" \n", "costs: empty; expected an object such as {\"forward\": 1, \"transfer\": 0.1}"},
      {"{\"forward\": 1", "costs: not JSON: parse error at line 1, column 14: "},
      {"{\"forward\": NaN}", "costs: not JSON: parse error at line 1, column 13: "},
      {"{\"time_unit\": \"min\"}",
       "costs: time_unit is not a unit; expected \"s\", \"ms\", \"us\" or \"none\" (line 1, column 19)"},
      {"{\"time_unit\": 1}",
       "costs: time_unit is not a unit; expected \"s\", \"ms\", \"us\" or \"none\" (line 1, column 15)"},
      {"{\n\"forward\": 1,}", "costs: not JSON: parse error at line 2, column 14: "},
      {"{\"forward\": 1}\nx", "costs: not JSON: parse error at line 2, column 1: "},
      {std::string("{}\0garbage", 10), "costs: not JSON: parse error at line 1, column 3: "},
      {"[1]", "costs: expected an object such as {\"forward\": 1, \"transfer\": 0.1} (line 1, column 1)"},
      {"7", "costs: expected an object such as {\"forward\": 1, \"transfer\": 0.1} (line 1, column 1)"},
      {"{\"format\": \"pipesched.model\"}", "costs: format is not \"pipesched.costs\" (line 1, column 28)"},
      {"{\"format\": 1}", "costs: format is not \"pipesched.costs\" (line 1, column 12)"},
      {"{\"version\": 2}", "costs: version is not 1, the only one that this library reads (line 1, column 13)"},
      {"{\"version\": \"1\"}", "costs: version is not 1, the only one that this library reads (line 1, column 15)"},
      {"{\"memory\": {\"version\": 1}}", "costs: unknown entry \"memory.version\"; "},
      {"{\"forward\": \"1\"}", "costs: forward is not a number (line 1, column 15)"},
      {"{\"forward\": null}", "costs: forward is not a number (line 1, column 16)"},
      {"{\"forward\": {}}", "costs: forward is not a number (line 1, column 13)"},
      {"{\"forward\": [1, [2]]}", "costs: forward[1] is not a number (line 1, column 17)"},
      {"{\"forward\": []}", "costs: forward is empty; expected a number, or one per stage (line 1, column 13)"},
      {"{\"forward\": -1}",
       "costs: forward is negative; expected a finite number that is not negative, nearest 0 (line 1, column 14)"},
      {"{\"backward\": [2,\n  -0.5, 1]}",
       "costs: backward[1] is negative; expected a finite number that is not negative, nearest 0 (line 2, column 6)"},
      {"{\"forward\": 1e999}", "costs: 1e999 is too large; expected at most 1.8e308 (line 1, column 17)"},
      {"{\"forward\": -1e999}", "costs: -1e999 is too large; expected at most 1.8e308 (line 1, column 18)"},
      {"{\"forward\": 1, \"forward\": 2}", "costs: forward occurs twice (line 1, column 24)"},
      {"{\"memory\": {\"weights\": 1,\n\"weights\": 2}}", "costs: memory.weights occurs twice (line 2, column 9)"},
      {"{\"pairs\": [{\"ops\": \"FF\", \"time\": 1, \"time\": 1}]}",
       "costs: pairs[0].time occurs twice (line 1, column 42)"},
      {"{\"forward\": [[[[1]]]]}", "costs: forward[0][0][0] is nested too deeply (line 1, column 16)"},
      {"{\"memory\": 3}", "costs: memory is not an object (line 1, column 12)"},
      {"{\"memory\": {\"weight\": 3}}",
       "costs: unknown entry \"memory.weight\"; did you mean \"memory.weights\"? (line 1, column 23)"},
      {"{\"foward\": 3}", "costs: unknown entry \"foward\"; did you mean \"forward\"? (line 1, column 12)"},
      {"{\"Backward-Input\": 3}", "costs: unknown entry \"Backward-Input\"; did you mean \"backward_input\"? "},
      {"{\"pair\": []}", "costs: unknown entry \"pair\"; did you mean \"pairs\"? (line 1, column 10)"},
      {"{\"colour\": 3}", "costs: unknown entry \"colour\"; expected one of overlap_efficiency, pairs, "},
      {"{\"memory.weights\": 3}", "costs: unknown entry \"memory.weights\"; expected objects, such as "},
      {"{\"a\\n\\u001b\": 3}", "costs: unknown entry \"a??\"; expected one of "},
      {"{\"overlap_efficiency\": [1]}", "costs: overlap_efficiency is not a number (line 1, column 24)"},
      {"{\"overlap_efficiency\": 0}",
       "costs: overlap_efficiency is 0; expected more than 0 and at most 1, nearest 0.01 (line 1, column 24)"},
      {"{\"overlap_efficiency\": 1.5}",
       "costs: overlap_efficiency is 1.5; expected more than 0 and at most 1, nearest 1 (line 1, column 26)"},
      {"{\"pairs\": {}}",
       "costs: pairs is not an array; expected one such as [{\"ops\": \"FF\", \"time\": 3}] (line 1, "},
      {"{\"pairs\": [3]}",
       "costs: pairs[0] is not an object; expected one such as {\"ops\": \"FF\", \"time\": 3} (line 1, "},
      {"{\"pairs\": [{\"ops\": \"FF\"}]}",
       "costs: pairs[0] has no \"time\"; expected \"ops\" and \"time\" (line 1, column 12)"},
      {"{\"pairs\": [{\"time\": 1}]}",
       "costs: pairs[0] has no \"ops\"; expected \"ops\" and \"time\" (line 1, column 12)"},
      {"{\"pairs\": [{\"ops\": \"FX\", \"time\": 1}]}",
       "costs: pairs[0].ops is not a pair; expected two of F, B, I, W, R, (RB), (RI), such as \"FB\" (line 1, column "
       "23)"},
      {"{\"pairs\": [{\"ops\": 3, \"time\": 1}]}", "costs: pairs[0].ops is not a pair; "},
      {"{\"pairs\": [{\"ops\": \"FF\", \"time\": -1}]}", "costs: pairs[0].time is negative; "},
      {"{\"pairs\": [{\"ops\": \"FF\", \"time\": [1]}]}", "costs: pairs[0].time is not a number "},
      {"{\"pairs\": [{\"ops\": \"FF\", \"time\": 1, \"stages\": 3}]}",
       "costs: pairs[0].stages does not name two stages; expected [first, second] "},
      {"{\"pairs\": [{\"ops\": \"FF\", \"time\": 1, \"stages\": [1, 2, 3]}]}",
       "costs: pairs[0].stages does not name two "},
      {"{\"pairs\": [{\"ops\": \"FF\", \"time\": 1, \"stages\": [1, 65536]}]}",
       "costs: pairs[0].stages[1] is not a stage; expected 0 to 65535 (line 1, column 55)"},
      {"{\"pairs\": [{\"ops\": \"FF\", \"time\": 1, \"stages\": [-1, 0]}]}",
       "costs: pairs[0].stages[0] is not a stage; "},
      {"{\"pairs\": [{\"ops\": \"FF\", \"tme\": 1}]}",
       "costs: unknown entry \"pairs[0].tme\"; did you mean \"pairs[0].time\"? (line 1, column 33)"},
      {"{\"allowed_pairs\": \"FB\"}", "costs: allowed_pairs is not an array; expected one such as [\"FB\", \"FI\"] "},
      {"{\"allowed_pairs\": [\"FB\", \"BF\"]}",
       "costs: allowed_pairs[1] is BF again, in either order; expected each pair once "},
      {"{\"micro_batches\": []}", "costs: micro_batches is empty; expected one number each "},
      {"{\"rank_speeds\": []}", "costs: rank_speeds is empty; expected one number each "},
      {"{\"allowed_pairs\": [\"FB\", \"fb\"]}", "costs: allowed_pairs[1] is not a pair; "},
  };
  for (const auto& one : cases) {
    CAPTURE(one.first);
    const std::string said = refusal_of_costs(one.first);
    CHECK(said.substr(0, one.second.size()) == one.second);
    CHECK(said.find('\n') == std::string::npos);
    if (!json::accept(one.first) || said.find("twice") != said.npos || said.find("deeply") != said.npos) continue;
    // The same sentence without line and column from a document.
    CHECK(said.starts_with(refusal_of([&] { json::parse(one.first).get<stage_costs>(); })));
  }
  CHECK(refusal_of_costs(R"({"bandwidth": [1, 0]})") ==
        "costs: bandwidth[1] is 0; expected more than 0 (line 1, column 19)");
  CHECK(refusal_of_costs(R"({"bandwidth": 0.0})") == "costs: bandwidth is 0; expected more than 0 (line 1, column 17)");
  CHECK(refusal_of_costs(R"({"bandwidth": -1})") ==
        "costs: bandwidth is negative; expected a finite number that is not negative, nearest 0 (line 1, column 16)");
  CHECK(refusal_of_costs(R"({"bandwidth": 1e400})") ==
        "costs: 1e400 is too large; expected at most 1.8e308 (line 1, column 19)");
  CHECK(refusal_of_costs(R"({"rank_speeds": [1, 0]})") ==
        "costs: rank_speeds[1] is 0; expected more than 0 (line 1, column 21)");
  CHECK(refusal_of_costs(R"({"micro_batches": [0]})") ==
        "costs: micro_batches[0] is 0; expected more than 0 (line 1, column 20)");
  CHECK(refusal_of_costs(R"({"links": [{"from": 0, "to": 1, "bandwidth": 0}]})") ==
        "costs: links[0].bandwidth is 0; expected more than 0 (line 1, column 46)");
  CHECK(refusal_of_costs(R"({"links": [{"from": 2, "to": 2}]})") ==
        "costs: links[0] is from rank 2 to itself; expected two ranks (line 1, column 12)");
  CHECK(refusal_of_costs(R"({"links": [{"from": 0, "to": 1}, {"from": 1, "to": 0}, {"from": 0, "to": 1}]})") ==
        "costs: links[2] is for the ranks of links[0]; expected one link for a pair (line 1, column 56)");
  CHECK(refusal_of_costs(R"({"pairs": [{"ops": "FB", "time": 1}, {"ops": "BF", "time": 2}]})") ==
        "costs: pairs[1] prices the cells of pairs[0] again; expected one price (line 1, column 38)");
  CHECK(refusal_of_costs(std::string(1 << 20, '[')) == "costs: [0][0][0][0] is nested too deeply (line 1, column 5)");
  CHECK(refusal_of_costs(std::string(1 << 20, '{')).starts_with("costs: not JSON: parse error at line 1, column 2: "));
}

TEST_CASE("costs json: numbers that JSON does not have are not written") {
  CHECK(refusal_of([] { json(stage_costs{.forward = INFINITY}); }) ==
        "costs: forward is not finite; JSON has no such number");
  CHECK(refusal_of([] {
          json(stage_costs{.transfer_time = {1, NAN}});
        }) == "costs: transfer is not finite; JSON has no such number");
  CHECK(refusal_of([] { json(stage_costs{.forward = per_stage(std::vector<double>{})}); }) ==
        "costs: forward is empty; expected a number, or one per stage");
}

TEST_CASE("costs json: an unreadable stream is refused") {
  CHECK(refusal_of([] { read_costs(std::ifstream("/nowhere")); }) == "costs: the stream cannot be read");
  CHECK(refusal_of([] { read_costs(std::ifstream(PIPESCHED_SOURCE_DIR)); }) != "");
}

TEST_CASE("costs json: no change of one byte crashes the reader") {
  const std::string text = json(any_costs(1).make()).dump() + "\n";
  std::mt19937_64 random(9);
  int refusals = 0;
  for (int i = 0; i < 5000; ++i) {
    std::string broken = text;
    broken[random() % broken.size()] = static_cast<char>(random() % 256);
    const std::string said = refusal_of_costs(broken);
    if (!said.empty()) {
      ++refusals;
      CAPTURE(broken);
      CHECK(said.starts_with("costs: "));
    }
  }
  CHECK(refusals > 2000);
}
