// SPDX-License-Identifier: MIT
// The JSON Schema that is shipped, held against what the library writes and reads by an independent validator.

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
#include "pipesched/io/json.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;
using nlohmann::json;

namespace {

class schema_checker {
 public:
  schema_checker() {
    std::ifstream file(std::string(PIPESCHED_SOURCE_DIR) + "/include/pipesched/io/schedule.schema.json");
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

TEST_CASE("json schema: accepts whatever the library writes") {
  schema_checker schema;
  for_all_families(6, 14, [&](const family& f, const schedule_params& p) { CHECK(schema.accepts(json(f.make(p)))); });
}

TEST_CASE("json schema: what it refuses, the reader refuses") {
  schema_checker schema;
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
