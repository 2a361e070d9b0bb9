// SPDX-License-Identifier: MIT
// describe(): where a rank is, and what it waits for.

#include "pipesched/program/describe.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "pipesched/generate/families.hpp"
#include "pipesched/program/launch_order.hpp"
#include "pipesched/program/lower.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;

TEST_CASE("describe: every action of a rank, its end, and the message that it waits for") {
  const program p = lower(make_1f1b_schedule({.pp = 3, .micro = 2}), {.tied = {{0, 2}}});
  const auto row = p.actions[1];
  const auto at = [&](action_kind kind) {
    const auto found = std::find_if(row.begin(), row.end(), [&](const action& a) { return a.kind == kind; });
    return static_cast<std::size_t>(found - row.begin());
  };
  const std::size_t receive = at(action_kind::receive), send = at(action_kind::send);
  CHECK(describe(p, 1, receive) == "rank 1 at the receive of activation 0F0");
  CHECK(describe(p, 1, at(action_kind::compute)) == "rank 1 at 1F0");
  CHECK(describe(p, 1, send) == "rank 1 at the send of activation 1F0");
  CHECK(describe(p, 2, p.actions[2].size() - 1) == "rank 2 at the weight gradient of stage 2");
  CHECK(describe(p, 1, row.size()) == "rank 1 at its end");

  CHECK(describe(p, row[receive]) == "activation 0F0 from rank 0");
  CHECK(describe(p, row[send]) == "activation 1F0 to rank 2");
  CHECK(describe(p, 1, at(action_kind::compute), row[receive]) ==
        "rank 1 at 1F0, which waits for activation 0F0 from rank 0");

  program wrong = p;
  wrong.actions[1][at(action_kind::compute)].index = 77;
  CHECK(describe(wrong, 1, at(action_kind::compute)) == "rank 1 at cell 77");

  const std::string no_rank = "a program of 3 ranks has ranks 0 to 2; got rank 9, nearest 2";
  CHECK(refusal_of([&] { describe(p, 9, 0); }) == no_rank);
  CHECK(refusal_of([&] { describe_waiting(p, 9, 0, [](std::uint32_t) { return true; }); }) == no_rank);
  CHECK(refusal_of([&] { describe(p, row[at(action_kind::compute)]); }) ==
        "describe() takes a send or receive of the program; got an action without a channel of it");
}

TEST_CASE("launch order: a program that is passed as verified and is wrong is refused with the rank's place") {
  program p = lower(make_1f1b_schedule({.pp = 2, .micro = 2}));
  p.slots[1][0][0].input = no_slot;
  CHECK(refusal_of([&] { launch_order(p, verified); }) ==
        "cannot order the messages of a program that is not valid: rank 1 at 1F0 has no buffer for activation 0F0; see "
        "verify()");
}

TEST_CASE("lower, verify(program): a schedule with a cycle is refused as verify() reports it") {
  schedule s = make_gpipe_schedule({.pp = 2, .micro = 2});
  const program p = lower(s);
  s.edit(0, [](auto& row) { std::swap(row[1], row[2]); });  // 0B0 or 0B1 before 0F1
  s.edit(1, [](auto& row) { std::rotate(row.begin(), row.begin() + 1, row.begin() + 2); });
  REQUIRE(verify(s).violations.at(0).rule == rule::cycle);
  CHECK(refusal_of([&] { lower(s); }) == refusal_of([&] { require_valid(s); }));
  program q = p;
  q.schedule = s;
  CHECK(to_string(verify(q)) == to_string(verify(s)));
}
