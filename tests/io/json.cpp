// SPDX-License-Identifier: MIT

#include "pipesched/io/json.hpp"

#include <doctest/doctest.h>

#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/verify.hpp"
#include "pipesched/generate/families.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;
using nlohmann::json;

namespace {

std::string text_of(const schedule& s) {
  std::ostringstream out;
  write_json(out, s);
  return out.str();
}

std::string refusal_of_text(const std::string& text) {
  return refusal_of([&] { read_json(std::string_view(text)); });
}

const std::string good =
    R"({"format": "pipesched.schedule", "version": 1, "name": "x", "pp": 1, "stages": 1, "micro": 1,)"
    R"( "placement": {"kind": "linear", "rank_of_stage": [[0]]}, "ranks": [["0F0", "0B0"]]})";

std::string replaced(const std::string& what, const std::string& with) {
  std::string text = good;
  REQUIRE(text.find(what) != text.npos);
  return text.replace(text.find(what), what.size(), with);
}

}  // namespace

TEST_CASE("json: every family survives writing and reading, as text and as a document") {
  for_all_families(6, 14, [&](const family& f, const schedule_params& p) {
    const schedule s = f.make(p);
    const json document = s;
    CHECK(json::parse(text_of(s)) == document);
    CHECK(read_json(std::string_view(text_of(s))) == s);
    CHECK(document.get<schedule>() == s);
    CHECK(nlohmann::ordered_json(s).get<schedule>() == s);
  });
}

TEST_CASE("json: the document of the design") {
  const json document = make_dualpipe_schedule({.pp = 8, .micro = 20});
  CHECK(document["format"] == "pipesched.schedule");
  CHECK(document["placement"] == json::parse(R"({"kind": "bidirectional",
      "rank_of_stage": [[0,1,2,3,4,5,6,7],[7,6,5,4,3,2,1,0]]})"));
  CHECK(document["ranks"][0][17] == "(0F7;7B13)");
  CHECK(document.size() == 8);
  CHECK(json(make_1f1b_schedule({.pp = 2, .micro = 2, .forward_only = true}))["forward_only"] == true);
}

TEST_CASE("json: custom placements and odd names survive") {
  schedule s{.name = "a \"name\" \\ of {mine}", .placement = placement::custom(2, 1, {{1, 0, 0}}), .micro = 1};
  s.cells.append(std::vector<cell>{op{pass::forward, 0, 1, 0}, op{pass::forward, 1, 2, 0}});
  s.cells.append(std::vector<cell>{op{pass::forward, 0, 0, 0}});
  CHECK(read_json(std::string_view(text_of(s))) == s);
}

TEST_CASE("json: a well-formed document may hold an invalid schedule, which verify reports") {
  const schedule s = read_json(std::string_view(replaced("\"0B0\"", "\"0B5\", \"9F0\"")));
  CHECK(s[0].size() == 3);
  CHECK(verify(s).names(rule::range));
}

TEST_CASE("json: a malformed document is refused with one sentence that gives the place") {
  CHECK(refusal_of_text(good) == "");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "empty; expected a schedule, {\"format\": \"pipesched.schedule\", ...}"},
      {" \n\t", "empty; expected a schedule"},
      {"\xff\xfe\x00\x01", "not JSON: parse error at line 1, column 1: "},
      {good.substr(0, good.size() - 1), "not JSON: parse error at line 1, column 177: "},
      {good + "x", "not JSON: parse error at line 1, column 178: "},
      {"null", "document: null; expected an object"},
      {"[]", "document: an array; expected an object"},
      {"{}", "document: key \"format\" is missing"},
      {replaced("pipesched.schedule", "other"), "format: \"other\"; expected \"pipesched.schedule\""},
      {replaced("\"version\": 1", "\"version\": 3"), "version: version 3; this library reads versions 1 and 2"},
      {replaced("\"version\": 1", "\"version\": \"1\""),
       "version: \"1\"; expected a whole number that is not negative"},
      {replaced("\"name\": \"x\"", "\"name\": 7"), "name: 7; expected a string"},
      {replaced("\"name\": \"x\"", "\"name\": \"" + std::string(64, 'x') + '"'),
       "name: a name has at most 63 characters; got 64"},
      {replaced("\"x\"", "\"a\\u001b[31m\""),
       "name: a name has only printable ASCII characters; got byte 27 at position 1"},
      {replaced("\"x\"", "\"\xC3\xA9\""),
       "name: a name has only printable ASCII characters; got byte 195 at position 0"},
      {good + std::string("\0garbage", 8), "not JSON: parse error at line 1, column 178: "},
      {replaced("\"pp\": 1", "\"pp\": 0." + std::string(1000, '0') + "1"),
       "pp: 0." + std::string(38, '0') + "...; expected a whole number"},
      {replaced("\"pp\": 1", "\"pp\": 0"), "pp: 0; expected 1 to 65536"},
      {replaced("\"pp\": 1", "\"pp\": -1"), "pp: -1; expected a whole number that is not negative"},
      {replaced("\"pp\": 1", "\"pp\": 1.5"), "pp: 1.5; expected a whole number that is not negative"},
      {replaced("\"pp\": 1", "\"pp\": 1e300"), "pp: 1e300; expected a whole number that is not negative"},
      {replaced("\"pp\": 1", "\"pp\": 1e999"), "pp: 1e999; expected a whole number that is not negative"},
      {replaced("\"pp\": 1", "\"pp\": 99999999999999999999"),
       "pp: 99999999999999999999; expected a whole number that is not negative"},
      {replaced("\"pp\": 1", "\"pp\": 2"), "ranks: 1 rows; expected pp = 2"},
      {replaced("\"pp\": 1", "\"pp\": 1, \"pp\": 1"), "document: key \"pp\" occurs twice"},
      {replaced("\"pp\": 1", "\"qq\": 1"), "document: unknown key \"qq\""},
      {replaced("\"stages\": 1", "\"stages\": 65537"), "stages: 65537; expected 1 to 65536"},
      {replaced("\"stages\": 1", "\"stages\": 2"), "placement.rank_of_stage: 1 stage; expected 2"},
      {replaced("\"micro\": 1", "\"micro\": 4294967296"), "micro: 4294967296; expected 1 to 4294967295"},
      {replaced("\"micro\": 1", "\"micro\": null"), "micro: null; expected a whole number that is not negative"},
      {replaced("\"micro\": 1,", ""), "document: key \"micro\" is missing"},
      {replaced("\"micro\": 1", "\"micro\": 1, \"forward_only\": 1"), "forward_only: 1; expected true or false"},
      {replaced("\"micro\": 1", "\"micro\": true"), "micro: true; expected a whole number that is not negative"},
      {replaced("\"linear\"", "\"zigzag\""), "placement.kind: \"zigzag\" is not a kind of placement; expected linear"},
      {replaced("\"linear\"", "3"), "placement.kind: 3; expected a string"},
      {replaced("\"linear\"", "\"vee\""), "placement: a placement of kind vee with 1 rank has 2 stages; got 1"},
      {replaced("\"linear\"", "\"bidirectional\""),
       "placement.rank_of_stage: 1 replicas; expected 2 for kind bidirectional"},
      {replaced("\"kind\": \"linear\", ", ""), "placement: key \"kind\" is missing"},
      {replaced("\"kind\"", "\"sort\""), "placement: unknown key \"sort\""},
      {replaced("{\"kind\": \"linear\", \"rank_of_stage\": [[0]]}", "[]"), "placement: an array; expected an object"},
      {replaced("[[0]]", "[]"), "placement: a placement takes 1 to 2 replicas; got 0, nearest 1"},
      {replaced("[[0]]", "[0]"), "placement.rank_of_stage[0]: 0; expected an array"},
      {replaced("[[0]]", "[[0],[0],[0]]"), "placement.rank_of_stage[2]: a third replica; expected one or two"},
      {replaced("[[0]]", "[[65536]]"), "placement.rank_of_stage[0][0]: 65536; expected 0 to 65535"},
      {replaced("[[0]]", "[[7]]"), "placement: a placement names ranks 0 to 0; got rank 7"},
      {replaced("[[0]]", "[[\"0\"]]"), "placement.rank_of_stage[0][0]: \"0\"; expected a rank"},
      {replaced("\"0F0\"", "\"0X0\""),
       "ranks[0][0]: \"0X0\" is not a cell; expected <stage><F|B|I|W|R|RB|RI><micro> or (op;op)"},
      {replaced("\"0B0\"", "\"0B99999999999\""), "ranks[0][1]: \"0B99999999999\" is not a cell; expected "},
      {replaced("\"0B0\"", "7"), "ranks[0][1]: 7; expected a string such as \"0F7\""},
      {replaced("\"0B0\"", "[\"0B0\"]"), "ranks[0][1]: an array; expected a string such as \"0F7\""},
      {replaced("[\"0F0\", \"0B0\"]", "{}"), "ranks[0]: an object; expected an array"},
      {replaced("[[\"0F0\", \"0B0\"]]", "[]"), "ranks: 0 rows; expected pp = 1"},
      {replaced("\"0B0\"", "\"" + std::string(1000, 'x') + '"'),
       "ranks[0][1]: \"" + std::string(40, 'x') + "...\" is not a cell"},
      {std::string(100000, '['), "document: an array; expected an object"},
  };
  for (const auto& one : cases) {
    const std::string &text = one.first, &sentence = one.second;
    CAPTURE(text);
    CHECK(refusal_of_text(text).substr(0, sentence.size()) == sentence);
    CHECK(refusal_of_text(text).find('\n') == std::string::npos);
    // A document keeps no second key, and nlohmann's parser takes a NUL for the end.
    if (!json::accept(text) || sentence.find("occurs twice") != text.npos || text.find('\0') != text.npos) continue;
    const auto place = [](const std::string& said) { return said.substr(0, said.find(':')); };
    CHECK(place(refusal_of([&] { json::parse(text).get<schedule>(); })) == place(sentence));
  }
}

TEST_CASE("json: a temporary stream is read; an unreadable one is refused") {
  CHECK(refusal_of([] { read_json(std::istringstream("{")); }).substr(0, 9) == "not JSON:");
  CHECK(refusal_of([] { read_json(std::ifstream(PIPESCHED_SOURCE_DIR)); }) != "");
}

TEST_CASE("json: errors give line and column of the last byte of what is wrong") {
  const std::string lines =
      "{\"format\": \"pipesched.schedule\",\n \"version\": 1, \"name\": \"x\",\n \"pp\": 1, \"stages\": 1, \"micro\": "
      "1,\n"
      " \"placement\": {\"kind\": \"linear\",\n  \"rank_of_stage\": [[0]]},\n \"ranks\": [[\"0F0\",\n  \"0B0\"]]}";
  REQUIRE(refusal_of_text(lines) == "");
  const auto ends = [&](const std::string& what, const std::string& with, const std::string& end) {
    std::string text = lines;
    REQUIRE(text.find(what) != text.npos);
    const std::string said = refusal_of_text(text.replace(text.find(what), what.size(), with));
    CAPTURE(said);
    CHECK(said.ends_with(end));
    CHECK(refusal_of([&] { read_json(std::istringstream(text)); }) == said);
  };
  ends("\"version\": 1", "\"version\": 3", " (line 2, column 13)");
  ends("\"version\": 1", "\"version\": -2", " (line 2, column 14)");
  ends("\"version\": 1", "\"version\": 2.5", " (line 2, column 15)");
  ends("\"version\": 1", "\"version\": 1e999", " (line 2, column 17)");
  ends("\"version\": 1,", "\"version\": 3\n,", " (line 2, column 13)");
  ends("\"version\": 1", "\"version\": null", " (line 2, column 16)");
  ends("\"version\": 1", "\"version\": []", " (line 2, column 13)");
  ends("\"version\"", "\"versoin\"", "document: unknown key \"versoin\" (line 2, column 10)");
  ends("[[0]]", "[[9]]", "placement: a placement names ranks 0 to 0; got rank 9");  // known only after the last event
  ends("[[0]]", "[[70000]]", " (line 5, column 26)");
  ends("\"0B0\"", "\"0X0\"", " (line 7, column 7)");
  ends("\"0B0\"", "7", " (line 7, column 3)");
  ends("\"micro\": 1,", "", "document: key \"micro\" is missing (line 7, column 10)");
  CHECK(refusal_of_text("{\n\"pp\": NaN}").starts_with("not JSON: parse error at line 2, column 7: "));
  CHECK(refusal_of_text("{\n\"pp\": 1,}").starts_with("not JSON: parse error at line 2, column 9: "));
  CHECK(json::parse(replaced("\"pp\": 1", "\"pp\": 0")).size() == 8);
  CHECK(refusal_of([&] { json::parse(replaced("\"pp\": 1", "\"pp\": 0")).get<schedule>(); }) ==
        "pp: 0; expected 1 to 65536");
}

TEST_CASE("json: a table that contradicts its kind is refused") {
  std::string text = text_of(make_dualpipev_schedule({.pp = 2, .micro = 4}));
  text.replace(text.find("[0,1,1,0]"), 9, "[0,1,0,1]");
  CHECK(refusal_of_text(text) == "placement.rank_of_stage[0][2]: rank 0; kind vee puts the stage on rank 1");
}

TEST_CASE("json: no prefix and no change of one byte crashes the reader") {
  const std::string text = text_of(make_dualpipe_schedule({.pp = 2, .micro = 4}));
  for (std::size_t size = 0; size < text.size() - 1; ++size) {
    CAPTURE(size);
    CHECK(refusal_of_text(text.substr(0, size)) != "");
  }
  std::mt19937_64 random(7);
  int refused = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string broken = text;
    broken[random() % broken.size()] = static_cast<char>(random() % 256);
    refused += !refusal_of_text(broken).empty();
  }
  CHECK(refused > 10000);
}
