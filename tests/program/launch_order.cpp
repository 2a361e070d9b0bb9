// SPDX-License-Identifier: MIT
// launch_order(): one queue a rank, in which everything waits for what is in front of it, comes to its end.

#include "pipesched/program/launch_order.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <iterator>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/generate/families.hpp"
#include "pipesched/program/check.hpp"
#include "pipesched/program/lower.hpp"
#include "support/families.hpp"
#include "support/random_programs.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

// What a rank has in its queue: a message, which needs both sides at the front, or anything else, which needs nothing.
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
    for (; next < order.size() && order[next].before <= n; ++next) q.push_back(posted.at(order[next].action));
    if (n < row.size() && posted.count(n) == 0) q.push_back({});
  }
  return q;
}

// Does every queue become empty?
bool runs_out(const program& p, std::vector<queue> queues) {
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
bool runs_out(const program& p, const rows<launch>& order) {
  std::vector<queue> queues;
  for (std::uint32_t r = 0; r < p.actions.count(); ++r)
    queues.push_back(queue_of(p, r, {order[r].begin(), order[r].end()}));
  return runs_out(p, queues);
}

// Every message once, started behind its post and ahead of whatever waits for it.
void require_in_place(const program& p, const rows<launch>& order) {
  for (std::uint32_t r = 0; r < p.actions.count(); ++r) {
    const auto row = p.actions[r];
    const std::uint32_t buffers = p.pools[r].buffers;
    std::set<std::uint32_t> seen;
    std::set<std::uint32_t> under_way;  // buffers, reduction buffers behind them, that are posted and not yet started
    std::size_t next = 0, weights_under_way = 0;
    for (std::uint32_t n = 0; n <= row.size(); ++n) {
      for (; next < order[r].size() && order[r][next].before == n; ++next) {
        const std::uint32_t at = order[r][next].action;
        REQUIRE(at < n);
        REQUIRE(seen.insert(at).second);
        const action& a = row[at];
        REQUIRE((a.kind == action_kind::receive || a.kind == action_kind::send));
        if (a.what.kind == tensor_kind::weight_gradient && a.kind == action_kind::send)
          --weights_under_way;
        else
          under_way.erase(a.what.kind == tensor_kind::weight_gradient ? buffers + a.buffer : a.buffer);
      }
      if (n == row.size()) break;
      const action& a = row[n];
      const bool weights = a.what.kind == tensor_kind::weight_gradient;
      if (a.kind == action_kind::compute) {
        for (const op_slots& s : p.slots[r][a.index])
          REQUIRE(under_way.count(s.input) + under_way.count(s.output) == 0);
      } else if (a.kind == action_kind::accumulate) {
        REQUIRE(weights_under_way == 0);
        REQUIRE((a.channel == no_slot || under_way.count(buffers + a.buffer) == 0));
      } else if (weights && a.kind == action_kind::send) {
        ++weights_under_way;
      } else {
        under_way.insert(weights ? buffers + a.buffer : a.buffer);
      }
    }
    REQUIRE(next == order[r].size());
    const auto messages = std::count_if(row.begin(), row.end(), [](const action& a) {
      return a.kind == action_kind::receive || a.kind == action_kind::send;
    });
    REQUIRE(seen.size() == static_cast<std::size_t>(messages));
  }
}

// As the actions stand: each message started where it is posted.
rows<launch> posted_order(const program& p) {
  rows<launch> order;
  for (std::uint32_t r = 0; r < p.actions.count(); ++r) {
    std::vector<launch> row;
    for (std::uint32_t n = 0; n < p.actions[r].size(); ++n)
      if (p.actions[r][n].kind == action_kind::receive || p.actions[r][n].kind == action_kind::send)
        row.push_back({n, n});
    order.append(row);
  }
  return order;
}

}  // namespace

TEST_CASE("launch order: every family comes to its end where each rank has one queue") {
  int stood_still = 0;
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
      REQUIRE(runs_out(p, order));
      for (std::uint32_t r = 0; r < p.actions.count(); ++r) {
        const auto alone = launch_order(p, r);
        REQUIRE(std::equal(alone.begin(), alone.end(), order[r].begin(), order[r].end()));
      }
      stood_still += !runs_out(p, posted_order(p));
    }
  });
  CHECK(stood_still > 100);  // the order is needed
}

TEST_CASE("launch order: any program that check() passes has one; another is refused") {
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
    if (!check(p)) {
      ++refused;
      continue;
    }
    ++passed;
    CAPTURE(of.name);
    const rows<launch> order = launch_order(p);
    require_in_place(p, order);
    REQUIRE(runs_out(p, order));
  }
  CHECK(passed > tries / 4);
  CHECK(refused > tries / 10);

  program p = lower(make_1f1b_schedule({.pp = 2, .micro = 1}));
  for (const std::uint32_t rank : {0u, 1u}) {
    auto row = p.actions[rank];
    const auto send = std::find_if(row.begin(), row.end(), [](const action& a) { return a.kind == action_kind::send; });
    std::rotate(send, send + 1, row.end());
  }
  REQUIRE(!check(p));
  CHECK(refusal_of([&] { launch_order(p); }) ==
        "a program that does not come to its end has no order of messages; check() says why");
}

TEST_CASE("launch order: two messages that change places on one rank are seen") {
  int seen = 0, tried = 0;
  for (const char* name : {"1f1b", "zbv", "dualpipe", "interleaved_1f1b"}) {
    const program p = lower(make_schedule(name, {.pp = 4, .micro = 8}));
    const rows<launch> order = launch_order(p);
    for (std::uint32_t r = 0; r < 4; ++r)
      for (std::size_t i = 0; i + 1 < order[r].size(); ++i) {
        rows<launch> changed = order;
        std::swap(changed[r][i].action, changed[r][i + 1].action);
        seen += !runs_out(p, changed), ++tried;
      }
  }
  CHECK(seen > tried / 3);
  CHECK(tried > 200);
}
