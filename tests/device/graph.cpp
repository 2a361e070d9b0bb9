// SPDX-License-Identifier: MIT
// Steps that are captured into a graph and replayed: by step_graph itself, and by run_all() over peers.

#include "pipesched/device/graph.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "pipesched/device/peer_transport.hpp"
#include "pipesched/execute/run.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"
#include "support/fake_device.hpp"
#include "support/families.hpp"
#include "support/peer_machine.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

using fake_graph = step_graph<fake_runtime>;

// Three streams on two devices.
struct streams {
  streams() {
    for (int r = 0; r < 3; ++r) {
      ranks[static_cast<std::size_t>(r)].device = r % 2;
      device.make_stream(r % 2, ranks[static_cast<std::size_t>(r)].compute);
    }
  }
  void kernel(std::size_t r, const std::vector<fake_device::range>& writes, std::function<void()> work) {
    device.set_device(ranks[r].device);
    device.kernel(ranks[r].compute, {}, writes, std::move(work));
  }
  fake_graph capture(const std::function<void()>& enqueue) { return fake_graph({&device}, ranks, enqueue); }

  fake_device device;
  std::vector<device_rank<fake_runtime>> ranks{3};
};

// Reports races of what a graph does when it is replayed, in the stream of its launch, with what is put into streams around
// it. `drops` leaves out the waits of a launch.
struct replaying_runtime : fake_runtime {
  enum class part { none, before, after };
  struct state {
    std::vector<fake_device::range> writes{};  // of a graph
    part drops = part::none;
    bool captured = false;
    int dropped = 0;
    stream origin{};
  };
  std::shared_ptr<state> of = std::make_shared<state>();

  status begin_capture(stream s) {
    of->origin = s;
    return fake_runtime::begin_capture(s);
  }
  status end_capture(stream s, graph& g) {
    of->captured = true;
    return fake_runtime::end_capture(s, g);
  }
  status launch(graph g, stream s) {
    device->set_device(0);
    device->kernel(s, {}, of->writes, [] {});
    return fake_runtime::launch(g, s);
  }
  status wait(stream s, event e) {
    if (of->captured && of->drops == (s == of->origin ? part::before : part::after)) {
      ++of->dropped;
      return fake_device::good;
    }
    return fake_runtime::wait(s, e);
  }
};

}  // namespace

TEST_CASE("graph: nothing runs while a step is captured; each launch runs it once, in order") {
  streams of;
  std::string log;
  fake_graph graph = of.capture([&] {
    of.kernel(0, {}, [&] { log += "a"; });
    of.kernel(2, {}, [&] { log += "b"; });
  });
  CHECK(log == "");
  graph.launch();
  CHECK(log == "ab");
  graph.launch(), graph.launch();
  CHECK(log == "ababab");
  CHECK(of.device.launches == 3);
}

TEST_CASE("graph: captured work of all ranks is joined, whatever streams it is in") {
  streams of;
  int shared = 0;
  const fake_device::range all{&shared, sizeof shared};
  CHECK_NOTHROW(of.capture([&] {
    for (const std::size_t r : {0u, 1u, 2u}) of.kernel(r, {}, [] {});
  }));
  of.kernel(1, {all}, [] {});  // after the capture, streams are as they were
  CHECK(of.device.races.empty());
}

TEST_CASE("graph: calls that must not be captured are refused by name, and the next capture is not affected") {
  streams of;
  fake_runtime runtime{&of.device};
  const auto where = [] { return std::string("a test"); };
  const auto event = detail::make_event(runtime, 0, false, where);
  const auto refusal = [&](auto&& enqueue) {
    try {
      of.capture(enqueue);
    } catch (const device_error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(refusal([&] {
          bool done = false;
          detail::require(runtime, runtime.query(event.handle(), done), "EventQuery", where);
        }) == "fakeEventQuery: not allowed during capture (900), a test");
  CHECK(refusal([&] { detail::make_stream(runtime, 0, 0, where); }) ==
        "fakeStreamCreateWithPriority: not allowed during capture (900), a test");
  runtime.record(event.handle(), of.ranks[0].compute);  // outside of the capture
  CHECK(refusal([&] {
          detail::require(runtime, runtime.wait(of.ranks[1].compute, event.handle()), "StreamWaitEvent", where);
        }) == "fakeStreamWaitEvent: depends on uncaptured work (905), a test");
  const auto other = detail::make_stream(runtime, 0, 0, where);
  CHECK(refusal([&] {  // which no stream of a rank waits for
          runtime.record(event.handle(), of.ranks[0].compute), runtime.wait(other.handle(), event.handle());
          of.device.set_device(0);
          of.device.kernel(other.handle(), {}, {}, [] {});
        }) == "fakeStreamEndCapture: not joined (906), capturing a step");
  CHECK_THROWS_AS(of.capture([] { throw std::domain_error("no memory"); }), std::domain_error);
  CHECK(refusal([] {}) == "");
  CHECK(refusal_of([&] { fake_graph(runtime, std::span<const device_rank<fake_runtime>>(), [] {}); }) ==
        "a graph needs the streams of at least one rank");
}

TEST_CASE(
    "graph: a call that fails, any one of a capture or launch, is named; a graph is destroyed where capture fails") {
  std::int64_t calls = 0;
  for (std::int64_t at = -1; at < calls; ++at) {
    CAPTURE(at);
    streams of;
    of.device.reset_counts();
    of.device.fails_at = at;
    std::string text;
    try {
      fake_graph graph = of.capture([] {});
      graph.launch();
    } catch (const device_error& e) {
      text = e.what();
    }
    if (at == -1) {
      CHECK(text == "");
      calls = of.device.calls;
      // Made are 3 events. Captured are 1 record and 2 waits before, 2 records and 2 waits after; so are launched.
      CHECK(calls == 3 + (1 + 7 + 1) + (7 + 1));
      continue;
    }
    CHECK((text == of.device.failed_call + ": made to fail (700), capturing a step" ||
           text == of.device.failed_call + ": made to fail (700), replaying a step"));
    CHECK((text.find("replaying") != std::string::npos) == (at >= 12));
  }
}

TEST_CASE("graph: a launch comes after what is in the streams of all ranks, and before what comes into them") {
  for (const char* name : {"1f1b", "zbv", "dualpipe", "chimera"})
    for (const auto drops :
         {replaying_runtime::part::none, replaying_runtime::part::before, replaying_runtime::part::after}) {
      CAPTURE(name);
      CAPTURE(static_cast<int>(drops));
      const program p = lower(make_schedule(name, {.pp = 4, .micro = 6}));
      replaying_runtime runtime;
      peer_machine<replaying_runtime, descending_on_device> m(p, runtime);
      runtime.of->drops = drops;
      for (auto& t : m.trainers)
        for (auto& l : t.layers) {
          runtime.of->writes.push_back(device_trainer::all(l.weights));
          runtime.of->writes.push_back(device_trainer::all(l.gradient));
        }
      m.run({.steps = 5, .graph = true});
      CHECK(m.device.launches == 4);
      if (drops == replaying_runtime::part::none) {
        CHECK(m.first_race() == "");
        require_descended(m, 5);
      } else {
        CHECK(runtime.of->dropped == 4 * 3);
        CHECK(m.first_race() != "");
      }
    }
}

TEST_CASE(
    "graph: run_all() captures the second step and replays it, calls nothing forbidden, and can run without it again") {
  struct stepping : device_trainer {
    std::vector<std::string> log{};
    void begin_step(std::size_t step) {
      log.push_back("begin " + std::to_string(step));
      // The graph is captured by now, and has not run.
      if (step == 8)
        for (const double loss : on_host->losses) REQUIRE(loss == -1);
    }
    void end_step(std::size_t step) {
      log.push_back("end " + std::to_string(step));
      for (double& loss : on_host->losses) loss = -1;
    }
  };
  for_some_programs([](const program& p) {
    peer_machine<fake_runtime, stepping> m(p);
    m.run({.steps = 3, .first_step = 7, .graph = true});
    REQUIRE(m.device.launches == 2);
    REQUIRE(m.first_race() == "");
    m.require_trained(3);
    for (const stepping& t : m.on_device)
      REQUIRE(t.log == std::vector<std::string>{"begin 7", "end 7", "begin 8", "end 8", "begin 9", "end 9"});
    m.run({.graph = true});  // a single step needs no graph
    REQUIRE(m.device.launches == 2);
    m.run();
    m.require_trained(5);
    REQUIRE(m.first_race() == "");
  });
}
