// SPDX-License-Identifier: MIT

#include "pipesched/io/model_json.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <sstream>
#include <string>

#include "pipesched/model/presets.hpp"
#include "support/any_model.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

model model_of(const std::string& text) { return read_model(std::istringstream(text)); }
std::string refusal_of_model(const std::string& text) {
  return refusal_of([&] { model_of(text); });
}

}  // namespace

TEST_CASE("model json: writing and reading is the identity, for random models and the library's") {
  any_model random(3);
  for (int i = 0; i < 2000; ++i) {
    const model m = random.make();
    const std::string text = model_document(m).dump();
    CAPTURE(text);
    REQUIRE(model_of(text) == m);
    REQUIRE(model_document(model_of(text)).dump() == text);
  }
  for (const std::string_view name : model_names) {
    const model m = find_model(name).value();
    CHECK(model_of(model_document(m).dump(2)) == m);
  }
  CHECK(!find_model("deepseek"));
  CHECK(model_document({.layers = {{}}}).dump() ==
        R"({"format":"pipesched.model","version":1,"layers":[{"kind":"layer","forward":1.0}]})");
}

TEST_CASE("model json: the document of the header") {
  const model m = model_of(R"(
    {"format": "pipesched.model", "version": 1, "time_unit": "ms",
     "layers": [{"kind": "moe", "count": 29, "forward": 2.28, "backward_input": 3.49, "backward_weight": 0.16,
                 "recompute": 2, "kept": 1e9, "kept_input": 1e7, "context": 1e9, "transient": {"F": 0, "B": 5},
                 "weights": 1e9, "message": 6e7}],
     "pairs": [{"kinds": ["moe", "moe"], "ops": "FB", "time": 3.9}], "allowed_pairs": ["FB", "FI"],
     "ranks": [{"speed": 1, "memory": 8e10}],
     "links": [{"from": 0, "to": 1, "latency": 0.01, "bandwidth": 5e10, "busy": "both"}],
     "micro_batches": [1, 0.7]})");
  CHECK(m.time_unit == time_unit::ms);
  CHECK(m.layers[0].count == 29);
  CHECK(m.layers[0].backward_times().whole == doctest::Approx(3.65));
  CHECK(m.layers[0].transient.backward == 5);
  CHECK(m.pairs[0].time == 3.9);
  CHECK(m.allowed_pairs == pass_pair_set::forward_with_backward());
  CHECK(m.ranks[0].memory == 8e10);
  CHECK(m.links[0].busy == link_busy::both);
  CHECK(m.micro_batches[1] == 0.7);
}

TEST_CASE("model json: faults are named with their entry and place") {
  CHECK(refusal_of_model("") ==
        "model: empty; expected an object such as {\"layers\": [{\"count\": 32, \"forward\": 1, \"backward\": 2}]}");
  CHECK(refusal_of_model("[]") ==
        "model: expected an object such as {\"layers\": [{\"count\": 32}]} (line 1, column 1)");
  CHECK(refusal_of_model("{}") == "model: there is no \"layers\"; expected an array of them (line 1, column 1)");
  CHECK(refusal_of_model(R"({"layers": [{}, {"forwrd": 1}]})") ==
        "model: unknown entry \"layers[1].forwrd\"; did you mean \"forward\"? (line 1, column 28)");
  CHECK(refusal_of_model(R"({"layers": [{"transient": {"X": 1}}]})") ==
        "model: unknown entry \"layers[0].transient.X\"; expected one of F, B, I, W, R (line 1, column 33)");
  CHECK(
      refusal_of_model(R"({"layers": [{"forward": -1}]})") ==
      "model: layers[0].forward is negative; expected a finite number that is not negative, nearest 0 (line 1, column "
      "26)");
  CHECK(refusal_of_model(R"({"layers": [{"count": 1.5}]})") ==
        "model: layers[0].count is not a whole number; expected 1 to 1048576 (line 1, column 25)");
  CHECK(refusal_of_model(R"({"layers": [{}], "time_unit": "h"})") ==
        "model: time_unit is not a unit; expected \"s\", \"ms\", \"us\" or \"none\" (line 1, column 33)");
  CHECK(refusal_of_model(R"({"layers": [{}], "links": [{"busy": "yes"}]})") ==
        "model: links[0].busy is not a side of a link; expected \"none\", \"sender\" or \"both\" (line 1, column 41)");
  CHECK(refusal_of_model(R"({"layers": [{}], "pairs": [{"kinds": ["layer"], "ops": "FB", "time": 1}]})") ==
        "model: pairs[0].kinds does not name two kinds; expected two, such as [\"moe\", \"moe\"] (line 1, column 38)");
  CHECK(refusal_of_model(R"({"layers": [{}], "pairs": [{"ops": "FB", "time": 1}]})") ==
        "model: pairs[0] has no \"kinds\"; expected \"kinds\", \"ops\" and \"time\" (line 1, column 28)");
  CHECK(refusal_of_model(R"({"layers": [{}], "allowed_pairs": ["FX"]})") ==
        "model: allowed_pairs[0] is not a pair; expected two of F, B, I, W, R, (RB), (RI), such as \"FB\" (line 1, "
        "column "
        "39)");
  CHECK(refusal_of_model(R"({"layers": [{}], "allowed_pairs": ["FI", "FB", "IF"]})") ==
        "model: allowed_pairs[2] is IF again, in either order; expected each pair once (line 1, column 51)");
  CHECK(refusal_of_model(R"({"layers": [{}], "ranks": []})") ==
        "model: ranks is empty; expected one entry for all ranks, or one per rank (line 1, column 27)");
  CHECK(refusal_of_model(R"({"layers": [{}], "micro_batches": []})") ==
        "model: micro_batches is empty; expected one number per micro-batch (line 1, column 35)");
  CHECK(
      refusal_of_model(R"({"layers": [{"count": 2}, {"count": 3, "kept": 1e308}]})") ==
      "model: layers[1].kept makes the sum over all layers more than a double holds, 1.79769e+308; expected numbers in "
      "a larger unit (line 1, column 52)");
  CHECK(refusal_of_model(R"({"format": "pipesched", "layers": [{}]})") ==
        "model: format is not \"pipesched.model\" (line 1, column 22)");
  CHECK(refusal_of_model(R"({"version": 2, "layers": [{}]})") ==
        "model: version is not 1, the only one that this library reads (line 1, column 13)");
  CHECK(refusal_of_model(R"({"layers": [{"count": 0}]})") ==
        "model: layers[0].count is 0; expected 1 or more, nearest 1 (line 1, column 23)");
  CHECK(refusal_of_model(R"({"layers": [{}], "ranks": [{"speed": 0}]})") ==
        "model: ranks[0].speed is 0; expected more than 0 (line 1, column 38)");
  CHECK(refusal_of_model(R"({"layers": [{}], "ranks": [{"speed": -1}]})") ==
        "model: ranks[0].speed is negative; expected a finite number that is not negative, nearest 0 (line 1, column "
        "39)");
  CHECK(refusal_of_model(R"({"layers": [{}], "links": [{"bandwidth": 0.0}]})") ==
        "model: links[0].bandwidth is 0; expected more than 0 (line 1, column 44)");
  CHECK(refusal_of_model(R"({"layers": [{}], "links": [{"bandwidth": 1e999}]})") ==
        "model: 1e999 is too large; expected at most 1.8e308 (line 1, column 46)");
  CHECK(refusal_of_model(R"({"layers": [{}], "links": [{"from": 65536, "to": 1}]})") ==
        "model: links[0].from is not a rank; expected 0 to 65535 (line 1, column 41)");
  CHECK(refusal_of_model(R"({"layers": [{}], "links": [{"from": 1, "to": 1}]})") ==
        "model: links[0] is from rank 1 to itself; expected two ranks (line 1, column 28)");
  CHECK(refusal_of_model(R"({"layers": [{}], "micro_batches": [1, 0]})") ==
        "model: micro_batches[1] is 0; expected more than 0 (line 1, column 39)");
  CHECK(refusal_of_model(R"({"layers": [{"kept": 1, "kept_input": 2}]})") ==
        "model: layers[0].kept_input is 2, more than kept, of which it is a part; nearest 1 (line 1, column 39)");
  CHECK(refusal_of_model(R"({"layers": [{"kind": "a"}], "pairs": [{"kinds": ["a", "b"], "ops": "FB", "time": 1}]})") ==
        "model: pairs[0] names the kind \"b\", which no layer has (line 1, column 39)");
  CHECK(refusal_of_model(R"({"layers": []})") == "model: there are no layers; expected at least 1 (line 1, column 12)");
  CHECK(refusal_of_model(R"({"layers": [{"transient": {"F": 1, "F": 2}}]})") ==
        "model: layers[0].transient.F occurs twice (line 1, column 38)");
  CHECK(refusal_of([] { model_document({.layers = {{.forward = std::numeric_limits<double>::quiet_NaN()}}}); }) ==
        "model: a number is not finite; JSON has no such number");
}
