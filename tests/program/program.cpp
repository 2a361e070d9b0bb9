// SPDX-License-Identifier: MIT
// lower() and verify(): every family, mutants, and texts of deadlocks.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "pipesched/core/freeze.hpp"
#include "pipesched/core/transform.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/io/program_json.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/program/verify.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/any_variant.hpp"
#include "support/families.hpp"
#include "support/random_costs.hpp"
#include "support/random_programs.hpp"
#include "support/slow_interpreter.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

lower_options with_tied_ends(const schedule& s, std::uint32_t depth = 2) {
  lower_options options{.depth = depth};
  if (s.stages() > 1) options.tied = {{0, static_cast<std::uint16_t>(s.stages() - 1)}};
  return options;
}

std::uint32_t gradients_in(const program& p, std::uint32_t channel) {
  std::uint32_t count = 0;
  for (const action& a : p.actions[p.channels[channel].from])
    count += a.kind == action_kind::send && a.channel == channel && is_weight_gradient(a);
  return count;
}

// The peak of a rank's pending W and of whole B that run, counted cell by cell.
std::uint32_t peak_of_contexts(std::span<const cell> row) {
  std::uint32_t held = 0, peak = 0;
  for (const cell& c : row) {
    for (op o : c) held += o.pass == pass::backward_input || o.pass == pass::backward;
    peak = std::max(peak, held);
    for (op o : c) held -= o.pass == pass::backward_weight || o.pass == pass::backward;
  }
  return peak;
}

// Times of an interpreted program: a cell starts when its rank is free, its inputs have arrived and the buffers of its
// outputs are free; a message moves when both sides have posted it.
struct clocks : detail::null_observer {
  const program& p;
  const stage_costs& costs;
  std::vector<double> now;
  std::vector<std::vector<double>> sent, received;  // by channel, when posted
  std::vector<double> makespan{0.0};

  clocks(const program& of, const stage_costs& c)
      : p(of), costs(c), now(of.actions.size(), 0.0), sent(of.channels.size()), received(of.channels.size()) {}
  void compute(std::uint32_t rank, std::size_t cell) {
    now[rank] += costs.duration(p.schedule[rank][cell]);
    makespan[0] = std::max(makespan[0], now[rank]);
  }
  void post(std::uint32_t rank, std::uint32_t c, std::size_t) {
    (rank == p.channels[c].from ? sent : received)[c].push_back(now[rank]);
  }
  void moved(std::uint32_t rank, std::uint32_t c, std::size_t k, tensor_id) {
    now[rank] = std::max(now[rank], std::max(sent[c][k], received[c][k]) + costs.transfer_time[0]);
  }
};

double makespan_of(const program& p, const stage_costs& costs) {
  detail::interpreter<clocks> all(p, clocks(p, costs));
  all.run([](std::uint32_t, const std::string& text) { FAIL(text); });
  return all.observer().makespan[0];
}

}  // namespace

TEST_CASE("lower: verify() proves every family at every size and depth, and pools are the schedule's peaks") {
  for_all_families(8, 20, [](const family& f, const schedule_params& p) {
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    CAPTURE(p.forward_only);
    const schedule s = f.make(p);
    for (const std::uint32_t depth : {1u, 2u, 3u}) {
      const program lowered = lower(s, with_tied_ends(s, depth));
      REQUIRE(to_string(verify(lowered)) == "");
      for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
        REQUIRE(lowered.pools[rank][pool::activation] == peak_activations(s[rank], s.forward_only));
        REQUIRE(lowered.pools[rank][pool::context] == peak_of_contexts(s[rank]));
      }
    }
  });
}

TEST_CASE("lower: a schedule with a cycle, of several ranks or within one, is refused with verify()'s text") {
  int cycles = 0;
  for_all_families(4, 4, [&](const family& f, const schedule_params& p) {
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    CAPTURE(p.forward_only);
    const schedule right = f.make(p);
    for (std::uint32_t rank = 0; rank < right.pp(); ++rank)
      for (std::size_t i = 0; i + 1 < right[rank].size(); ++i)
        for (std::size_t j = i + 1; j < std::min(right[rank].size(), i + 6); ++j) {
          schedule s = right;
          std::swap(s[rank][i], s[rank][j]);
          const report r = verify(s);
          if (r) {
            REQUIRE(verify(lower(s)));
            continue;
          }
          REQUIRE(refusal_of([&] { lower(s); }) ==
                  "the schedule is not valid: " + detail::first_violation(verify(s, 1)));
          cycles += r.violations[0].rule == rule::cycle;
        }
  });
  CHECK(cycles > 1000);
  // Stages 1 and 2 are both on rank 1, and no tensor between them leaves it.
  const schedule alone = parse_schedule("0F0 3F0 3B0 0B0\n2F0 1F0 2B0 1B0\n", placement::vee(2), "alone");
  CHECK(refusal_of([&] { lower(alone); }).find("the schedule is not valid: ") == 0);
  const schedule backward = parse_schedule("0F0 3F0 3B0 0B0\n1F0 2F0 1B0 2B0\n", placement::vee(2), "backward");
  CHECK(refusal_of([&] { lower(backward); }).find("the schedule is not valid: ") == 0);
}

TEST_CASE("verify: two channels from one rank to another are refused, as messages have no tags") {
  program p = lower(make_1f1b_schedule({.pp = 2, .micro = 2}));
  p.channels.push_back(p.channels[0]);
  p.channels.back().messages = 0;
  CHECK(to_string(verify(p)).find("a second channel from rank 0 to rank 1; expected one") != std::string::npos);
}

TEST_CASE("lower: verify() proves overlapped, split, delayed and concatenated schedules") {
  int concatenated = 0;
  for_all_families(5, 9, [&](const family& f, const schedule_params& p) {
    if (p.forward_only) return;
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    const schedule s = f.make(p);
    for (const schedule& other : {overlap_neighbours(s), split_backward(s), delay_weights(s, 3)})
      REQUIRE(to_string(verify(lower(other))) == "");
    if (s.placement.replicas() == 2 && s.micro % 2 != 0) return;
    const schedule twice = concatenate(s, s);
    const program once = lower(s), both = lower(twice);
    REQUIRE(to_string(verify(both)) == "");
    REQUIRE(both.schedule == twice);
    REQUIRE(both.channels.size() == once.channels.size());
    for (std::size_t c = 0; c < once.channels.size(); ++c) {
      // Twice the activations and gradients, and the weight gradients once.
      const channel &of_once = once.channels[c], &of_both = both.channels[c];
      const std::uint32_t gradients = gradients_in(once, static_cast<std::uint32_t>(c));
      REQUIRE((of_both.from == of_once.from && of_both.to == of_once.to));
      REQUIRE(of_both.messages == 2 * of_once.messages - gradients);
      REQUIRE(gradients_in(both, static_cast<std::uint32_t>(c)) == gradients);
    }
    for (const schedule& other : {overlap_neighbours(twice), split_backward(twice), concatenate(twice, s)})
      REQUIRE(to_string(verify(lower(other, with_tied_ends(other)))) == "");
    ++concatenated;
  });
  CHECK(concatenated > 500);
}

// A receive posted too late, or after one whose message is used later, would delay its sender and all ranks that wait for it.
TEST_CASE("lower: messages never delay each other: no family takes longer under rendezvous than in simulate()") {
  for_all_families(8, 20, [](const family& f, const schedule_params& p) {
    if (p.forward_only) return;
    CAPTURE(f.name);
    CAPTURE(p.pp);
    CAPTURE(p.micro);
    const schedule s = f.make(p);
    const stage_costs costs;
    // Depth 1 is enough for 1F1B, zero bubble and DualPipe, 6 for groups of interleaved micro-batches.
    const std::uint32_t depth = f.name == "looped_bfs" ? s.micro : 6;
    REQUIRE(makespan_of(lower(s, {.depth = depth}), costs) == measure(simulate(s, costs), costs).makespan);
  });
}

TEST_CASE("lower: 1F1B with two ranks, by hand") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 2}), {.depth = 2});
  CHECK(p.channels == std::vector<channel>{{0, 1, 2, 2, 2}, {1, 0, 2, 2, 2}});
  const tensor_id F0{tensor_kind::activation, 0, 0}, F1{tensor_kind::activation, 0, 1}, B0{tensor_kind::gradient, 1, 0},
      B1{tensor_kind::gradient, 1, 1};
  const auto run = [](std::uint32_t i) { return action{.kind = action_kind::compute, .index = i}; };
  using enum action_kind;
  CHECK(std::vector(p.actions[0].begin(), p.actions[0].end()) == std::vector<action>{{receive, 0, 0, B0, 1, 2, 0},
                                                                                     {receive, 0, 0, B1, 1, 3, 0},
                                                                                     run(0),
                                                                                     {send, 0, 0, F0, 0, 0, 0},
                                                                                     run(1),
                                                                                     {send, 0, 0, F1, 0, 1, 0},
                                                                                     run(2),
                                                                                     run(3)});
  CHECK(std::vector(p.actions[1].begin(), p.actions[1].end()) == std::vector<action>{{receive, 0, 0, F0, 0, 0, 0},
                                                                                     {receive, 0, 0, F1, 0, 1, 0},
                                                                                     run(0),
                                                                                     run(1),
                                                                                     {send, 0, 0, B0, 1, 2, 0},
                                                                                     run(2),
                                                                                     run(3),
                                                                                     {send, 0, 0, B1, 1, 3, 0}});
  CHECK(p.pools == std::vector<pool_sizes>{{{2, 1, 0, 4, 0, 0}}, {{1, 1, 0, 4, 0, 0}}});
  CHECK(to_string(F1) == "activation 0F1");
  CHECK(to_string(B1) == "gradient 1B1");
}

TEST_CASE("lower: replicas and tied stages exchange weight gradients after their last W or B") {
  const program p = lower(make_dualpipe_schedule({.pp = 4, .micro = 8}), {.tied = {{0, 3}}});
  REQUIRE(verify(p));
  for (std::uint32_t rank = 0; rank < 4; ++rank) {
    std::multiset<std::uint32_t> reduced;
    for (const action& a : p.actions[rank])
      if (a.kind == action_kind::accumulate) reduced.insert(a.index);
    // Ranks 0 and 3 hold both tied stages: no message.
    CHECK(reduced.size() == (rank == 0 || rank == 3 ? 3 : 2));
    CHECK(p.pools[rank][pool::reduction] == 2);
  }
  const program linear = lower(make_1f1b_schedule({.pp = 3, .micro = 4}), {.tied = {{0, 2}}});
  REQUIRE(verify(linear));
  CHECK(linear.pools[0][pool::reduction] == 1);
  CHECK(linear.pools[1][pool::reduction] == 0);
  CHECK(linear.actions[2].back().kind == action_kind::accumulate);
  CHECK(linear.actions[2].back().index == 2);
  CHECK(linear.actions[2].back().what == tensor_id{tensor_kind::weight_gradient, 0, 0});
}

TEST_CASE("lower: channels get more buffers if ranks would wait in a cycle") {
  // Rank 0 runs all its forwards first; rank 1 sends gradients between them.
  schedule s = make_1f1b_schedule({.pp = 2, .micro = 16});
  const schedule all_first = make_gpipe_schedule({.pp = 2, .micro = 16});
  std::vector<std::vector<cell>> cells(2);
  std::copy(all_first[0].begin(), all_first[0].end(), std::back_inserter(cells[0]));
  std::stable_sort(cells[0].begin() + 16, cells[0].end(),
                   [](const cell& a, const cell& b) { return a[0].micro < b[0].micro; });
  cells[1].assign(s[1].begin(), s[1].end());
  s.cells = rows<cell>(cells);
  REQUIRE(verify(s));
  const program p = lower(s);
  CHECK(to_string(verify(p)) == "");
  std::uint32_t deepest = 0;
  for (const channel& c : p.channels) deepest = std::max(deepest, c.receive_buffers);
  CHECK(deepest > 2);
}

TEST_CASE("verify(program): a deadlock is reported as a cycle of waits") {
  schedule s = make_1f1b_schedule({.pp = 2, .micro = 2});
  program p = lower(s);
  // Rank 1 sends both gradients at the end; rank 0 needs the first one before it sends the second activation.
  auto row = p.actions[1];
  std::vector<action> actions(row.begin(), row.end());
  const auto late =
      std::find_if(actions.begin(), actions.end(), [](const action& a) { return a.kind == action_kind::send; });
  std::rotate(late, late + 1, actions.end() - 1);
  std::copy(actions.begin(), actions.end(), row.begin());
  CHECK(to_string(verify(p)) == "");  // still ends: rank 0 needs it only after both forwards
  schedule eager = s;
  std::swap(eager[0][1], eager[0][2]);  // F0 B0 F1 B1 on rank 0
  REQUIRE(verify(eager));
  program q = lower(eager);
  row = q.actions[1];
  actions.assign(row.begin(), row.end());
  const auto send =
      std::find_if(actions.begin(), actions.end(), [](const action& a) { return a.kind == action_kind::send; });
  std::rotate(send, send + 1, actions.end() - 1);
  std::copy(actions.begin(), actions.end(), row.begin());
  CHECK(to_string(verify(q)) ==
        "rank 0, cell 1: deadlock: rank 0 at 0B0 waits for rank 1 to send gradient 1B0; rank 1 at 1F1 waits for rank 0 "
        "to send activation 0F1; expected no cycle of waits\n");
}

TEST_CASE("verify(program): every deadlock is reported, not the first alone") {
  const schedule s = parse_schedule(
      "0F0 0B0 0F1 0B1\n1F0 1B0 1F1 1B1\n"  // replica 0, and replica 1 on ranks of its own
      "0F2 0B2 0F3 0B3\n1F2 1B2 1F3 1B3\n");
  program p = lower(s);
  REQUIRE(to_string(verify(p)) == "");
  for (const std::size_t rank : {1u, 3u}) {  // sends its first gradient only with the second one
    const auto row = p.actions[rank];
    const auto is_send = [](const action& a) { return a.kind == action_kind::send; };
    const auto first = std::find_if(row.begin(), row.end(), is_send);
    std::rotate(first, first + 1, std::find_if(first + 1, row.end(), is_send));
  }
  CHECK(to_string(verify(p)) ==
        "rank 0, cell 1: deadlock: rank 0 at 0B0 waits for rank 1 to send gradient 1B0; rank 1 at 1F1 waits for rank 0 "
        "to send activation 0F1; expected no cycle of waits\n"
        "rank 2, cell 1: deadlock: rank 2 at 0B2 waits for rank 3 to send gradient 1B2; rank 3 at 1F3 waits for rank 2 "
        "to send activation 0F3; expected no cycle of waits\n");
}

TEST_CASE("verify(program): reports every kind of mutant") {
  std::mt19937_64 random(11);
  std::map<std::string, int> caught;
  std::vector<program> programs;
  for (const char* name : {"1f1b", "interleaved_1f1b", "zbv", "dualpipe", "dualpipev", "chimera", "v_half", "gpipe"})
    programs.push_back(lower(make_schedule(name, {.pp = 4, .micro = 8})));
  int tried = 0;
  for (int round = 0; round < 3000; ++round) {
    program p = programs[random() % programs.size()];
    std::vector<std::vector<action>> rows_of;
    for (std::size_t r = 0; r < p.actions.size(); ++r) rows_of.emplace_back(p.actions[r].begin(), p.actions[r].end());
    auto& row = rows_of[random() % rows_of.size()];
    const auto pick = [&](auto&& is) {
      std::vector<std::size_t> at;
      for (std::size_t i = 0; i < row.size(); ++i)
        if (is(row[i])) at.push_back(i);
      return at.empty() ? row.size() : at[random() % at.size()];
    };
    const auto message = [](const action& a) { return a.kind == action_kind::send || a.kind == action_kind::receive; };
    std::string kind;
    const std::size_t at = pick(message);
    switch (random() % 7) {
      case 0:
        kind = "dropped";
        row.erase(row.begin() + static_cast<std::ptrdiff_t>(at));
        break;
      case 1:
        kind = "twice";
        row.insert(row.begin() + static_cast<std::ptrdiff_t>(at), row[at]);
        break;
      case 2: {
        kind = "crossed";  // swaps two messages of one kind and channel
        const std::size_t other = pick([&](const action& a) {
          return a.kind == row[at].kind && a.channel == row[at].channel && a.what != row[at].what;
        });
        if (other == row.size()) continue;
        std::swap(row[at].what, row[other].what);
        std::swap(row[at].buffer, row[other].buffer);
        break;
      }
      case 3:
        kind = "another micro-batch";
        row[at].what.micro = (row[at].what.micro + 1) % 8;
        break;
      case 4: {
        kind = "too few buffers";
        const std::size_t rank = random() % p.pools.size();
        if (p.pools[rank][pool::tensor] == 0) continue;
        --p.pools[rank][pool::tensor];
        break;
      }
      case 5: {
        kind = "too few slots";
        const std::size_t rank = random() % p.pools.size();
        --p.pools[rank][pool::activation];
        break;
      }
      case 6: {
        kind = "a cell left out";
        row.erase(row.begin() +
                  static_cast<std::ptrdiff_t>(pick([](const action& a) { return a.kind == action_kind::compute; })));
        break;
      }
    }
    p.actions = rows<action>(rows_of);
    ++tried;
    CAPTURE(kind);
    REQUIRE(!verify(p));
    ++caught[kind];
  }
  CHECK(caught.size() == 7);
  CHECK(tried > 2000);
}

TEST_CASE("verify(program): agrees with its slow twin, which runs ranks in random order") {
  std::mt19937_64 random(21);
  std::vector<program> programs;
  for (const char* name : {"gpipe", "1f1b", "interleaved_1f1b", "looped_bfs", "zbv", "dualpipev", "v_half", "hanayo",
                           "dualpipe", "chimera"})
    for (const std::uint32_t depth : {1u, 2u, 4u})
      programs.push_back(lower(make_schedule(name, {.pp = 4, .micro = 6}), {.depth = depth}));
  int passed = 0, refused = 0;
  for (int round = 0; round < 6000; ++round) {
    program p = programs[random() % programs.size()];
    change_at_random(p, random);
    const report r = verify(p);
    CAPTURE(round);
    CAPTURE(to_string(r));
    REQUIRE(static_cast<bool>(r) == slow_interpreter(p, random()).runs());
    ++(r ? passed : refused);
  }
  CHECK(passed > 1000);
  CHECK(refused > 1000);
}

TEST_CASE("verify(program): a wrong shape and numbers out of range are reported and not used as indices") {
  const program good = lower(make_dualpipe_schedule({.pp = 4, .micro = 8}));
  const auto broken = [&](auto&& change) {
    program p = good;
    change(p);
    const report r = verify(p);
    CHECK(!r);
    return to_string(r);
  };
  CHECK(broken([](program& p) { p.pools.pop_back(); }).find("program: expected actions, pools and slots") !=
        std::string::npos);
  CHECK(broken([](program& p) { p.channels[0].to = 77; }).find("a channel from rank") != std::string::npos);
  broken([](program& p) { p.schedule.micro = 9; });
  CHECK(broken([](program& p) {
          p.pools[1][pool::activation] = 0xFFFF'FFFF;
        }).find("a pool of 4294967295 for activations; expected at most ") != std::string::npos);
  CHECK(broken([](program& p) { p.slots[0][0][0].input = 0; }) ==
        "rank 0, cell 0: message: 0F0 has a buffer that it does not need\n");
  CHECK(broken([](program& p) {
          p.channels[0].messages = 0xFFFF'FFFF;
        }).find("; expected at most as many as actions, ") != std::string::npos);
  CHECK(broken([](program& p) { p.slots[0][0][1].input = 1000000; }) ==
        "rank 0, cell 0: slot: 0F0 has slots for a second op\n");
  const auto first_reduce = [](program& p) -> action& {
    const auto row = p.actions[1];
    return *std::find_if(row.begin(), row.end(), [](const action& a) { return a.kind == action_kind::accumulate; });
  };
  CHECK(broken([&](program& p) {
          first_reduce(p).what.kind = tensor_kind::activation;
        }).find("rank 1: reduction: adds activation ") == 0);
  CHECK(broken([&](program& p) { first_reduce(p).index = 3; }) ==
        "rank 1: reduction: adds to the weight gradient of stage 3 as chunk 1, which it does not hold\n");
}

TEST_CASE("verify(program): agrees with its slow twin on programs with any number in one field") {
  std::mt19937_64 random(5);
  std::vector<program> programs;
  for (const char* name : {"dualpipe", "chimera", "zbv", "zb1p"}) {
    const schedule s = make_schedule(name, {.pp = 4, .micro = 8});
    programs.push_back(lower(s, with_tied_ends(s)));
  }
  int passed = 0, refused = 0;
  for (int i = 0; i < 3000; ++i) {
    program p = programs[random() % programs.size()];
    set_at_random(p, random);
    const report r = verify(p);
    CAPTURE(i);
    CAPTURE(to_string(r));
    const bool in_shape = std::all_of(p.channels.begin(), p.channels.end(),
                                      [&](const channel& c) { return c.from < 4 && c.to < 4 && c.from != c.to; });
    REQUIRE(static_cast<bool>(r) == (in_shape && slow_interpreter(p, random()).runs()));
    ++(r ? passed : refused);
  }
  CHECK(passed > 100);  // the number was right already, or the action does not have that field
  CHECK(refused > 2000);
}

TEST_CASE("verify(program): reports gradients that are added wrongly or not at all") {
  const program good = lower(make_dualpipe_schedule({.pp = 4, .micro = 8}), {.tied = {{0, 3}}});
  REQUIRE(verify(good));
  const auto broken = [&](std::uint32_t rank, auto&& is, auto&& change) {
    program p = good;
    const auto row = p.actions[rank];
    const auto found = std::find_if(row.begin(), row.end(), is);
    REQUIRE(found != row.end());
    change(*found);
    return to_string(verify(p));
  };
  const auto replica = [](const action& a) {
    return a.kind == action_kind::accumulate && a.channel != no_slot && a.what.stage == a.index;
  };
  const auto tied = [](const action& a) { return a.kind == action_kind::accumulate && a.channel == no_slot; };
  CHECK(broken(1, replica, [](action& a) { a.channel = no_slot; }).find(" without a message; expected another chunk") !=
        std::string::npos);
  CHECK(broken(1, replica, [](action& a) { ++a.channel; }).find(" of channel ") != std::string::npos);
  CHECK(broken(1, replica, [](action& a) { a.chunk = 7; }).find(" as chunk 7, which it does not hold") !=
        std::string::npos);
  CHECK(broken(0, tied, [](action& a) {
          a.what.stage = 1;
        }).find("rank 0: reduction: adds the weight gradient of stage 1 to that of stage 0 without a message") == 0);
  CHECK(broken(0, tied, [](action& a) { a.what.stage = 9; }).find("stage 9; expected a stage below 4") !=
        std::string::npos);
  CHECK(broken(0, tied, [](action& a) { a.buffer = 3; }) ==
        "rank 0: reduction: adds the weight gradient of stage 3 without a message, but names buffer 3\n");

  for (const std::uint32_t rank : {0u, 1u, 2u, 3u}) {  // a sum is sent, which the other replica adds to its own again
    program late = good;
    const auto row = late.actions[rank];
    const auto sent = std::find_if(
        row.begin(), row.end(), [](const action& a) { return a.kind == action_kind::send && is_weight_gradient(a); });
    const auto added =
        std::find_if(sent, row.end(), [&](const action& a) { return replica(a) && a.chunk == sent->chunk; });
    REQUIRE(added != row.end());
    std::rotate(sent, sent + 1, added + 1);
    CHECK(to_string(verify(late)).find(" after another one has been added to it; expected it before\n") !=
          std::string::npos);
  }

  program unused = good;  // both ranks have another message, which nothing adds
  std::vector<std::vector<action>> rows_of;
  for (std::uint32_t r = 0; r < 4; ++r) rows_of.emplace_back(good.actions[r].begin(), good.actions[r].end());
  const auto add = std::find_if(rows_of[1].begin(), rows_of[1].end(), replica);
  const std::uint32_t channel = add->channel, from = good.channels[channel].from;
  const tensor_id what = add->what;
  const auto send = std::find_if(rows_of[from].begin(), rows_of[from].end(), [&](const action& a) {
    return a.kind == action_kind::send && a.what == what && a.channel == channel;
  });
  for (const std::uint32_t rank : {1u, from}) {  // of the number of their buffers
    const std::uint32_t end = unused.pools[rank].owned_buffers();
    if (rank == 1) ++unused.pools[1][pool::reduction];
    for (action& a : rows_of[rank])
      if (rank == 1 && a.kind == action_kind::send && a.buffer != no_slot && a.buffer >= end) ++a.buffer;
    if (rank == from) ++unused.pools[from][pool::sent_gradient];
  }
  rows_of[1].push_back(
      {.kind = action_kind::receive, .what = what, .channel = channel, .buffer = unused.pools[1].owned_buffers() - 1});
  rows_of[from].push_back({.kind = action_kind::send,
                           .chunk = send->chunk,
                           .what = what,
                           .channel = channel,
                           .buffer = unused.pools[from].buffers() - 1});
  unused.actions = rows<action>(rows_of);
  CHECK(to_string(verify(unused)).find("messages; expected ") != std::string::npos);
  ++unused.channels[channel].messages;
  CHECK(to_string(verify(unused)) ==
        "rank 1: message: weight gradient of stage " + std::to_string(what.stage) + " is in a buffer but never used\n");
}

#ifndef PIPESCHED_SMALL_GRIDS
TEST_CASE("lower: a bidirectional schedule of 65536 ranks, the largest size") {
  const schedule s = make_schedule("chimera", {.pp = 65536, .micro = 1});
  const program p = lower(s);
  // One each way between neighbours and between replicas; the replicas in the middle are neighbours.
  CHECK(p.channels.size() == 2 * 65535 + 65536 - 2);
  std::size_t added = 0;
  for (const action& a : p.actions.all()) added += a.kind == action_kind::accumulate;
  CHECK(added == 2 * 65536);
  CHECK(verify(p));
}
#endif

namespace {

// The tensor of a text that program_json.hpp writes: "0F3", "1B0" or "weights 2".
tensor_id tensor_of(const std::string& text) {
  if (text.rfind("weights ", 0) == 0)
    return {tensor_kind::weight_gradient, static_cast<std::uint16_t>(std::stoul(text.substr(8))), 0};
  const op producer = parse_op(text).value();
  return {producer.pass == pass::forward ? tensor_kind::activation : tensor_kind::gradient, producer.stage,
          producer.micro};
}

std::uint32_t number_of(const nlohmann::json& j, const char* key) {
  return j.contains(key) ? j.at(key).get<std::uint32_t>() : no_slot;
}

// Numbers what the document leaves out, as it follows from the rest: the numbers of buffers of weight gradients, and their chunks.
void number_gradients(program& p, action& a) {
  if (!is_weight_gradient(a)) return;
  const auto rank = static_cast<std::uint32_t>(p.actions.size());
  const std::vector<std::uint16_t> stages = p.schedule.placement.stages_of(rank);
  const auto chunk_of = [&](std::uint32_t stage) {
    return static_cast<std::uint8_t>(std::find(stages.begin(), stages.end(), stage) - stages.begin());
  };
  pool_sizes& pools = p.pools[rank];
  if (a.kind == action_kind::send)
    a.chunk = chunk_of(a.what.stage), a.buffer = pools.owned_buffers() + pools[pool::sent_gradient]++;
  else if (a.buffer != no_slot)
    a.buffer += pools[pool::tensor];
  if (a.kind == action_kind::accumulate) a.chunk = chunk_of(a.index);
  if (a.kind == action_kind::accumulate && a.channel == no_slot) a.other_chunk = chunk_of(a.what.stage);
}

// The program that a document describes, for the schedule that it was made of.
program read_back(const nlohmann::json& document, const schedule& s) {
  program p{.schedule = s, .channels = {}, .actions = {}, .slots = {}, .pools = {}};
  for (const auto& c : document.at("channels"))
    p.channels.push_back({c.at("from"), c.at("to"), c.at("messages"), c.at("receive_buffers"), c.at("send_buffers")});
  for (const auto& j : document.at("pools"))
    p.pools.push_back(
        {{j.at("activations"), j.at("weights"), j.at("kept_inputs"), j.at("buffers"), j.at("reductions"), 0}});
  for (const auto& rank : document.at("ranks")) {
    std::vector<action> row;
    std::vector<std::array<op_slots, 2>> slots;
    for (const auto& j : rank) {
      action a{.channel = number_of(j, "channel"), .buffer = number_of(j, "buffer")};
      if (j.contains("compute")) {
        a.index = static_cast<std::uint32_t>(slots.size());
        REQUIRE(j.at("compute") == to_string(s[p.actions.size()][a.index]));
        std::array<op_slots, 2>& of = slots.emplace_back();
        for (std::size_t k = 0; k < j.at("slots").size(); ++k) {
          const auto& slot = j.at("slots")[k];
          of.at(k) = {.activation = number_of(slot, "activation"),
                      .context = number_of(slot, "weights"),
                      .kept_input = number_of(slot, "kept_input"),
                      .input = number_of(slot, "input"),
                      .output = number_of(slot, "output")};
        }
      } else if (j.contains("reduce")) {
        a.kind = action_kind::accumulate;
        a.index = j.at("reduce");
        a.what = {tensor_kind::weight_gradient, j.at("with").get<std::uint16_t>(), 0};
      } else {
        a.kind = j.contains("send") ? action_kind::send : action_kind::receive;
        a.what = tensor_of(j.at(j.contains("send") ? "send" : "receive"));
      }
      number_gradients(p, a);
      row.push_back(a);
    }
    p.actions.append(row);
    p.slots.append(slots);
  }
  return p;
}

}  // namespace

TEST_CASE("program_json: holds every channel, pool, slot and action of the program") {
  std::mt19937_64 random(3);
  for_all_families(4, 7, [&](const family& f, const schedule_params& p) {
    const schedule s = p.micro % 3 == 0 ? any_variant(f.make(p), random) : f.make(p);
    const program lowered = s.backward.empty() ? lower(s, with_tied_ends(s)) : lower(s);
    std::ostringstream json_text;
    write_json(json_text, lowered);
    const auto document = nlohmann::json::parse(json_text.str());
    REQUIRE(document.at("format") == "pipesched.program");
    REQUIRE(document.at("name") == s.name.str());
    REQUIRE((document.at("pp") == s.pp() && document.at("stages") == s.stages() && document.at("micro") == s.micro));
    REQUIRE(read_back(document, s) == lowered);
  });
}

TEST_CASE("lower: refuses invalid schedules and options") {
  schedule s = make_1f1b_schedule({.pp = 2, .micro = 2});
  CHECK(refusal_of([&] { lower(s, {.depth = 0}); }) == "lower() takes a depth of at least 1; got 0, nearest 1");
  CHECK(refusal_of([&] { lower(s, {.tied = {{0, 2}}}); }) == "tied stages are stages 0 to 1; got 2, nearest 1");
  CHECK(refusal_of([] {
          lower(make_1f1b_schedule({.pp = 3, .micro = 2}), {.tied = {{0, 1}, {2, 0}}});
        }) == "a stage is in at most one group of tied stages, once; got stage 0 again");
  CHECK(refusal_of([&] {
          lower(s, {.tied = {{1, 1}}});
        }) == "a stage is in at most one group of tied stages, once; got stage 1 again");
  CHECK(refusal_of([&] { lower(s, {.tied = {{1}}}); }) == "a group of tied stages has at least 2; got 1");
  CHECK(refusal_of([&] { lower(freeze(s, {0}), {.tied = {{0, 1}}}); }) == "tied stages are trained; stage 0 is frozen");
  CHECK(refusal_of([] {
          lower(make_interleaved_1f1b_schedule({.pp = 2, .micro = 4, .chunks = 3}), {.tied = {{0, 2, 4}}});
        }) == "a rank holds at most 2 stages of a group of tied stages; rank 0 holds a third, stage 4");
  std::swap(s[0][0], s[0][2]);
  CHECK(refusal_of([&] { lower(s); }) ==
        "the schedule is not valid: rank 0, cell 0: order: 0B0 before 0F0 in cell 2; expected after it");
  s = make_1f1b_schedule({.pp = 2, .micro = 2});
  CHECK(lower(s, {.depth = 2}, verified) == lower(s, {.depth = 2}));
}

TEST_CASE("verify(program): a whole B has a context of its own, which no pending W holds") {
  program p = lower(make_1f1b_schedule({.pp = 2, .micro = 2}));
  CHECK(p.slots[1][1][0].context == 0);  // 1B0
  p.slots[1][1][0].context = no_slot;
  CHECK(verify(p).violations.at(0).text.find("1B0 has no context slot") == 0);

  const program good = lower(delay_weights(make_dualpipe_schedule({.pp = 8, .micro = 20}), 4));
  int tried = 0;
  for (std::uint32_t rank = 0; rank < 8; ++rank) {
    std::set<std::uint32_t> pending;  // contexts of I whose W has not run
    for (std::size_t i = 0; i < good.schedule[rank].size(); ++i)
      for (std::size_t k = 0; k < good.schedule[rank][i].size(); ++k) {
        const std::uint32_t own = good.slots[rank][i][k].context;
        const pass kind = good.schedule[rank][i][k].pass;
        if (kind == pass::backward_input) pending.insert(own);
        if (kind == pass::backward_weight) pending.erase(own);
        if (kind != pass::backward || pending.empty()) continue;
        CHECK(!pending.contains(own));
        program bad = good;
        bad.slots[rank][i][k].context = *pending.begin();
        CHECK(verify(bad).violations.at(0).text.find("which still holds that of ") != std::string::npos);
        ++tried;
      }
  }
  CHECK(tried > 10);
}
