// SPDX-License-Identifier: MIT

#include "pipesched/generate/recognize.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>

#include "pipesched/generate/families.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

// The schedule as a format without names gives it back.
schedule nameless(schedule s) {
  s.name = "torch_csv";
  return s;
}

}  // namespace

TEST_CASE("recognize: every family is recognized by its order, or another family makes the same order") {
  int by_own_name = 0, all = 0;
  for_all_families(5, 9, [&](const family& f, const schedule_params& p) {
    const schedule s = nameless(f.make(p));
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    REQUIRE(recognize_family(s, f.name) == f.name);
    if (f.limits.takes.contains(parameter::costs)) return;
    const std::string_view name = recognize_family(s);
    REQUIRE(name != "");
    const schedule again = make_schedule(name, p);
    REQUIRE(again.cells == s.cells);
    REQUIRE(again.forward_only == s.forward_only);
    by_own_name += name == f.name;
    ++all;
  });
  CHECK(2 * by_own_name > all);
  CHECK(recognize_family(nameless(make_dualpipev_schedule({.pp = 4, .micro = 10}))) == "dualpipev");
  CHECK(recognize_family(nameless(make_zbv_schedule({.pp = 4, .micro = 10}))) == "zbv");
  CHECK(recognize_family(nameless(make_dualpipe_schedule({.pp = 4, .micro = 10}))) == "dualpipe");
}

TEST_CASE("recognize: chunks and waves are taken from the placement") {
  for (const std::int64_t chunks : {2, 3, 5})
    CHECK(recognize_family(nameless(make_interleaved_1f1b_schedule({.pp = 4, .micro = 8, .chunks = chunks}))) ==
          "interleaved_1f1b");
  CHECK(recognize_family(nameless(make_group_interleaved_schedule({.pp = 4, .micro = 8, .chunks = 1}))) ==
        "group_interleaved");
  CHECK(recognize_family(nameless(make_interleaved_1f1b_schedule({.pp = 4, .micro = 8, .chunks = 1}))) ==
        "interleaved_1f1b");  // whose warm-up is longer than that of 1f1b
  for (const std::int64_t waves : {1, 2, 3})
    CHECK(recognize_family(nameless(make_hanayo_schedule({.pp = 4, .micro = 8, .waves = waves}))) == "hanayo");
}

TEST_CASE("recognize: a wrong first name does not hide the right one") {
  const schedule s = nameless(make_1f1b_schedule({.pp = 4, .micro = 8}));
  for (const char* first : {"", "plan", "gpipe", "dualpipe", "zb_greedy"}) CHECK(recognize_family(s, first) == "1f1b");
}

TEST_CASE("recognize: an order of no family has no name") {
  schedule s = make_1f1b_schedule({.pp = 4, .micro = 8});
  std::swap(s.cells[0][0], s.cells[0][1]);
  CHECK(recognize_family(s) == "");
  CHECK(recognize_family(s, "1f1b") == "");
  CHECK(recognize_family(schedule{}) == "");
  schedule other = make_1f1b_schedule({.pp = 4, .micro = 8});
  other.placement = placement::custom(4, 8, {{3, 2, 1, 0}});
  CHECK(recognize_family(other) == "");
  other.placement = placement::linear(3);
  CHECK(recognize_family(other) == "");
}
