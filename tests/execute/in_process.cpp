// SPDX-License-Identifier: MIT
// Programs run by threads: messages arrive where they belong, gradients are those of one device, failures end all ranks.

#include "pipesched/execute/in_process.hpp"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <future>
#include <memory>
#include <random>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "pipesched/core/transform.hpp"
#include "pipesched/execute/recording.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/program/verify.hpp"
#include "support/borrowed.hpp"
#include "support/families.hpp"
#include "support/place_to_fail.hpp"
#include "support/tanh_model.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

using model = tanh_model<double>;

// Every loss and every gradient once; of a stage that two ranks hold, both have the same to the bit.
template <typename Real>
typename tanh_model<Real>::results gathered(const program& p,
                                            const std::vector<typename tanh_model<Real>::trainer>& trainers) {
  typename tanh_model<Real>::results r;
  r.losses.resize(p.schedule.micro);
  r.layers.resize(p.schedule.stages());
  std::set<std::uint16_t> seen;
  for (const auto& t : trainers) {
    for (std::uint32_t m = 0; m < p.schedule.micro; ++m)
      if (t.losses[m] != -1) r.losses[m] = t.losses[m];
    for (std::size_t chunk = 0; chunk < t.stages.size(); ++chunk) {
      auto& at = r.layers[t.stages[chunk]];
      if (!seen.insert(t.stages[chunk]).second) REQUIRE(at.gradient == t.layers[chunk].gradient);
      at = t.layers[chunk];
    }
  }
  return r;
}

template <typename Real = double>
typename tanh_model<Real>::results in_threads(const program& p, const tied_stages& tied = {}) {
  std::vector<typename tanh_model<Real>::trainer> trainers;
  for (std::uint32_t rank = 0; rank < p.schedule.pp(); ++rank) trainers.emplace_back(p, rank, tied);
  run_in_process(p, [&](std::uint32_t rank) { return borrowed<std::decay_t<decltype(trainers[0])>>{trainers[rank]}; });
  return gathered<Real>(p, trainers);
}

template <typename Results>
void require_same(const Results& got, const Results& expected) {
  REQUIRE(got.losses == expected.losses);
  for (std::size_t s = 0; s < expected.layers.size(); ++s)
    REQUIRE(got.layers[s].gradient == expected.layers[s].gradient);
}
template <typename Results>
void require_close(const Results& got, const Results& expected) {
  REQUIRE(got.losses == expected.losses);
  const double most = std::is_same_v<std::decay_t<decltype(got.losses[0])>, float> ? 1e-6 : 1e-12;
  for (std::size_t s = 0; s < expected.layers.size(); ++s)
    for (std::size_t i = 0; i < model::width; ++i)
      for (std::size_t j = 0; j < model::width; ++j) {
        const double e = expected.layers[s].gradient[i][j];
        REQUIRE(std::abs(got.layers[s].gradient[i][j] - e) <= most * (1 + std::abs(e)));
      }
}

// What each rank of a program ends with: "" at its end, "own: ..." for an exception of its own, otherwise what it was told.
// `run(rank, transport)` is called in a thread for each.
template <typename Run>
std::vector<std::string> ends_of(in_process_hub& hub, std::uint32_t ranks, Run&& run) {
  std::vector<std::string> said(ranks);
  std::vector<std::jthread> threads;
  for (std::uint32_t rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      try {
        in_process transport(hub, rank);
        run(rank, transport);
      } catch (const pipeline_aborted& e) {
        said[rank] = e.what();
      } catch (const std::exception& e) {
        hub.abort(rank, e.what());
        said[rank] = std::string("own: ") + e.what();
      }
    });
  threads.clear();  // joins
  return said;
}

// The trainers of all ranks; that of the failing rank calls `fail` at its op.
template <typename Fail>
std::vector<model::trainer> trainers_of(const place_to_fail& where, Fail fail) {
  std::vector<model::trainer> trainers;
  for (std::uint32_t rank = 0; rank < 4; ++rank) trainers.emplace_back(where.p, rank);
  trainers[where.rank].before = [at = where.at, fail](op o) {
    if (o == at) fail();
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

}  // namespace

TEST_CASE(
    "in process: every family trains as one device does, to the bit where it sums in that order, and twice the same") {
#ifdef PIPESCHED_SMALL_GRIDS
  const std::vector<std::int64_t> ranks = {2, 4};
#else
  const std::vector<std::int64_t> ranks = {1, 2, 4, 8};
#endif
  std::set<std::string_view> ascending;  // families whose stages all sum from the first micro-batch to the last
  for (const family& f : families)
    for (std::int64_t pp : ranks)
      for (std::int64_t micro : {1, 3, 8, 17}) {
        if (pp % 2 != 0 && needs_even_pp(f)) continue;
        CAPTURE(f.name);
        CAPTURE(pp);
        CAPTURE(micro);
        const schedule s = f.make({.pp = pp, .micro = micro});
        const program p = lower(s);
        const auto orders = model::orders_of(s);
        const auto got = in_threads(p);
        require_close(got, model::on_one_device(s.stages(), s.micro));
        require_same(got, model::on_one_device(s.stages(), s.micro, orders));
        require_same(in_threads(p), got);
        if (micro == 17 && pp == 4 && std::all_of(orders.begin(), orders.end(), [](const model::order& o) {
              return o.size() == 1 && std::is_sorted(o[0].begin(), o[0].end());
            })) {
          ascending.insert(f.name);
          require_same(got, model::on_one_device(s.stages(), s.micro));
        }
        const auto in_float = in_threads<float>(p);
        require_close(in_float, tanh_model<float>::on_one_device(s.stages(), s.micro));
        require_same(in_float, tanh_model<float>::on_one_device(s.stages(), s.micro, orders));
        if (micro == 8) {
          const schedule evaluation = f.make({.pp = pp, .micro = micro, .forward_only = true});
          REQUIRE(in_threads(lower(evaluation)).losses == got.losses);
        }
      }
  CHECK(ascending.size() >= 16);
  CHECK(!ascending.contains("dualpipe"));
}

TEST_CASE("in process: stages with tied weights have the sum of both gradients, on one rank, on two, and on four") {
  for (const char* name : {"1f1b", "interleaved_1f1b", "zb1p", "zbv", "dualpipe", "dualpipev", "chimera", "v_half"})
    for (const bool ends : {true, false}) {
      const schedule s = make_schedule(name, {.pp = 4, .micro = 8});
      const auto last = static_cast<std::uint16_t>(s.stages() - 1);
      const tied_stages tied = ends ? tied_stages{{0, last}} : tied_stages{{1, 0}, {2, last}};
      CAPTURE(name);
      CAPTURE(ends);
      const program p = lower(s, {.tied = tied});
      REQUIRE(verify(p));
      const auto got = in_threads(p, tied);
      require_same(got, model::on_one_device(s.stages(), s.micro, model::orders_of(s), tied));
      const auto untied = model::on_one_device(s.stages(), s.micro);
      CHECK(got.layers[0].gradient != untied.layers[0].gradient);
    }
}

TEST_CASE("in process: stages with tied weights, wherever two replicas of each are") {
  for (const auto& [first, second] : {std::pair(0, 1), std::pair(2, 0), std::pair(1, 2)})
    for (const std::vector<std::vector<std::uint16_t>>& homes :
         {std::vector<std::vector<std::uint16_t>>{{0, 1, 2}, {2, 0, 1}},
          {{0, 1, 2}, {1, 2, 0}},
          {{0, 1, 2}, {1, 0, 0}}}) {
      schedule s{.name = "two_replicas", .placement = placement::custom(3, 4, homes), .micro = 4};
      // Each rank all forwards, by micro-batch and stage, then all backwards.
      std::vector<std::vector<cell>> rows_of(3);
      const auto put = [&](pass kind, std::uint32_t micro, std::uint16_t stage) {
        const std::uint32_t rank = s.placement.rank_of(stage, micro);
        rows_of[rank].push_back(
            op{.pass = kind, .chunk = s.placement.chunk_of(stage, micro), .stage = stage, .micro = micro});
      };
      for (std::uint32_t m = 0; m < 4; ++m)
        for (std::uint16_t stage = 0; stage < 3; ++stage) put(pass::forward, m, stage);
      for (std::uint32_t m = 0; m < 4; ++m)
        for (std::uint16_t stage = 3; stage-- > 0;) put(pass::backward, m, stage);
      s.cells = rows<cell>(rows_of);
      REQUIRE(to_string(verify(s)) == "");
      const tied_stages tied{{static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(second)}};
      const program p = lower(s, {.tied = tied});
      REQUIRE(to_string(verify(p)) == "");
      require_close(in_threads(p, tied), model::on_one_device(3, 4, tied));
    }
}

TEST_CASE("in process: transformed schedules, any depth, and the overlapped callback") {
  for (const char* name : {"1f1b", "interleaved_1f1b", "zbv", "dualpipe", "dualpipev"})
    for (const std::uint32_t depth : {1u, 2u, 8u}) {
      const schedule s = make_schedule(name, {.pp = 4, .micro = 9});
      const auto expected = model::on_one_device(s.stages(), s.micro);
      for (const schedule& other :
           {s, split_backward(s), merge_backward(s), overlap_neighbours(s), delay_weights(s, 2)})
        require_close(in_threads(lower(other, {.depth = depth})), expected);
    }
  struct counting {
    std::vector<std::array<std::byte, 8>> buffers;
    std::atomic<int>& pairs;
    void forward(task) {}
    void backward(task) {}
    void backward_input(task) {}
    void backward_weight(task) {}
    void overlapped(task a, task b) {
      if (a.what.pass == pass::forward && b.what.pass == pass::backward) ++pairs;
    }
    std::span<std::byte> buffer(std::uint32_t n) { return buffers[n]; }
  };
  const program p = lower(make_dualpipev_schedule({.pp = 4, .micro = 12}));
  int expected = 0;
  for (const cell& c : p.schedule.cells.all()) expected += c.overlapped();
  std::atomic<int> pairs = 0;
  run_in_process(p, [&](std::uint32_t rank) {
    return counting{std::vector<std::array<std::byte, 8>>(p.pools[rank].buffers), pairs};
  });
  CHECK(pairs == expected);
}

TEST_CASE("in process: many steps through one hub, each rank at its own pace") {
  for (const char* name : {"1f1b", "dualpipe", "zbv", "interleaved_zb"}) {
    const program p = lower(make_schedule(name, {.pp = 4, .micro = 6}), {.depth = 1});
    const auto expected = model::on_one_device(p.schedule.stages(), p.schedule.micro);
    std::vector<model::trainer> trainers;
    for (std::uint32_t rank = 0; rank < 4; ++rank) trainers.emplace_back(p, rank);
    in_process_hub hub(p);
    const auto said = ends_of(hub, 4, [&](std::uint32_t rank, in_process& transport) {
      for (int step = 0; step < 50; ++step) execute(p, rank, trainers[rank], transport);
    });
    CHECK(said == std::vector<std::string>(4));
    if (p.schedule.placement.replicas() == 2) continue;  // there each step adds what the other rank has summed so far
    const auto got = gathered<double>(p, trainers);
    CHECK(got.losses == expected.losses);
    for (std::size_t stage = 0; stage < got.layers.size(); ++stage)
      for (std::size_t i = 0; i < model::width; ++i)
        CHECK(got.layers[stage].gradient[i][0] ==
              doctest::Approx(50 * expected.layers[stage].gradient[i][0]).epsilon(1e-9));
  }
}

TEST_CASE("in process: the measured timeline is one that the ranks can have had") {
  const program p = lower(make_zbv_schedule({.pp = 4, .micro = 8}));
  const timeline t = run_in_process(p, [&](std::uint32_t rank) { return model::trainer(p, rank); }, {.record = true});
  std::vector<std::vector<double>> end_of_F(8, std::vector<double>(8));
  for (std::uint32_t rank = 0; rank < 4; ++rank)
    for (std::size_t i = 0; i < t[rank].size(); ++i) {
      CHECK(t[rank][i].start <= t[rank][i].end);
      if (i > 0) CHECK(t[rank][i - 1].end <= t[rank][i].start);
      const op o = p.schedule[rank][i][0];
      if (o.pass == pass::forward) end_of_F[o.stage][o.micro] = t[rank][i].end;
    }
  for (std::uint32_t rank = 0; rank < 4; ++rank)
    for (std::size_t i = 0; i < t[rank].size(); ++i)
      if (const op o = p.schedule[rank][i][0]; o.pass == pass::forward && o.stage > 0)
        CHECK(end_of_F[o.stage - 1u][o.micro] <= t[rank][i].start);
}

TEST_CASE(
    "in process: an exception surfaces on its own rank, the others are told rank, op and text; a hundred places") {
  std::mt19937_64 random(1);
  for (int round = 0; round < 100; ++round) {
    const place_to_fail bad(random);
    const std::string text = "not a number in " + to_string(bad.at);
    const auto fail = [&] { throw std::domain_error(text); };
    in_process_hub hub(bad.p);
    auto trainers = trainers_of(bad, fail);
    const auto said = ends_of(
        hub, 4, [&](std::uint32_t rank, in_process& transport) { execute(bad.p, rank, trainers[rank], transport); });
    for (std::uint32_t rank = 0; rank < 4; ++rank) {
      CAPTURE(said[rank]);
      if (rank == bad.rank) {
        CHECK(said[rank] == "own: " + text);
      } else if (!said[rank].empty()) {
        CHECK(said[rank].find("aborted by rank " + std::to_string(bad.rank) + " at ") == 0);
        CHECK(has(said[rank], to_string(bad.at)));
        CHECK(has(said[rank], text));
      }
    }
    auto again = trainers_of(bad, fail);
    const thrown_error thrown = thrown_by(
        [&] { run_in_process(bad.p, [&](std::uint32_t rank) { return borrowed<model::trainer>{again[rank]}; }); });
    CHECK(thrown.rank == bad.rank);
    CHECK(thrown.place == to_string(bad.in));
    CHECK(thrown.text == detail::concat({"rank ", bad.rank, " at ", to_string(bad.in), ": ", text}));
    CHECK(thrown.nested == "domain_error: " + text);
  }
}

TEST_CASE("in process: whatever function of a trainer throws, it comes out with rank, place and the exception itself") {
  const program p = lower(make_chimera_schedule({.pp = 2, .micro = 2}));
  struct thrower {
    model::trainer of;
    std::string where;
    void at(const char* function) const {
      if (where == function) throw 7;  // not even a std::exception
    }
    void begin_step(std::size_t step) {
      CHECK(step == 0);
      at("begin_step");
    }
    void end_step(std::size_t step) {
      CHECK(step == 0);
      at("end_step");
    }
    void forward(task t) { of.forward(t); }
    void backward(task t) { of.backward(t); }
    std::span<std::byte> buffer(std::uint32_t n) { return at("buffer"), of.buffer(n); }
    std::span<std::byte> weight_gradient(std::uint16_t s) { return at("weight_gradient"), of.weight_gradient(s); }
    std::span<std::byte> reduction_buffer(std::uint32_t n) { return at("reduction_buffer"), of.reduction_buffer(n); }
    void reduce(std::uint16_t s, std::uint16_t o, std::span<const std::byte> b) { at("reduce"), of.reduce(s, o, b); }
  };
  const auto text_of = [&](const char* function) {
    const thrown_error thrown = thrown_by([&] {
      run_in_process(p, [&](std::uint32_t rank) {
        if (rank == 1 && std::string(function) == "make_trainer") throw 7;
        return thrower{model::trainer(p, rank), rank == 1 ? function : ""};
      });
    });
    if (thrown.text.empty()) return thrown.text;
    CHECK(thrown.rank == 1);
    CHECK(thrown.nested == "another type");
    return thrown.text;
  };
  const std::string unknown = ": an exception of unknown type";
  CHECK(text_of("make_trainer") == "rank 1 at its start" + unknown);
  CHECK(text_of("begin_step") == "rank 1 at begin_step(0)" + unknown);
  CHECK(text_of("end_step") == "rank 1 at end_step(0)" + unknown);
  CHECK(text_of("buffer").find("rank 1 at the receive of activation 0F") == 0);
  CHECK(text_of("weight_gradient").find("rank 1 at the send of weight gradient of stage ") == 0);
  CHECK(text_of("reduction_buffer").find("rank 1 at the receive of weight gradient of stage ") == 0);
  CHECK(text_of("reduce").find("rank 1 at the reduction of weight gradient of stage ") == 0);
  CHECK(text_of("nothing") == "");
}

TEST_CASE("in process: an exception that leaves a thread ends the others at once, with the rank and where it was") {
  // As std::async does: the exception is caught after the transport has gone, by nobody who knows the hub.
  const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 8}));
  const auto start = std::chrono::steady_clock::now();
  in_process_hub hub(p);
  std::vector<model::trainer> trainers;
  for (std::uint32_t rank = 0; rank < 4; ++rank) trainers.emplace_back(p, rank);
  trainers[1].before = [](op o) {
    if (o.pass == pass::backward && o.micro == 3) throw std::domain_error("no memory");
  };
  std::vector<std::future<void>> ranks;
  for (std::uint32_t rank = 0; rank < 4; ++rank)
    ranks.push_back(std::async(std::launch::async, [&, rank] {
      in_process transport(hub, rank);
      execute(p, rank, trainers[rank], transport);
    }));
  std::vector<std::string> said(4);
  for (std::uint32_t rank = 0; rank < 4; ++rank) try {
      ranks[rank].get();
    } catch (const std::exception& e) {
      said[rank] = e.what();
    }
  CHECK(said[1] == "no memory");
  for (const std::uint32_t rank : {0u, 2u, 3u}) {
    CAPTURE(rank);
    CHECK((said[rank].empty() || said[rank] == "aborted by rank 1 at 1B3: it left with an exception"));
  }
  CHECK(!said[0].empty());                                                     // it needs 1B3 of rank 1
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(30));  // the limit is 60
}

TEST_CASE("in process: an empty buffer is refused with rank, message and buffer, also where both sides have one") {
  struct empty {
    model::trainer of;
    bool buffers, gradients, reductions;
    void forward(task t) { of.forward(t); }
    void backward(task t) { of.backward(t); }
    std::span<std::byte> buffer(std::uint32_t n) { return of.buffer(n).first(buffers ? 0 : sizeof(model::vector)); }
    std::span<std::byte> weight_gradient(std::uint16_t s) {
      return of.weight_gradient(s).first(gradients ? 0 : sizeof(model::matrix));
    }
    std::span<std::byte> reduction_buffer(std::uint32_t n) {
      return of.reduction_buffer(n).first(reductions ? 0 : sizeof(model::matrix));
    }
    void reduce(std::uint16_t s, std::uint16_t o, std::span<const std::byte> b) { of.reduce(s, o, b); }
  };
  const auto refused = [](const program& p, bool buffers, bool gradients, bool reductions) {
    return refusal_of([&] {
      run_in_process(p, [&](std::uint32_t rank) {
        return empty{model::trainer(p, rank), buffers, gradients, reductions};
      });
    });
  };
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 2}), {.depth = 1});
  const std::string text = refused(p, true, false, false);
  CAPTURE(text);
  CHECK((text == "rank 0: gradient 1B0 is received into buffer(1), which has 0 bytes; expected at least 1" ||
         text == "rank 1: activation 0F0 is received into buffer(0), which has 0 bytes; expected at least 1"));
  const program both = lower(make_chimera_schedule({.pp = 2, .micro = 2}));
  CHECK(refused(both, false, true, false).find(" is sent from weight_gradient(") != std::string::npos);
  CHECK(refused(both, false, false, true).find(" is received into reduction_buffer(0), which has 0 bytes; ") !=
        std::string::npos);
  CHECK(refused(both, false, false, false) == "");
}

TEST_CASE(
    "in process: a rank, a transport, a record or a time limit that does not fit is refused before anything runs") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 2}));
  in_process_hub hub(p);
  CHECK(refusal_of([&] { in_process(hub, 2); }) == "a program of 2 ranks has ranks 0 to 1; got rank 2");
  in_process transport(hub, 0);
  model::trainer t(p, 0);
  CHECK(refusal_of([&] { execute(p, 2, t, transport); }) == "a program of 2 ranks has ranks 0 to 1; got rank 2");
  CHECK(refusal_of([&] { execute(p, 1, t, transport); }) == "rank 1 runs with a transport of rank 0");
  std::vector<interval> record(3);
  CHECK(refusal_of([&] { execute(p, 0, t, transport, record); }) ==
        "rank 0 has 4 cells; got 3 intervals to record them in");
  for (const double limit : {0.0, -1.0, 2e9, std::nan("")}) {
    CAPTURE(limit);
    CHECK(refusal_of([&] { in_process_hub(p, std::chrono::duration<double>(limit)); }) ==
          detail::concat({"a time limit is above 0 and at most 1e9 seconds; got ", limit}));
  }
}

TEST_CASE("in process: a thread that leaves ends all others that need it; a hundred places") {
  std::mt19937_64 random(2);
  struct gone {};
  int told = 0;
  for (int round = 0; round < 100; ++round) {
    const place_to_fail bad(random);
    in_process_hub hub(bad.p);
    auto trainers = trainers_of(bad, [] { throw gone(); });
    const auto said = ends_of(hub, 4, [&](std::uint32_t rank, in_process& transport) {
      try {
        execute(bad.p, rank, trainers[rank], transport);
      } catch (const gone&) {  // and returns without a word
      }
    });
    CHECK(said[bad.rank].empty());
    for (std::uint32_t rank = 0; rank < 4; ++rank)
      if (!said[rank].empty()) {
        CAPTURE(said[rank]);
        CHECK(said[rank].find("aborted by rank " + std::to_string(bad.rank) + " at ") == 0);
        CHECK(has(said[rank], to_string(bad.at)));
        CHECK(has(said[rank], ": it left before the end of its step"));
        ++told;
      }
  }
  CHECK(told > 100);
}

TEST_CASE("in process: a message of the wrong size ends all ranks; a hundred places") {
  std::mt19937_64 random(3);
  int local = 0;
  for (int round = 0; round < 100; ++round) {
    const place_to_fail bad(random);
    in_process_hub hub(bad.p);
    auto trainers = trainers_of(bad, [] {});
    const std::size_t buffer = trainers[bad.rank].short_buffer = random() % bad.p.pools[bad.rank].buffers;
    const bool travelling = travels(bad.p, bad.rank, buffer);  // or goes from stage to stage on one rank
    const auto said = ends_of(
        hub, 4, [&](std::uint32_t rank, in_process& transport) { execute(bad.p, rank, trainers[rank], transport); });
    local += !travelling;
    int told = 0;
    for (const std::string& text : said)
      if (!text.empty()) {
        CAPTURE(text);
        CHECK(text.find("aborted by rank ") == 0);
        CHECK(has(text, " bytes where it leaves and "));
        ++told;
      }
    CHECK((told > 0) == travelling);
  }
  CHECK(local < 50);
}

TEST_CASE("in process: a stall ends all ranks that wait, which tell where all are; a hundred places") {
  std::mt19937_64 random(4);
  int told = 0;
  for (int round = 0; round < 100; ++round) {
    const place_to_fail bad(random);
    in_process_hub hub(bad.p, std::chrono::milliseconds(10));
    std::atomic<int> ended = 0;
    auto trainers = trainers_of(bad, [&ended] {
      while (ended < 3) std::this_thread::yield();
    });
    const auto said = ends_of(hub, 4, [&](std::uint32_t rank, in_process& transport) {
      const struct at_end {
        std::atomic<int>& n;
        ~at_end() { ++n; }
      } count{ended};
      execute(bad.p, rank, trainers[rank], transport);
    });
    for (const std::string& text : said) {
      if (text.empty()) continue;  // needed nothing more
      CAPTURE(text);
      ++told;
      CHECK(text.find("aborted by rank ") == 0);
      CHECK(has(text, "nothing came within the time limit"));
      for (const char* each : {"\nrank 0 at ", "\nrank 1 at ", "\nrank 2 at ", "\nrank 3 at "}) CHECK(has(text, each));
      CHECK(has(text, ", which waits for "));
    }
  }
  CHECK(told > 100);
}

TEST_CASE("execute: what a rank asks of its transport, and in which order") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 2}), {.depth = 2});
  model::trainer last(p, 1);
  recording_transport transport([](tensor_id m, std::span<std::byte> bytes) {
    const model::vector x = model::input_of_micro(m.micro);
    std::memcpy(bytes.data(), &x, sizeof x);
  });
  execute(p, 1, last, transport);
  using enum recording_transport::event_kind;
  const tensor_id F0{tensor_kind::activation, 0, 0}, F1{tensor_kind::activation, 0, 1}, B0{tensor_kind::gradient, 1, 0},
      B1{tensor_kind::gradient, 1, 1};
  CHECK(transport.events() == std::vector<recording_transport::event>{{receive, F0, 0, sizeof(model::vector)},
                                                                      {receive, F1, 1, sizeof(model::vector)},
                                                                      {wait_received, {}, 0, 0},
                                                                      {wait_sent, {}, 2, 0},
                                                                      {send, B0, 2, sizeof(model::vector)},
                                                                      {wait_received, {}, 1, 0},
                                                                      {wait_sent, {}, 3, 0},
                                                                      {send, B1, 3, sizeof(model::vector)},
                                                                      {finish}});
  CHECK(last.losses[1] == model::loss_of(model::forward_of(model::make_layer(1), model::input_of_micro(1))));
}

TEST_CASE("execute: a program that needs what the trainer has not is refused before it runs") {
  struct no_split {
    void forward(task) {}
    void backward(task) {}
    std::span<std::byte> buffer(std::uint32_t) { return {}; }
  };
  const auto refused = [](const schedule& s) {
    const program p = lower(s);
    return refusal_of([&] { run_in_process(p, [](std::uint32_t) { return no_split{}; }); });
  };
  CHECK(refused(make_1f1b_schedule({.pp = 1, .micro = 1})) == "");
  CHECK(refused(make_zb1p_schedule({.pp = 1, .micro = 1})) ==
        "the trainer has no backward_input, which 0I0 needs; merge_backward() makes B of I and W");
  CHECK(refused(make_chimera_schedule({.pp = 2, .micro = 2})).find("the trainer has no weight_gradient, ") == 0);
}
