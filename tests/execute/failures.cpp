// SPDX-License-Identifier: MIT
// A rank that throws, leaves, stalls or has a message of the wrong size ends all ranks, each with the first cause.

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <future>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "pipesched/execute/run.hpp"
#include "pipesched/execute/thread_transport.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"
#include "support/families.hpp"
#include "support/place_to_fail.hpp"
#include "support/slow_hooks.hpp"
#include "support/tanh_model.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

using std::chrono::steady_clock;

// How each rank ends: "" after its steps, "own: ..." for its own exception, otherwise the text of its pipeline_aborted.
// `run_rank(rank, transport)` is called in a thread for each.
template <typename Run>
std::vector<std::string> ends_of(thread_world& world, const program& p, Run&& run_rank) {
  world.prepare(p);
  std::vector<std::string> ends(p.schedule.pp());
  std::vector<std::jthread> threads;
  for (std::uint32_t rank = 0; rank < ends.size(); ++rank)
    threads.emplace_back([&, rank] {
      try {
        thread_transport transport(world, rank);
        run_rank(rank, transport);
      } catch (const pipeline_aborted& e) {
        ends[rank] = e.what();
      } catch (const std::exception& e) {
        ends[rank] = std::string("own: ") + e.what();
      }
    });
  threads.clear();  // joins
  return ends;
}

// The trainers of all ranks; that of the failing rank calls `fail` at its op, in step `step`.
template <typename Fail>
std::vector<small_model::trainer> trainers_of(const place_to_fail& where, Fail fail, std::uint64_t step = 0) {
  std::vector<small_model::trainer> trainers;
  for (std::uint32_t rank = 0; rank < where.p.schedule.pp(); ++rank) trainers.emplace_back(where.p, rank);
  trainers[where.rank].before = [at = where.at, fail, step](op o) mutable {
    if (o == at && step-- == 0) fail();
  };
  return trainers;
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

// A trainer_error, with the exception that is nested in it. All is empty if nothing was thrown.
struct thrown_error {
  std::uint32_t rank = ~0u;
  std::string place{}, text{}, nested{};
};
template <typename F>
thrown_error thrown_by(F&& f) {
  thrown_error thrown;
  try {
    f();
  } catch (const trainer_error& e) {
    thrown = {e.rank, e.place, e.what(), ""};
    try {
      std::rethrow_if_nested(e);
    } catch (const std::domain_error& inner) {
      thrown.nested = std::string("domain_error: ") + inner.what();
    } catch (...) {
      thrown.nested = "another type";
    }
  }
  return thrown;
}
template <typename F>
std::string aborted_by(F&& f) {
  try {
    f();
  } catch (const pipeline_aborted& e) {
    return e.what();
  }
  return {};
}

}  // namespace

TEST_CASE("threads: an exception surfaces on its own rank, the others hear rank, op and text; a hundred places") {
  std::mt19937_64 random(1);
  for (int round = 0; round < failures_of_a_sort(); ++round) {
    const place_to_fail bad(any_program(random), random);
    const std::size_t pp = bad.p.schedule.pp();
    const std::uint64_t step = random() % 3;
    const std::string text = "not a number in " + to_string(bad.at);
    const std::string place = detail::concat({"rank ", bad.rank, " at ", to_string(bad.in)});
    const auto fail = [&] { throw std::domain_error(text); };
    const auto start = steady_clock::now();
    thread_world world(pp);
    auto trainers = trainers_of(bad, fail, step);
    const auto ends = ends_of(world, bad.p, [&](std::uint32_t rank, thread_transport& transport) {
      run(bad.p, rank, trainers[rank], transport, {.steps = 3});
    });
    for (std::uint32_t rank = 0; rank < pp; ++rank) {
      CAPTURE(ends[rank]);
      if (rank == bad.rank)
        CHECK(ends[rank] == "own: " + place + ": " + text);
      else if (!ends[rank].empty())
        CHECK(ends[rank] == "aborted by " + place + ": " + text);
    }
    CHECK(aborted_by([&] { world.prepare(bad.p); }) == "aborted by " + place + ": " + text);
    for (const bool one_thread : {false, true}) {
      auto again = trainers_of(bad, fail, step);
      thread_world other(pp);
      const thrown_error thrown =
          thrown_by([&] { run_all(bad.p, again, other, {.steps = 3, .one_thread = one_thread}); });
      CHECK(thrown.rank == bad.rank);
      CHECK(thrown.place == place);
      CHECK(thrown.text == place + ": " + text);
      CHECK(thrown.nested == "domain_error: " + text);
      CHECK(other.aborted());
      CHECK(other.culprit() == bad.rank);
    }
    CHECK(steady_clock::now() - start < std::chrono::seconds(30));  // the limit is 60
  }
}

TEST_CASE("threads: a world takes no program after a failure, and says why") {
  const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 8}));
  std::vector<small_model::trainer> trainers;
  for (std::uint32_t rank = 0; rank < 4; ++rank) trainers.emplace_back(p, rank);
  trainers[2].before = [](op o) {
    if (o.pass == pass::backward) throw std::domain_error("no memory");
  };
  thread_world world(4);
  CHECK(thrown_by([&] { run_all(p, trainers, world); }).text == "rank 2 at 2B0: no memory");
  trainers[2].before = {};
  const auto start = steady_clock::now();
  CHECK(aborted_by([&] { run_all(p, trainers, world); }) == "aborted by rank 2 at 2B0: no memory");
  CHECK(steady_clock::now() - start < std::chrono::milliseconds(500));
  thread_world another(4);
  CHECK(thrown_by([&] { run_all(p, trainers, another); }).text.empty());
}

TEST_CASE("threads: whatever function of a trainer throws, it comes out with rank, place and the exception itself") {
  const program p = lower(make_chimera_schedule({.pp = 2, .micro = 2}));
  struct thrower {
    small_model::trainer of;
    std::string where;
    void at(const char* function) const {
      if (where == function) throw 7;  // not even a std::exception
    }
    void begin_step(std::size_t step) {
      if (step == 6) at("begin_step");
    }
    void end_step(std::size_t step) {
      if (step == 6) at("end_step");
    }
    void forward(task t) { of.forward(t); }
    void backward(task t) { of.backward(t); }
    std::span<std::byte> buffer(tensor_id m, std::uint32_t n) {
      at(m.kind == tensor_kind::weight_gradient ? "buffer of a weight gradient" : "buffer");
      return of.buffer(m, n);
    }
    std::span<std::byte> weight_gradient(std::uint32_t c) { return at("weight_gradient"), of.weight_gradient(c); }
    void reduce(reduction r) { at("reduce"), of.reduce(r); }
  };
  for (const bool one_thread : {false, true}) {
    const auto text_of = [&](const char* function) {
      std::deque<thrower> trainers;
      for (std::uint32_t rank = 0; rank < 2; ++rank)
        trainers.push_back({small_model::trainer(p, rank), rank == 1 ? function : ""});
      thread_world world(2);
      const thrown_error thrown =
          thrown_by([&] { run_all(p, trainers, world, {.steps = 3, .first_step = 5, .one_thread = one_thread}); });
      if (thrown.text.empty()) return thrown.text;
      CHECK(thrown.rank == 1);
      CHECK(thrown.nested == "another type");
      CHECK(thrown.text == thrown.place + ": an exception of unknown type");
      CHECK(world.culprit() == 1);
      return thrown.place;
    };
    CHECK(text_of("begin_step") == "rank 1 at begin_step(6)");
    CHECK(text_of("end_step") == "rank 1 at end_step(6)");
    CHECK(text_of("buffer") == "rank 1 at the memory of activation 0F0 from rank 0");
    CHECK(text_of("weight_gradient").find("rank 1 at the memory of weight gradient of stage ") == 0);
    CHECK(has(text_of("weight_gradient"), " to rank 0"));
    CHECK(text_of("buffer of a weight gradient").find("rank 1 at the memory of weight gradient of stage ") == 0);
    CHECK(has(text_of("buffer of a weight gradient"), " from rank 0"));
    CHECK(text_of("reduce").find("rank 1 at the weight gradient of stage ") == 0);
    CHECK(text_of("nothing") == "");
  }
}

TEST_CASE("threads: an exception that leaves a thread ends the others at once, with the rank and where it was") {
  // As std::async does: the exception is caught after the transport has gone, by a caller that does not know the world.
  const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 8}));
  const auto ends_with = [&](auto&& run_rank) {
    const auto start = steady_clock::now();
    thread_world world(4);
    world.prepare(p);
    std::vector<std::future<void>> ranks;
    for (std::uint32_t rank = 0; rank < 4; ++rank)
      ranks.push_back(std::async(std::launch::async, [&, rank] {
        thread_transport transport(world, rank);
        run_rank(rank, transport);
      }));
    std::vector<std::string> ends(4);
    for (std::uint32_t rank = 0; rank < 4; ++rank) try {
        ranks[rank].get();
      } catch (const std::exception& e) {
        ends[rank] = e.what();
      }
    CHECK(steady_clock::now() - start < std::chrono::seconds(30));  // the limit is 60
    return ends;
  };
  std::vector<small_model::trainer> trainers;
  for (std::uint32_t rank = 0; rank < 4; ++rank) trainers.emplace_back(p, rank);
  trainers[1].before = [](op o) {
    if (o.pass == pass::backward && o.micro == 3) throw std::domain_error("no memory");
  };
  const auto ends =
      ends_with([&](std::uint32_t rank, thread_transport& transport) { run(p, rank, trainers[rank], transport); });
  CHECK(ends[1] == "rank 1 at 1B3: no memory");
  CHECK(ends[0] == "aborted by rank 1 at 1B3: no memory");  // it needs 1B3 of rank 1
  for (const std::uint32_t rank : {2u, 3u}) CHECK((ends[rank].empty() || ends[rank] == ends[0]));

  // Between its steps, in code of its own.
  trainers[1].before = {};
  const auto between = ends_with([&](std::uint32_t rank, thread_transport& transport) {
    run(p, rank, trainers[rank], transport);
    if (rank == 1) throw std::domain_error("no file");
    run(p, rank, trainers[rank], transport);
  });
  CHECK(between == std::vector<std::string>{"aborted by rank 1 at its end: it left with an exception", "no file",
                                            "aborted by rank 1 at its end: it left with an exception",
                                            "aborted by rank 1 at its end: it left with an exception"});
}

TEST_CASE("threads: an empty buffer is refused with rank, message and buffer, even if both sides have one") {
  struct empty {
    small_model::trainer of;
    bool buffers, gradients, reductions;
    void forward(task t) { of.forward(t); }
    void backward(task t) { of.backward(t); }
    std::span<std::byte> buffer(tensor_id m, std::uint32_t n) {
      const bool none = m.kind == tensor_kind::weight_gradient ? reductions : buffers;
      return of.buffer(m, n).first(none ? 0 : of.buffer(m, n).size());
    }
    std::span<std::byte> weight_gradient(std::uint32_t c) {
      return of.weight_gradient(c).first(gradients ? 0 : sizeof(small_model::matrix));
    }
    void reduce(reduction r) { of.reduce(r); }
  };
  const auto refused = [](const program& p, bool buffers, bool gradients, bool reductions) {
    std::deque<empty> trainers;
    for (std::uint32_t rank = 0; rank < 2; ++rank)
      trainers.push_back({small_model::trainer(p, rank), buffers, gradients, reductions});
    thread_world world(2);
    return refusal_of([&] { run_all(p, trainers, world); });
  };
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 2}), {.depth = 1});
  const std::string text = refused(p, true, false, false);
  CAPTURE(text);
  CHECK((text == "rank 0: gradient 1B0 from rank 1 has 0 bytes in buffer 1; expected at least 1" ||
         text == "rank 1: activation 0F0 from rank 0 has 0 bytes in buffer 0; expected at least 1"));
  const program both = lower(make_chimera_schedule({.pp = 2, .micro = 2}));
  const std::string sent = refused(both, false, true, false);
  CAPTURE(sent);
  CHECK(has(sent, ": weight gradient of stage "));
  CHECK(has(sent, " has 0 bytes in weight_gradient("));
  const std::string received = refused(both, false, false, true);
  CAPTURE(received);
  CHECK(has(received, ": weight gradient of stage "));
  CHECK(has(received, detail::concat({" has 0 bytes in buffer ", both.pools[0][pool::tensor], "; "})));
  CHECK(refused(both, false, false, false) == "");
}

TEST_CASE("threads: a thread that leaves ends all others that need it; a hundred places") {
  std::mt19937_64 random(2);
  int heard = 0;
  for (int round = 0; round < failures_of_a_sort(); ++round) {
    const place_to_fail bad(any_program(random), random);
    const std::size_t pp = bad.p.schedule.pp();
    thread_world world(pp);
    auto trainers = trainers_of(bad, [] {});
    const auto start = steady_clock::now();
    const auto ends = ends_of(world, bad.p, [&](std::uint32_t rank, thread_transport& transport) {
      if (rank != bad.rank) return static_cast<void>(run(bad.p, rank, trainers[rank], transport));
      detail::rank_executor own(bad.p, rank, trainers[rank], transport);  // as run() does, but for the end
      transport.prepare(bad.p, own.memory());
      std::uint32_t n = 0;
      for (; n < own.actions().size(); ++n) {
        own.run(n);
        const action& a = own.actions()[n];
        if (a.kind == action_kind::compute && bad.p.schedule[rank][a.index] == bad.in) return;  // without a word
      }
    });
    CHECK(ends[bad.rank].empty());
    for (const std::string& text : ends)
      if (!text.empty()) {
        CAPTURE(text);
        CHECK(text == detail::concat({"aborted by rank ", bad.rank, " at ", to_string(bad.in),
                                      ": it left before the end of its step"}));
        ++heard;
      }
    CHECK(steady_clock::now() - start < std::chrono::seconds(30));  // the limit is 60
  }
  CHECK(heard > failures_of_a_sort() / 2);
}

TEST_CASE("threads: a message of the wrong size ends all ranks; a hundred places") {
  std::mt19937_64 random(3);
  int local = 0;
  for (int round = 0; round < 100; ++round) {
    const place_to_fail bad(random);
    thread_world world(4);
    auto trainers = trainers_of(bad, [] {});
    const std::size_t buffer = trainers[bad.rank].short_buffer = random() % bad.p.pools[bad.rank][pool::tensor];
    const bool travelling = travels(bad.p, bad.rank, buffer);  // or goes from stage to stage on one rank
    const auto start = steady_clock::now();
    const auto ends = ends_of(world, bad.p, [&](std::uint32_t rank, thread_transport& transport) {
      run(bad.p, rank, trainers[rank], transport);
    });
    local += !travelling;
    int heard = 0;
    for (const std::string& text : ends)
      if (!text.empty()) {
        CAPTURE(text);
        CHECK(text.find("aborted by rank ") == 0);
        CHECK(has(text, " bytes at its sender and "));
        ++heard;
      }
    CHECK((heard > 0) == travelling);
    CHECK(steady_clock::now() - start < std::chrono::seconds(30));  // the limit is 60
  }
  CHECK(local < 50);
}

TEST_CASE("threads: a stall ends all ranks that wait, which say where all are; a hundred places") {
  std::mt19937_64 random(4);
  int heard = 0;
  for (int round = 0; round < failures_of_a_sort(); ++round) {
    const place_to_fail bad(any_program(random), random);
    const std::size_t pp = bad.p.schedule.pp();
    thread_world world(pp, std::chrono::milliseconds(10));
    std::atomic<int> ended = 0;
    auto trainers = trainers_of(bad, [&ended, pp] {
      while (ended + 1 < static_cast<int>(pp)) std::this_thread::yield();
    });
    const auto ends = ends_of(world, bad.p, [&](std::uint32_t rank, thread_transport& transport) {
      const struct at_end {
        std::atomic<int>& n;
        ~at_end() { ++n; }
      } count{ended};
      run(bad.p, rank, trainers[rank], transport);
    });
    for (const std::string& text : ends) {
      if (text.empty()) continue;  // needed nothing more
      CAPTURE(text);
      ++heard;
      CHECK(text.find("aborted by rank ") == 0);
      CHECK(has(text, "nothing came within the time limit"));
      for (std::size_t r = 0; r < pp; ++r) CHECK(has(text, detail::concat({"\nrank ", r, " at "})));
      CHECK(has(text, ", which waits for "));
    }
  }
  CHECK(heard > failures_of_a_sort() / 2);
}

TEST_CASE(
    "threads: a rank that stalls in a step ends the others, though they are through with it and meet for the next") {
  const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 4}));
  thread_world world(4, std::chrono::milliseconds(10));
  std::vector<small_model::trainer> trainers;
  for (std::uint32_t rank = 0; rank < 4; ++rank) trainers.emplace_back(p, rank);
  std::atomic<int> ended = 0;
  trainers[0].before = [&](op o) {  // the last op of all, which no other rank waits for
    while (o.pass == pass::backward && o.micro == 3 && ended < 3) std::this_thread::yield();
  };
  const auto ends = ends_of(world, p, [&](std::uint32_t rank, thread_transport& transport) {
    try {
      run(p, rank, trainers[rank], transport, {.steps = 2, .record = true});
    } catch (...) {
      ++ended;
      throw;
    }
  });
  for (const std::string& text : ends) {
    CAPTURE(text);
    CHECK(text.find("aborted by rank ") == 0);
    CHECK(has(text, ": not all ranks came to the start of the step within the time limit\n"));
  }
}

TEST_CASE("threads: a rank between steps may take longer than the time limit, in which the others wait") {
  struct slow : slow_hooks<small_model::trainer> {
    slow(const program& of, std::uint32_t own) : slow_hooks<small_model::trainer>{{of, own}} {}
  };
  const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 4}));
  for (const bool record : {false, true})
    for (const char* where : {"begin_step", "end_step", "between runs"}) {
      CAPTURE(where);
      thread_world world(4, shorter_than_hooks);
      std::deque<slow> trainers;
      for (std::uint32_t rank = 0; rank < 4; ++rank) trainers.emplace_back(p, rank);
      trainers[1].slow_at = where;
      const run_options steps{.steps = 2, .record = record};
      if (where != std::string_view("between runs")) {
        CHECK(aborted_by([&] { run_all(p, trainers, world, steps); }) == "");
        continue;
      }
      CHECK(ends_of(world, p, [&](std::uint32_t rank, thread_transport& transport) {
              run(p, rank, trainers[rank], transport, steps);
              trainers[rank].reach("between runs");
              run(p, rank, trainers[rank], transport, steps);
            }) == std::vector<std::string>(4));
    }
}

TEST_CASE("threads: a rank that is late to begin its first step may take longer than the time limit") {
  struct late_world : thread_world {
    using thread_world::thread_world;
    struct transport_type : thread_transport {
      transport_type(late_world& all, std::uint32_t own) : thread_transport(late(all, own), own) {}
      static late_world& late(late_world& all, std::uint32_t own) {
        if (own == 2) std::this_thread::sleep_for(10 * all.time_limit());
        return all;
      }
    };
  };
  const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 4}));
  late_world world(4, std::chrono::milliseconds(20));
  std::vector<small_model::trainer> trainers;
  for (std::uint32_t rank = 0; rank < 4; ++rank) trainers.emplace_back(p, rank);
  CHECK(aborted_by([&] { run_all(p, trainers, world, {.steps = 2}); }) == "");
}

TEST_CASE("threads: a rank that is through with all its steps is not waited for") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 2}));
  thread_world world(2, std::chrono::seconds(2));
  std::vector<small_model::trainer> trainers;
  for (std::uint32_t rank = 0; rank < 2; ++rank) trainers.emplace_back(p, rank);
  const auto ends = ends_of(world, p, [&](std::uint32_t rank, thread_transport& transport) {
    run(p, rank, trainers[rank], transport, {.steps = rank + std::size_t{1}});  // one has a step more
  });
  CHECK(ends[0] == "");
  CHECK(has(ends[1], "nothing came within the time limit"));
}

TEST_CASE("threads: time between steps does not count, also if it is shorter than the limit") {
  struct slow : small_model::trainer {
    using small_model::trainer::trainer;
    void begin_step(std::size_t) const {
      if (is_slow) std::this_thread::sleep_for(std::chrono::milliseconds(800));
    }
    void forward(task t) {
      if (std::exchange(is_slow, false)) std::this_thread::sleep_for(std::chrono::milliseconds(500));
      small_model::trainer::forward(t);
    }
    bool is_slow = false;
  };
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 2}));
  thread_world world(2, std::chrono::seconds(1));
  std::deque<slow> trainers;
  for (std::uint32_t rank = 0; rank < 2; ++rank) trainers.emplace_back(p, rank);
  trainers[0].is_slow = true;
  CHECK(aborted_by([&] { run_all(p, trainers, world); }) == "");
}

TEST_CASE("a wait: no time counts during pauses, of which the longest is bounded") {
  using std::chrono::milliseconds, std::chrono::hours;
  int asked = 0;
  const auto pausing = [&](bool is) {
    return [&asked, is] {
      ++asked;
      return is;
    };
  };
  const auto after = [](milliseconds time) {
    return [end = std::chrono::steady_clock::now() + time] { return std::chrono::steady_clock::now() >= end; };
  };
  const auto never = [] { return false; };
  CHECK(detail::wait_within(hours(1), after(milliseconds(5)), true, pausing(true)));
  CHECK_FALSE(detail::wait_within(milliseconds(20), never, true, pausing(false)));
  CHECK(asked > 2);
  asked = 0;
  const auto paused = after(milliseconds(800));
  CHECK(detail::wait_within(milliseconds(1'000), after(milliseconds(1'500)), true, [&] { return !paused(); }));
  CHECK(detail::wait_within(milliseconds(1), after(milliseconds(50)), true, pausing(true)));
  CHECK(asked > 2);
  const auto start = std::chrono::steady_clock::now();
  CHECK_FALSE(detail::wait_within(milliseconds(5), never, true, pausing(true), milliseconds(100)));
  CHECK(std::chrono::steady_clock::now() - start >= milliseconds(100));
}
