// SPDX-License-Identifier: MIT

#include "pipesched/core/schedule.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <ranges>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/ops.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/generate/1f1b.hpp"
#include "pipesched/generate/dualpipe.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

static_assert(std::ranges::random_access_range<schedule> && std::ranges::random_access_range<const schedule>);
static_assert(std::ranges::sized_range<schedule> && std::ranges::common_range<const rows<cell>>);
static_assert(std::forward_iterator<op_view::iterator> && std::ranges::forward_range<op_view>);
static_assert(std::ranges::view<op_view> && std::ranges::borrowed_range<op_view>);
static_assert([] {
  schedule s = make_1f1b_schedule({.pp = 2, .micro = 2});
  std::size_t cells = 0;
  for (const auto row : s) cells += row.size();
  s.edit(0, [](auto& row) { row.pop_back(); });
  return cells == 8 && s.size() == 2 && s[0].size() == 3 && s[1].size() == 4;
}());
static_assert(parse_schedule("0F0 0B0\n1F0 1B0", "1f1b") == make_1f1b_schedule({.pp = 2, .micro = 1}));
#if !(defined(__clang__) && defined(_GLIBCXX_RELEASE) && \
      _GLIBCXX_RELEASE < 13)  // clang cannot evaluate a std::string of libstdc++ 12
static_assert(parse_schedule(to_string(make_dualpipe_schedule({.pp = 2, .micro = 4})), "dualpipe") ==
              make_dualpipe_schedule({.pp = 2, .micro = 4}));
#endif
static_assert(parse_schedule("0F0 0B0\n1F0 1B0", placement::linear(2), "1f1b") ==
              make_1f1b_schedule({.pp = 2, .micro = 1}));

}  // namespace

TEST_CASE("schedule: a row becomes longer, shorter or another one, and the others stay") {
  const schedule s = make_dualpipe_schedule({.pp = 4, .micro = 8});
  for (std::size_t rank = 0; rank < s.size(); ++rank) {
    schedule t = s;
    const cell last = s[rank].back();
    t.edit(rank, [&](std::vector<cell>& row) { row.insert(row.begin(), {last, last}); });
    CHECK(t[rank].size() == s[rank].size() + 2);
    CHECK(std::equal(s[rank].begin(), s[rank].end(), t[rank].begin() + 2));
    for (std::size_t other = 0; other < s.size(); ++other)
      if (other != rank) CHECK(std::ranges::equal(t[other], s[other]));
    t.edit(rank, [](std::vector<cell>& row) { row.erase(row.begin(), row.begin() + 2); });
    CHECK(t == s);
    t.edit(rank, [](std::vector<cell>& row) { row.clear(); });
    CHECK(t[rank].empty());
    CHECK(!verify(t));
  }
}

TEST_CASE("schedule: rows may be sorted, searched and written through the range") {
  schedule s = make_1f1b_schedule({.pp = 4, .micro = 6});
  const auto longest = std::ranges::max_element(std::as_const(s), {}, [](auto row) { return row.size(); });
  CHECK(longest - std::as_const(s).begin() == 0);
  CHECK((s.begin() + 3)[-1].data() == s[2].data());
  CHECK(std::distance(s.begin(), s.end()) == 4);
  for (auto row : s)
    for (cell& c : row)
      for (op& o : c) o.micro += 1;
  CHECK(to_string(s[3]) == "3F1 3B1 3F2 3B2 3F3 3B3 3F4 3B4 3F5 3B5 3F6 3B6");
}

TEST_CASE("parse_schedule: the inverse of to_string for every family") {
  for_all_families(8, 12, [](const family& f, schedule_params p) {
    if (p.forward_only && p.micro > 4) return;
    const schedule s = f.make(p);
    CAPTURE(f.name);
    REQUIRE(parse_schedule(to_string(s), s.placement, s.name) == s);
  });
}

TEST_CASE("parse_schedule: finds the placement of every family by itself") {
  for_all_families(8, 12, [](const family& f, schedule_params p) {
    if (p.forward_only && p.micro > 4) return;
    const schedule s = f.make(p);
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    schedule parsed = parse_schedule(to_string(s), s.name);
    if (p.micro > 1) REQUIRE(same_stages_on_ranks(parsed.placement, s.placement));
    if (p.pp > 1 && p.micro > 1 && f.place != hanayo_family.place && s.stages() != s.pp() * s.placement.replicas())
      REQUIRE(parsed.placement == s.placement);
    parsed.placement = s.placement;
    REQUIRE(parsed == s);
  });
  for (const std::int64_t chunks : {2, 3, 5})
    CHECK(parse_schedule(to_string(make_looped_bfs_schedule({.pp = 3, .micro = 4, .chunks = chunks}))).placement ==
          placement::looped(3, chunks));
  CHECK(parse_schedule(to_string(make_hanayo_schedule({.pp = 3, .micro = 4, .waves = 2}))).placement ==
        placement::wave(3, 2));
  CHECK(parse_schedule(to_string(make_hanayo_schedule({.pp = 3, .micro = 4}))).placement == placement::vee(3));
  CHECK(parse_schedule(to_string(make_dualpipe_schedule({.pp = 4, .micro = 9}))).placement ==
        placement::bidirectional(4, 9));
  CHECK(parse_schedule("2F0\n0F0\n1F0").placement == placement::custom(3, 1, {{1, 2, 0}}));
  CHECK(parse_schedule("0F0 1F1\n1F0 2F1\n2F0 0F1").placement == placement::custom(3, 2, {{0, 1, 2}, {2, 0, 1}}));
}

TEST_CASE("parse_schedule: ops that no placement explains are refused") {
  const auto refusal = [](const char* text) { return refusal_of([&] { parse_schedule(text); }); };
  CHECK(refusal("0F0\n0B0") == "stage 0 has ops on ranks 0 and 1; expected one of them");
  CHECK(refusal("0F0 0F1\n0B0 0B1") ==
        "stage 0 has ops on ranks 0 and 1; expected one of them, or one for micro-batch 0 and the other for "
        "micro-batch 1");
  CHECK(refusal("0F0 1F0\n0F1 1F1\n0F2") ==
        "stage 0 has ops on ranks 0 and 1; expected one of them, or one for micro-batches 0 to 1 and the other for "
        "micro-batch 2");
  CHECK(refusal("0F0 1F1\n1F0 0F1 2F1") ==
        "stage 2 has no op of micro-batch 0; expected ops of all stages in either half, as some are on two ranks");
  CHECK(refusal("0F0 1F1\n1F0 0F1\n2F0") ==
        "stage 2 has no op of micro-batch 1; expected ops of all stages in either half, as some are on two ranks");
  CHECK(refusal("0F0\n2F0") == "stage 1 has no op; expected ops of stages 0 to 2");
  CHECK(refusal("rank 0: 0F0\nrank 1:") == "every rank has a stage; rank 1 has none");
  CHECK(refusal("") == "a placement takes 1 to 65536 ranks; got 0, nearest 1");
  CHECK(refusal("0F0 65536F0") == "line 1, column 5: \"65536F0\"; expected an op such as 3F12, or two as (0F7;7B13)");
  CHECK(refusal("0F4294967294") == "line 1, column 1: 0F4294967294; expected a micro-batch below 4294967294");
}

TEST_CASE("parse_schedule: labels may be left out, blanks and empty lines do not matter") {
  const schedule s = make_1f1b_schedule({.pp = 2, .micro = 2});
  CHECK(parse_schedule("\n 0F0  0F1\t0B0 0B1 \r\n\n1F0 1B0 1F1 1B1\n\n", s.placement, s.name) == s);
  CHECK(parse_schedule("rank 0: 0F0\n1F0", s.placement).forward_only);
  CHECK(parse_schedule("rank 0:\nrank 1: 1F0 1B0", s.placement)[0].empty());
}

TEST_CASE("parse_schedule: an error names line, column, value and rule") {
  const auto refusal = [](const char* text) { return refusal_of([&] { parse_schedule(text, placement::linear(2)); }); };
  CHECK(refusal("0F0\n1F0 1X0") == "line 2, column 5: \"1X0\"; expected an op such as 3F12, or two as (0F7;7B13)");
  CHECK(refusal("\n0F0 (0F1;)\n1F0") ==
        "line 2, column 5: \"(0F1;)\"; expected an op such as 3F12, or two as (0F7;7B13)");
  CHECK(refusal("0F0\n2F0") == "line 2, column 1: 2F0; expected a stage below 2");
  CHECK(refusal("0F0\n1F4294967294") == "line 2, column 1: 1F4294967294; expected a micro-batch below 4294967294");
  CHECK(refusal("0F0\n  rank 0: 1F0") ==
        "line 2, column 3: a label that is not that of the next rank; expected \"rank 1:\"");
  CHECK(refusal("rank 0 0F0") == "line 1, column 1: a label that is not that of the next rank; expected \"rank 0:\"");
  CHECK(refusal("0F0") == "the text of a schedule for 2 ranks has as many lines; got 1");
  CHECK(refusal("0F0\n1F0\n0F1") == "the text of a schedule for 2 ranks has as many lines; got 3");
  CHECK(refusal("") == "the text of a schedule for 2 ranks has as many lines; got 0");
}

TEST_CASE("ops: those of every cell in order; find: each in its place") {
  for (const char* name : {"1f1b", "zbv", "dualpipe", "hanayo", "interleaved_zb"}) {
    const schedule s = make_schedule(name, {.pp = 4, .micro = 9});
    std::size_t count = 0;
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
      std::vector<op> expected;
      for (const cell& c : s[rank])
        for (const op& o : c) expected.push_back(o);
      CHECK(std::ranges::equal(ops(s, rank), expected));
      CHECK(*std::ranges::find(ops(s, rank), expected.back()) == expected.back());
      count += expected.size();
      for (std::size_t i = 0; i < s[rank].size(); ++i)
        for (std::size_t k = 0; k < s[rank][i].size(); ++k) {
          op o = s[rank][i][k];
          o.chunk = 77;
          REQUIRE(find(s, o) == op_place{rank, i, k});
        }
    }
    CHECK(count > 70);
  }
  const schedule s = make_1f1b_schedule({.pp = 2, .micro = 2});
  CHECK(!find(s, *parse_op("2F0")));
  CHECK(!find(s, *parse_op("0F2")));
  CHECK(!find(s, *parse_op("0I0")));
  CHECK(!find({}, *parse_op("0F0")));
}

TEST_CASE("predecessors and successors: inverse to each other, and their closure is what depends() says") {
  for (const char* name : {"1f1b", "zbv", "dualpipe", "hanayo", "interleaved_zb"}) {
    for (const bool forward_only : {false, true}) {
      const schedule s = make_schedule(name, {.pp = 2, .micro = 5, .forward_only = forward_only});
      CAPTURE(name);
      std::vector<op> all;
      for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
        for (const op& o : ops(s, rank)) all.push_back(o);
      std::map<op, std::set<op>> needed;  // directly or through others
      for (const op& o : all) {
        for (const op& before : predecessors(s, o)) {
          const auto back = successors(s, before);
          REQUIRE(std::ranges::find(back, o) != back.end());
        }
        for (const op& after : successors(s, o)) {
          const auto back = predecessors(s, after);
          REQUIRE(std::ranges::find(back, o) != back.end());
        }
        std::vector<op> open{o};
        while (!open.empty()) {
          const op next = open.back();
          open.pop_back();
          for (const op& before : predecessors(s, next))
            if (needed[o].insert(before).second) open.push_back(before);
        }
      }
      for (const op& later : all)
        for (const op& earlier : all)
          REQUIRE(needed[later].contains(earlier) == (later != earlier && depends(later, earlier, s.stages())));
    }
  }
  const schedule s = make_schedule("zb1p", {.pp = 2, .micro = 2});
  CHECK(predecessors(s, *parse_op("0F1")).empty());
  CHECK(to_string(predecessors(s, *parse_op("0I1"))[1]) == "1I1");
  CHECK(successors(s, *parse_op("0W1")).empty());
}
