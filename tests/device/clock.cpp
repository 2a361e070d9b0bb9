// SPDX-License-Identifier: MIT
// The times of cells: start and end of each in a recorded step, by clocks of devices that start together.

#include "pipesched/device/clock.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
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

// Events that remember when they were recorded, in milliseconds: each record, and each op of a trainer, takes one.
struct timed_runtime : fake_runtime {
  enum class call { make, record, query, hook };
  struct entry {
    call what{};
    fake_device::event event{};
  };
  struct state {
    std::mutex mutex{};
    int now = 0, made = 0;
    std::map<fake_device::event, int> at{};
    std::set<fake_device::event> timed{}, zeros{};
    std::vector<entry> log{};
  };
  std::shared_ptr<state> of = std::make_shared<state>();

  status make_event(int which, bool timed, event& e) {
    const status made = fake_runtime::make_event(which, timed, e);
    const std::lock_guard lock(of->mutex);
    if (timed) of->timed.insert(e), ++of->made, of->log.push_back({call::make, e});
    return made;
  }
  status record(event e, stream s) {
    const std::lock_guard lock(of->mutex);
    of->at[e] = ++of->now;
    if (of->timed.count(e) > 0) of->log.push_back({call::record, e});
    return fake_runtime::record(e, s);
  }
  status query(event e, bool& done) {
    const std::lock_guard lock(of->mutex);
    of->log.push_back({call::query, e});
    return fake_runtime::query(e, done);
  }
  status elapsed_ms(event begin, event end, float& ms) {
    const std::lock_guard lock(of->mutex);
    if (of->timed.count(begin) + of->timed.count(end) != 2) return fake_device::made_to_fail;
    of->zeros.insert(begin);
    ms = static_cast<float>(of->at[end] - of->at[begin]);
    float unused = 0;
    return fake_runtime::elapsed_ms(begin, end, unused);
  }
};

struct timed_trainer : device_trainer {
  std::shared_ptr<timed_runtime::state> of{};
  void begin_step(std::size_t) {
    const std::lock_guard lock(of->mutex);
    of->log.push_back({timed_runtime::call::hook, {}});
  }
};

struct timed_machine : peer_machine<timed_runtime, timed_trainer> {
  explicit timed_machine(const program& program_, const timed_runtime& runtime = {})
      : peer_machine(program_, runtime), of(runtime.of) {
    for (auto& t : on_device) t.of = of;
  }
  std::shared_ptr<timed_runtime::state> of;
};

int cells_of(const program& p) { return static_cast<int>(p.schedule.cells.all().size()); }

}  // namespace

TEST_CASE("clock: a recorded step gives start and end of every cell in seconds, of its last step alone") {
  for_some_programs([](const program& p) {
    for (const bool one_thread : {false, true}) {
      timed_machine m(p);
      // When the first op of each cell is put into its stream.
      std::vector<std::vector<int>> began(p.schedule.pp());
      for (std::uint32_t r = 0; r < p.schedule.pp(); ++r)
        m.on_device[r].fails = [&, r, cell = std::size_t{0}, ops = std::size_t{0}](op) mutable {
          const std::lock_guard lock(m.of->mutex);
          if (ops == 0) began[r].push_back(m.of->now);
          ++m.of->now;
          if (++ops == p.schedule[r][cell].size()) ops = 0, cell = (cell + 1) % p.schedule[r].size();
        };
      const timeline t = m.run({.steps = 2, .record = true, .one_thread = one_thread});
      m.require_trained(2);
      REQUIRE(m.first_race() == "");
      REQUIRE(t.schedule == p.schedule);
      REQUIRE(t.intervals.all().size() == p.schedule.cells.all().size());
      for (std::uint32_t r = 0; r < p.schedule.pp(); ++r) {
        const std::size_t n = t[r].size();
        REQUIRE(began[r].size() == 2 * n);
        for (std::size_t i = 0; i < n; ++i) {
          const interval at = t[r][i];
          REQUIRE(at.start > 0);
          REQUIRE(at.end > at.start);
          if (i > 0) REQUIRE(at.start > t[r][i - 1].end);
          if (!one_thread) continue;  // other threads take time, too
          REQUIRE(std::lround(1e3 * (at.start - t[r][0].start)) == began[r][n + i] - began[r][n]);
          REQUIRE(std::lround(1e3 * (at.end - at.start)) == static_cast<long>(p.schedule[r][i].size()) + 1);
        }
      }
    }
  });
}

TEST_CASE("clock: events of cells are made when a step is recorded, once, and more for a program with more cells") {
  const program p = lower(make_zbv_schedule({.pp = 4, .micro = 8})),
                more = lower(make_zbv_schedule({.pp = 4, .micro = 12})),
                evaluation = lower(make_zbv_schedule({.pp = 4, .micro = 8, .forward_only = true}));
  for (const bool one_thread : {false, true}) {
    timed_machine m(more);
    const auto runs = [&](const program& of, bool record) {
      return run_all(of, m.on_device, *m.world, {.record = record, .one_thread = one_thread}).intervals.all().size();
    };
    CHECK(runs(p, false) == 0);
    CHECK(m.of->made == 0);
    CHECK(m.of->zeros.empty());
    CHECK(runs(p, true) == p.schedule.cells.all().size());
    CHECK(m.of->made == 4 + 2 * cells_of(p));  // and one per rank for the start
    m.of->log.clear();
    CHECK(runs(p, false) == 0);  // the clock is stopped
    CHECK(std::none_of(m.of->log.begin(), m.of->log.end(),
                       [](const auto& e) { return e.what == timed_runtime::call::record; }));
    CHECK(runs(p, true) == p.schedule.cells.all().size());
    CHECK(runs(evaluation, true) == evaluation.schedule.cells.all().size());
    CHECK(m.of->made == 4 + 2 * cells_of(p));
    CHECK(runs(more, true) == more.schedule.cells.all().size());
    CHECK(m.of->made == 4 + 2 * cells_of(more));
    CHECK(m.first_race() == "");
  }
}

TEST_CASE("clock: the clocks of all ranks start together, after the work of begin_step()") {
  using call = timed_runtime::call;
  const program p = lower(make_zbv_schedule({.pp = 4, .micro = 8}));
  for (const bool one_thread : {false, true}) {
    timed_machine m(p);
    m.run({.record = true, .one_thread = one_thread});
    REQUIRE(m.of->zeros.size() == 4);
    // A clock starts at the last record of its event.
    std::map<fake_device::event, std::size_t> starts;
    const auto& log = m.of->log;
    for (std::size_t i = 0; i < log.size(); ++i)
      if (log[i].what == call::record && m.of->zeros.count(log[i].event) > 0) starts[log[i].event] = i;
    std::size_t first = log.size(), last = 0;
    for (const auto& [e, i] : starts) first = std::min(first, i), last = std::max(last, i);
    const auto count = [&](std::size_t from, std::size_t to, call what) {
      return std::count_if(log.begin() + static_cast<std::ptrdiff_t>(from),
                           log.begin() + static_cast<std::ptrdiff_t>(to),
                           [&](const auto& e) { return e.what == what; });
    };
    CHECK(count(0, first, call::hook) == 4);
    CHECK(count(0, first, call::query) == 4);  // all devices are through with what their hooks put into streams
    CHECK(count(first, log.size(), call::make) == 0);
    if (one_thread) CHECK(last == first + 3);
  }
}

TEST_CASE("clock: the cells of a graph are not measured; those of a single step with the option are") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4}));
  timed_machine m(p);
  CHECK(refusal_of([&] { m.run({.steps = 2, .record = true, .graph = true}); }) ==
        "the cells of a graph cannot be measured; record a step without one");
  CHECK(m.run({.record = true, .graph = true}).intervals.all().size() == p.schedule.cells.all().size());
  m.require_trained(1);
}
