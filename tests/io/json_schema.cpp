// SPDX-License-Identifier: MIT
// The shipped JSON Schemas, compared with the library's writer and reader by an independent validator.

#include <doctest/doctest.h>

#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

#include "pipesched/generate/families.hpp"
#include "pipesched/io/costs_json.hpp"
#include "pipesched/io/json.hpp"
#include "pipesched/io/model_json.hpp"
#include "support/any_costs.hpp"
#include "support/any_model.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;
using nlohmann::json;

namespace {

class schema_checker {
 public:
  explicit schema_checker(const std::string& name) {
    std::ifstream file(std::string(PIPESCHED_SOURCE_DIR) + "/include/pipesched/io/" + name);
    const json document = json::parse(file);
    valijson::SchemaParser().populateSchema(valijson::adapters::NlohmannJsonAdapter(document), schema_);
  }
  bool accepts(const json& document) {
    return valijson::Validator().validate(schema_, valijson::adapters::NlohmannJsonAdapter(document), nullptr);
  }

 private:
  valijson::Schema schema_;
};

}  // namespace

TEST_CASE("json schema: accepts every schedule that the library writes" * doctest::test_suite("slow")) {
  schema_checker schema("schedule.schema.json");
  for_all_families(6, 14, [&](const family& f, const schedule_params& p) { CHECK(schema.accepts(json(f.make(p)))); });
}

TEST_CASE("json schema: a schedule that it refuses is refused by the reader") {
  schema_checker schema("schedule.schema.json");
  const std::string text = json(make_dualpipe_schedule({.pp = 2, .micro = 4, .forward_only = true})).dump();
  std::mt19937_64 random(11);
  int refused = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string broken = text;
    broken[random() % broken.size()] = static_cast<char>(' ' + random() % 95);
    if (!json::accept(broken)) continue;
    const json document = json::parse(broken);
    if (schema.accepts(document)) continue;
    ++refused;
    CAPTURE(broken);
    CHECK(refusal_of([&] { document.get<schedule>(); }) != "");
  }
  CHECK(refused > 500);
}

TEST_CASE("json schema: accepts every cost model that the library writes") {
  schema_checker schema("costs.schema.json");
  any_costs random(23);
  for (int i = 0; i < 500; ++i) {
    const json document = random.make();
    CAPTURE(document.dump());
    CHECK(schema.accepts(document));
  }
}

TEST_CASE("json schema: it accepts a cost model exactly if the reader does") {
  schema_checker schema("costs.schema.json");
  any_costs random(29);
  std::mt19937_64 bytes(31);
  int refused = 0, accepted = 0;
  for (int i = 0; i < 4000; ++i) {
    json written = random.make();
    if (i % 2 == 0) written.update({{"format", "pipesched.costs"}, {"version", 1}});
    std::string text = written.dump();
    text[bytes() % text.size()] = "0123456789{}[],.-\"FBIWRabcdefgnostuvw_ "[bytes() % 40];
    if (!json::accept(text)) continue;
    const json document = json::parse(text);
    CAPTURE(text);
    const bool accepts = schema.accepts(document);
    CHECK(accepts == refusal_of([&] { document.get<stage_costs>(); }).empty());
    ++(accepts ? accepted : refused);
  }
  CHECK(refused > 200);
  CHECK(accepted > 200);
}

TEST_CASE("json schema: accepts every model that the library writes") {
  schema_checker schema("model.schema.json");
  any_model random(41);
  for (int i = 0; i < 500; ++i) {
    const json document = json::parse(model_document(random.make()).dump());
    CAPTURE(document.dump());
    CHECK(schema.accepts(document));
  }
}

TEST_CASE("json schema: a model that it refuses is refused by the reader") {
  schema_checker schema("model.schema.json");
  any_model random(43);
  std::mt19937_64 bytes(47);
  int refused = 0, accepted = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string text = model_document(random.make()).dump();
    text[bytes() % text.size()] = "0123456789{}[],.-\"FBIWRabcdefgnostuvw_ "[bytes() % 40];
    if (!json::accept(text)) continue;
    CAPTURE(text);
    const bool accepts = schema.accepts(json::parse(text));
    const std::string refusal = refusal_of([&] { read_model(std::istringstream(text)); });
    if (!accepts) CHECK(refusal != "");
    ++(accepts ? accepted : refused);
  }
  CHECK(refused > 200);
  CHECK(accepted > 200);
}
