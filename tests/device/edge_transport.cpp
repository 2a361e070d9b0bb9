// SPDX-License-Identifier: MIT
// The transport over a library of messages, over a fake one: every call is kept and played to its end by a player that
// knows nothing of it, with a queue for every stream and with one for a whole device; mutants; failures of any call.

#include "pipesched/device/edge_transport.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "pipesched/device/run_steps.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"
#include "support/fake_cluster.hpp"
#include "support/fake_device.hpp"
#include "support/families.hpp"
#include "support/stream_trainer.hpp"
#include "support/tanh_model.hpp"
#include "support/thread_coordinator.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

using model = tanh_model<double>;
using cluster_trainer = stream_trainer<fake_cluster, side_stream<cluster_runtime>>;
using cluster_transport = edge_transport<cluster_runtime, cluster_library>;

// Two ranks may both have read the share of a collective; its next round begins only once all have left the last one.
static_assert(transport<cluster_transport>);

// All ranks of a program, each in a thread and on a device of its own.
struct job {
  explicit job(const program& of, int queues = 0, std::uint64_t seed = 1, edge_transport_options with = {})
      : p(of), cluster(static_cast<int>(of.schedule.pp()), queues, seed), jobs(of.schedule.pp()), options(with) {
    for (std::uint32_t r = 0; r < p.schedule.pp(); ++r) trainers.emplace_back(p, r);
    for (std::uint32_t r = 0; r < p.schedule.pp(); ++r) {
      fake_cluster::stream s{};
      cluster.make_stream(static_cast<int>(r), 0, s);
      sides.push_back(std::make_unique<side_stream<cluster_runtime>>(cluster_runtime{&cluster}, static_cast<int>(r)));
      on_device.push_back({&trainers[r], &cluster, s, sides[r].get(), {}});
    }
    cluster.calls = 0;
  }
  // What each rank has thrown.
  std::vector<std::string> run(const std::function<void(std::uint32_t, cluster_transport&)>& body) {
    std::vector<std::string> said(p.schedule.pp());
    std::vector<std::jthread> threads;
    own_threads.assign(p.schedule.pp(), {});
    for (std::uint32_t r = 0; r < p.schedule.pp(); ++r)
      threads.emplace_back([&, r] {
        own_threads[r] = std::this_thread::get_id();
        thread_coordinator control(jobs, r);
        try {
          cluster_transport transport({&cluster}, {&cluster}, p, cluster.world(static_cast<int>(r)),
                                      {static_cast<int>(r), on_device[r].stream}, control, options);
          body(r, transport);
        } catch (const std::exception& e) {
          said[r] = e.what();
        }
      });
    threads.clear();
    return said;
  }
  std::vector<std::string> train(std::size_t steps) {
    return run([&](std::uint32_t r, cluster_transport& t) { run_steps(p, on_device[r], t, steps); });
  }
  void require_trained(std::size_t steps) const {
    const auto orders = model::orders_of(p.schedule);
    const auto expected = model::on_one_device(p.schedule.stages(), p.schedule.micro, orders);
    for (const auto& t : trainers) {
      for (std::uint32_t m = 0; m < p.schedule.micro; ++m)
        if (t.losses[m] != -1) REQUIRE(t.losses[m] == expected.losses[m]);
      for (std::size_t chunk = 0; chunk < t.stages.size() && !p.schedule.forward_only; ++chunk)
        if (steps == 1) REQUIRE(t.layers[chunk].gradient == expected.layers[t.stages[chunk]].gradient);
    }
  }
  bool trained() const {
    const auto orders = model::orders_of(p.schedule);
    const auto expected = model::on_one_device(p.schedule.stages(), p.schedule.micro, orders);
    for (const auto& t : trainers)
      for (std::size_t chunk = 0; chunk < t.stages.size(); ++chunk)
        if (!(t.layers[chunk].gradient == expected.layers[t.stages[chunk]].gradient)) return false;
    return true;
  }
  std::string first_race() const { return cluster.races.empty() ? "" : cluster.races.front(); }

  const program& p;
  fake_cluster cluster;
  thread_job jobs;
  edge_transport_options options;
  std::vector<model::trainer> trainers;
  std::vector<std::unique_ptr<side_stream<cluster_runtime>>> sides;
  std::vector<cluster_trainer> on_device;
  std::vector<std::thread::id> own_threads;  // not the watchdogs'
};

std::vector<std::string> nothing(const program& p) { return std::vector<std::string>(p.schedule.pp()); }

template <typename F>
void for_some_programs(F&& f) {
  for (const family& of : families)
    for (const std::int64_t pp : {1, 2, 4})
      for (const std::int64_t micro : {3, 8})
        for (const bool forward_only : {false, true}) {
          if (pp % 2 != 0 && needs_even_pp(of)) continue;
          if (forward_only && micro == 3) continue;
          CAPTURE(of.name);
          CAPTURE(pp);
          CAPTURE(micro);
          CAPTURE(forward_only);
          f(lower(of.make({.pp = pp, .micro = micro, .forward_only = forward_only}), {.depth = micro == 3 ? 1u : 4u}));
        }
}

}  // namespace

TEST_CASE("edges: every family trains as one device does, whichever streams share a queue; nothing races") {
  for_some_programs([](const program& p) {
    for (const int queues : {0, 1, 2})
      for (const std::uint64_t seed : {1u, 2u}) {
        CAPTURE(queues);
        job j(p, queues, seed);
        REQUIRE(j.train(1) == nothing(p));
        REQUIRE(j.cluster.play() == "");
        REQUIRE(j.first_race() == "");
        j.require_trained(1);
        std::uint32_t messages = 0;
        for (const channel& c : p.channels) messages += c.messages;
        REQUIRE(j.cluster.messages ==
                static_cast<int>(2 * (messages + p.channels.size())));  // warm() sends one of each
        REQUIRE(j.cluster.aborts == 0);
        REQUIRE(j.cluster.destroyed == static_cast<int>(2 * p.channels.size()));
      }
  });
}

TEST_CASE("edges: a step makes and asks nothing: it takes five calls for either side of a message") {
  for_some_programs([](const program& p) {
    job j(p);
    std::vector<std::int64_t> calls(p.schedule.pp()), expected(p.schedule.pp());
    REQUIRE(j.run([&](std::uint32_t r, cluster_transport& t) {
      t.warm(j.on_device[r]);
      const std::int64_t before = j.cluster.own_calls();
      execute(p, r, j.on_device[r], t);
      calls[r] = j.cluster.own_calls() - before;
      t.synchronize();
    }) == nothing(p));
    for (std::uint32_t r = 0; r < p.schedule.pp(); ++r) {
      for (const cell& c : p.schedule[r]) expected[r] += 4 * c.overlapped();
      for (const action& a : p.actions[r])
        expected[r] += 5 * (a.kind == action_kind::receive || a.kind == action_kind::send);
    }
    REQUIRE(calls == expected);
    REQUIRE(j.cluster.play() == "");
  });
}

TEST_CASE("edges: many steps, played as they are put into streams") {
  for (const family& of : families) {
    CAPTURE(of.name);
    const program p = lower(of.make({.pp = 4, .micro = 6}));
    for (const int queues : {0, 1}) {
      job j(p, queues, 3, {.timed = queues == 0, .enlists_buffers = true});
      j.cluster.live = true;
      REQUIRE(j.run([&](std::uint32_t r, cluster_transport& t) {
        run_steps(p, j.on_device[r], t, 3);
        std::vector<interval> times(p.schedule[r].size());
        if (queues == 0) t.read_times(times);
        if (queues == 0) REQUIRE(times[0] == interval{1e-3, 1e-3});
      }) == nothing(p));
      REQUIRE(j.first_race() == "");
      j.require_trained(3);
      REQUIRE(j.cluster.enlisted > 0);
    }
  }
}

TEST_CASE("edges: reductions of tied stages go over them, too") {
  for (const char* name : {"1f1b", "zbv", "dualpipe", "interleaved_1f1b"}) {
    CAPTURE(name);
    const schedule s = make_schedule(name, {.pp = 4, .micro = 8});
    const tied_stages tied = {{0, static_cast<std::uint16_t>(s.stages() - 1)}};
    const program p = lower(s, {.tied = tied});
    job j(p, 1);
    j.trainers.clear();
    for (std::uint32_t r = 0; r < 4; ++r) j.trainers.emplace_back(p, r, tied);
    for (std::uint32_t r = 0; r < 4; ++r) j.on_device[r].on_host = &j.trainers[r];
    REQUIRE(j.train(1) == nothing(p));
    REQUIRE(j.cluster.play() == "");
    REQUIRE(j.first_race() == "");
    const auto expected = model::on_one_device(s.stages(), s.micro, model::orders_of(s), tied);
    for (const auto& t : j.trainers)
      for (std::size_t chunk = 0; chunk < t.stages.size(); ++chunk)
        CHECK(t.layers[chunk].gradient[1][2] ==
              doctest::Approx(expected.layers[t.stages[chunk]].gradient[1][2]).epsilon(1e-12));
  }
}

TEST_CASE("edges: mutants stand still, race, or compute something else") {
  for (const char* name : {"1f1b", "zbv", "dualpipe", "interleaved_1f1b"}) {
    CAPTURE(name);
    const program p = lower(make_schedule(name, {.pp = 4, .micro = 8}));
    {
      job j(p, 1);
      REQUIRE(j.train(1) == nothing(p));
      j.cluster.hurry_receives();
      const std::string left = j.cluster.play();
      CAPTURE(left);
      CHECK(left.find("device 1: receives message ") != std::string::npos);
      CHECK(left.find(" of pipesched 0 to 1") != std::string::npos);
    }
    for (const bool of_compute : {false, true}) {
      job j(p);
      (of_compute ? j.cluster.drops_waits_of_compute : j.cluster.drops_waits_of_messages) = true;
      REQUIRE(j.train(1) == nothing(p));
      j.cluster.play();
      CHECK(j.first_race() != "");
    }
    int seen = 0, tried = 0;
    for (std::size_t n = 0; n < 30; n += 3, ++tried) {
      job j(p, 1);
      REQUIRE(j.train(1) == nothing(p));
      REQUIRE(j.cluster.swap_messages(1, n));
      seen += j.cluster.play() != "" || j.first_race() != "" || !j.trained();
    }
    CHECK(2 * seen > tried);
  }
}

TEST_CASE("edges: a call that fails, any one, ends all ranks with its cause") {
  int tried = 0;
  for (const char* name : {"zbv", "dualpipe"}) {
    const program p = lower(make_schedule(name, {.pp = 4, .micro = 4}));
    std::int64_t calls = 0;
    {
      job whole(p);
      REQUIRE(whole.train(1) == nothing(p));
      calls = whole.cluster.calls;
    }
    for (std::int64_t at = 0; at < calls - 60; at += 7, ++tried) {
      CAPTURE(name);
      CAPTURE(at);
      job j(p, 0, 1, {.time_limit = std::chrono::seconds(1)});
      j.cluster.fails_at = at;
      const auto said = j.train(1);
      if (j.cluster.failed_call.empty()) continue;  // fewer calls this time: watchdogs ask when they like
      const bool while_closing =
          j.cluster.failed_call == "libCommFinalize" || j.cluster.failed_call == "libCommDestroy";
      int told = 0;
      for (const std::string& text : said) {
        CAPTURE(text);
        told += !text.empty();
        CHECK((text.empty() || text.find("made to fail") != std::string::npos));
      }
      CAPTURE(j.cluster.failed_call);
      // A watchdog that cannot ask where messages are goes on without, and what fails at the very end concerns nobody.
      const bool by_watchdog = std::count(j.own_threads.begin(), j.own_threads.end(), j.cluster.failed_on) == 0;
      CHECK((told > 0 || while_closing || by_watchdog));
    }
  }
  CHECK(tried > 60);
}

TEST_CASE(
    "edges: a trainer that throws, a rank that leaves or stalls, an error of the library end all with the cause") {
  const program p = lower(make_dualpipev_schedule({.pp = 4, .micro = 8}));
  // Where nothing is to take too long, nothing does, however busy the machine is.
  const std::chrono::duration<double> long_limit(20), short_limit(0.5);
  const auto ends = [&](std::chrono::duration<double> limit, auto&& prepare, auto&& body) {
    job j(p, 0, 1, {.time_limit = limit});
    j.cluster.live = true;
    prepare(j);
    const auto said = j.run([&](std::uint32_t r, cluster_transport& t) { body(j, r, t); });
    CHECK(j.cluster.left() == 0);  // nothing touches the trainers' memory any more
    return said;
  };
  const auto trains = [&](job& j, std::uint32_t r, cluster_transport& t) { run_steps(p, j.on_device[r], t, 2); };

  std::vector<std::string> said;
  for (const bool breaks : {false, true}) {
    said = ends(
        long_limit,
        [&](job& j) {
          j.cluster.aborts_break_peers = breaks;
          j.on_device[2].fails = [](op o) {
            if (o.micro == 3) throw std::domain_error("not a number in " + to_string(o));
          };
        },
        trains);
    CHECK(said[2] == "rank 2 at 2F3: not a number in 2F3");
    for (const int r : {0, 1, 3}) {
      CAPTURE(said[static_cast<std::size_t>(r)]);
      CHECK(said[static_cast<std::size_t>(r)].find(
                detail::concat({"aborted: rank 2 at 2F3: not a number in 2F3\nthis is rank ", r, " at "})) == 0);
    }
  }

  said = ends(
      long_limit, [](job&) {},
      [&](job& j, std::uint32_t r, cluster_transport& t) {
        if (r != 1) return run_steps(p, j.on_device[r], t);
        t.select_device();
        t.warm(j.on_device[r]);
        t.at(0);  // and leaves
      });
  CHECK(said[1] == "");
  CHECK(said[0].find("aborted: rank 1 at 1F0: it left before the end of its step\nthis is rank 0 at ") == 0);

  // A rank whose step never begins: the others report where they are, and what they wait for.
  said = ends(
      short_limit, [](job&) {},
      [&](job& j, std::uint32_t r, cluster_transport& t) {
        if (r != 1) return run_steps(p, j.on_device[r], t);
        t.select_device();
        t.warm(j.on_device[r]);
        while (!t.aborted()) std::this_thread::yield();
        run_steps(p, j.on_device[r], t);
      });
  CAPTURE(said[0]);
  CHECK(said[0].find("aborted: rank ") == 0);
  CHECK(said[0].find("nothing moved within the time limit\nrank 0 at ") != std::string::npos);
  CHECK(said[0].find("which waits for activation ") != std::string::npos);
  CHECK(said[1] == said[0] + "\nthis is rank 1 at its start");

  // A callback that does not come back while the others wait.
  said = ends(
      short_limit,
      [](job& j) {
        j.on_device[3].fails = [&j](op o) {
          while (o.micro == 2 && !thread_coordinator(j.jobs, 3).failure()) std::this_thread::yield();
        };
      },
      trains);
  CAPTURE(said[1]);
  CHECK(said[1].find("nothing moved within the time limit") != std::string::npos);

  said = ends(
      long_limit,
      [](job& j) {
        j.on_device[0].fails = [&j](op o) {
          if (o.micro != 4) return;
          j.cluster.break_communicators("pipesched 1 to 2");
          while (!thread_coordinator(j.jobs, 0).failure()) std::this_thread::yield();
        };
      },
      trains);
  CAPTURE(said[0]);
  CHECK(said[0].find("aborted: rank ") == 0);
  CHECK(said[0].find("messages from rank 1 to rank 2: made to fail (lib 3)") != std::string::npos);

  // A call of the library that goes on for ever.
  for (const char* call : {"CommSplit", "Send", "Recv"})
    for (const int after : {2, 9}) {
      said = ends(
          short_limit,
          [&](job& j) {
            j.cluster.hangs_in = call;
            j.cluster.hangs_after = after;
          },
          trains);
      CAPTURE(call);
      for (const std::string& text : said) {
        CAPTURE(text);
        CHECK(text.find("aborted: ") == 0);
        CHECK(text.find(" within the time limit") != std::string::npos);
      }
    }
}

TEST_CASE("edges: a job that cannot be is refused on all ranks") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4})),
                other = lower(make_1f1b_schedule({.pp = 2, .micro = 5}));
  const auto refusals = [&](int ranks, const std::vector<edge_transport_options>& options, bool differ = false) {
    fake_cluster cluster(ranks);
    thread_job jobs(static_cast<std::uint32_t>(ranks));
    std::vector<std::string> said(static_cast<std::size_t>(ranks));
    std::vector<std::jthread> threads;
    for (int r = 0; r < ranks; ++r)
      threads.emplace_back([&, r] {
        thread_coordinator control(jobs, static_cast<std::uint32_t>(r));
        fake_cluster::stream s{};
        cluster.make_stream(r, 0, s);
        try {
          cluster_transport({&cluster}, {&cluster}, differ && r == 1 ? other : p, cluster.world(r), {r, s}, control,
                            options[static_cast<std::size_t>(r)]);
        } catch (const std::exception& e) {
          said[static_cast<std::size_t>(r)] = e.what();
        }
      });
    threads.clear();
    return said;
  };
  CHECK(refusals(3, std::vector<edge_transport_options>(3))[2] ==
        "a program of 2 pipeline ranks needs as many; the communicator has 3: give a rank map");
  CHECK(refusals(2, std::vector<edge_transport_options>(2, {.rank_map = {1, 1}}))[0] ==
        "a rank map has ranks of the communicator, 0 to 1, each at most once; got 1");
  CHECK(refusals(2, std::vector<edge_transport_options>(2, {.rank_map = {1, 2}}))[0] ==
        "a rank map has ranks of the communicator, 0 to 1, each at most once; got 2");
  CHECK(refusals(2, std::vector<edge_transport_options>(2, {.rank_map = {1}}))[0] ==
        "a program of 2 pipeline ranks needs a rank map of as many; got 1");
  CHECK(refusals(3, std::vector<edge_transport_options>(3, {.rank_map = {1, 2}}))[0] ==
        "rank 0 of the communicator is not in the rank map: take_no_part() is for it");
  CHECK(refusals(2, std::vector<edge_transport_options>(2), true)[1] ==
        "the processes of a job run one program; this one has another");
  for (const bool each : {false, true}) {
    edge_transport_options crossed{.edge = {.min_ctas = 8, .max_ctas = 4}};
    if (each) crossed = {.edge_of = [](const channel&) { return edge_options{.min_ctas = 8, .max_ctas = 4}; }};
    CHECK(refusals(2, {crossed, crossed})[0].find(
              "min_ctas of the channel from rank 0 to rank 1 is at most max_ctas, which is 4; got 8") !=
          std::string::npos);
  }
  CHECK(refusals(2, std::vector<edge_transport_options>(2, {.edge = {.max_ctas = -1}}))[1].find(
            "min_ctas and max_ctas of the channel from rank 0 to rank 1 are at least 0 (the library chooses); got 0 "
            "and -1") != std::string::npos);
  CHECK(refusals(2, std::vector<edge_transport_options>(2, {.edge = {.min_ctas = 2}}))[0] == "");
  CHECK(refusals(2, std::vector<edge_transport_options>(2, {.time_limit = std::chrono::seconds(-1)}))[0].find(
            "a time limit is above 0 and at most 1e9 seconds; got -1") != std::string::npos);
  const auto one_only = refusals(2, {{}, {.rank_map = {1, 1}}});
  CHECK(one_only[0].find("aborted: process 1 at its start: a rank map has ") == 0);
}

TEST_CASE("edges: two pipelines and a rank in none share a communicator, each with its rank map") {
  const program p = lower(make_dualpipe_schedule({.pp = 2, .micro = 4}));
  const std::vector<std::vector<int>> maps = {{4, 1}, {0, 3}};
  fake_cluster cluster(5, 1);
  thread_job jobs(5);
  std::vector<model::trainer> trainers;
  for (const int pipeline : {0, 1})
    for (const std::uint32_t r : {0u, 1u}) static_cast<void>(pipeline), trainers.emplace_back(p, r);
  std::vector<std::string> said(5);
  {
    std::vector<std::jthread> threads;
    for (int world = 0; world < 5; ++world)
      threads.emplace_back([&, world] {
        thread_coordinator control(jobs, static_cast<std::uint32_t>(world));
        try {
          if (world == 2) return cluster_transport::take_no_part({&cluster}, p, cluster.world(world), control);
          const std::size_t pipeline = world == 4 || world == 1 ? 0 : 1;
          fake_cluster::stream s{};
          cluster.make_stream(world, 0, s);
          side_stream<cluster_runtime> side({&cluster}, world);
          cluster_transport t({&cluster}, {&cluster}, p, cluster.world(world), {world, s}, control,
                              {.rank_map = maps[pipeline]});
          cluster_trainer trainer{&trainers[2 * pipeline + t.rank()], &cluster, s, &side, {}};
          run_steps(p, trainer, t);
        } catch (const std::exception& e) {
          said[static_cast<std::size_t>(world)] = e.what();
        }
      });
  }
  CHECK(said == std::vector<std::string>(5));
  CHECK(cluster.play() == "");
  CHECK(cluster.races.empty());
  const auto expected = model::on_one_device(p.schedule.stages(), p.schedule.micro, model::orders_of(p.schedule));
  for (const auto& t : trainers)
    for (std::size_t chunk = 0; chunk < t.stages.size(); ++chunk)
      CHECK(t.layers[chunk].gradient == expected.layers[t.stages[chunk]].gradient);
}

namespace {

// Messages that are nothing but reads and writes of memory, on a device that knows what must not be captured.
struct lone_library {
  enum status : int { ok, going };
  using communicator = int;
  static constexpr std::string_view prefix = "lone";

  fake_device* device = nullptr;
  std::string why_no_capture{};
  std::atomic<bool>* captures = nullptr;  // an abort waits as long as a graph is there, and messages go on meanwhile

  static bool succeeded(status) { return true; }
  static bool in_progress(status s) { return s == going; }
  static std::string text(status) { return {}; }
  static status rank_in(communicator, int& r) { return r = 1, ok; }
  static status size_of(communicator, int& n) { return n = 4, ok; }
  static status split(communicator, int color, int, const edge_options&, const std::string&, communicator& child) {
    return child = color + 1, ok;
  }
  status state(communicator, status& of) const {
    of = captures != nullptr && *captures ? going : ok;
    if (of == going) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // whoever else waits comes next
    return ok;
  }
  status send(communicator, int, const void* from, std::size_t size, fake_device::stream s) {
    return device->kernel(s, {{from, size}}, {}, [] {}), captures != nullptr && *captures ? going : ok;
  }
  status receive(communicator, int, void* into, std::size_t size, fake_device::stream s) {
    return device->kernel(s, {}, {{into, size}}, [] {}), ok;
  }
  static status enlist(communicator, void*, std::size_t, void*&) { return ok; }
  static status dismiss(communicator, void*) { return ok; }
  static status finalize(communicator) { return ok; }
  static status destroy(communicator) { return ok; }
  void abort(std::span<const communicator>) const {
    while (captures != nullptr && *captures) std::this_thread::yield();
  }
  std::string refuses_capture() const { return why_no_capture; }
};

using lone_transport = edge_transport<fake_runtime, lone_library>;

// Rank 1 of a program without the others.
struct lone_rank {
  explicit lone_rank(const program& of) : p(of), on_host(of, 1), side(fake_runtime{&device}) {
    device.make_stream(0, trainer.stream);
  }
  lone_library library(const std::string& why_no_capture = "", std::atomic<bool>* captures = nullptr) {
    return {&device, why_no_capture, captures};
  }
  lone_transport transport(lone_library by, const edge_transport_options& options = {}) {
    return {{&device}, std::move(by), p, 0, {0, trainer.stream}, control, options};
  }

  const program& p;
  fake_device device;
  thread_job jobs{1};
  thread_coordinator control{jobs, 0};
  model::trainer on_host;
  side_stream<fake_runtime> side;
  stream_trainer<fake_device, side_stream<fake_runtime>> trainer{&on_host, &device, {}, &side, {}};
};

}  // namespace

TEST_CASE("edges: a rank captures its step alone, and asks for nothing forbidden; what cannot be captured is refused") {
  for (const family& of : families) {
    CAPTURE(of.name);
    const program p = lower(of.make({.pp = 4, .micro = 8}));
    lone_rank alone(p);
    const auto refusal = [&](const edge_transport_options& options, const std::string& why, bool warm) {
      return refusal_of([&] {
        lone_transport t = alone.transport(alone.library(why), options);
        t.select_device();
        if (warm) t.warm(alone.trainer);
        t.capture(alone.trainer);
      });
    };
    CHECK(refusal({}, "", false) ==
          "no graph: the first message of a channel connects its ranks, which cannot be captured; call warm() before");
    CHECK(refusal({.timed = true}, "", true) ==
          "no graph: the cells of a graph cannot be timed; make the transport without .timed");
    CHECK(refusal({}, "it is too old", true) == "no graph: it is too old");

    lone_transport t = alone.transport(alone.library());
    t.select_device();
    t.warm(alone.trainer);
    auto graph = t.capture(alone.trainer);
    for (int i = 0; i < 2; ++i) graph.launch(), t.synchronize();
    execute(p, 1, alone.trainer, t);  // and not captured, again
    t.synchronize();
    REQUIRE(alone.device.races.empty());
    REQUIRE(alone.device.launches == 2);
  }
}

TEST_CASE("edges: a rank in no pipeline tells and hears of failures like any other") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4})),
                other = lower(make_1f1b_schedule({.pp = 2, .micro = 5}));
  for (const bool differs : {false, true}) {
    fake_cluster cluster(3);
    thread_job jobs(3);
    std::vector<std::string> said(3);
    const auto start = std::chrono::steady_clock::now();
    {
      std::vector<std::jthread> threads;
      for (int world = 0; world < 3; ++world)
        threads.emplace_back([&, world] {
          thread_coordinator control(jobs, static_cast<std::uint32_t>(world));
          try {
            if (world == 2)
              return cluster_transport::take_no_part({&cluster}, differs ? other : p, cluster.world(2), control);
            fake_cluster::stream s{};
            cluster.make_stream(world, 0, s);
            const std::vector<int> map = {0, differs || world == 0 ? 1 : 0};
            cluster_transport({&cluster}, {&cluster}, p, cluster.world(world), {world, s}, control, {.rank_map = map});
          } catch (const std::exception& e) {
            said[static_cast<std::size_t>(world)] = e.what();
          }
        });
    }
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));  // the limit is 60
    for (const std::string& text : said) {
      CAPTURE(text);
      CHECK(text.find(differs ? "the processes of a job run one program; this one has another"
                              : "a rank map has ranks of the communicator, 0 to 2, each at most once; got 0") !=
            std::string::npos);
    }
  }
}

TEST_CASE("edges: an abort that waits for the rank's graph does not keep the rank from ending it") {
  const program p = lower(make_dualpipe_schedule({.pp = 4, .micro = 8}));
  for (int i = 0; i < 5; ++i) {
    lone_rank alone(p);
    std::atomic<bool> captures = false;
    lone_transport t = alone.transport(alone.library("", &captures), {.time_limit = std::chrono::milliseconds(500)});
    t.select_device();
    t.warm(alone.trainer);
    captures = true;
    std::jthread other([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(3 * i));
      alone.control.report_failure("another rank threw");
    });
    CHECK_THROWS_AS(t.capture(alone.trainer), pipeline_aborted);
    captures = false;
    CHECK(t.cause().find("another rank threw\nthis is rank 1 at ") == 0);
  }
}

TEST_CASE("edges: a step that its trainer throws out of can be followed by another one") {
  // As a capture that fails may be: the rank itself has done nothing that others wait for.
  const program p = lower(make_dualpipe_schedule({.pp = 4, .micro = 8}));
  lone_rank alone(p);
  lone_transport t = alone.transport(alone.library(), {.time_limit = std::chrono::milliseconds(500)});
  t.select_device();
  t.warm(alone.trainer);
  for (const std::uint32_t micro : {0u, 3u, 7u}) {
    alone.trainer.fails = [micro](op o) {
      if (o.micro == micro) throw std::domain_error("not now");
    };
    CHECK_THROWS_AS(t.capture(alone.trainer), std::domain_error);
    alone.trainer.fails = {};
    std::this_thread::sleep_for(std::chrono::milliseconds(600));  // longer than the limit: it is not in a step
    execute(p, 1, alone.trainer, t);
    t.synchronize();
  }
  CHECK(!t.aborted());
}

TEST_CASE("edges: the watchdog chooses the rank's device before it asks anything; if it cannot, all ranks end") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4}));
  job j(p, 0, 1, {.time_limit = std::chrono::seconds(20)});
  j.cluster.live = true;
  j.on_device[1].fails = [](op o) {  // so that the watchdogs ask where messages are
    if (o.micro == 2) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  };
  CHECK(j.train(2) == nothing(p));
  CHECK(j.first_race() == "");

  job broken(p, 0, 1, {.time_limit = std::chrono::seconds(20)});
  broken.cluster.fails_in = "SetDevice";
  const auto said = broken.run([&](std::uint32_t, cluster_transport& t) {
    for (int i = 0; i < 10'000 && !t.aborted(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    t.synchronize();
  });
  for (const std::string& text : said) {
    CAPTURE(text);
    CHECK(text.find("fakeSetDevice: made to fail (700), ") != std::string::npos);
  }
}

TEST_CASE("edges: every channel has its own limits and priority") {
  const program p = lower(make_1f1b_schedule({.pp = 3, .micro = 4}));
  job j(p, 0, 1, {.edge_of = [](const channel& c) {
          return edge_options{.stream_priority = -c.from, .min_ctas = 1, .max_ctas = c.from < c.to ? 4 : 2};
        }});
  REQUIRE(j.train(1) == nothing(p));
  CHECK(j.cluster.options.size() == 4);
  CHECK(j.cluster.options.at("pipesched 1 to 2").max_ctas == 4);
  CHECK(j.cluster.options.at("pipesched 1 to 0").max_ctas == 2);
  CHECK(j.cluster.options.at("pipesched 2 to 1").min_ctas == 1);
  for (const int rank : {1, 2})  // two channels from rank 1, one from rank 2; each has a stream on either side
    CHECK(std::count(j.cluster.priorities.begin(), j.cluster.priorities.end(), -rank) == (rank == 1 ? 4 : 2));

  job all(p, 0, 1, {.edge = {.stream_priority = -7, .max_ctas = 3}});
  REQUIRE(all.train(1) == nothing(p));
  CHECK(all.cluster.options.at("pipesched 2 to 1").max_ctas == 3);
  CHECK(std::count(all.cluster.priorities.begin(), all.cluster.priorities.end(), -7) == 8);
}

TEST_CASE("edges: communicators are split in a handful of rounds, whatever the number of ranks") {
  for (const family& of : families)
    for (const std::int64_t pp : {2, 8, 64}) {
      const program p = lower(of.make({.pp = pp, .micro = 2 * pp}));
      const auto rounds = detail::split_rounds(p.channels, p.schedule.pp());
      REQUIRE(detail::count_rounds(rounds) <= 7);
      for (std::size_t a = 0; a < rounds.size(); ++a)
        for (std::size_t b = a + 1; b < rounds.size(); ++b)
          if (rounds[a] == rounds[b])
            REQUIRE((p.channels[a].from != p.channels[b].from && p.channels[a].from != p.channels[b].to &&
                     p.channels[a].to != p.channels[b].from && p.channels[a].to != p.channels[b].to));
    }
}
