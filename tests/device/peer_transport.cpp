// SPDX-License-Identifier: MIT
// Ranks on simulated devices: the order of everything that is put into streams, and programs one after the other.

#include "pipesched/device/peer_transport.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "pipesched/execute/run.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/program/verify.hpp"
#include "support/fake_device.hpp"
#include "support/families.hpp"
#include "support/peer_machine.hpp"
#include "support/tanh_model.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

static_assert(transport<peer_transport<fake_runtime>>);

int messages_of(const program& p) {
  int messages = 0;
  for (const channel& c : p.channels) messages += static_cast<int>(c.messages);
  return messages;
}

// A copy engine with a fault. Ranks' compute streams are the first of the device; channels' streams come after all others.
enum class fault { none, early_read, early_write, early_use, short_copy };
struct faulty_runtime : fake_runtime {
  fault has = fault::none;
  stream first_channel{};
  struct state {
    std::mutex mutex{};
    std::map<stream, int> waits{};  // by channel
  };
  std::shared_ptr<state> of = std::make_shared<state>();

  status wait(stream s, event e) {
    if (s < first_channel) return has == fault::early_use ? fake_device::good : fake_runtime::wait(s, e);
    const std::unique_lock lock(of->mutex);
    const bool for_receiver = of->waits[s]++ % 2 != 0;  // and for the sender before
    if (has == (for_receiver ? fault::early_write : fault::early_read)) return fake_device::good;
    return fake_runtime::wait(s, e);
  }
  status copy(stream s, void* to, int to_device, const void* from, int from_device, std::size_t n) {
    return fake_runtime::copy(s, to, to_device, from, from_device, n - (has == fault::short_copy ? 8 : 0));
  }
};

}  // namespace

TEST_CASE(
    "peers: every family trains as one device does, nothing races, a step makes nothing and never asks a device") {
  for_some_programs([](const program& p) {
    int pairs = 0;
    for (const cell& c : p.schedule.cells.all()) pairs += c.overlapped();
    const auto ranks = static_cast<int>(p.schedule.pp());
    for (const bool one_thread : {false, true})
      for (const int steps : {1, 3}) {
        peer_machine m(p);
        m.world->prepare(p);  // makes everything
        m.device.reset_counts();
        m.run({.steps = static_cast<std::size_t>(steps), .one_thread = one_thread});
        REQUIRE(m.first_race() == "");
        REQUIRE(m.device.makes == 0);
        REQUIRE(m.device.queries == ranks * steps);  // one per rank and step, after its end
        REQUIRE(m.device.copies == steps * messages_of(p));
        // Per message: two records before the copy and one after it, two waits before it and one per side after it. An
        // overlapped pair has two records and two waits; the end of a step has a record and a query.
        REQUIRE(m.device.calls == 8 * m.device.copies + 4 * steps * pairs + 2 * steps * ranks + m.device.selections);
        m.require_trained(static_cast<std::size_t>(steps));
      }
  });
}

TEST_CASE("peers: a copy that starts too early or is too short races or trains something else") {
  for (const char* name : {"1f1b", "zbv", "dualpipe"}) {
    const program p = lower(make_schedule(name, {.pp = 4, .micro = 8}), {.depth = 1});
    // Ranks have the streams 0 to 3 and their side streams 4 to 7.
    for (const fault f : {fault::none, fault::early_read, fault::early_write, fault::early_use, fault::short_copy})
      for (const bool one_thread : {false, true}) {
        CAPTURE(name);
        CAPTURE(static_cast<int>(f));
        peer_machine m(p, faulty_runtime{{}, f, fake_device::stream(8)});
        m.run({.steps = 2, .one_thread = one_thread});
        const auto raced = [&](const char* how) {
          return std::count(m.device.races.begin(), m.device.races.end(), how) > 0;
        };
        if (f == fault::early_read) CHECK(raced("reads what is being written"));
        if (f == fault::early_write) CHECK(raced("writes what is being read"));
        if (f == fault::early_use) CHECK(raced("reads what is being written"));
        if (f == fault::none || f == fault::short_copy) CHECK(m.first_race() == "");
        const auto expected = small_model::on_one_device(p.schedule.stages(), 8, small_model::orders_of(p.schedule));
        bool same = true;
        for (const auto& t : m.trainers)
          for (std::uint32_t micro = 0; micro < 8; ++micro)
            same = same && (t.losses[micro] == -1 || t.losses[micro] == expected.losses[micro]);
        CHECK(same == (f != fault::short_copy));
      }
  }
}

TEST_CASE("peers: training, evaluation and training again share a world; only what is new is made") {
  for (const family& of : families)
    for (const bool one_thread : {false, true})
      for (const bool graph : {false, true}) {
        CAPTURE(of.name);
        CAPTURE(one_thread);
        CAPTURE(graph);
        const program training = lower(of.make({.pp = 4, .micro = 8})),
                      evaluation = lower(of.make({.pp = 4, .micro = 6, .forward_only = true}), {.depth = 1});
        for (std::uint32_t r = 0; r < 4; ++r)
          REQUIRE(evaluation.pools[r][pool::tensor] <= training.pools[r][pool::tensor]);
        peer_machine m(training);
        const run_options two{.steps = 2, .graph = graph, .one_thread = one_thread};
        const auto evaluate = [&] {
          for (auto& t : m.trainers) t.trains = false, t.where = &evaluation.schedule.placement, t.losses.assign(8, -1);
          run_all(evaluation, m.on_device, *m.world, two);
          const auto expected = small_model::on_one_device(evaluation.schedule.stages(), 6);
          int losses = 0;
          for (auto& t : m.trainers) {
            for (std::uint32_t micro = 0; micro < 6; ++micro)
              if (t.losses[micro] != -1) {
                ++losses;
                REQUIRE(t.losses[micro] == expected.losses[micro]);
              }
            t.trains = true, t.where = &training.schedule.placement;
          }
          CHECK(losses == 6);
        };
        run_all(training, m.on_device, *m.world, two);
        evaluate();
        m.device.reset_counts();
        run_all(training, m.on_device, *m.world, two);
        evaluate();
        CHECK(m.device.makes == (graph ? 8 : 0));  // the events of graphs
        CHECK(m.first_race() == "");
        m.require_trained(4);
      }
}

TEST_CASE("peers: work that trainers enqueue around a step is ordered with it, in gradient descent to the bit") {
  for (const char* name : {"gpipe", "1f1b", "zbv", "interleaved_zb", "dualpipe", "dualpipev", "chimera", "v_half"})
    for (const bool one_thread : {false, true})
      for (const bool graph : {false, true}) {
        CAPTURE(name);
        CAPTURE(graph);
        const program p = lower(make_schedule(name, {.pp = 4, .micro = 6}));
        peer_machine<fake_runtime, descending_on_device> m(p);
        m.run({.steps = 3, .graph = graph, .one_thread = one_thread});
        m.run({.steps = 2, .first_step = 3, .graph = graph, .one_thread = one_thread});
        CHECK(m.first_race() == "");
        require_descended(m, 5);
      }
}

TEST_CASE("peers: one thread that runs all ranks reports that no rank can continue") {
  // Both ranks want the other's message before they send their own.
  program p = lower(make_1f1b_schedule({.pp = 2, .micro = 1}));
  for (const std::uint32_t rank : {0u, 1u}) {
    auto row = p.actions[rank];
    const auto send = std::find_if(row.begin(), row.end(), [](const action& a) { return a.kind == action_kind::send; });
    std::rotate(send, send + 1, row.end());
  }
  REQUIRE(!verify(p));
  peer_machine m(p);
  CHECK(refusal_of([&] { m.run({.one_thread = true}); }) == "no rank can continue; verify() says why");
  const auto start = std::chrono::steady_clock::now();
  CHECK_THROWS_WITH_AS(m.world->prepare(p), "aborted by rank 0 at 0F0: no rank can continue; verify() says why",
                       pipeline_aborted);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::milliseconds(500));
}

TEST_CASE("peers: programs that do not fit a world are refused, and the world is as it was") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4}));
  peer_machine m(p);
  fake_device none;
  CHECK(refusal_of([&] { peer_world<fake_runtime>({&none}, {}); }) == "a world has at least 1 rank; got 0");
  peer_world<fake_runtime> single({&m.device}, {m.ranks[0]});
  CHECK(refusal_of([&] { run_all(p, m.on_device, single); }) ==
        "a program of 2 ranks needs a world of as many; this one has 1");
  const program four = lower(make_1f1b_schedule({.pp = 4, .micro = 4}));
  CHECK(refusal_of([&] { run_all(four, m.on_device, *m.world); }) ==
        "a program of 4 ranks needs as many trainers; got 2");
  CHECK(refusal_of([&] { m.run({.steps = 0, .record = true}); }) == "a timeline is of at least 1 step; got 0");
  CHECK(refusal_of([&] { peer_transport<fake_runtime>(*m.world, 2); }) ==
        "a world of 2 ranks has ranks 0 to 1; got rank 2");
  CHECK(refusal_of([&] { peer_world<fake_runtime>({&none}, {}, {.time_limit = std::chrono::seconds(0)}); }) ==
        "a time limit is above 0 and at most 1e9 seconds; got 0");
  m.run();
  m.require_trained(1);
}
