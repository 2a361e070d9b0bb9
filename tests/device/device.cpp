// SPDX-License-Identifier: MIT
// The device transports over a fake runtime: the order of everything that is put into streams, capture, and failures of any
// call.

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/device/peer.hpp"
#include "pipesched/device/step_graph.hpp"
#include "pipesched/execute/by_turns.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/program/verify.hpp"
#include "support/fake_cluster.hpp"
#include "support/fake_device.hpp"
#include "support/families.hpp"
#include "support/stream_trainer.hpp"
#include "support/tanh_model.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

using model = tanh_model<double>;
using fake_hub = peer_hub<fake_runtime>;
using fake_transport = peer_transport<fake_runtime>;

using device_trainer = stream_trainer<fake_device, side_stream<fake_runtime>>;

// Ranks on a fake device, with a stream each.
struct machine {
  explicit machine(const program& of, bool timed = false,
                   std::chrono::duration<double> limit = std::chrono::seconds(20))
      : p(of) {
    for (std::uint32_t r = 0; r < p.schedule.pp(); ++r) {
      trainers.emplace_back(p, r);
      fake_device::stream s{};
      device.make_stream(static_cast<int>(r % 2), s);
      ranks.push_back({.device = static_cast<int>(r % 2), .compute = s});
    }
    device.reset_counts();
    hub = std::make_unique<fake_hub>(fake_runtime{&device}, p, ranks, peer_options{.timed = timed}, limit);
    for (std::uint32_t r = 0; r < p.schedule.pp(); ++r) {
      sides.push_back(std::make_unique<side_stream<fake_runtime>>(fake_runtime{&device}, static_cast<int>(r % 2)));
      on_device.push_back({&trainers[r], &device, ranks[r].compute, sides.back().get(), {}});
    }
  }
  void in_threads(int steps) {
    detail::run_ranks(*hub, p.schedule.pp(), [&](std::uint32_t rank, auto&&) {
      fake_transport transport(*hub, rank);
      transport.select_device();
      for (int i = 0; i < steps; ++i) execute(p, rank, on_device[rank], transport);
    });
  }
  void by_turns(int steps) {
    open_transports();
    for (int i = 0; i < steps; ++i) execute_by_turns<device_trainer, fake_transport>(p, on_device, transports);
  }
  void open_transports() {
    for (std::uint32_t r = 0; transports.size() < p.schedule.pp(); ++r) {
      kept_transports.push_back(std::make_unique<fake_transport>(*hub, r));
      transports.push_back(kept_transports.back().get());
    }
  }
  void require_trained(int steps, const std::vector<model::order>& orders) const {
    const auto expected = model::on_one_device(p.schedule.stages(), p.schedule.micro, orders);
    for (const auto& t : trainers) {
      for (std::uint32_t m = 0; m < p.schedule.micro; ++m)
        if (t.losses[m] != -1) REQUIRE(t.losses[m] == expected.losses[m]);
      if (p.schedule.forward_only) continue;
      for (std::size_t chunk = 0; chunk < t.stages.size(); ++chunk)
        if (steps == 1)
          REQUIRE(t.layers[chunk].gradient == expected.layers[t.stages[chunk]].gradient);
        else if (p.schedule.placement.replicas() == 1)
          REQUIRE(t.layers[chunk].gradient[1][2] ==
                  doctest::Approx(steps * expected.layers[t.stages[chunk]].gradient[1][2]).epsilon(1e-9));
    }
  }

  const program& p;
  fake_device device;
  std::vector<model::trainer> trainers;
  std::vector<device_rank<fake_runtime>> ranks;
  std::unique_ptr<fake_hub> hub;
  std::vector<std::unique_ptr<side_stream<fake_runtime>>> sides;
  std::vector<device_trainer> on_device;
  std::vector<std::unique_ptr<fake_transport>> kept_transports;
  std::vector<fake_transport*> transports;
};

std::string first_race(const machine& m) { return m.device.races.empty() ? "" : m.device.races.front(); }

template <typename F>
void for_some_programs(F&& f) {
  for (const family& of : families)
    for (const std::int64_t pp : {1, 2, 4})
      for (const std::int64_t micro : {3, 8})
        for (const bool forward_only : {false, true})
          for (const std::uint32_t depth : {1u, 4u}) {
            if (pp % 2 != 0 && needs_even_pp(of)) continue;
            CAPTURE(of.name);
            CAPTURE(pp);
            CAPTURE(micro);
            CAPTURE(depth);
            const program p =
                lower(of.make({.pp = pp, .micro = micro, .forward_only = forward_only}), {.depth = depth});
            f(p);
          }
}

}  // namespace

TEST_CASE("device: every family trains as one device does; nothing races, no step waits, makes or asks anything") {
  for_some_programs([](const program& p) {
    const auto orders = model::orders_of(p.schedule);
    for (const bool threads : {false, true})
      for (const int steps : {1, 3}) {
        machine m(p);
        m.device.reset_counts();
        threads ? m.in_threads(steps) : m.by_turns(steps);
        REQUIRE(first_race(m) == "");
        REQUIRE(m.device.queries == 0);
        REQUIRE(m.device.makes == 0);
        int messages = 0;
        for (const channel& c : p.channels) messages += static_cast<int>(c.messages);
        REQUIRE(m.device.copies == steps * messages);
        // Two records before a message, one after; two waits before the copy and one on either side behind it.
        int pairs = 0;
        for (const cell& c : p.schedule.cells.all()) pairs += c.overlapped();
        REQUIRE(m.device.calls == 8 * m.device.copies + 4 * steps * pairs + m.device.selections);
        m.require_trained(steps, orders);
      }
  });
}

TEST_CASE("device: a step that is captured asks for nothing forbidden, and is replayed") {
  for_some_programs([](const program& p) {
    machine m(p);
    m.open_transports();
    step_graph<fake_runtime> graph(fake_runtime{&m.device}, m.ranks, [&] { m.by_turns(1); });
    for (const auto& t : m.trainers)
      for (double loss : t.losses) REQUIRE(loss == -1);  // nothing has run
    graph.launch();
    m.require_trained(1, model::orders_of(p.schedule));
    graph.launch();
    graph.launch();
    m.require_trained(3, model::orders_of(p.schedule));
    REQUIRE(first_race(m) == "");
    m.by_turns(1);  // and not captured, again
    m.require_trained(4, model::orders_of(p.schedule));
  });
}

TEST_CASE("device: what must not be captured is refused, with the call") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4}));
  machine m(p);
  m.open_transports();
  const auto refusal = [&](auto&& enqueue) {
    try {
      step_graph<fake_runtime>(fake_runtime{&m.device}, m.ranks, enqueue);
    } catch (const device_error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(refusal([&] { m.transports[0]->synchronize(); }) ==
        "fakeEventQuery: not allowed during capture (900), rank 0 at its start");
  CHECK(refusal([&] {
          fake_runtime runtime{&m.device};
          detail::make_stream(runtime, 0, 0, [] { return std::string("a test"); });
        }) == "fakeStreamCreateWithPriority: not allowed during capture (900), a test");
  CHECK(refusal([] {}) == "");
}

TEST_CASE("device: the fake tells races, stale events and work that is not joined") {
  fake_device device;
  fake_device::stream a{}, b{};
  device.make_stream(0, a), device.make_stream(0, b);
  fake_device::event e{};
  device.make_event(0, e);
  int memory = 0;
  const fake_device::range all{&memory, sizeof memory};
  device.kernel(a, {}, {all}, [] {});
  device.kernel(b, {all}, {}, [] {});
  CHECK(device.races == std::vector<std::string>{"reads what is being written"});
  device.races.clear();
  device.record(e, b), device.wait(a, e);
  device.kernel(a, {}, {all}, [] {});  // after the reader, which the writer before it never met
  CHECK(device.races.empty());
  device.kernel(b, {}, {all}, [] {});
  CHECK(device.races == std::vector<std::string>{"writes what is being written"});
  fake_device::event never{};
  device.make_event(0, never);
  device.wait(a, never);
  CHECK(device.races.back() == "waits for an event that was never recorded");
  std::jthread([&] {
    bool done = false;
    CHECK(device.query(e, done) == fake_device::no_device);
    CHECK(device.races.back() == "EventQuery by a thread that has not selected a device");
    device.set_device(1);
    CHECK(device.query(e, done) == fake_device::good);
  }).join();
  fake_device::graph g{};
  device.begin_capture(a);
  CHECK(device.wait(a, e) == fake_device::isolation);
  device.record(e, a), device.wait(b, e);
  device.kernel(b, {}, {}, [] {});
  CHECK(device.end_capture(a, g) == fake_device::unjoined);
}

TEST_CASE("device: a call that fails, any one of a step, ends all ranks with its cause") {
  int tried = 0;
  for (const char* name : {"1f1b", "zbv", "dualpipe"}) {
    const program p = lower(make_schedule(name, {.pp = 4, .micro = 4}));
    std::int64_t calls = 0;
    {
      machine whole(p);
      whole.device.reset_counts();
      whole.in_threads(1);
      calls = whole.device.calls;
    }
    for (std::int64_t at = 0; at < calls; ++at, ++tried) {
      CAPTURE(name);
      CAPTURE(at);
      machine m(p);
      m.device.reset_counts();
      m.device.fails_at = at;
      std::vector<std::string> said(4);
      std::string cause;
      try {
        detail::run_ranks(*m.hub, 4, [&](std::uint32_t rank, auto&&) {
          try {
            fake_transport transport(*m.hub, rank);
            transport.select_device();
            execute(p, rank, m.on_device[rank], transport);
          } catch (const std::exception& e) {
            said[rank] = e.what();
            throw;
          }
        });
      } catch (const device_error& e) {
        cause = e.what();
        CHECK(e.status == fake_device::made_to_fail);
        CHECK(e.call == m.device.failed_call);
      }
      CHECK(cause.find(m.device.failed_call + ": made to fail (700), rank ") == 0);
      for (const std::string& text : said) {
        if (text.empty()) continue;  // needed nothing more
        CAPTURE(text);
        CHECK((text == cause || text.find("aborted by rank ") == 0));
        CHECK(text.find(cause) != std::string::npos);
      }
    }
  }
  CHECK(tried > 500);
}

TEST_CASE("device: a call that fails while channels and events are made says so") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4}));
  std::int64_t calls = 0;
  {
    fake_device device;
    std::vector<device_rank<fake_runtime>> ranks(2);
    for (auto& r : ranks) device.make_stream(0, r.compute);
    ranks[1].device = 1;
    device.reset_counts();
    fake_hub(fake_runtime{&device}, p, ranks, {.timed = true});
    calls = device.calls;
  }
  CHECK(calls > 20);
  for (std::int64_t at = 0; at < calls; ++at) {
    fake_device device;
    std::vector<device_rank<fake_runtime>> ranks(2);
    for (auto& r : ranks) device.make_stream(0, r.compute);
    ranks[1].device = 1;
    device.reset_counts();
    device.fails_at = at;
    std::string text;
    try {
      fake_hub(fake_runtime{&device}, p, ranks, {.timed = true});
    } catch (const device_error& e) {
      text = e.what();
    }
    CHECK(text.find(device.failed_call + ": made to fail (700), making the ") == 0);
  }
  fake_device device;
  CHECK(refusal_of([&] { fake_hub(fake_runtime{&device}, p, {}); }) ==
        "a program of 2 pipeline ranks needs as many places; got 0");
}

TEST_CASE("device: handles are destroyed once by their owner, and never where they are wrapped") {
  static int destroyed;
  destroyed = 0;
  struct counting_runtime : fake_runtime {
    static void destroy(stream) { ++destroyed; }
    static void destroy(event) { ++destroyed; }
    static void destroy(graph) { ++destroyed; }
  };
  using handle = device_handle<counting_runtime, fake_device::stream>;
  {
    handle own(counting_runtime{}, fake_device::stream(3)), taken(std::move(own)),
        wrapped = handle::wrap(fake_device::stream(4));
    CHECK(!own.is_owning());
    CHECK(taken.is_owning());
    CHECK(!wrapped.is_owning());
    CHECK(wrapped.handle() == fake_device::stream(4));
    taken = handle(counting_runtime{}, fake_device::stream(5));
    CHECK(destroyed == 1);
  }
  CHECK(destroyed == 2);
}

TEST_CASE("device: run_on_peers runs a thread a rank, and reads the times once all are through") {
  const program p = lower(make_zbv_schedule({.pp = 4, .micro = 8}));
  machine m(p, true);
  const timeline t = run_on_peers(p, *m.hub, [&](std::uint32_t rank, fake_transport&) { return m.on_device[rank]; });
  m.require_trained(1, model::orders_of(p.schedule));
  CHECK(first_race(m) == "");
  CHECK(t.intervals.all().size() == p.schedule.cells.all().size());
  CHECK(t[3][5] == interval{1e-3, 1e-3});
  fake_transport transport(*m.hub, 3);
  transport.select_device();
  std::vector<interval> too_many(p.schedule[3].size() + 1);
  CHECK(refusal_of([&] { transport.read_times(too_many); }) ==
        detail::concat(
            {"the rank has ", p.schedule[3].size(), " cells; got ", too_many.size(), " intervals for their times"}));
  machine untimed(p);
  CHECK(run_on_peers(p, *untimed.hub, [&](std::uint32_t rank, fake_transport&) {
          return untimed.on_device[rank];
        }).intervals.size() == 0);
}

TEST_CASE("device: many steps by run_on_peers, with what trainers do before and behind them") {
  struct stepping : device_trainer {
    std::vector<std::size_t>* begun;
    std::vector<std::size_t>* ended;
    void begin_step(std::size_t step) { begun->push_back(step); }
    void end_step(std::size_t step) { ended->push_back(step); }
  };
  const program p = lower(make_zbv_schedule({.pp = 4, .micro = 8}));
  for (const bool timed : {false, true}) {
    machine m(p, timed);
    std::vector<std::vector<std::size_t>> begun(4), ended(4);
    run_on_peers(
        p, *m.hub,
        [&](std::uint32_t rank, fake_transport&) {
          return stepping{m.on_device[rank], &begun[rank], &ended[rank]};
        },
        3);
    m.require_trained(3, model::orders_of(p.schedule));
    CHECK(first_race(m) == "");
    for (std::uint32_t rank = 0; rank < 4; ++rank) {
      CHECK(begun[rank] == std::vector<std::size_t>{0, 1, 2});
      CHECK(ended[rank] == begun[rank]);
    }
  }
}

TEST_CASE("device: what a trainer throws around a step comes out with rank, hook and step; a timeline needs a step") {
  struct stepping : device_trainer {
    std::uint32_t rank;
    bool begins;
    void at(bool begin, std::size_t step) const {
      if (rank == 1 && begin == begins && step == 2) throw std::domain_error("no memory");
    }
    void begin_step(std::size_t step) const { at(true, step); }
    void end_step(std::size_t step) const { at(false, step); }
  };
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4}));
  for (const bool begins : {true, false}) {
    machine m(p);
    std::string said;
    try {
      run_on_peers(
          p, *m.hub,
          [&](std::uint32_t rank, fake_transport&) {
            return stepping{m.on_device[rank], rank, begins};
          },
          4);
    } catch (const trainer_error& e) {
      said = e.what();
      CHECK_THROWS_AS(std::rethrow_if_nested(e), std::domain_error);
    }
    CHECK(said == (begins ? "rank 1 at begin_step(2): no memory" : "rank 1 at end_step(2): no memory"));
  }
  machine timed(p, true);
  const auto run_no_step = [&] {
    run_on_peers(
        p, *timed.hub, [&](std::uint32_t rank, fake_transport&) { return timed.on_device[rank]; }, 0);
  };
  CHECK(refusal_of(run_no_step) == "a timeline is of at least 1 step; got 0");
}

TEST_CASE(
    "device: a device that does not end its step, a rank that throws and one that stalls end all ranks with the "
    "cause") {
  const program p = lower(make_dualpipev_schedule({.pp = 4, .micro = 8}));
  const auto ends = [&](auto&& prepare) {
    machine m(p, false, std::chrono::milliseconds(30));
    prepare(m);
    try {
      run_on_peers(p, *m.hub, [&](std::uint32_t rank, fake_transport&) { return m.on_device[rank]; });
    } catch (const std::exception& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(ends([](machine&) {}) == "");
  const std::string hung = ends([](machine& m) { m.device.hangs = true; });
  CHECK(hung.find("aborted by rank ") == 0);
  CHECK(hung.find("the device did not end the step within the time limit\nrank 0 at ") != std::string::npos);
  std::string place;  // the first cell with micro-batch 3
  for (const cell& c : p.schedule[2])
    if (place.empty() && std::any_of(c.begin(), c.end(), [](op o) { return o.micro == 3; })) place = to_string(c);
  CHECK(ends([](machine& m) {
          m.on_device[2].fails = [](op o) {
            if (o.micro == 3) throw std::domain_error("not a number in " + to_string(o));
          };
        }) == "rank 2 at " + place + ": not a number in 2F3");
  const std::string late = ends([](machine& m) {
    m.on_device[1].fails = [&hub = *m.hub](op o) {
      while (o.micro == 3 && !hub.aborted()) std::this_thread::yield();
    };
  });
  CHECK(late.find("nothing came within the time limit") != std::string::npos);
  CHECK(late.find(", which waits for activation 1F3 from rank 1") != std::string::npos);
}

TEST_CASE("device: after a failure trainers stay until the devices are through") {
  // Its memory goes with it: whatever is left in streams then would touch what is not there.
  struct leaving : stream_trainer<fake_cluster, side_stream<cluster_runtime>> {
    leaving(stream_trainer t, std::size_t& l) : stream_trainer(std::move(t)), left_over(l) {}
    leaving(const leaving&) = delete;
    ~leaving() { left_over = std::max(left_over, device->left()); }
    std::size_t& left_over;
  };
  const program p = lower(make_dualpipev_schedule({.pp = 4, .micro = 8}));
  for (const std::uint32_t failing : {0u, 1u, 2u, 3u}) {
    fake_cluster cluster(4);
    cluster.live = true;  // work is done when somebody asks for it
    std::vector<model::trainer> trainers;
    std::vector<device_rank<cluster_runtime>> ranks(4);
    std::vector<std::unique_ptr<side_stream<cluster_runtime>>> sides;
    for (std::uint32_t r = 0; r < 4; ++r) {
      trainers.emplace_back(p, r);
      cluster.make_stream(0, 0, ranks[r].compute);
      sides.push_back(std::make_unique<side_stream<cluster_runtime>>(cluster_runtime{&cluster}));
    }
    peer_hub<cluster_runtime> hub({&cluster}, p, ranks);
    std::size_t left_over = 0;
    std::jthread([&] {  // which has not selected a device
      CHECK_THROWS_AS(run_on_peers(p, hub,
                                   [&](std::uint32_t r, auto& transport) {
                                     return leaving({&trainers[r], &cluster, transport.compute(), sides[r].get(),
                                                     [r, failing](op o) {
                                                       if (r == failing && o.micro == 5) throw std::domain_error("no");
                                                     }},
                                                    left_over);
                                   }),
                      trainer_error);
    })
        .join();
    CHECK(left_over == 0);
    CHECK(cluster.races.empty());
  }
}

TEST_CASE("device: one thread that runs all ranks says when none can go on") {
  // Both ranks want the other's message before they send their own.
  program p = lower(make_1f1b_schedule({.pp = 2, .micro = 1}));
  const auto sends_last = [&](std::uint32_t rank) {
    auto row = p.actions[rank];
    const auto send = std::find_if(row.begin(), row.end(), [](const action& a) { return a.kind == action_kind::send; });
    std::rotate(send, send + 1, row.end());
  };
  sends_last(0), sends_last(1);
  REQUIRE(!verify(p));
  machine m(p);
  CHECK(refusal_of([&] { m.by_turns(1); }) == "no rank can go on; verify() says why");
  const program good = lower(make_1f1b_schedule({.pp = 2, .micro = 1}));
  machine throwing(good);
  throwing.on_device[1].fails = [](op) { throw std::domain_error("no memory"); };
  throwing.open_transports();
  CHECK_THROWS_WITH_AS(
      (execute_by_turns<device_trainer, fake_transport>(good, throwing.on_device, throwing.transports)),
      "rank 1 at 1F0: no memory", trainer_error);
  CHECK(refusal_of([&] { execute_by_turns<device_trainer, fake_transport>(p, m.on_device, {}); }) ==
        "a program of 2 ranks needs as many trainers and transports; got 2 and 0");
}
