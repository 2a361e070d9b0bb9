// SPDX-License-Identifier: MIT

#include "pipesched/core/verify.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "pipesched/generate/families.hpp"
#include "support/any_variant.hpp"
#include "support/brute_force.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

using editable = std::vector<std::vector<cell>>;

editable rows_of(const schedule& s) {
  editable all;
  for (std::size_t rank = 0; rank < s.pp(); ++rank) all.emplace_back(s[rank].begin(), s[rank].end());
  return all;
}

// A schedule for 2 ranks from texts, for tests of single rules.
schedule of_texts(const std::vector<std::string>& texts, std::uint32_t micro) {
  schedule s{.name = "hand-made", .placement = placement::linear(std::ssize(texts)), .micro = micro};
  for (const std::string& text : texts) {
    std::vector<cell> row;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find(' ', at), text.size());
      row.push_back(parse_cell(text.substr(at, end - at)).value());
      at = end + 1;
    }
    s.cells.append(row);
  }
  return s;
}

std::string report_on(const std::vector<std::string>& texts, std::uint32_t micro) {
  return to_string(verify(of_texts(texts, micro)));
}

}  // namespace

TEST_CASE("verify: a valid schedule has an empty report") {
  CHECK(report_on({"0F0 0F1 0B0 0I1 0W1", "1F0 1I0 1F1 1W0 1B1"}, 2) == "");
}

TEST_CASE("verify: every rule reports its own text") {
  CHECK(report_on({"0F0 0B0 0F0", "1F0 1B0"}, 1) ==
        "rank 0, cell 2: duplicate: 0F0 again, first in cell 0; expected once\n");
  CHECK(report_on({"0F0 0F1 0B0", "1F0 1F1 1B0 1B1"}, 2) ==
        "rank 0: missing: 0B1; expected one B, or one I and one W\n");
  CHECK(report_on({"0F0 0I0", "1F0 1B0"}, 1) == "rank 0: missing: 0W0; expected one W beside the I\n");
  CHECK(report_on({"0F0 0W0", "1F0 1B0"}, 1) == "rank 0: missing: 0I0; expected one I beside the W\n");
  CHECK(report_on({"0B0", "1F0 1B0"}, 1) == "rank 0: missing: 0F0; expected one F\n");
  CHECK(report_on({"0F0 0B0 0W0", "1F0 1B0"}, 1) ==
        "rank 0, cell 1: backward: 0B0 beside 0W0 in cell 2; expected either one B or one I and one W\n");
  CHECK(report_on({"0B0 0F0", "1F0 1B0"}, 1) == "rank 0, cell 0: order: 0B0 before 0F0 in cell 1; expected after it\n");
  CHECK(report_on({"0F0 0W0 0I0", "1F0 1B0"}, 1) ==
        "rank 0, cell 1: order: 0W0 before 0I0 in cell 2; expected after it\n");
  CHECK(report_on({"0F0 0B0 0F7", "1F0 1B0"}, 1) ==
        "rank 0, cell 2: range: 0F7; expected F, B, I, W, R, RB or RI, a stage below 2 and a micro-batch below 1\n");
  CHECK(report_on({"0F0 0B0 1B0", "1F0 1B0"}, 1) ==
        "rank 0, cell 2: placement: 1B0 is chunk 0 here; expected on rank 1 as chunk 0\n");
  CHECK(report_on({"0F0 0B0", "(1F0;1B0)"}, 1) ==
        "rank 1, cell 0: overlap: 1B0 needs 1F0; expected two ops that do not need each other\n");
}

TEST_CASE("verify: a W in one cell with the B of its stage breaks the backward rule, not the overlap rule") {
  const schedule s = of_texts({"0F0 (0B0;0W0)", "1F0 1B0"}, 1);
  CHECK(rules_of(verify(s)) == brute_force(s).broken_rules());
  CHECK(rules_of(verify(s)) == std::set{rule::backward});
}

TEST_CASE("verify: a cycle over ranks is spelled out op by op") {
  CHECK(report_on({"0F0 0B0 0F1 0B1", "1F0 1F1 1B0 1B1"}, 2) ==
        "rank 0, cell 1: cycle: 0B0 (rank 0, cell 1) needs 1B0 (rank 1, cell 2), which comes after 1F1; "
        "1F1 (rank 1, cell 1) needs 0F1 (rank 0, cell 2), which comes after 0B0; "
        "expected an order in which every op comes after what it needs\n");
}

TEST_CASE("verify: overlapped cells of two ranks that wait for each other are a cycle") {
  const report r = verify(of_texts({"0F0 (0F1;0B0) 0B1", "(1F1;1F0) 1B0 1B1"}, 2));
  CHECK(rules_of(r) == std::set{rule::cycle});
}

TEST_CASE("verify: forward_only allows only F") {
  schedule s = make_1f1b_schedule({.pp = 2, .micro = 2, .forward_only = true});
  CHECK(verify(s));
  s[1][1][0].pass = pass::backward;
  CHECK(to_string(verify(s)) ==
        "rank 1, cell 1: range: 1B1; expected F alone (forward only), a stage below 2 and a micro-batch below 2\n"
        "rank 1: missing: 1F1; expected one F\n");
  s = make_1f1b_schedule({.pp = 2, .micro = 2});
  s.forward_only = true;
  CHECK(verify(s).names(rule::range));
}

TEST_CASE("verify: rejects schedules that PyTorch's validator accepts") {
  // A duplicate F; B, I and W for one micro-batch and none for another; a micro-batch out of range; a deadlock.
  CHECK(report_on({"0F0 0F1 0F1 0B0 0B1", "1F0 1F1 1B0 1B1"}, 2).find("duplicate: 0F1 again") != std::string::npos);
  const std::string uneven = report_on({"0F0 0F1 0B0 0I0 0W0", "1F0 1F1 1B0 1B1"}, 2);
  CHECK(uneven.find("backward: 0B0 beside 0I0") != std::string::npos);
  CHECK(uneven.find("missing: 0B1") != std::string::npos);
  CHECK(report_on({"0F0 0F7 0B0 0B7", "1F0 1F1 1B0 1B1"}, 2).find("range: 0F7") != std::string::npos);
  CHECK(report_on({"0F0 0B0 0F1 0B1", "1F0 1F1 1B0 1B1"}, 2).find("cycle: ") != std::string::npos);
}

TEST_CASE("verify: a wrong number of rows, ranks or micro-batches breaks the shape rule") {
  schedule s = make_gpipe_schedule({.pp = 2, .micro = 2});
  s.cells.append({});
  CHECK(rules_of(verify(s)) == std::set{rule::shape});
  CHECK(rules_of(verify(schedule{})) == std::set{rule::shape});
  s = make_dualpipe_schedule({.pp = 2, .micro = 8});
  s.micro = 3;
  CHECK(to_string(verify(s)) ==
        "rank 0: shape: the placement's replica 1 starts with micro-batch 4; expected 2 for 3 micro-batches\n");
}

TEST_CASE("verify: a pass, chunk or stage out of range is reported and not used as an index") {
  schedule s = make_1f1b_schedule({.pp = 2, .micro = 2});
  s[0][0][0].pass = static_cast<pass>(77);
  s[0][1][0].chunk = 200;
  s[1][0][0].stage = 65535;
  s[1][1][0].micro = std::numeric_limits<std::uint32_t>::max();
  const report r = verify(s);
  CHECK(r.names(rule::range));
  CHECK(r.names(rule::placement));
  CHECK(to_string(r).find("range: 0?0") != std::string::npos);
}

TEST_CASE("verify: memory is bounded by the ops, not by the declared size") {
  schedule s{.name = "huge", .placement = placement::linear(65536), .micro = 4'000'000'000};
  for (int rank = 0; rank < 65536; ++rank) s.cells.append({});
  CHECK(to_string(verify(s)) ==
        "rank 0: missing: 0F0 and most other ops; expected 65536 stages x 4000000000 micro-batches, got 0 ops\n");
}

TEST_CASE("verify: lists the first violations and counts the others") {
  schedule s = make_gpipe_schedule({.pp = 4, .micro = 100});
  for (cell& c : s.cells.all()) c[0].stage = 9;
  const report r = verify(s, 5);
  CHECK(r.violations.size() == 5);
  CHECK(r.further == 4 * 200 + 4 * 100 * 2 - 5);  // every op out of range; every F and every B missing
  CHECK(to_string(r).find("and 1595 more\n") != std::string::npos);
  CHECK_FALSE(verify(s, 0));
  // A report's text is short for any number of violations; its last line counts those not listed.
  const std::string text = to_string(verify(s));
  CHECK(std::count(text.begin(), text.end(), '\n') == 11);
  CHECK(text.find("and 1590 more\n") == text.size() - 14);
  CHECK(to_string(r, 2).find("and 1598 more\n") != std::string::npos);
  CHECK(to_string(verify(s, 0)) == "and 1600 more\n");
  CHECK(
      refusal_of([&] { require_valid(s); }) ==
      "the schedule is not valid: rank 0, cell 0: range: 9F0; expected F, B, I, W, R, RB or RI, a stage below 4 and a "
      "micro-batch below 100 (and 1599 more)");
  CHECK(refusal_of([] { require_valid(make_gpipe_schedule({.pp = 4, .micro = 8})); }) == "");
}

TEST_CASE("verify: reports every kind of mutant and agrees with its slow twin on all of them") {
  std::mt19937_64 random(20260101);
  const auto below = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random); };
  enum kind { swap, drop, duplicate, move, move_rank, retarget_micro, retarget_stage, reletter, unpair, pair, kinds };
  std::vector<int> made(kinds, 0), caught(kinds, 0);
  for_all_families(6, 13, [&](const family& f, const schedule_params& p) {
    const schedule good = p.micro % 3 == 0 ? any_variant(f.make(p), random) : f.make(p);
    REQUIRE(brute_force(good).broken_rules().empty());
    REQUIRE(verify(good));
    for (int round = 0; round < 4 * kinds; ++round) {
      const int which = round % kinds;
      schedule mutant = good;
      editable all = rows_of(good);
      auto& row = all[below(all.size())];
      const std::size_t i = below(row.size()), j = below(row.size());
      op& o = row[i][below(row[i].size())];
      std::set<rule> expected;  // the report has at least one of these, unless empty
      switch (which) {
        case swap: std::swap(row[i], row[j]); break;
        case drop:
          for (const op dropped : row[i])
            if (dropped.pass != pass::recompute) expected = {rule::missing};
          row.erase(row.begin() + static_cast<std::ptrdiff_t>(i));
          break;
        case duplicate:
          row.insert(row.begin() + static_cast<std::ptrdiff_t>(j), cell(row[i]));
          expected = {rule::duplicate};
          break;
        case move: {
          const cell moved = row[i];
          row.erase(row.begin() + static_cast<std::ptrdiff_t>(i));
          row.insert(row.begin() + static_cast<std::ptrdiff_t>(std::min(j, row.size())), moved);
          break;
        }
        case move_rank: {
          auto& other = all[below(all.size())];
          if (&other == &row) continue;
          other.insert(other.begin() + static_cast<std::ptrdiff_t>(below(other.size() + 1)), row[i]);
          row.erase(row.begin() + static_cast<std::ptrdiff_t>(i));
          expected = {rule::placement};
          break;
        }
        case retarget_micro: {
          const auto to = static_cast<std::uint32_t>(below(good.micro + 2));
          if (to == o.micro) continue;
          if (o.pass != pass::recompute) expected = {rule::missing};
          o.micro = to;
          break;
        }
        case retarget_stage: {
          const auto to = static_cast<std::uint16_t>(below(good.stages() + 2));
          if (to == o.stage) continue;
          if (o.pass != pass::recompute) expected = {rule::missing};
          o.stage = to;
          break;
        }
        case reletter: {
          const auto to = static_cast<pass>(1 + below(std::size(pass_table) - 1));
          if (to == o.pass) continue;
          if (without_recompute(to) != without_recompute(o.pass) && o.pass != pass::recompute)
            expected = {rule::missing, rule::backward, rule::range};
          o.pass = to;
          break;
        }
        case unpair: {
          auto found = std::find_if(row.begin() + static_cast<std::ptrdiff_t>(i), row.end(),
                                    [](const cell& c) { return c.overlapped(); });
          if (found == row.end()) continue;
          const cell both = *found;
          *found = both[0];
          row.insert(found, both[1]);
          break;
        }
        case pair:
          if (i + 1 >= row.size() || row[i].overlapped() || row[i + 1].overlapped()) continue;
          row[i] = cell(row[i][0], row[i + 1][0]);
          row.erase(row.begin() + static_cast<std::ptrdiff_t>(i) + 1);
          break;
      }
      mutant.cells = rows<cell>(all);
      const report r = verify(mutant);
      const std::set<rule> named = rules_of(r);
      CAPTURE(f.name);
      CAPTURE(p.pp);
      CAPTURE(p.micro);
      CAPTURE(p.forward_only);
      CAPTURE(which);
      CAPTURE(to_string(r));
      REQUIRE((named == brute_force(mutant).broken_rules()));
      bool as_expected = expected.empty();
      for (rule of : expected) as_expected = as_expected || named.count(of) > 0;
      REQUIRE(as_expected);
      ++made[static_cast<std::size_t>(which)];
      caught[static_cast<std::size_t>(which)] += !named.empty();
    }
  });
  for (int which = 0; which < kinds; ++which) {
    CAPTURE(which);
    CHECK(made[static_cast<std::size_t>(which)] > (which == unpair ? 5 : 100));
    if (which != unpair)  // F before B is right for all pairs of these families
      CHECK(caught[static_cast<std::size_t>(which)] > 50);
  }
}
