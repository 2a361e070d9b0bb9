// SPDX-License-Identifier: MIT
// Over peers, a call, device, rank, trainer or message that fails ends all ranks with the first cause, and leaves no work in
// streams.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "pipesched/device/peer_transport.hpp"
#include "pipesched/execute/run.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"
#include "support/fake_cluster.hpp"
#include "support/fake_device.hpp"
#include "support/families.hpp"
#include "support/peer_machine.hpp"
#include "support/place_to_fail.hpp"
#include "support/slow_hooks.hpp"
#include "support/stream_trainer.hpp"
#include "support/tanh_model.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

using fake_transport = peer_transport<fake_runtime>;
using std::chrono::steady_clock;

bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }
bool begins(const std::string& text, std::string_view part) { return text.rfind(part, 0) == 0; }

// The exception of each rank, each in a thread. `run_rank(rank, transport)` is called there.
template <typename Machine, typename Run>
std::vector<std::exception_ptr> ends_of(Machine& m, Run&& run_rank) {
  std::vector<std::exception_ptr> ends(m.p.schedule.pp());
  std::vector<std::jthread> threads;
  for (std::uint32_t rank = 0; rank < ends.size(); ++rank)
    threads.emplace_back([&, rank] {
      try {
        typename Machine::transport_type transport(*m.world, rank);
        run_rank(rank, transport);
      } catch (...) {
        ends[rank] = std::current_exception();
      }
    });
  threads.clear();  // joins
  return ends;
}

// The text of an exception of type E; empty without one.
template <typename E>
std::string text_of(const std::exception_ptr& thrown) {
  if (!thrown) return {};
  try {
    std::rethrow_exception(thrown);
  } catch (const E& e) {
    return e.what();
  } catch (const std::exception& e) {
    return detail::concat({"of another type: ", e.what()});
  }
}
template <typename E, typename F>
std::string text_by(F&& f) {
  try {
    f();
  } catch (...) {
    return text_of<E>(std::current_exception());
  }
  return {};
}

// Every rank has ended: `culprit` with the cause, and all that needed something of it with "aborted by", its place and the
// cause. Returns how many these are.
int require_ended(const std::vector<std::exception_ptr>& ends, std::uint32_t culprit, const std::string& cause) {
  int heard = 0;
  for (std::uint32_t rank = 0; rank < ends.size(); ++rank) {
    if (rank == culprit || !ends[rank]) continue;
    const std::string text = text_of<pipeline_aborted>(ends[rank]);
    CAPTURE(text);
    CHECK(begins(text, detail::concat({"aborted by rank ", culprit, " at "})));
    CHECK(text.size() >= cause.size());
    CHECK(text.substr(text.size() - std::min(text.size(), cause.size())) == cause);
    ++heard;
  }
  return heard;
}

}  // namespace

TEST_CASE("peers: a call that fails, any one of a step, ends all ranks with its name, status, rank and op") {
  int tried = 0, heard = 0, with_op = 0;
  for (const char* name : {"1f1b", "zbv", "dualpipe"}) {
    const program p = lower(make_schedule(name, {.pp = 4, .micro = 4}));
    const auto fails_at = [&](std::int64_t at) {
      auto m = std::make_unique<peer_machine<>>(p);
      m->world->prepare(p);
      m->device.reset_counts();
      m->device.fails_at = at;
      const auto ends = ends_of(*m, [&](std::uint32_t rank, fake_transport& transport) {
        run(p, rank, m->on_device[rank], transport, {.record = true});
      });
      if (at >= 0) {
        REQUIRE(m->world->aborted());
        const std::uint32_t culprit = m->world->culprit();
        REQUIRE(ends[culprit]);
        try {
          std::rethrow_exception(ends[culprit]);
        } catch (const device_error& e) {
          CHECK(e.status == fake_device::made_to_fail);
          CHECK(e.call == m->device.failed_call);
          CHECK(begins(e.what(),
                       detail::concat({m->device.failed_call, ": made to fail (700), rank ", culprit, " at "})));
          with_op += !has(e.what(), "at its start") && !has(e.what(), "at its end");
          heard += require_ended(ends, culprit, e.what());
        }
      }
      return m->device.calls;
    };
    const std::int64_t calls = fails_at(-1);
    for (std::int64_t at = 0; at < calls; ++at, ++tried) {
      CAPTURE(name);
      CAPTURE(at);
      fails_at(at);
    }
  }
  CHECK(tried > 1000);
  CHECK(heard > tried);
  CHECK(with_op > tried / 2);
}

TEST_CASE(
    "peers: a call that fails, any one of run_all(), ends it, by threads, by one thread and in capture and replay") {
  const program p = lower(make_zbv_schedule({.pp = 2, .micro = 4}));
  for (const run_options& options :
       {run_options{}, run_options{.record = true, .one_thread = true}, run_options{.steps = 4, .graph = true}}) {
    int tried = 0;
    std::array<int, 3> kinds{};  // of a rank, of a capture, of a replay
    const auto fails_at = [&](std::int64_t at) {
      peer_machine<fake_runtime, descending_on_device> m(p);
      m.world->prepare(p);
      m.device.reset_counts();
      m.device.fails_at = at;
      std::string text;
      try {
        m.run(options);
      } catch (const device_error& e) {
        text = e.what();
        CHECK(e.status == fake_device::made_to_fail);
        CHECK(e.call == m.device.failed_call);
      }
      CHECK(m.first_race() == "");
      if (at < 0) {
        CHECK(text == "");
        return m.device.calls;
      }
      const std::string failure = m.device.failed_call + ": made to fail (700), ";
      CAPTURE(text);
      CHECK(begins(text, failure));
      const bool of_rank = begins(text, failure + "rank "), of_capture = text == failure + "capturing a step",
                 of_replay = text == failure + "replaying a step";
      CHECK(of_rank + of_capture + of_replay == 1);
      ++kinds[of_rank ? 0 : of_capture ? 1 : 2], ++tried;
      const auto start = steady_clock::now();
      const std::string later = text_by<pipeline_aborted>([&] { m.world->prepare(p); });
      CAPTURE(later);
      CHECK(begins(later, "aborted by rank "));
      CHECK(has(later, ": " + text));
      CHECK(steady_clock::now() - start < std::chrono::milliseconds(500));
      return std::int64_t{0};
    };
    const std::int64_t calls = fails_at(-1);
    for (std::int64_t at = 0; at < calls; ++at) {
      CAPTURE(at);
      fails_at(at);
    }
    CHECK(tried == calls);
    CHECK(kinds[0] > 100);
    // 2 events, the capture's begin and end, a record and a wait at either side; the same and the launch three times.
    CHECK(kinds[1] == (options.graph ? 2 + 2 + 4 : 0));
    CHECK(kinds[2] == (options.graph ? 3 * 5 : 0));
  }
}

TEST_CASE("peers: a call that fails while streams and events are made is named, and the next attempt succeeds") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4})),
                other = lower(make_1f1b_schedule({.pp = 2, .micro = 4, .forward_only = true}));
  std::int64_t calls = 0;
  for (std::int64_t at = -1; at < calls; ++at) {
    CAPTURE(at);
    fake_device device;
    std::vector<device_rank<fake_runtime>> ranks(2);
    for (auto& r : ranks) device.make_stream(0, r.compute);
    ranks[1].device = 1;
    device.reset_counts();
    device.fails_at = at;
    std::string text;
    const auto attempt = [&](auto&& make) {
      try {
        make();
      } catch (const device_error& e) {
        text = e.what();
        CHECK(begins(text, device.failed_call + ": made to fail (700), making the "));
      }
    };
    std::unique_ptr<peer_world<fake_runtime>> world;
    attempt([&] { world = std::make_unique<peer_world<fake_runtime>>(fake_runtime{&device}, ranks); });
    CHECK((world != nullptr || (at >= 0 && at < 2)));  // an event per rank
    if (world == nullptr) continue;
    attempt([&] { world->prepare(p); });
    CHECK((text != "") == (at >= 0));
    if (at < 0) calls = device.calls;
    if (at < 0 || device.calls == 0) continue;
    // The next attempt keeps earlier streams and events; a program that needs none of them can fail, too, and be waited for.
    CHECK_NOTHROW(world->prepare(p));
    CHECK_NOTHROW(world->prepare(other));
    world->drain();
  }
  CHECK(calls > 15);
}

TEST_CASE("peers: a channel that could not be made does not hinder the wait for what a later program has left") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4})),
                forward = lower(make_1f1b_schedule({.pp = 2, .micro = 4, .forward_only = true}));
  for (std::int64_t at = 0; at < 100; ++at) {
    CAPTURE(at);
    peer_machine m(p);
    m.device.reset_counts();
    m.device.fails_at = at;
    const std::string failed = text_by<device_error>([&] { m.world->prepare(p); });
    m.device.fails_at = -1;
    m.on_device[1].fails = [](op) { throw std::domain_error("no memory"); };
    CHECK(text_by<trainer_error>([&] { run_all(forward, m.on_device, *m.world); }) == "rank 1 at 1F0: no memory");
    CHECK(m.first_race() == "");
    if (failed.empty()) break;
    CHECK(at < 99);
  }
}

TEST_CASE(
    "peers: an exception of a trainer, in an op or hook, comes out with rank and place, whatever runs the steps") {
  struct stepping : device_trainer {
    std::string at{};  // where it throws
    void reach(const std::string& place) const {
      if (place == at) throw std::domain_error("no memory");
    }
    void begin_step(std::size_t step) const { reach(detail::concat({"begin_step(", step, ")"})); }
    void end_step(std::size_t step) const { reach(detail::concat({"end_step(", step, ")"})); }
  };
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4}));
  for (const run_options& options :
       {run_options{.steps = 4}, run_options{.steps = 4, .one_thread = true}, run_options{.steps = 4, .graph = true}})
    for (const std::string place : {"begin_step(0)", "end_step(0)", "begin_step(2)", "end_step(2)", "1B2"}) {
      peer_machine<fake_runtime, stepping> m(p);
      m.on_device[1].at = place;
      m.on_device[1].fails = [&](op o) { m.on_device[1].reach(to_string(o)); };
      std::string text;
      try {
        m.run(options);
      } catch (const trainer_error& e) {
        text = e.what();
        CHECK(e.rank == 1);
        CHECK_THROWS_AS(std::rethrow_if_nested(e), std::domain_error);
      }
      CHECK(text == "rank 1 at " + place + ": no memory");
      CHECK(m.world->culprit() == 1);
      const std::string later = place == "1B2"             ? "1B2"
                                : place == "begin_step(0)" ? "its start: " + place
                                                           : "its end: " + place;
      CHECK(text_by<pipeline_aborted>([&] { m.run(options); }) == "aborted by rank 1 at " + later + ": no memory");
    }
}

TEST_CASE("peers: a device that does not end its step and a rank that stalls end all ranks within the limit") {
  const program p = lower(make_dualpipev_schedule({.pp = 4, .micro = 8}));
  const auto ends = [&](const run_options& options, auto&& prepare) {
    peer_machine m(p, fake_runtime{}, {.time_limit = std::chrono::milliseconds(30)});
    prepare(m);
    const auto start = steady_clock::now();
    const std::string text = text_by<pipeline_aborted>([&] { m.run(options); });
    CHECK(steady_clock::now() - start < std::chrono::seconds(10));
    return text;
  };
  for (const bool one_thread : {false, true}) {
    CHECK(ends({.one_thread = one_thread}, [](auto&) {}) == "");
    const std::string hung = ends({.one_thread = one_thread}, [](auto& m) { m.device.hangs = true; });
    CAPTURE(hung);
    CHECK(begins(hung, "aborted by rank "));
    CHECK(has(hung, " at its end: the device did not end the step within the time limit\nrank 0 at "));
  }
  const std::string late = ends({}, [](auto& m) {
    m.on_device[1].fails = [&world = *m.world](op o) {
      while (o.micro == 3 && !world.aborted()) std::this_thread::yield();
    };
  });
  CAPTURE(late);
  CHECK(has(late, "nothing came within the time limit\nrank 0 at "));
  CHECK(has(late, "\nrank 2 at 2F3, which waits for activation 1F3 from rank 1\n"));
}

TEST_CASE(
    "peers: a rank between steps may take longer than the time limit, in which the others wait; a device may not") {
  using slow = slow_hooks<device_trainer>;
  const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 4}));
  for (const bool record : {false, true})
    for (const char* where : {"begin_step", "end_step"}) {
      CAPTURE(where);
      peer_machine<fake_runtime, slow> m(p, {}, {.time_limit = shorter_than_hooks});
      m.on_device[1].slow_at = where;
      CHECK(text_by<pipeline_aborted>([&] { m.run({.steps = 2, .record = record}); }) == "");
      m.on_device[1].slow_at = "";
      m.on_device[1].fails = [&m](op o) {  // of the last rank to end its step
        if (o.micro == 3 && o.pass == pass::backward) m.device.hangs = true;
      };
      CHECK(has(text_by<pipeline_aborted>([&] { m.run(); }), "the device did not end the step within the time limit"));
    }
}

TEST_CASE("peers: failures of every sort, a hundred each at random places, end all ranks within the limit") {
  enum class sort { throws, leaves, short_buffer, stalls, call_fails, kernel_hangs };
  for (const sort how :
       {sort::throws, sort::leaves, sort::short_buffer, sort::stalls, sort::call_fails, sort::kernel_hangs}) {
    std::mt19937_64 random(static_cast<std::uint64_t>(how));
    int heard = 0, unharmed = 0;
    for (int round = 0; round < failures_of_a_sort(); ++round) {
      const place_to_fail bad(any_program(random), random);
      const int others = static_cast<int>(bad.p.schedule.pp()) - 1;
      const std::string place = detail::concat({"rank ", bad.rank, " at ", to_string(bad.in)});
      CAPTURE(static_cast<int>(how));
      CAPTURE(round);
      CAPTURE(place);
      const bool stalls = how == sort::stalls;
      peer_machine m(bad.p, fake_runtime{},
                     {.time_limit = stalls || how == sort::kernel_hangs ? std::chrono::milliseconds(10)
                                                                        : std::chrono::seconds(60)});
      m.world->prepare(bad.p);
      std::atomic<int> ended = 0;
      std::uint64_t step = random() % 3;
      bool travelling = true;
      if (how == sort::kernel_hangs)
        m.on_device[bad.rank].fails = [&, step](op o) mutable {
          if (o == bad.at && step-- == 0) m.device.hangs = true;
        };
      if (how == sort::throws || stalls)
        m.on_device[bad.rank].fails = [&, step](op o) mutable {
          if (o != bad.at || step-- > 0) return;
          if (!stalls) throw std::domain_error("no memory");
          while (ended < others) std::this_thread::yield();
        };
      if (how == sort::short_buffer) {
        const std::size_t buffer = random() % bad.p.pools[bad.rank][pool::tensor];
        m.trainers[bad.rank].short_buffer = buffer;
        travelling = travels(bad.p, bad.rank, buffer);  // or it is between two stages of the rank
      }
      m.device.reset_counts();
      if (how == sort::call_fails) m.device.fails_at = static_cast<std::int64_t>(random() % 200);
      const auto start = steady_clock::now();
      const auto ends = ends_of(m, [&](std::uint32_t rank, fake_transport& transport) {
        const struct at_end {
          std::atomic<int>& n;
          ~at_end() { ++n; }
        } count{ended};
        if (how != sort::leaves || rank != bad.rank)
          return static_cast<void>(run(bad.p, rank, m.on_device[rank], transport, {.steps = 3}));
        detail::rank_executor own(bad.p, rank, m.on_device[rank], transport);  // as run() does, but for the end
        transport.select_device();
        transport.prepare(bad.p, own.memory());
        for (std::uint32_t n = 0;; ++n) {
          own.run(n);
          const action& a = own.actions()[n];
          if (a.kind == action_kind::compute && bad.p.schedule[rank][a.index] == bad.in)
            return;  // without an exception
        }
      });
      CHECK(steady_clock::now() - start < std::chrono::seconds(30));
      CHECK(m.first_race() == "");
      const bool unreached = how == sort::call_fails && m.device.failed_call.empty();  // fewer calls than that
      if ((how == sort::short_buffer && !travelling) || unreached || (stalls && !m.world->aborted())) {
        for (const std::exception_ptr& end : ends) CHECK(!end);
        ++unharmed;
        continue;
      }
      REQUIRE(m.world->aborted());
      const std::uint32_t culprit = m.world->culprit();
      if (how == sort::throws) {
        CHECK(culprit == bad.rank);
        CHECK(text_of<trainer_error>(ends[bad.rank]) == place + ": no memory");
        heard += require_ended(ends, culprit, place + ": no memory");
      } else if (how == sort::leaves) {
        CHECK(culprit == bad.rank);
        CHECK(!ends[bad.rank]);
        heard += require_ended(ends, culprit, place + ": it left before the end of its step");
      } else if (how == sort::call_fails) {
        const std::string failure = m.device.failed_call + ": made to fail (700), ", side = failure + "a side stream";
        REQUIRE(ends[culprit]);
        std::string cause = text_of<std::runtime_error>(ends[culprit]);
        if (has(cause, side)) {  // a call of the trainer's own
          CHECK(cause == text_of<trainer_error>(ends[culprit]));
          cause = side;
        } else {
          CHECK(begins(text_of<device_error>(ends[culprit]), failure + "rank "));
        }
        heard += require_ended(ends, culprit, cause);
      } else {
        for (const std::exception_ptr& end : ends) {
          if (!end) continue;
          const std::string text = text_of<pipeline_aborted>(end);
          CAPTURE(text);
          CHECK(begins(text, "aborted by rank "));
          const bool nothing_came = has(text, "nothing came within the time limit\nrank 0 at ");
          if (stalls) CHECK(nothing_came);
          if (how == sort::kernel_hangs)  // or a thread of another rank was not run for that long
            CHECK((nothing_came || has(text, "the device did not end the step within the time limit\nrank 0 at ")));
          if (how == sort::short_buffer) CHECK(has(text, " bytes at its sender and "));
          if (stalls) CHECK(has(text, ", which waits for "));
          ++heard;
        }
      }
    }
    CHECK(heard > failures_of_a_sort() / 2);
    CHECK(2 * unharmed < failures_of_a_sort());
  }
}

TEST_CASE(
    "peers: after a failure run_all() returns once all streams are empty, from a thread that has selected no device") {
  const program p = lower(make_dualpipev_schedule({.pp = 4, .micro = 8}));
  for (const bool one_thread : {false, true})
    for (const std::uint32_t failing : {0u, 1u, 2u, 3u}) {
      fake_cluster cluster(4);
      cluster.live = true;  // work is done when a query asks for it
      std::vector<small_model::trainer> trainers;
      std::vector<device_rank<cluster_runtime>> ranks(4);
      std::vector<std::unique_ptr<side_stream<cluster_runtime>>> sides;
      std::vector<stream_trainer<fake_cluster, side_stream<cluster_runtime>>> on_device;
      for (std::uint32_t r = 0; r < 4; ++r) {
        trainers.emplace_back(p, r);
        cluster.make_stream(0, 0, ranks[r].compute);
        sides.push_back(std::make_unique<side_stream<cluster_runtime>>(cluster_runtime{&cluster}));
      }
      for (std::uint32_t r = 0; r < 4; ++r)
        on_device.push_back({&trainers[r], &cluster, ranks[r].compute, sides[r].get(), [r, failing](op o) {
                               if (r == failing && o.micro == 5) throw std::domain_error("no memory");
                             }});
      peer_world<cluster_runtime> world({&cluster}, ranks);
      world.prepare(p);  // makes everything, by this thread
      std::jthread([&] {
        CHECK_THROWS_AS(run_all(p, on_device, world, {.one_thread = one_thread}), trainer_error);
        CHECK(cluster.left() == 0);
      }).join();
      CHECK(cluster.races.empty());
    }
}
