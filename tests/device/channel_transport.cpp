// SPDX-License-Identifier: MIT
// channel_transport over a fake library: every call is recorded, and executed later by a player that knows nothing of
// programs, with a queue for every stream and with one for a whole device; mutants; failures of any call.

#include "pipesched/device/channel_transport.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/device/side_stream.hpp"
#include "pipesched/execute/run.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"
#include "support/channel_job.hpp"
#include "support/fake_cluster.hpp"
#include "support/fake_device.hpp"
#include "support/families.hpp"
#include "support/planned_receives.hpp"
#include "support/stream_trainer.hpp"
#include "support/tanh_model.hpp"
#include "support/thread_coordinator.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

template <typename F>
void for_programs_of_channels(F&& f) {
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

TEST_CASE("channels: every family trains as one device does, whichever streams share a queue; nothing races") {
  for_programs_of_channels([](const program& p) {
    for (const int queues : {0, 1, 2})
      for (const std::uint64_t seed : {1u, 2u}) {
        CAPTURE(queues);
        channel_job j(p, queues, seed);
        REQUIRE(j.train(1) == nothing(p));
        REQUIRE(j.cluster.play() == "");
        REQUIRE(j.first_race() == "");
        j.require_trained(1);
        std::uint32_t messages = 0;
        for (const channel& c : p.channels) messages += c.messages;
        REQUIRE(j.cluster.messages ==
                static_cast<int>(2 * (messages + p.channels.size())));  // the first of each is sent twice
        REQUIRE(j.cluster.aborts == 0);
        REQUIRE(j.cluster.closed == static_cast<int>(2 * p.channels.size()));
      }
  });
}

namespace {

// The memory of a rank's messages, as run() passes it to prepare().
auto memory_of(const program& p, std::uint32_t rank, cluster_trainer& trainer) {
  return [&p, rank, &trainer](const action& a) { return detail::message_memory(trainer, p, rank, a); };
}

}  // namespace

TEST_CASE("channels: a step makes and asks nothing: it takes six calls for either side of a message") {
  for_programs_of_channels([](const program& p) {
    channel_job j(p);
    std::vector<std::int64_t> calls(p.schedule.pp()), expected(p.schedule.pp());
    REQUIRE(j.run([&](std::uint32_t r, cluster_transport& t) {
      t.select_device();
      t.prepare(p, memory_of(p, r, j.on_device[r]));
      detail::rank_executor<cluster_trainer, cluster_transport> rank(p, r, j.on_device[r], t);
      const std::int64_t before = j.cluster.own_calls();
      rank.run();
      calls[r] = j.cluster.own_calls() - before;
      t.synchronize();
    }) == nothing(p));
    for (std::uint32_t r = 0; r < p.schedule.pp(); ++r) {
      for (const cell& c : p.schedule[r]) expected[r] += 4 * c.overlapped();
      for (const action& a : p.actions[r])
        expected[r] += 6 * (a.kind == action_kind::receive || a.kind == action_kind::send);
    }
    REQUIRE(calls == expected);
    REQUIRE(j.cluster.play() == "");
  });
}

TEST_CASE("channels: many steps, played as they are put into streams") {
  for (const family& of : families) {
    CAPTURE(of.name);
    const program p = lower(of.make({.pp = 4, .micro = 6}));
    for (const int queues : {0, 1}) {
      channel_job j(p, queues, 3, {.registers_buffers = true});
      j.cluster.live = true;
      j.plan(p, 3);
      REQUIRE(j.run([&](std::uint32_t r, cluster_transport& t) {
        const auto times = run(p, r, j.on_device[r], t, {.steps = 3, .record = queues == 0});
        REQUIRE(times == std::vector<interval>(queues == 0 ? p.schedule[r].size() : 0, interval{1e-3, 1e-3}));
      }) == nothing(p));
      REQUIRE(j.first_race() == "");
      j.require_trained(3);
      REQUIRE(j.cluster.registered > 0);
    }
  }
}

TEST_CASE("channels: memory is registered for the longest message of every buffer, also of a later program") {
  struct halves {  // some messages have half the bytes
    cluster_trainer& all;
    void forward(task) {}
    void backward(task) {}
    std::span<std::byte> buffer(tensor_id what, std::uint32_t n) {
      const std::span<std::byte> bytes = all.buffer(what, n);
      return what.micro % 3 == 2 ? bytes : bytes.first(bytes.size() / 2);
    }
  };
  const program shorter = lower(make_1f1b_schedule({.pp = 4, .micro = 2})),
                p = lower(make_1f1b_schedule({.pp = 4, .micro = 6}));
  for (const bool grows : {false, true}) {
    channel_job j(p, 0, 3, {.registers_buffers = true});
    j.cluster.live = true;
    REQUIRE(j.run([&](std::uint32_t r, cluster_transport& t) {
      halves own{j.on_device[r]};
      if (grows) run(shorter, r, own, t);
      run(p, r, own, t);
    }) == nothing(p));
    CHECK(j.first_race() == "");
    CHECK(j.cluster.registered > 0);
  }
}

TEST_CASE("channels: training and evaluation share a transport, and a trainer; new channels alone connect") {
  for (const family& of : families)
    for (const std::int64_t pp : {2, 4})
      for (const bool live : {false, true}) {
        CAPTURE(of.name);
        CAPTURE(pp);
        CAPTURE(live);
        const program training = lower(of.make({.pp = pp, .micro = 2 * pp})),
                      evaluation = lower(of.make({.pp = pp, .micro = 2 * pp, .forward_only = true}));
        channel_job j(training);
        j.cluster.live = live;
        j.plan(evaluation), j.plan(training), j.plan(evaluation, 2);
        REQUIRE(j.run([&](std::uint32_t r, cluster_transport& t) {
          run(evaluation, r, j.on_device[r], t);
          run(training, r, j.on_device[r], t);
          run(evaluation, r, j.on_device[r], t, {.steps = 2});
        }) == nothing(training));
        REQUIRE(j.cluster.play() == "");
        CHECK(j.first_race() == "");
        j.require_trained(1);
        CHECK(j.cluster.options.size() == training.channels.size());
        CHECK(j.cluster.closed == static_cast<int>(2 * training.channels.size()));
      }
}

namespace {

// The launch order of a rank with receives as early as it may have them, or one compute action earlier than planned.
std::vector<launch> hurried(const program& p, std::uint32_t rank, bool by_one) {
  std::vector<launch> order = launch_order(p, rank);
  std::uint32_t before = 0;
  for (launch& l : order) {
    std::uint32_t earlier = l.action + 1;
    if (by_one)
      for (std::uint32_t n = earlier; n < l.issue_before; ++n)
        if (!is_message(p.actions[rank][n])) earlier = n;
    if (p.actions[rank][l.action].kind == action_kind::receive) l.issue_before = earlier;
    before = l.issue_before = std::max({before, l.issue_before, l.action + 1});
  }
  return order;
}

}  // namespace

TEST_CASE("channels: a receive that starts before its planned action is seen, in every family") {
  for (const family& of : families)
    for (const std::int64_t pp : {2, 4})
      for (const bool forward_only : {false, true})
        for (const bool by_one : {false, true}) {
          CAPTURE(of.name);
          CAPTURE(pp);
          CAPTURE(forward_only);
          CAPTURE(by_one);
          const program p = lower(of.make({.pp = pp, .micro = 8, .forward_only = forward_only}), {.depth = 4});
          bool earlier = false;  // than the kernels that the plan has before it
          const planned_receives planned(p);
          const auto order = [&](const program& q, std::uint32_t r) { return hurried(q, r, by_one); };
          for (std::uint32_t r = 0; r < p.actions.size(); ++r) {
            const auto own = order(p, r), right = launch_order(p, r);
            for (std::size_t i = 0; i < own.size(); ++i)
              if (p.actions[r][own[i].action].kind == action_kind::receive)
                earlier =
                    earlier || planned.kernels(r, own[i].issue_before) < planned.kernels(r, right[i].issue_before);
          }
          channel_job j(p, 0, 1, {.order = order});
          REQUIRE(j.train(1) == nothing(p));
          REQUIRE(j.cluster.play() == "");
          CHECK(j.first_race() == (earlier ? "a receive before its planned action" : ""));
          CHECK((earlier || p.channels.empty() || forward_only));
        }
}

TEST_CASE("channels: reductions of tied stages go over them, too") {
  for (const char* name : {"1f1b", "zbv", "dualpipe", "interleaved_1f1b"}) {
    CAPTURE(name);
    const schedule s = make_schedule(name, {.pp = 4, .micro = 8});
    const tied_stages tied = {{0, static_cast<std::uint16_t>(s.stages() - 1)}};
    const program p = lower(s, {.tied = tied});
    channel_job j(p, 1);
    j.trainers.clear();
    for (std::uint32_t r = 0; r < 4; ++r) j.trainers.emplace_back(p, r, tied);
    for (std::uint32_t r = 0; r < 4; ++r) j.on_device[r].on_host = &j.trainers[r];
    REQUIRE(j.train(1) == nothing(p));
    REQUIRE(j.cluster.play() == "");
    REQUIRE(j.first_race() == "");
    const auto expected = small_model::on_one_device(s.stages(), s.micro, small_model::orders_of(s), tied);
    for (const auto& t : j.trainers)
      for (std::size_t chunk = 0; chunk < t.stages.size(); ++chunk)
        CHECK(t.layers[chunk].gradient[1][2] ==
              doctest::Approx(expected.layers[t.stages[chunk]].gradient[1][2]).epsilon(1e-12));
  }
}

TEST_CASE("channels: mutants deadlock, race, or compute something else") {
  for (const char* name : {"1f1b", "zbv", "dualpipe", "interleaved_1f1b"}) {
    CAPTURE(name);
    const program p = lower(make_schedule(name, {.pp = 4, .micro = 8}));
    {
      channel_job j(p, 1);
      REQUIRE(j.train(1) == nothing(p));
      j.cluster.hurry_receives();
      const std::string left = j.cluster.play();
      CAPTURE(left);
      CHECK(left.find("device 1: receives message ") != std::string::npos);
      CHECK(left.find(" of pipesched 0 to 1") != std::string::npos);
    }
    for (const bool of_compute : {false, true}) {
      channel_job j(p);
      (of_compute ? j.cluster.drops_waits_of_compute : j.cluster.drops_waits_of_messages) = true;
      REQUIRE(j.train(1) == nothing(p));
      j.cluster.play();
      CHECK(j.first_race() != "");
    }
    int seen = 0, tried = 0;
    for (std::size_t n = 0; n < 30; n += 3, ++tried) {
      channel_job j(p, 1);
      REQUIRE(j.train(1) == nothing(p));
      REQUIRE(j.cluster.swap_messages(1, n));
      seen += j.cluster.play() != "" || j.first_race() != "" || !j.trained();
    }
    CHECK(2 * seen > tried);
  }
}

TEST_CASE("channels: a call that fails, any one, ends all ranks with its cause") {
  int tried = 0;
  for (const char* name : {"zbv", "dualpipe"}) {
    const program p = lower(make_schedule(name, {.pp = 4, .micro = 4}));
    std::int64_t calls = 0;
    {
      channel_job whole(p);
      REQUIRE(whole.train(1) == nothing(p));
      calls = whole.cluster.calls;
    }
    for (std::int64_t at = 0; at < calls - 60; at += 7, ++tried) {
      CAPTURE(name);
      CAPTURE(at);
      channel_job j(p, 0, 1,
                    {.time_limit = std::chrono::seconds(1),
                     .start_limit = std::chrono::seconds(1),
                     .abort_limit = std::chrono::seconds(2)});
      j.cluster.fails_at = at;
      const auto said = j.train(1);
      if (j.cluster.failed_call.empty()) continue;  // fewer calls this time: watchdogs ask when they like
      const bool while_closing = j.cluster.failed_call == "libCommDestroy";
      int told = 0;
      for (const std::string& text : said) {
        CAPTURE(text);
        told += !text.empty();
        CHECK((text.empty() || text.find("made to fail") != std::string::npos));
      }
      CAPTURE(j.cluster.failed_call);
      // A watchdog's call may fail at the very end, where it concerns no rank.
      const bool by_watchdog = std::count(j.own_threads.begin(), j.own_threads.end(), j.cluster.failed_on) == 0;
      CHECK((told > 0 || while_closing || by_watchdog));
    }
  }
  CHECK(tried > 60);
}

TEST_CASE(
    "channels: a trainer that throws, a rank that leaves or stalls, an error of the library end all with the cause") {
  const program p = lower(make_dualpipev_schedule({.pp = 4, .micro = 8}));
  // Nothing takes that long, however busy the machine is.
  const std::chrono::duration<double> long_limit(20), short_limit(0.5);
  const auto ends = [&](std::chrono::duration<double> limit, auto&& prepare, auto&& body) {
    channel_job j(p, 0, 1, {.time_limit = limit, .start_limit = limit, .abort_limit = std::chrono::seconds(2)});
    j.cluster.live = true;
    prepare(j);
    const auto said = j.run([&](std::uint32_t r, cluster_transport& t) { body(j, r, t); });
    CHECK(j.cluster.left() == 0);  // nothing touches the trainers' memory any more
    return said;
  };
  const auto trains = [&](channel_job& j, std::uint32_t r, cluster_transport& t) {
    run(p, r, j.on_device[r], t, {.steps = 2});
  };

  std::vector<std::string> said;
  for (const bool breaks : {false, true}) {
    said = ends(
        long_limit,
        [&](channel_job& j) {
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
      long_limit, [](channel_job&) {},
      [&](channel_job& j, std::uint32_t r, cluster_transport& t) {
        if (r != 1) return static_cast<void>(run(p, r, j.on_device[r], t));
        t.select_device();
        t.prepare(p, memory_of(p, r, j.on_device[r]));
        t.on_action(0);  // and leaves
      });
  CHECK(said[1] == "");
  CHECK(
      said[0].find(
          "aborted: rank 1 at the receive of activation 0F0: it left before the end of its step\nthis is rank 0 at ") ==
      0);

  // A rank that stalls in its first step: the others report where they are, and what they wait for.
  said = ends(
      short_limit, [](channel_job&) {},
      [&](channel_job& j, std::uint32_t r, cluster_transport& t) {
        if (r != 1) return static_cast<void>(run(p, r, j.on_device[r], t));
        t.select_device();
        t.prepare(p, memory_of(p, r, j.on_device[r]));
        t.on_action(0);
        while (!t.aborted()) std::this_thread::yield();
        t.on_action(1);
      });
  CAPTURE(said[0]);
  CHECK(said[0].find("aborted: rank ") == 0);
  CHECK(said[0].find("nothing moved within the time limit\nrank 0 at ") != std::string::npos);
  CHECK(said[0].find("which waits for activation ") != std::string::npos);
  CHECK(said[1] == said[0]);

  // A callback that does not come back while the others wait.
  said = ends(
      short_limit,
      [](channel_job& j) {
        j.on_device[3].fails = [&j](op o) {
          if (o.micro == 2) j.wait_for_the_others();
        };
      },
      trains);
  CAPTURE(said[1]);
  CHECK(said[1].find("nothing moved within the time limit") != std::string::npos);

  said = ends(
      long_limit,
      [](channel_job& j) {
        j.on_device[0].fails = [&j](op o) {
          if (o.micro != 4) return;
          j.cluster.break_communicators("pipesched 1 to 2");
          j.wait_for_the_others();
        };
      },
      trains);
  CAPTURE(said[0]);
  CHECK(said[0].find("aborted: rank ") == 0);
  CHECK(said[0].find("messages from rank 1 to rank 2: made to fail (lib 3)") != std::string::npos);

  // A call of the library that never returns.
  for (const char* call : {"CommInitRank", "Send", "Recv"})
    for (const int after : {2, 9}) {
      said = ends(
          short_limit,
          [&](channel_job& j) {
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

TEST_CASE("channels: a rank between steps may take longer than the time limit, in which the others wait") {
  struct slow {
    cluster_trainer of;
    std::string where;
    bool slow_next = false;
    void reach(std::string_view hook) {  // slow once
      if (where != hook) return;
      where.clear(), slow_next = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(2'500));
    }
    void begin_step(std::size_t) { reach("begin_step"); }
    void end_step(std::size_t) { reach("end_step"); }
    void forward(task t) {
      if (std::exchange(slow_next, false)) std::this_thread::sleep_for(std::chrono::milliseconds(500));
      of.forward(t);
    }
    void backward(task t) { of.backward(t); }
    std::span<std::byte> buffer(tensor_id message, std::uint32_t n) { return of.buffer(message, n); }
  };
  const program p = lower(make_1f1b_schedule({.pp = 3, .micro = 4}));
  for (const char* where : {"begin_step", "end_step", "between runs"}) {
    CAPTURE(where);
    channel_job j(p, 0, 1, {.time_limit = std::chrono::milliseconds(1'000)});
    j.cluster.live = true;
    REQUIRE(j.run([&](std::uint32_t r, cluster_transport& t) {
      slow own{j.on_device[r], r == 1 ? where : ""};
      run(p, r, own, t);
      own.reach("between runs");
      run(p, r, own, t, {.steps = 2});
    }) == nothing(p));
    j.require_trained(2);
  }
}

TEST_CASE("channels: a rank that does not come back between its steps ends the others after the pause limit") {
  struct lost {
    cluster_trainer of;
    std::function<void(std::size_t)> in_end_step;
    void end_step(std::size_t step) { in_end_step(step); }
    void forward(task t) { of.forward(t); }
    void backward(task t) { of.backward(t); }
    std::span<std::byte> buffer(tensor_id message, std::uint32_t n) { return of.buffer(message, n); }
  };
  const program p = lower(make_1f1b_schedule({.pp = 3, .micro = 4}));
  const auto limit = std::chrono::milliseconds(400);
  channel_job j(p, 0, 1, {.time_limit = limit, .pause_limit = limit});
  j.cluster.live = true;
  const auto said = j.run([&](std::uint32_t r, cluster_transport& t) {
    lost own{j.on_device[r], [&, r](std::size_t step) {
               if (r == 1 && step == 0) j.wait_for_the_others();
             }};
    run(p, r, own, t, {.steps = 2});
  });
  for (const std::string& text : said)
    CHECK(text.find("a rank has not come back between its steps within the pause limit") != std::string::npos);
}

TEST_CASE("channels: one without messages moves nothing") {
  program p = lower(make_1f1b_schedule({.pp = 4, .micro = 4}));
  p.channels.push_back({.from = 0, .to = 3});
  REQUIRE(verify(p));
  channel_job j(p);
  REQUIRE(j.train(1) == nothing(p));
  REQUIRE(j.cluster.play() == "");
  j.require_trained(1);
}

TEST_CASE("channels: a job that cannot be is refused") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4})),
                other = lower(make_1f1b_schedule({.pp = 2, .micro = 5}));
  struct refused {
    int ranks = 2;
    channel_transport_options options{};
    bool differ = false, short_buffer = false;
  };
  const auto refusals = [&](const refused& of) {
    fake_cluster cluster;
    thread_job jobs(static_cast<std::uint32_t>(of.ranks));
    std::vector<std::string> said(static_cast<std::size_t>(of.ranks));
    std::vector<std::jthread> threads;
    for (int r = 0; r < of.ranks; ++r)
      threads.emplace_back([&, r] {
        thread_coordinator control(jobs, static_cast<std::uint32_t>(r));
        try {
          fake_cluster::stream s{};
          cluster.make_stream(r, 0, s);
          cluster_transport t({&cluster}, {&cluster}, {r, s}, control, of.options);
          const program& own = of.differ && r == 1 ? other : p;
          small_model::trainer on_host(own, std::min(t.rank(), 1u));
          if (of.short_buffer && r == 1) on_host.short_buffer = 0;
          cluster_trainer trainer{&on_host, &cluster, s, nullptr, {}};
          run(own, t.rank(), trainer, t);
        } catch (const std::exception& e) {
          said[static_cast<std::size_t>(r)] = e.what();
          control.report_failure(e.what());
        }
      });
    threads.clear();
    return said;
  };
  CHECK(refusals({.ranks = 3})[2] == "a program of 2 ranks has ranks 0 to 1; got rank 2, nearest 1");
  CHECK(refusals({.options = {.processes = {0, 2}}})[0] == "a pipeline has processes 0 to 1, each at most once; got 2");
  CHECK(refusals({.options = {.processes = {1}}})[0] == "process 0 is not among the processes of this pipeline");
  CHECK(refusals({.options = {.processes = {1}}})[1] == "a program of 2 ranks needs as many processes; got 1");
  CHECK(refusals({.options = {.processes = {1, 0, 1}}})[0] == "a program of 2 ranks needs as many processes; got 3");
  const auto differ = refusals({.differ = true});
  CHECK((differ[0] + differ[1]).find("the ranks of a job run one program; rank ") != std::string::npos);
  const auto shorter = refusals({.short_buffer = true});
  CHECK((shorter[0] + shorter[1]).find("message 0 from rank 0 has 32 bytes at its sender and 8 at its receiver") !=
        std::string::npos);
  for (const bool each : {false, true}) {
    channel_transport_options crossed{.channel = {.min_ctas = 8, .max_ctas = 4}};
    if (each) crossed = {.channel_of = [](const channel&) { return channel_options{.min_ctas = 8, .max_ctas = 4}; }};
    CHECK(refusals({.options = crossed})[0].find(
              "min_ctas of the channel from rank 0 to rank 1 is at most max_ctas, which is 4; got 8") !=
          std::string::npos);
  }
  CHECK(refusals({.options = {.channel = {.max_ctas = -1}}})[1].find(
            "min_ctas and max_ctas of the channel from rank 0 to rank 1 are at least 0 (the library chooses); got 0 "
            "and -1") != std::string::npos);
  CHECK(refusals({.options = {.channel = {.min_ctas = 2}}})[0] == "");
  CHECK(refusals({.options = {.time_limit = std::chrono::seconds(-1)}})[0] ==
        "a time limit is above 0 and at most 1e9 seconds; got -1");
}

TEST_CASE(
    "channels: a launch order of the user's own is taken if it fits the rank, and refused in one sentence if not") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4}));
  // Rank 1 receives an activation and sends a gradient for each micro-batch.
  const auto refusal = [&](auto&& change) {
    channel_transport_options options{.time_limit = std::chrono::seconds(20)};
    options.order = [&](const program& of, std::uint32_t rank) {
      std::vector<launch> order = launch_order(of, rank);
      if (rank == 1) change(order);
      return order;
    };
    channel_job j(p, 1, 1, options);
    return j.train(1)[1];
  };
  const auto is_send = [&](const launch& l) { return p.actions[1][l.action].kind == action_kind::send; };
  const std::string begin = "the launch order of rank 1 ", end = "; launch_order(program, rank) returns one that fits";
  CHECK(refusal([](auto&) {}) == "");
  CHECK(refusal([](auto& order) { order.pop_back(); }) == begin + "has 7 launches for 8 messages" + end);
  CHECK(refusal([](auto& order) { order.clear(); }) == begin + "has 0 launches for 8 messages" + end);
  CHECK(refusal([](auto& order) { order[0].action = 99; }) == begin + "names action 99, which is not a message" + end);
  CHECK(refusal([&](auto& order) {
          for (std::uint32_t n = 0; n < p.actions[1].size(); ++n)
            if (p.actions[1][n].kind == action_kind::compute) order[0].action = n;
        }).find(", which is not a message; ") != std::string::npos);
  CHECK(refusal([](auto& order) { order[1] = order[0]; }) ==
        begin + "has activation 0F0 from rank 0 twice, or after a later message of its channel" + end);
  for (const bool sends : {false, true})
    CHECK(refusal([&](auto& order) {
            const auto of_channel = [&](const launch& l) { return is_send(l) == sends; };
            const auto first = std::ranges::find_if(order, of_channel);
            std::swap(first->action, std::find_if(first + 1, order.end(), of_channel)->action);
          })
              .find(begin +
                    (sends ? "starts gradient 1B1 to rank 0 before action "
                           : "has activation 0F0 from rank 0 twice, or after a later message of its channel")) == 0);
  CHECK(refusal([](auto& order) { order[0].issue_before = 0; }) ==
        detail::concat(
            {begin, "starts activation 0F0 from rank 0 before action 0, not 1 to ", p.actions[1].size(), end}));
  CHECK(refusal([&](auto& order) { order.back().issue_before = 99; }).find(" before action 99, not ") !=
        std::string::npos);
  CHECK(refusal([&](auto& order) {
          for (launch& l : order) l.issue_before = static_cast<std::uint32_t>(p.actions[1].size());
        }).find("starts activation 0F0 from rank 0 before action ") != std::string::npos);
  CHECK(refusal([&](auto& order) {
          order[0].issue_before = order[1].issue_before + 1;
        }).find("the launch order of rank 1 starts ") == 0);
}

TEST_CASE("channels: two pipelines share a job with a process in none, each with its own processes") {
  const program p = lower(make_dualpipe_schedule({.pp = 2, .micro = 4}));
  const std::vector<std::vector<std::uint32_t>> processes = {{4, 1}, {0, 3}};
  fake_cluster cluster(1);
  thread_job jobs(5);
  std::vector<small_model::trainer> trainers;
  for (const int pipeline : {0, 1})
    for (const std::uint32_t r : {0u, 1u}) static_cast<void>(pipeline), trainers.emplace_back(p, r);
  std::vector<std::string> said(5);
  {
    std::vector<std::jthread> threads;
    for (int process = 0; process < 5; ++process)
      threads.emplace_back([&, process] {
        thread_coordinator control(jobs, static_cast<std::uint32_t>(process));
        try {
          if (process == 2) {  // in no pipeline
            control.exchange({});
            control.exchange({});  // for the recorded step
            return;
          }
          const std::size_t pipeline = process == 4 || process == 1 ? 0 : 1;
          fake_cluster::stream s{};
          cluster.make_stream(process, 0, s);
          side_stream<cluster_runtime> side({&cluster}, process);
          cluster_transport t({&cluster}, {&cluster}, {process, s}, control, {.processes = processes[pipeline]});
          cluster_trainer trainer{&trainers[2 * pipeline + t.rank()], &cluster, s, &side, {}};
          run(p, t.rank(), trainer, t, {.record = true});
        } catch (const std::exception& e) {
          said[static_cast<std::size_t>(process)] = e.what();
        }
      });
  }
  CHECK(said == std::vector<std::string>(5));
  CHECK(cluster.play() == "");
  CHECK(cluster.races.empty());
  const auto expected =
      small_model::on_one_device(p.schedule.stages(), p.schedule.micro, small_model::orders_of(p.schedule));
  for (const auto& t : trainers)
    for (std::size_t chunk = 0; chunk < t.stages.size(); ++chunk)
      CHECK(t.layers[chunk].gradient == expected.layers[t.stages[chunk]].gradient);
}

TEST_CASE(
    "channels: ending never waits without a bound: aborts that hang, kernels that never end, callbacks that hang") {
  const program p = lower(make_dualpipev_schedule({.pp = 4, .micro = 8}));
  std::atomic<int> calls = 0, resorts = 0;
  std::mutex mutex;
  std::string last;
  std::atomic<bool> rank_hangs = false;
  std::atomic<bool>& callback_hangs =
      *new std::atomic<bool>(false);  // leaked: read until the callback's thread has ended
  channel_transport_options options{.time_limit = std::chrono::seconds(20),
                                    .abort_limit = std::chrono::milliseconds(200),
                                    .on_failure =
                                        [&](const std::string& cause) {
                                          ++calls;
                                          CHECK(cause.find("rank 2 at 2F3: not a number") != std::string::npos);
                                          while (callback_hangs) std::this_thread::yield();
                                        },
                                    .last_resort =
                                        [&](const std::string& text) {
                                          ++resorts;
                                          {
                                            const std::lock_guard lock(mutex);
                                            last = text;
                                          }
                                          rank_hangs = false;
                                        }};
  for (const char* what : {"nothing hangs", "aborts hang", "kernels hang", "the callback hangs", "a rank hangs"}) {
    CAPTURE(what);
    calls = resorts = 0;
    static std::deque<channel_job>& jobs = *new std::deque<channel_job>;  // never destroyed: threads that hang use them
    channel_job& j = jobs.emplace_back(p, 0, 1, options);
    j.cluster.live = true;
    j.on_device[2].fails = [&](op o) {
      if (o.micro != 3) return;
      j.cluster.aborts_hang = what == std::string("aborts hang");
      if (what == std::string("kernels hang")) j.cluster.hangs_on = 2;
      callback_hangs = what == std::string("the callback hangs");
      throw std::domain_error("not a number");
    };
    rank_hangs = what == std::string("a rank hangs");
    j.on_device[1].fails = [&](op o) {
      while (o.micro == 2 && rank_hangs) std::this_thread::yield();
    };
    const bool hangs_rank = rank_hangs;
    const auto start = std::chrono::steady_clock::now();
    const auto said = j.run([&](std::uint32_t r, cluster_transport& t) { run(p, r, j.on_device[r], t); });
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(10));
    CHECK(said[2] == "rank 2 at 2F3: not a number");
    CHECK(said[0].find("aborted: rank 2 at 2F3: not a number\nthis is rank 0 at ") == 0);
    CHECK(calls == 4);  // once a rank
    CHECK(resorts == (j.cluster.aborts_hang || callback_hangs ? 4 : hangs_rank ? 1 : 0));
    if (hangs_rank) {
      CHECK(last.find("rank 1 at ") == 0);
      CHECK(last.find(" has not returned within 0.2 seconds after a failure; ending the process: ") !=
            std::string::npos);
    }
    if (j.cluster.aborts_hang)
      CHECK(last.find("its messages have not ended within 0.2 seconds after a failure; ending the process: ") == 0);
    if (callback_hangs) CHECK(last.find("on_failure() has not returned within 0.2 seconds") == 0);
    callback_hangs = false, j.cluster.aborts_hang = false, j.cluster.hangs_on = -1;
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // until the callbacks have returned
}

TEST_CASE("channels: a channel that does not close, and whose abort hangs, ends the process within the abort limit") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4}));
  std::mutex mutex;
  std::string texts;
  const auto last_resort = [&](const std::string& text) {
    const std::lock_guard lock(mutex);
    texts += text;
  };
  static channel_job& j =
      *new channel_job(p, 0, 1, {.abort_limit = std::chrono::milliseconds(200), .last_resort = last_resort});
  j.cluster.live = true, j.cluster.aborts_hang = true;
  j.cluster.hangs_in = "CommDestroy";
  const auto start = std::chrono::steady_clock::now();
  j.train(2);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(10));
  CHECK(texts.find("its channels have not closed within 0.2 seconds after a failure; ending the process: rank ") !=
        std::string::npos);
  CHECK(texts.find(" at its end: its channels do not close") != std::string::npos);
  j.cluster.aborts_hang = false;
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // until the aborts have returned
}

namespace {

// Messages that are nothing but reads and writes of memory, on a device that knows what must not be captured.
struct lone_library {
  enum status : int { ok };
  using communicator = int;
  static constexpr std::string_view prefix = "lone";

  fake_device* device = nullptr;
  std::string why_no_capture{};
  std::atomic<bool>* captures = nullptr;  // an abort waits as long as a graph is there

  static bool succeeded(status) { return true; }
  static std::string text(status) { return {}; }
  static status make_id(std::string&) { return ok; }
  static status connect(const std::string&, int, const channel_options&, const std::string&, communicator& made,
                        const std::function<bool()>&) {
    return made = 1, ok;
  }
  static status state(communicator) { return ok; }
  status send(communicator, const void* from, std::size_t size, fake_device::stream s) {
    return device->kernel(s, {{from, size}}, {}, [] {}), ok;
  }
  status receive(communicator, void* into, std::size_t size, fake_device::stream s) {
    return device->kernel(s, {}, {{into, size}}, [] {}), ok;
  }
  static status register_memory(communicator, void*, std::size_t, void*&) { return ok; }
  static status deregister_memory(communicator, void*) { return ok; }
  static void close(communicator) {}
  void abort(communicator) const {
    while (captures != nullptr && *captures) std::this_thread::yield();
  }
  std::string refuses_capture() const { return why_no_capture; }
};

using lone_transport = channel_transport<fake_runtime, lone_library>;

// Rank 1 of a program without the others: what they would tell of their channels follows from what it tells of its own.
struct lone_coordinator : thread_coordinator {
  lone_coordinator(thread_job& all, const program& of) : thread_coordinator(all, 0), p(of) {}
  std::vector<parcel> exchange(std::span<const parcel>) override {
    std::vector<parcel> received;
    for (std::uint32_t c = 0; c < p.channels.size(); ++c) {
      if (p.channels[c].to != 1) continue;
      std::vector<std::uint64_t> facts{fingerprint(p)};
      for (const action& a : p.actions[1])
        if (a.kind == action_kind::receive && a.channel == c)
          facts.push_back(is_weight_gradient(a) ? sizeof(small_model::matrix) : sizeof(small_model::vector));
      received.push_back(
          {p.channels[c].from, {reinterpret_cast<const char*>(facts.data()), facts.size() * sizeof facts[0]}});
    }
    return received;
  }
  std::uint32_t rank() const override { return 1; }
  std::uint32_t size() const override { return p.schedule.pp(); }
  const program& p;
};

struct lone_rank {
  explicit lone_rank(const program& of) : p(of), on_host(of, 1), side(fake_runtime{&device}) {
    device.make_stream(0, trainer.stream);
  }
  lone_library library(const std::string& why_no_capture = "", std::atomic<bool>* captures = nullptr) {
    return {&device, why_no_capture, captures};
  }
  lone_transport transport(lone_library by, const channel_transport_options& options = {}) {
    return {{&device}, std::move(by), {0, trainer.stream}, control, options};
  }

  const program& p;
  fake_device device;
  thread_job jobs{1};
  lone_coordinator control{jobs, p};
  small_model::trainer on_host;
  side_stream<fake_runtime> side;
  stream_trainer<fake_device, side_stream<fake_runtime>> trainer{&on_host, &device, {}, &side, {}};
};

}  // namespace

TEST_CASE("channels: a rank captures its step alone, and calls nothing forbidden; what cannot be captured is refused") {
  for (const family& of : families) {
    CAPTURE(of.name);
    const program p = lower(of.make({.pp = 4, .micro = 8}));
    const auto refusal = [&](const run_options& options, const std::string& why) {
      lone_rank refused(p);  // whose job has failed then
      return refusal_of([&] {
        lone_transport t = refused.transport(refused.library(why));
        run(p, 1, refused.trainer, t, options);
      });
    };
    CHECK(refusal({.steps = 2, .record = true, .graph = true}, "") ==
          "the cells of a graph cannot be measured; record a step without one");
    CHECK(refusal({.steps = 2, .graph = true}, "it is too old") == "no graph: it is too old");

    lone_rank alone(p);
    lone_transport t = alone.transport(alone.library());
    run(p, 1, alone.trainer, t, {.steps = 4, .graph = true});
    run(p, 1, alone.trainer, t);  // and not captured, again
    REQUIRE(alone.device.races.empty());
    REQUIRE(alone.device.launches == 3);
  }
}

TEST_CASE("channels: a connection that is made after a failure is aborted") {
  struct late_library : lone_library {
    lone_coordinator* job = nullptr;
    std::atomic<int>*made_late = nullptr, *aborts = nullptr;
    status connect(const std::string&, int, const channel_options&, const std::string&, communicator& made,
                   const std::function<bool()>& goes_on) const {
      job->report_failure("rank 0 at 0F0: no memory");
      while (goes_on()) std::this_thread::yield();
      return ++*made_late, made = 1, ok;
    }
    void abort(communicator) const { ++*aborts; }
  };
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4}));
  std::atomic<int> made_late = 0, aborts = 0;
  lone_rank alone(p);
  {
    late_library late{alone.library()};
    late.job = &alone.control, late.made_late = &made_late, late.aborts = &aborts;
    channel_transport<fake_runtime, late_library> t({&alone.device}, late, {0, alone.trainer.stream}, alone.control);
    CHECK_THROWS_WITH_AS(run(p, 1, alone.trainer, t), "aborted: rank 0 at 0F0: no memory\nthis is rank 1 at its start",
                         pipeline_aborted);
  }
  CHECK(made_late == 1);
  CHECK(aborts == 1);
}

TEST_CASE("channels: an abort that waits for the rank's graph does not keep the rank from ending it") {
  const program p = lower(make_dualpipe_schedule({.pp = 4, .micro = 8}));
  for (int i = 0; i < 5; ++i) {
    lone_rank alone(p);
    std::atomic<bool> captures = false;
    lone_transport t = alone.transport(alone.library("", &captures), {.time_limit = std::chrono::milliseconds(500)});
    std::size_t ops_left = 5;  // until in the second step, which is captured
    for (const cell& c : p.schedule[1]) ops_left += c.size();
    alone.trainer.fails = [&](op) {
      if (--ops_left == 0) captures = true;
    };
    std::jthread other([&] {
      while (!captures) std::this_thread::yield();
      std::this_thread::sleep_for(std::chrono::milliseconds(i));
      alone.control.report_failure("another rank threw");
    });
    CHECK_THROWS_AS(run(p, 1, alone.trainer, t, {.steps = 1'000'000, .graph = true}), pipeline_aborted);
    captures = false;
    CHECK(t.cause().find("another rank threw\nthis is rank 1 at ") == 0);
  }
}

TEST_CASE("channels: a replayed graph is seen moving, and a stall in it is reported with its message") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4}));
  lone_rank alone(p);
  const std::uint32_t channels = static_cast<std::uint32_t>(p.channels.size());
  REQUIRE(channels == 2);
  detail::channel_progress<fake_runtime> progress({&alone.device}, 1);
  alone.device.set_device(0);
  progress.prepare(p, launch_order(p, 1), 0, [] { return std::string(); });
  progress.at(static_cast<std::uint32_t>(p.actions[1].size()));
  progress.begin(static_cast<std::uint32_t>(progress.launches().size()));
  const auto start = progress.now();
  CHECK(progress.device_place() == "rank 1 at 1F0, which waits for activation 0F0 from rank 0");
  for (std::uint32_t i = 0; i < progress.launches().size(); ++i) {  // as the device does
    const std::uint32_t c = p.actions[1][progress.launches()[i].action].channel;
    *progress.counter(c) = progress.number(i) + 1;
    CHECK(!(progress.now() == start));
  }
  CHECK(progress.device_place() == "rank 1 at its end");
}

TEST_CASE("channels: the watchdog calls nothing of the device, and so needs none") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4}));
  channel_job j(p, 0, 1, {.time_limit = std::chrono::seconds(20)});
  j.cluster.live = true;
  j.on_device[1].fails = [](op o) {
    if (o.micro == 2) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  };
  CHECK(j.train(2) == nothing(p));
  CHECK(j.first_race() == "");
}

TEST_CASE("channels: every channel has its own limits and priority") {
  const program p = lower(make_1f1b_schedule({.pp = 3, .micro = 4}));
  channel_job j(p, 0, 1, {.channel_of = [](const channel& c) {
                  return channel_options{.stream_priority = -c.from, .min_ctas = 1, .max_ctas = c.from < c.to ? 4 : 2};
                }});
  REQUIRE(j.train(1) == nothing(p));
  CHECK(j.cluster.options.size() == 4);
  CHECK(j.cluster.options.at("pipesched 1 to 2").max_ctas == 4);
  CHECK(j.cluster.options.at("pipesched 1 to 0").max_ctas == 2);
  CHECK(j.cluster.options.at("pipesched 2 to 1").min_ctas == 1);
  for (const int rank : {1, 2})  // two channels from rank 1, one from rank 2; each has a stream on either side
    CHECK(std::count(j.cluster.priorities.begin(), j.cluster.priorities.end(), -rank) == (rank == 1 ? 4 : 2));

  channel_job all(p, 0, 1, {.channel = {.stream_priority = -7, .max_ctas = 3}});
  REQUIRE(all.train(1) == nothing(p));
  CHECK(all.cluster.options.at("pipesched 2 to 1").max_ctas == 3);
  CHECK(std::count(all.cluster.priorities.begin(), all.cluster.priorities.end(), -7) == 8);
}

TEST_CASE("channels: a handful of colors is enough for the channels, whatever the number of ranks") {
  for (const family& of : families)
    for (const std::int64_t pp : {2, 8, 64}) {
      const program p = lower(of.make({.pp = pp, .micro = 2 * pp}));
      const auto colors = detail::color_channels(p);
      REQUIRE((colors.empty() || *std::max_element(colors.begin(), colors.end()) < 7));
      for (std::size_t a = 0; a < colors.size(); ++a)
        for (std::size_t b = a + 1; b < colors.size(); ++b)
          if (colors[a] == colors[b])
            REQUIRE((p.channels[a].from != p.channels[b].from && p.channels[a].from != p.channels[b].to &&
                     p.channels[a].to != p.channels[b].from && p.channels[a].to != p.channels[b].to));
    }
}
