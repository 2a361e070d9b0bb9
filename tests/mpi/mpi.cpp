// SPDX-License-Identifier: MIT
// Programs run by four processes: gradients equal those of one device, messages of any size arrive, failures end all ranks.
// The first argument selects the part. Prints one line per case; the exit code is 0 if all is as expected. mpi.sh runs all
// parts.

#include "pipesched/mpi/mpi_transport.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <functional>
#include <random>
#include <span>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "pipesched/execute/run.hpp"
#include "pipesched/execute/thread_transport.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/launch/environment.hpp"
#include "pipesched/launch/tcp_coordinator.hpp"
#include "pipesched/mpi/mpi_coordinator.hpp"
#include "pipesched/program/lower.hpp"
#include "support/families.hpp"
#include "support/place_to_fail.hpp"
#include "support/tanh_model.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

using model = tanh_model<double>;
using trainer = model::trainer;
using seconds = std::chrono::duration<double>;
using clock_type = std::chrono::steady_clock;

std::uint32_t own = 0;  // rank
int failures = 0;
constexpr int rounds = 100;  // of each failure, at random places

void expect(bool good, const std::string& claim) {
  if (good) return;
  ++failures;
  std::printf("FAILED on rank %u: %s\n", own, claim.c_str());
  std::fflush(stdout);
}
// The line of a case, once all ranks are there.
void line(const std::string& text) {
  int all = 0;
  MPI_Allreduce(&failures, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  if (own == 0) std::printf("%s: %s\n", all == 0 ? "ok" : "FAILED", text.c_str());
  std::fflush(stdout);
}
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
bool names(const std::string& said, const place_to_fail& bad) {
  return has(said, "aborted by rank " + std::to_string(bad.rank) + " at ") && has(said, to_string(bad.at));
}

bool same(const trainer& a, const trainer& b) {
  bool equal = a.losses == b.losses;
  for (std::size_t i = 0; i < a.layers.size(); ++i) equal = equal && a.layers[i].gradient == b.layers[i].gradient;
  return equal;
}
void expect_as_one_device(trainer& t, const program& p, const std::string& name) {
  const schedule& s = p.schedule;
  const auto one = model::on_one_device(s.stages(), s.micro),
             in_order = model::on_one_device(s.stages(), s.micro, model::orders_of(s));
  for (std::uint32_t m = 0; m < s.micro; ++m) {
    const bool here = s.placement.rank_of(static_cast<std::uint16_t>(s.stages() - 1), m) == own;
    expect(t.losses[m] == (here ? one.losses[m] : -1), name + ": a loss");
  }
  if (s.forward_only) return;
  for (std::uint16_t stage : t.stages) {
    expect(t.layer_of(stage).gradient == in_order.layers[stage].gradient, name + ": a gradient, to the bit");
    for (std::size_t i = 0; i < model::width; ++i)
      for (std::size_t j = 0; j < model::width; ++j) {
        const double e = one.layers[stage].gradient[i][j], got = t.layer_of(stage).gradient[i][j];
        expect(std::abs(got - e) <= 1e-12 * (1 + std::abs(e)), name + ": a gradient");
      }
  }
}

// Runs a program over a transport of its own.
template <typename Trainer>
std::vector<interval> run_once(const program& p, Trainer& t, const mpi_options& options = {}, std::size_t steps = 1) {
  mpi_transport transport(MPI_COMM_WORLD, options);
  return run(p, own, t, transport, {.steps = steps});
}

void trains() {
  for (const family& f : families) {
    for (const std::int64_t micro : {1, 4, 8, 17})
      for (const bool forward_only : {false, true}) {
        const program p = lower(f.make({.pp = 4, .micro = micro, .forward_only = forward_only}));
        const std::string what = detail::concat({f.name, " with micro ", micro, forward_only ? ", forward only" : ""});
        trainer first(p, own);
        run_once(p, first);
        expect_as_one_device(first, p, what);
        // 32 bytes per message: one block and a rest, whole blocks only, one byte more than a block, one of no blocks.
        for (const std::size_t block : {24u, 16u, 31u, 32u}) {
          mpi_transport transport(MPI_COMM_WORLD, {.block = block});
          for (int time = 0; time < 2; ++time) {
            trainer again(p, own);
            run(p, own, again, transport);
            expect(same(first, again), what + ": twice the same to the bit");
          }
        }
      }
    line(std::string(f.name) + ": micro 1, 4, 8, 17, training and forward only, as one device, and twice the same");
  }
}

// Several steps sum the same gradients as threads do, and the hooks are called around each of them.
void several_steps() {
  struct with_hooks : trainer {
    using trainer::trainer;
    void begin_step(std::size_t step) { hooks += "b" + std::to_string(step); }
    void end_step(std::size_t step) { hooks += "e" + std::to_string(step); }
    std::string hooks{};
  };
  for (const family& f : families) {
    const program p = lower(f.make({.pp = 4, .micro = 8}));
    std::vector<trainer> in_threads;
    for (std::uint32_t r = 0; r < 4; ++r) in_threads.emplace_back(p, r);
    thread_world world(4);
    run_all(p, in_threads, world, {.steps = 3, .one_thread = true});
    with_hooks t(p, own);
    mpi_transport transport(MPI_COMM_WORLD);
    run(p, own, t, transport, {.steps = 2, .first_step = 7});
    run(p, own, t, transport, {.steps = 1, .first_step = 9});
    expect(same(t, in_threads[own]), std::string(f.name) + ": three steps, as in threads to the bit");
    expect(t.hooks == "b7e7b8e8b9e9", std::string(f.name) + ": hooks " + t.hooks);
    run(p, own, t, transport, {.steps = 0});
  }
  line("all families: three steps over one transport, as in threads to the bit, with hooks around each");
}

void training_and_evaluation() {
  mpi_transport transport(MPI_COMM_WORLD);
  for (const family& f : families)
    for (int round = 0; round < 2; ++round) {
      const program train = lower(f.make({.pp = 4, .micro = 8})),
                    evaluate = lower(f.make({.pp = 4, .micro = 5 + round, .forward_only = true}));
      trainer trains(train, own), evaluates(evaluate, own);
      run(train, own, trains, transport);
      run(evaluate, own, evaluates, transport);
      expect_as_one_device(trains, train, std::string(f.name) + ", training");
      expect_as_one_device(evaluates, evaluate, std::string(f.name) + ", evaluation");
    }
  line("all families: training and evaluation by turns over one transport, as one device");
}

// Times count from when all ranks are there, though rank 0 comes 300 ms late. A rank cannot start before those that precede it,
// whose first forwards take 30 ms each.
void records() {
  struct late : trainer {
    using trainer::trainer;
    void begin_step(std::size_t) const {
      if (rank == 0) std::this_thread::sleep_for(seconds(0.3));
    }
  };
  const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 8}));
  late t(p, own);
  t.before = [](op o) {
    if (o.pass == pass::forward && o.micro == 0) std::this_thread::sleep_for(seconds(0.03));
  };
  mpi_transport transport(MPI_COMM_WORLD);
  const auto start = clock_type::now();
  expect(run(p, own, t, transport, {.steps = 2}).empty(), "nothing is measured unless asked for");
  const std::vector<interval> measured = run(p, own, t, transport, {.steps = 3, .record = true});
  const double took = seconds(clock_type::now() - start).count();
  expect(measured.size() == p.schedule[own].size(), "an interval per cell");
  for (std::size_t i = 0; i < measured.size(); ++i)
    expect(measured[i].start <= measured[i].end && (i == 0 || measured[i - 1].end <= measured[i].start), "in order");
  const double first = measured.front().start;
  expect(first >= 0 && first > 0.03 * own - 0.025 && first < 0.03 * own + 0.2,
         "the first cell begins at " + std::to_string(first));
  expect(measured.back().end < took, "the last cell ends in time");
  line("the measured timeline of the last step is in order, in seconds since all ranks began it");
}

void refuses() {
  mpi_transport transport(MPI_COMM_WORLD);
  const auto prepare = [&](const program& p) { transport.prepare(p, 0); };
  const auto run_here = [&](const program& p) {
    trainer t(p, own);
    run(p, own, t, transport);
  };
  const auto make = [](std::int64_t pp, std::int64_t micro) {
    return lower(make_1f1b_schedule({.pp = pp, .micro = micro}));
  };
  const std::string size = refusal_of([&] { prepare(make(2, 8)); });
  expect(size == "a program of 2 ranks needs a communicator of as many; this one has 4", size);
  const std::string also_size = refusal_of([&] { run_here(make(8, 8)); });
  expect(also_size == "a program of 8 ranks needs a communicator of as many; this one has 4", also_size);
  for (const program& p : {make(4, own == 2 ? 9 : 8), make(own == 0 ? 8 : 4, 8)}) {
    const std::string different = refusal_of([&] { run_here(p); });
    expect(different == "all ranks of a communicator run the same program; these have different ones", different);
  }
  const std::string different_blocks =
      refusal_of([&] { mpi_transport(MPI_COMM_WORLD, {.block = own == 1 ? 8u : 9u}).prepare(make(4, 8), 0); });
  expect(has(different_blocks, "different ones"), different_blocks);
  const program p = make(4, 8);
  trainer t(p, own);
  run(p, own, t, transport);
  expect_as_one_device(t, p, "after programs that were refused");
  line("a communicator of the wrong size, and ranks with different programs or blocks, are refused on all ranks");

  const std::string limit = refusal_of([] { mpi_transport(MPI_COMM_WORLD, {.time_limit = seconds(0)}); });
  expect(limit == "a time limit is above 0 and at most 1e9 seconds; got 0", limit);
  for (const std::size_t block : {std::size_t{0}, std::size_t{1} << 31}) {
    const std::string text = refusal_of([&] { mpi_transport(MPI_COMM_WORLD, {.block = block}); });
    expect(text == "a block has 1 to 2147483647 bytes; got " + std::to_string(block), text);
  }
  line("time limits and blocks out of range are refused");
}

// The text that a rank ends with: "" if it succeeds, "own: ..." for an exception of its trainer.
std::string ends_with(const std::function<void()>& run) {
  try {
    run();
  } catch (const pipeline_aborted& e) {
    return e.what();
  } catch (const trainer_error& e) {
    try {
      std::rethrow_if_nested(e);
    } catch (const std::domain_error& inner) {
      expect(e.cause == inner.what(), "the trainer's own exception is nested");
      return std::string("own: ") + e.what();
    }
  }
  return {};
}

// Messages so long that they wait for their receivers. No message arrives once run() has thrown: the buffers may be freed.
void throws_in_long_messages() {
  struct mover {
    std::vector<std::vector<std::byte>> buffers;
    int left;
    void run() {
      if (left-- == 0) throw std::domain_error("no more");
    }
    void forward(task) { run(); }
    void backward(task) { run(); }
    std::span<std::byte> buffer(tensor_id, std::uint32_t n) { return buffers[n]; }
  };
  std::mt19937_64 random(3);
  const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 8}));
  for (int round = 0; round < 30; ++round) {
    const auto bad_rank = static_cast<std::uint32_t>(random() % 4);
    const int bad = static_cast<int>(random() % 16);
    mover m{std::vector(p.pools[own][pool::tensor], std::vector<std::byte>(1 << 20)), own == bad_rank ? bad : -1};
    mpi_transport transport(MPI_COMM_WORLD);
    const std::string said = ends_with([&] { run(p, own, m, transport); });
    constexpr std::byte untouched{0xEE};
    for (auto& bytes : m.buffers) std::ranges::fill(bytes, untouched);
    for (const auto end = clock_type::now() + std::chrono::milliseconds(5); clock_type::now() < end;) {
      int there = 0;
      MPI_Iprobe(MPI_ANY_SOURCE, 0, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE);  // lets MPI progress
    }
    for (const auto& bytes : m.buffers)
      expect(std::ranges::count(bytes, untouched) == 1 << 20, "no message arrives after run()");
    expect(has(said, "no more") && has(said, own == bad_rank ? "own" : "aborted by rank "), said);
  }
  line("30 exceptions while messages of 1 MiB are in progress, none of which arrives after run()");
}

// Exceptions of the hooks, of a trainer that lacks a function, and of a second program over one transport.
void throws_between_steps() {
  struct with_hooks : trainer {
    using trainer::trainer;
    void begin_step(std::size_t step) { run("begin_step(", step); }
    void end_step(std::size_t step) { run("end_step(", step); }
    void run(const char* hook, std::size_t step) const {
      const std::string at = hook + std::to_string(step) + ")";
      if (rank == bad_rank && at == bad) throw std::domain_error("no disk");
    }
    std::uint32_t bad_rank = ~0u;
    std::string bad{};
  };
  const program p = lower(make_dualpipe_schedule({.pp = 4, .micro = 8})),
                evaluate = lower(make_dualpipe_schedule({.pp = 4, .micro = 8, .forward_only = true}));
  for (const char* at :
       {"begin_step(0)", "end_step(0)", "begin_step(1)", "end_step(1)", "begin_step(2)", "end_step(2)"})
    for (std::uint32_t bad_rank = 0; bad_rank < 4; ++bad_rank) {
      mpi_transport transport(MPI_COMM_WORLD, {.time_limit = seconds(20)});
      const std::string first = ends_with([&] {
        with_hooks t(p, own);
        run(p, own, t, transport, {.steps = 2, .record = true});
        with_hooks e(evaluate, own);
        e.bad_rank = bad_rank, e.bad = at;
        run(evaluate, own, e, transport, {.steps = 3, .record = true});
      });
      const std::string rank = "rank " + std::to_string(bad_rank) + " at ";
      if (own == bad_rank)
        expect(first == "own: " + rank + at + ": no disk", "in a hook: " + first);
      else
        expect(has(first, "aborted by " + rank) && has(first, ": no disk"), "in the hook of another rank: " + first);
      trainer t(p, own);
      const std::string again = ends_with([&] { run(p, own, t, transport); });
      expect(has(again, "aborted by " + rank) && has(again, ": no disk"), "no program runs after a failure: " + again);
    }
  line("exceptions of hooks, in the second program of a transport, end all ranks; then it runs no other");

  struct without_split {
    std::vector<int> buffers;
    void forward(task) {}
    void backward(task) {}
    std::span<std::byte> buffer(tensor_id, std::uint32_t n) {
      return std::as_writable_bytes(std::span(&buffers[n], 1));
    }
  };
  std::string said;
  try {
    const program split = lower(make_zb_h1_schedule({.pp = 4, .micro = 8}));
    trainer t(split, own);
    without_split w{std::vector<int>(split.pools[own].owned_buffers())};
    own == 2 ? run_once(split, w) : run_once(split, t);
  } catch (const std::exception& e) {
    said = e.what();
  }
  expect(has(said, own == 2 ? "the trainer has no " : "aborted by rank 2 at its start: the trainer has no "), said);
  line("a trainer that does not fit on one rank ends all");
}

void throws() {
  std::mt19937_64 random(1);
  double slowest = 0;
  for (int round = 0; round < rounds; ++round) {
    const place_to_fail bad(random);
    const std::string text = "not a number in " + to_string(bad.at);
    trainer t(bad.p, own);
    if (own == bad.rank)
      t.before = [&, step = 0](op o) mutable {
        if (o == bad.at && step++ == round % 3) throw std::domain_error(text);
      };
    MPI_Barrier(MPI_COMM_WORLD);
    const auto start = clock_type::now();
    const std::string said = ends_with([&] { run_once(bad.p, t, {}, 3); });
    slowest = std::max(slowest, seconds(clock_type::now() - start).count());
    if (own == bad.rank)
      expect(said == detail::concat({"own: rank ", own, " at ", to_string(bad.in), ": ", text}),
             "on its own rank: " + said);
    else
      expect(names(said, bad) && has(said, text), "on another rank: " + said);
  }
  expect(slowest < 5, "ended soon after the exception");
  line(std::to_string(rounds) +
       " exceptions at random ops of three steps end all ranks, which name the first; the slowest " +
       std::to_string(slowest) + " s");
  throws_in_long_messages();
  throws_between_steps();
}

void wrong_size() {
  std::mt19937_64 random(2);
  for (const std::size_t block : {std::size_t{1} << 30, std::size_t{16}, std::size_t{5}}) {
    std::string example;
    int local = 0;
    for (int round = 0; round < rounds; ++round) {
      const place_to_fail bad(random);
      const std::size_t buffer = random() % bad.p.pools[bad.rank][pool::tensor];
      trainer t(bad.p, own);
      if (own == bad.rank) t.short_buffer = buffer;
      const std::string said = ends_with([&] {
        mpi_transport transport(MPI_COMM_WORLD, {.time_limit = seconds(20), .block = block});
        run(bad.p, own, t, transport);
      });
      if (travels(bad.p, bad.rank, buffer))
        expect(has(said, " bytes at its sender and ") && has(said, " at its receiver"), "a wrong size: " + said);
      else
        ++local, expect(said.empty(), "a size that is nobody else's: " + said);
      if (has(said, "32")) example = said;
    }
    expect(local < rounds / 2, "most messages travel");
    line(std::to_string(rounds - local) + " wrong sizes, blocks of " + std::to_string(block) + ": " + example);
  }
}

// Without run(), which would report the exception: the destructor of the transport does, with or without an exception in
// flight.
void leaves() {
  std::mt19937_64 random(3);
  for (int round = 0; round < rounds; ++round) {
    const place_to_fail bad(random);
    const bool throws = round % 2 != 0;
    trainer t(bad.p, own);
    if (own == bad.rank)
      t.before = [&](op o) {
        if (o == bad.at) throw std::domain_error("not reported");
      };
    const std::string said = ends_with([&] {
      mpi_transport transport(MPI_COMM_WORLD, {.time_limit = seconds(20)});
      detail::rank_executor executor(bad.p, own, t, transport);
      transport.prepare(bad.p, executor.memory());
      try {
        executor.run();
      } catch (const trainer_error&) {
        if (throws) throw;
        return;
      }
      transport.leave();
    });
    if (own == bad.rank)
      expect(has(said, "not reported") == throws, "the one that leaves: " + said);
    else
      expect(names(said, bad) &&
                 has(said, throws ? ": it left with an exception" : ": it left before the end of its step"),
             "a rank that leaves: " + said);
  }
  line(std::to_string(rounds) + " ranks that leave in the middle, half of them with an exception, end the others");
}

// A rank has left between its steps, and the others run on: at once, or after a run of all.
void leaves_between_steps() {
  const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 4}));
  for (int round = 0; round < rounds; ++round) {
    const auto leaver = static_cast<std::uint32_t>(round % 4);
    trainer t(p, own);
    const auto start = clock_type::now();
    const std::string said = ends_with([&] {
      mpi_transport transport(MPI_COMM_WORLD, {.time_limit = seconds(20)});
      if (round % 3 != 0) run(p, own, t, transport);
      if (own != leaver) run(p, own, t, transport, {.record = round % 2 == 0});
    });
    if (own != leaver)
      expect(has(said, "rank " + std::to_string(leaver) + " has left, and others wait for it") &&
                 clock_type::now() - start < seconds(15),
             "a rank that has left: " + said);
  }
  line(std::to_string(rounds) + " ranks that leave between steps end the others, which wait for them");
}

// True if the rank is among those that have sent no position.
bool silent(const std::string& said, std::uint32_t rank) {
  const std::size_t at = said.find("not waiting, or gone:");
  return at != said.npos && has(said.substr(at, said.find('\n', at) - at), " " + std::to_string(rank));
}

// A rank takes longer than the limit outside of the actions: in front of prepare(), meet() and leave(), between two runs.
void takes_long_between_steps() {
  constexpr double limit = 0.3;
  struct slow : trainer {
    using trainer::trainer;
    void begin_step(std::size_t) const { sleep("begin_step"); }
    void end_step(std::size_t) const { sleep("end_step"); }
    void sleep(const std::string& place) const {
      if (rank == 1 && place == where_to) std::this_thread::sleep_for(seconds(3 * limit));
    }
    std::string where_to{};
  };
  const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 8}));
  for (const bool record : {false, true})
    for (const char* where : {"prepare", "begin_step", "end_step", "between"}) {
      slow t(p, own);
      t.where_to = where;
      const std::string said = ends_with([&] {
        mpi_transport transport(MPI_COMM_WORLD, {.time_limit = seconds(limit)});
        t.sleep("prepare");
        run(p, own, t, transport, {.steps = 2, .record = record});
        t.sleep("between");
        run(p, own, t, transport, {.steps = 1, .record = record});
      });
      expect(said.empty(), where + (": " + said));
    }
  line(
      "a rank may take longer than the limit before its first step, in its hooks, between runs, and after its last "
      "step");
}

// A rank comes back between its steps only after the pause limit.
void stays_between_steps() {
  const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 8}));
  trainer t(p, own);
  const std::string said = ends_with([&] {
    mpi_transport transport(MPI_COMM_WORLD, {.time_limit = seconds(0.4), .pause_limit = seconds(1)});
    run(p, own, t, transport);
    if (own == 1) std::this_thread::sleep_for(seconds(4));
    run(p, own, t, transport);
  });
  expect(has(said, "nothing came within the time limit"), "a rank that stays between its steps: " + said);
  line("a rank that stays between its steps ends the others after the pause limit");
}

// The last op of a step, which no message waits for: the others wait in meet(), or in leave().
void stalls_behind_all_others() {
  constexpr double limit = 2;
  const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 8}));
  for (const bool record : {false, true}) {
    trainer t(p, own);
    if (own == 0)
      t.before = [](op o) {
        if (o.pass == pass::backward && o.micro == 7) std::this_thread::sleep_for(seconds(3 * limit));
      };
    const std::string said = ends_with([&] {
      mpi_transport transport(MPI_COMM_WORLD, {.time_limit = seconds(limit)});
      run(p, own, t, transport, {.steps = record ? std::size_t{2} : 1, .record = record});
    });
    expect(has(said, "nothing came within the time limit\nnot waiting, or gone: 0\n"), said);
    expect(has(said, "rank 1 at its end\nrank 2 at its end\nrank 3 at its end\n"), said);
  }
  line("a stall in the last op of a step ends the others, which are through with it");
}

void stalls() {
  {
    constexpr double limit = 0.6;
    const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 8}));
    trainer t(p, own);
    if (own == 1)
      t.before = [](op o) {
        if (o.pass == pass::forward && o.micro == 3) std::this_thread::sleep_for(seconds(3 * limit));
      };
    MPI_Barrier(MPI_COMM_WORLD);
    const auto start = clock_type::now();
    const std::string said = ends_with([&] { run_once(p, t, {.time_limit = seconds(limit)}); });
    const double took = seconds(clock_type::now() - start).count();
    expect(own == 1 || took < 1.25 * limit + 0.3, "ended in time, but " + std::to_string(took) + " s");
    expect(has(said, "nothing came within the time limit"), "a stall: " + said);
    expect(has(said, "not waiting, or gone: 1\n"), "who it was: " + said);
    for (const char* each : {"\nrank 0 at ", "\nrank 2 at ", "\nrank 3 at "})
      expect(has(said, each) && has(said, ", which waits for "), "where all are: " + said);
    if (own == 0) std::printf("%s", said.c_str());
    line("a stall ends all ranks; the limit is " + std::to_string(limit) + " s, rank 0 took " + std::to_string(took) +
         " s");
  }
  constexpr double limit = 0.1;
  std::mt19937_64 random(4);
  for (int round = 0; round < rounds; ++round) {
    const place_to_fail bad(random);
    trainer t(bad.p, own);
    if (own == bad.rank)
      t.before = [&](op o) {
        if (o == bad.at) std::this_thread::sleep_for(seconds(4 * limit));
      };
    const std::string said = ends_with([&] { run_once(bad.p, t, {.time_limit = seconds(limit)}); });
    expect(has(said, "nothing came within the time limit"), "a stall: " + said);
    expect(own == bad.rank || silent(said, bad.rank), "who it was: " + said);
  }
  line(std::to_string(rounds) + " stalls at random ops end all ranks");
  takes_long_between_steps();
  stays_between_steps();
  stalls_behind_all_others();
}

// A rank is killed and the others must end. Each that ends by itself writes a line into the file.
void killed(const std::string& file, std::uint64_t seed) {
  constexpr double limit = 0.5;
  std::mt19937_64 random(seed);
  const place_to_fail bad(random);
  trainer t(bad.p, own);
  if (own == bad.rank)
    t.before = [&](op o) {
      if (o == bad.at) std::raise(SIGKILL);
    };
  MPI_Barrier(MPI_COMM_WORLD);
  const auto start = clock_type::now();
  const std::string said = ends_with([&] { run_once(bad.p, t, {.time_limit = seconds(limit)}); });
  const double took = seconds(clock_type::now() - start).count();
  expect(has(said, "nothing came within the time limit") && silent(said, bad.rank), said);
  expect(took < 1.25 * limit + 1, "ended in time, but " + std::to_string(took) + " s");
  std::ofstream(file + "." + std::to_string(own))
      << (failures == 0 ? "ok" : "FAILED") << ": rank " << own << " ended after " << took << " s, rank " << bad.rank
      << " killed at " << to_string(bad.at) << " of " << bad.p.schedule.name.view() << ": " << said;
  std::_Exit(failures);  // MPI_Finalize would wait for the dead
}

void coordinate(coordinator& job) {
  expect(job.rank() == own && job.size() == 4, "rank and size");
  for (const std::size_t length : {0u, 1u, 1'000'000u}) {
    const std::string text(length, static_cast<char>('a' + own));
    expect(job.broadcast(text) == std::string(length, 'a'), "what process 0 broadcasts");
    const auto all = gather(job, text);
    expect(all.size() == (own == 0 ? 4 : 0), "as many as gather");
    for (std::size_t r = 0; r < all.size(); ++r)
      expect(all[r] == std::string(length, static_cast<char>('a' + r)), "what process 0 gathers");
  }
  std::vector<parcel> mine,
      expected;  // two to the next process, in descending order one to each that is below this one
  for (const char* text : {"first", ""}) mine.push_back({(own + 1) % 4, text});
  for (std::uint32_t to = own; to-- > 0;) mine.push_back({to, std::to_string(own) + " to " + std::to_string(to)});
  for (std::uint32_t from = 0; from < 4; ++from) {
    if ((from + 1) % 4 == own)
      for (const char* text : {"first", ""}) expected.push_back({from, text});
    if (from > own) expected.push_back({from, std::to_string(from) + " to " + std::to_string(own)});
  }
  for (int round = 0; round < 50; ++round) expect(job.exchange(mine) == expected, "parcels");
  expect(job.exchange({}).empty(), "no parcels");
  if (own == 2) job.report_failure("rank 2 at 2F0: too warm");
  while (!job.failure()) std::this_thread::yield();
  expect(*job.failure() == "rank 2 at 2F0: too warm", *job.failure());
  const std::string aborted = ends_with([&] { job.broadcast(""); });
  expect(aborted == "aborted: rank 2 at 2F0: too warm", aborted);
  if (own == 3) expect(job.report_failure("later") == "rank 2 at 2F0: too warm", "the first failure");
}

void control() {
  const launch_environment e = read_launch_environment();
  expect(e.rank == own && e.size == 4 && e.local_rank == own && e.launcher == "mpirun" && !e.token.empty(),
         "the environment");
  {
    tcp_coordinator job(
        own, 4,
        [](std::span<std::byte> b) { MPI_Bcast(b.data(), static_cast<int>(b.size()), MPI_BYTE, 0, MPI_COMM_WORLD); },
        seconds(20));
    coordinate(job);
  }
  {
    tcp_coordinator job(e, seconds(20));
    coordinate(job);
  }
  line("coordinators over TCP, started over MPI and by the environment: broadcast, exchange, report a failure to all");
  {
    mpi_coordinator job(MPI_COMM_WORLD, seconds(20));
    coordinate(job);
  }
  {
    mpi_coordinator job(MPI_COMM_WORLD, seconds(1));
    std::jthread reports([&](const std::stop_token& stop) {  // as watchdogs do; processes in the call delay no other
      while (own != 1 && !stop.stop_requested()) {
        job.report_position("", progress_state::between_steps);
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
    });
    job.broadcast("");
    if (own != 1) {
      const std::string late = ends_with([&] { job.broadcast(""); });
      expect(has(late, "waits for the others, and not all came in time"), late);
    }
    while (!job.failure()) std::this_thread::yield();
  }
  line("a coordinator over MPI: the same, and a process that does not come");
  {
    mpi_coordinator job(MPI_COMM_WORLD, seconds(1));
    job.report_position("", progress_state::between_steps);
    if (own == 1) std::this_thread::sleep_for(seconds(3));
    const std::string said = ends_with([&] { job.broadcast(""); });
    expect(said.empty(), "a process between steps: " + said);
  }
  using enum progress_state;
  for (const bool stalls : {false, true}) {
    mpi_coordinator job(MPI_COMM_WORLD, seconds(20));
    if (own == 0) job.report_position("rank 0 at 0F7", waits);
    if (own == 0) job.report_position("rank 0 at 0F8", moves);
    if (own == 1) job.report_position("rank 1 at 1F2, which waits for activation 0F2 from rank 0", waits);
    job.broadcast("");
    if (own == 3) job.report_position("rank 3 at its end", between_steps);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    expect(!job.failure(), "no failure yet");  // and takes the notices that have arrived
    const std::string place = "rank 2 at 2F0, which waits for activation 1F0 from rank 1";
    if (own == 2 && stalls) job.report_position(place, stalled);
    expect(!job.failure(), "a process between steps delays the others");
    job.broadcast("");
    if (own == 3) job.report_position("rank 3 at 3F0", moves);
    job.broadcast("");
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    expect(!job.failure(), "still no failure");
    job.broadcast("");
    if (own == 2) stalls ? job.report_position(place, stalled) : void(job.report_failure("rank 2 at 2F0: too warm"));
    while (!job.failure()) std::this_thread::yield();
    const std::string waits_too = "\nrank 1 at 1F2, which waits for activation 0F2 from rank 0";
    expect(*job.failure() ==
               (stalls ? nothing_moved(place) + waits_too + "\n" + place : "rank 2 at 2F0: too warm" + waits_too),
           *job.failure());
  }
  {
    mpi_coordinator job(MPI_COMM_WORLD, seconds(20));
    for (int i = 0; i < 1000; ++i) job.report_position("rank 0 at 0F" + std::to_string(i), i % 3 == 0 ? moves : waits);
    job.broadcast("");
    expect(!job.failure(), "positions are no failure");
  }
  line(
      "a coordinator over MPI: failures come with the positions of processes that wait, and a stall is one unless a "
      "process is between steps");
}

// One message of more than 2^31 bytes between two ranks.
void large() {
  constexpr std::size_t size = (std::size_t{1} << 31) + 12345;
  long long available = 0;
  std::string word;
  for (std::ifstream memory("/proc/meminfo"); memory >> word;)
    if (word == "MemAvailable:") memory >> available;
  MPI_Bcast(&available, 1, MPI_LONG_LONG, 0, MPI_COMM_WORLD);
  if (available < 6ll << 20) return line("skipped: a message of more than 2^31 bytes needs 6 GiB of free memory");
  MPI_Comm pair = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, own < 2 ? 0 : MPI_UNDEFINED, 0, &pair);
  if (own < 2) {
    struct copier {
      std::vector<std::uint64_t> words;
      std::uint32_t rank;
      static std::uint64_t value(std::size_t i) { return i * 0x9e3779b97f4a7c15u; }
      void forward(task) {
        if (rank == 0)
          for (std::size_t i = 0; i < words.size(); ++i) words[i] = value(i);
        else
          for (std::size_t i = 0; i + 1 < words.size(); ++i)
            if (words[i] != value(i)) throw std::domain_error("word " + std::to_string(i));
      }
      void backward(task) {}
      std::span<std::byte> buffer(tensor_id, std::uint32_t) {
        return std::as_writable_bytes(std::span(words)).first(size);
      }
    };
    const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 1, .forward_only = true}));
    copier c{std::vector<std::uint64_t>(size / 8 + 1), own};
    const std::string said = ends_with([&] {
      mpi_transport transport(pair);
      run(p, own, c, transport);
    });
    expect(said.empty(), "a large message: " + said);
    const auto tail = c.buffer({}, 0).last(1)[0],
               last = static_cast<std::byte>(copier::value(size / 8) >> (size % 8 - 1) * 8);
    expect(tail == last, "the last byte of a large message");
    MPI_Comm_free(&pair);
  }
  line("a message of 2^31 + 12345 bytes arrives whole");
}

}  // namespace

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  int rank = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  own = static_cast<std::uint32_t>(rank);
  const std::string part = argc > 1 ? argv[1] : "";
  try {
    if (size != 4) throw std::invalid_argument("run with mpirun -n 4");
    if (part == "trains")
      trains(), several_steps(), training_and_evaluation(), records();
    else if (part == "refuses")
      refuses();
    else if (part == "throws")
      throws();
    else if (part == "wrong_size")
      wrong_size();
    else if (part == "leaves")
      leaves(), leaves_between_steps();
    else if (part == "stalls")
      stalls();
    else if (part == "killed" && argc == 4)
      killed(argv[2], std::stoull(argv[3]));
    else if (part == "control")
      control();
    else if (part == "large")
      large();
    else
      throw std::invalid_argument(
          "trains, refuses, throws, wrong_size, leaves, stalls, killed FILE SEED, control or large");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "rank %d: %s\n", rank, e.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
  return failures != 0;
}
