// SPDX-License-Identifier: MIT
// launch_order(): with one queue per rank, in which every entry waits for the one in front of it, every program ends.

#include "pipesched/program/launch_order.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <iterator>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/cost/uniform_costs.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/program/verify.hpp"
#include "support/families.hpp"
#include "support/planned_receives.hpp"
#include "support/random_costs.hpp"
#include "support/random_programs.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

// An entry of a rank's queue: a message, which moves when both sides are at the front, or anything else, which always moves.
struct item {
  std::uint32_t channel = no_slot, number = 0;
};
using queue = std::deque<item>;

queue queue_of(const program& p, std::uint32_t rank, const std::vector<launch>& order) {
  const auto row = p.actions[rank];
  std::map<std::uint32_t, item> posted;  // by action
  std::map<std::uint32_t, std::uint32_t> numbers;
  for (std::uint32_t n = 0; n < row.size(); ++n)
    if (is_message(row[n])) posted[n] = {row[n].channel, numbers[row[n].channel]++};
  queue q;
  std::size_t next = 0;
  for (std::uint32_t n = 0; n <= row.size(); ++n) {
    for (; next < order.size() && order[next].issue_before <= n; ++next) q.push_back(posted.at(order[next].action));
    if (n < row.size() && posted.count(n) == 0) q.push_back({});
  }
  return q;
}

// True if every queue becomes empty.
bool all_queues_drain(const program& p, std::vector<queue> queues) {
  for (bool moved = true; moved;) {
    moved = false;
    for (std::uint32_t r = 0; r < queues.size(); ++r)
      while (!queues[r].empty()) {
        const item front = queues[r].front();
        if (front.channel != no_slot) {
          const channel& c = p.channels[front.channel];
          queue& other = queues[c.from == r ? c.to : c.from];
          if (other.empty() || other.front().channel != front.channel || other.front().number != front.number) break;
          other.pop_front();
        }
        queues[r].pop_front();
        moved = true;
      }
  }
  return std::all_of(queues.begin(), queues.end(), [](const queue& q) { return q.empty(); });
}
bool all_queues_drain(const program& p, const rows<launch>& order) {
  std::vector<queue> queues;
  for (std::uint32_t r = 0; r < p.actions.size(); ++r)
    queues.push_back(queue_of(p, r, {order[r].begin(), order[r].end()}));
  return all_queues_drain(p, queues);
}

// Checks that every message is started once, after its post and before every action that waits for it.
void require_in_place(const program& p, const rows<launch>& order) {
  for (std::uint32_t r = 0; r < p.actions.size(); ++r) {
    const auto row = p.actions[r];
    std::set<std::uint32_t> seen;
    std::set<std::uint32_t> pending;  // buffers that are posted and not yet started
    std::size_t next = 0;
    for (std::uint32_t n = 0; n <= row.size(); ++n) {
      for (; next < order[r].size() && order[r][next].issue_before == n; ++next) {
        const std::uint32_t at = order[r][next].action;
        REQUIRE(at < n);
        REQUIRE(seen.insert(at).second);
        REQUIRE((row[at].kind == action_kind::receive || row[at].kind == action_kind::send));
        pending.erase(row[at].buffer);
      }
      if (n == row.size()) break;
      const action& a = row[n];
      if (a.kind == action_kind::compute) {
        for (const op_slots& s : p.slots[r][a.index]) REQUIRE(pending.count(s.input) + pending.count(s.output) == 0);
      } else if (a.kind == action_kind::accumulate) {
        for (std::uint32_t sent = p.pools[r].owned_buffers(); sent < p.pools[r].buffers(); ++sent)
          REQUIRE(pending.count(sent) == 0);
        REQUIRE(pending.count(a.buffer) == 0);
      } else {
        pending.insert(a.buffer);
      }
    }
    REQUIRE(next == order[r].size());
    const auto messages = std::count_if(row.begin(), row.end(), [](const action& a) {
      return a.kind == action_kind::receive || a.kind == action_kind::send;
    });
    REQUIRE(seen.size() == static_cast<std::size_t>(messages));
  }
}

// The order of the actions: each message is started where it is posted.
rows<launch> posted_order(const program& p) {
  rows<launch> order;
  for (std::uint32_t r = 0; r < p.actions.size(); ++r) {
    std::vector<launch> row;
    for (std::uint32_t n = 0; n < p.actions[r].size(); ++n)
      if (p.actions[r][n].kind == action_kind::receive || p.actions[r][n].kind == action_kind::send)
        row.push_back({n, n});
    order.append(row);
  }
  return order;
}

}  // namespace

TEST_CASE("launch order: every family ends with one queue per rank") {
  int deadlocks = 0;
  for_all_families(6, 12, [&](const family& of, const schedule_params& params) {
    CAPTURE(of.name);
    CAPTURE(params.pp);
    CAPTURE(params.micro);
    CAPTURE(params.forward_only);
    const schedule s = of.make(params);
    for (const std::uint32_t depth : {1u, 2u, 4u}) {
      lower_options options{.depth = depth};
      if (depth == 2 && s.stages() > 1 && !params.forward_only)
        options.tied = {{0, static_cast<std::uint16_t>(s.stages() - 1)}};
      const program p = lower(s, options);
      const rows<launch> order = launch_order(p);
      require_in_place(p, order);
      REQUIRE(all_queues_drain(p, order));
      for (std::uint32_t r = 0; r < p.actions.size(); ++r) {
        const auto alone = launch_order(p, r);
        REQUIRE(std::equal(alone.begin(), alone.end(), order[r].begin(), order[r].end()));
      }
      deadlocks += !all_queues_drain(p, posted_order(p));
    }
  });
  CHECK(deadlocks > 100);  // without the launch order
}

TEST_CASE("launch order: receives start before the actions that a slow twin finds for them, in every family") {
  for_all_families(5, 9, [&](const family& of, const schedule_params& params) {
    CAPTURE(of.name);
    CAPTURE(params.pp);
    CAPTURE(params.micro);
    CAPTURE(params.forward_only);
    const schedule s = of.make(params);
    lower_options options{.depth = static_cast<std::uint32_t>(1 + params.micro % 3)};
    if (s.stages() > 1 && !params.forward_only) options.tied = {{0, static_cast<std::uint16_t>(s.stages() - 1)}};
    const program p = lower(s, options);
    const rows<launch> order = launch_order(p);
    const planned_receives planned(p);
    for (std::uint32_t c = 0; c < p.channels.size(); ++c) {
      std::vector<std::uint32_t> of_channel;
      const std::uint32_t to = p.channels[c].to;
      for (const launch& l : order[to])
        if (const action& a = p.actions[to][l.action]; a.kind == action_kind::receive && a.channel == c)
          of_channel.push_back(l.issue_before);
      REQUIRE(of_channel == planned.actions_of(c));
    }
  });
}

TEST_CASE("launch order: exists for every program that verify() proves; others are refused") {
  std::mt19937_64 random(5);
  int passed = 0, refused = 0;
#ifdef PIPESCHED_SMALL_GRIDS
  const int tries = 500;
#else
  const int tries = 4000;
#endif
  for (int i = 0; i < tries; ++i) {
    const family& of = families[random() % std::size(families)];
    program p = lower(of.make({.pp = 4, .micro = static_cast<std::int64_t>(2 + random() % 6)}),
                      {.depth = 1 + static_cast<std::uint32_t>(random() % 3)});
    change_at_random(p, random);
    if (!verify(p)) {
      ++refused;
      continue;
    }
    ++passed;
    CAPTURE(of.name);
    const rows<launch> order = launch_order(p);
    require_in_place(p, order);
    REQUIRE(all_queues_drain(p, order));
  }
  CHECK(passed > tries / 4);
  CHECK(refused > tries / 10);

  program p = lower(make_1f1b_schedule({.pp = 2, .micro = 1}));
  for (const std::uint32_t rank : {0u, 1u}) {
    auto row = p.actions[rank];
    const auto send = std::find_if(row.begin(), row.end(), [](const action& a) { return a.kind == action_kind::send; });
    std::rotate(send, send + 1, row.end());
  }
  REQUIRE(!verify(p));
  const std::string cycle =
      "rank 0, cell 1: deadlock: rank 0 at 0B0 waits for rank 1 to send gradient 1B0; rank 1 at 1F0 waits for rank 0 "
      "to "
      "send activation 0F0; expected no cycle of waits";
  CHECK(refusal_of([&] { launch_order(p); }) == "the program is not valid: " + cycle);
  CHECK(refusal_of([&] { launch_order(p, 1); }) == "the program is not valid: " + cycle);
  CHECK(refusal_of([&] { launch_order(p, verified); }) ==
        "cannot order the messages of a program that deadlocks; see verify()");
}

TEST_CASE("launch order, buffer_bytes: a rank that the program does not have is refused") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 2}));
  const std::string expected = "a program of 2 ranks has ranks 0 to 1; got rank 9, nearest 1";
  CHECK(refusal_of([&] { launch_order(p, 9); }) == expected);
  CHECK(refusal_of([&] { launch_order(p, 9, uniform_costs{}, verified); }) == expected);
  CHECK(refusal_of([&] { buffer_bytes(p, 9, [](tensor_id) { return std::size_t{1}; }); }) == expected);
}

TEST_CASE("launch order: every program ends with one queue per rank under any costs") {
  const uniform_costs nothing{.forward = 0, .backward = 0};
  // Times that are lost when they are added to others.
  const stage_costs lost{
      .forward = {1e300}, .backward_input = {1}, .backward_weight = {1e-300}, .transfer_time = {1e-5}};
  random_costs random(11);
  int other_orders = 0;
  for_all_families(5, 9, [&](const family& of, const schedule_params& params) {
    CAPTURE(of.name);
    CAPTURE(params.pp);
    CAPTURE(params.micro);
    const schedule s = of.make(params);
    lower_options options{.depth = static_cast<std::uint32_t>(1 + params.micro % 3)};
    if (s.stages() > 1 && !params.forward_only) options.tied = {{0, static_cast<std::uint16_t>(s.stages() - 1)}};
    const program p = lower(s, options);
    const rows<launch> unit = launch_order(p);
    REQUIRE(launch_order(p, uniform_costs{}) == unit);
    const stage_costs any = random.make(s);
    const stage_costs often_zero{.forward = random.per_stage_numbers(s.stages(), 0, 1),
                                 .backward_input = random.per_stage_numbers(s.stages(), 0, 1),
                                 .backward_weight = {0},
                                 .transfer_time = random.per_stage_numbers(s.stages(), 0, 1)};
    for (const rows<launch>& order : {launch_order(p, any), launch_order(p, often_zero), launch_order(p, lost),
                                      launch_order(p, nothing, verified)}) {
      require_in_place(p, order);
      REQUIRE(all_queues_drain(p, order));
      other_orders += order != unit;
    }
    for (std::uint32_t r = 0; r < p.actions.size(); ++r) {
      const auto alone = launch_order(p, r, any);
      const rows<launch> order = launch_order(p, any, verified);
      REQUIRE(std::equal(alone.begin(), alone.end(), order[r].begin(), order[r].end()));
      REQUIRE(launch_order(p, r, any, verified) == alone);
    }
  });
  CHECK(other_orders > 1000);
}

TEST_CASE("launch order: costs decide which of two messages starts first") {
  // With a slow F on rank 1, all activations of rank 0 move before the first of rank 1.
  const program p = lower(make_gpipe_schedule({.pp = 3, .micro = 3}), {.depth = 3});
  const auto names = [&](const auto& costs) {
    std::string text;
    for (const launch& l : launch_order(p, 1, costs)) text += to_string(p.actions[1][l.action].what) + "; ";
    return text;
  };
  CHECK(names(uniform_costs{}) ==
        "activation 0F0; activation 0F1; activation 1F0; activation 0F2; activation 1F1; activation 1F2; gradient 2B0; "
        "gradient 1B0; gradient 2B1; gradient 1B1; gradient 2B2; gradient 1B2; ");
  CHECK(names(stage_costs{.forward = {1, 5, 1}}) ==
        "activation 0F0; activation 0F1; activation 0F2; activation 1F0; activation 1F1; activation 1F2; gradient 2B0; "
        "gradient 1B0; gradient 2B1; gradient 1B1; gradient 2B2; gradient 1B2; ");
}

TEST_CASE("launch order: bad costs are refused") {
  struct {
    double time = -1;
    double duration(const cell&) const { return time; }
    double transfer(std::uint32_t, std::uint32_t, tensor_id) const { return 0; }
  } unchecked;
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 3}));
  const std::string text =
      "costs: a time is negative or not a number, or the times add up to more than a double holds; expected finite "
      "numbers that are not negative";
  CHECK(refusal_of([&] { launch_order(p, unchecked); }) == text);
  unchecked.time = std::numeric_limits<double>::quiet_NaN();
  CHECK(refusal_of([&] { launch_order(p, 0, unchecked, verified); }) == text);
  CHECK(refusal_of([&] { launch_order(p, uniform_costs{.forward = 1e308}); }) == text);
  CHECK(refusal_of([&] { launch_order(p, uniform_costs{.forward = -1}); }) ==
        "costs: forward is negative; expected a finite number that is not negative, nearest 0");
}

TEST_CASE("launch order: the queues deadlock if two messages change places on one rank") {
  int deadlocks = 0, tried = 0;
  for (const char* name : {"1f1b", "zbv", "dualpipe", "interleaved_1f1b"}) {
    const program p = lower(make_schedule(name, {.pp = 4, .micro = 8}));
    const rows<launch> order = launch_order(p);
    for (std::uint32_t r = 0; r < 4; ++r)
      for (std::size_t i = 0; i + 1 < order[r].size(); ++i) {
        rows<launch> changed = order;
        std::swap(changed[r][i].action, changed[r][i + 1].action);
        deadlocks += !all_queues_drain(p, changed), ++tried;
      }
  }
  CHECK(deadlocks > tried / 3);
  CHECK(tried > 200);
}
