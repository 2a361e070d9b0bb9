// SPDX-License-Identifier: MIT
// Programs run by threads: every message arrives where it belongs, gradients are those of one device, failures end all ranks.

#include "pipesched/execute/in_process.hpp"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "pipesched/execute/recording.hpp"
#include "pipesched/generate/by_name.hpp"
#include "pipesched/program/check.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/transform.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

constexpr std::size_t width = 4;
using vector4 = std::array<double, width>;

// A stage is y = tanh(W x), the loss of a micro-batch half the square of what the last stage makes.
struct layer {
  std::array<vector4, width> weights{}, gradient{};
};

layer make_layer(std::uint32_t stage) {
  layer l;
  std::mt19937_64 random(stage + 1);
  for (auto& row : l.weights)
    for (double& w : row) w = static_cast<double>(random() % 1000) / 1000 - 0.5;
  return l;
}
vector4 input_of_micro(std::uint32_t micro) {
  vector4 x;
  for (std::size_t i = 0; i < width; ++i) x[i] = std::sin(static_cast<double>(micro * width + i + 1));
  return x;
}
vector4 forward(const layer& l, const vector4& x) {
  vector4 y{};
  for (std::size_t i = 0; i < width; ++i) {
    for (std::size_t j = 0; j < width; ++j) y[i] += l.weights[i][j] * x[j];
    y[i] = std::tanh(y[i]);
  }
  return y;
}
// What I makes: the gradient before the tanh, for W, and that of the input.
struct backward_result {
  vector4 before, input;
};
backward_result backward(const layer& l, const vector4& y, const vector4& dy) {
  backward_result r{};
  for (std::size_t i = 0; i < width; ++i) r.before[i] = dy[i] * (1 - y[i] * y[i]);
  for (std::size_t j = 0; j < width; ++j)
    for (std::size_t i = 0; i < width; ++i) r.input[j] += l.weights[i][j] * r.before[i];
  return r;
}
void add_weights(layer& l, const vector4& before, const vector4& x) {
  for (std::size_t i = 0; i < width; ++i)
    for (std::size_t j = 0; j < width; ++j) l.gradient[i][j] += before[i] * x[j];
}
double loss_of(const vector4& y) {
  double loss = 0;
  for (double v : y) loss += v * v / 2;
  return loss;
}

struct results {
  std::vector<double> losses;  // by micro-batch
  std::vector<layer> layers;   // by stage
};

results on_one_device(std::uint32_t stages, std::uint32_t micro) {
  results r;
  for (std::uint32_t s = 0; s < stages; ++s) r.layers.push_back(make_layer(s));
  for (std::uint32_t m = 0; m < micro; ++m) {
    std::vector<vector4> x{input_of_micro(m)};
    for (std::uint32_t s = 0; s < stages; ++s) x.push_back(forward(r.layers[s], x.back()));
    r.losses.push_back(loss_of(x.back()));
    vector4 d = x.back();
    for (std::uint32_t s = stages; s-- > 0;) {
      const backward_result b = backward(r.layers[s], x[s + 1], d);
      add_weights(r.layers[s], b.before, x[s]);
      d = b.input;
    }
  }
  return r;
}

// One rank's part of that model.
class trainer {
 public:
  trainer(const program& p, std::uint32_t rank, std::vector<double>& losses)
      : program_(p),
        rank_(rank),
        losses_(losses),
        buffers_(p.pools[rank].buffers),
        kept_(p.pools[rank].activations),
        due_(p.pools[rank].weights),
        reductions_(p.pools[rank].reductions) {
    for (std::uint16_t s : p.schedule.placement.stages_of(rank)) layers_.push_back(make_layer(s)), stages_.push_back(s);
  }

  void forward(task t) {
    check_rank(t);
    const vector4 x = t.slots.input == no_slot ? input_of_micro(t.what.micro) : buffers_[t.slots.input];
    const vector4 y = tests_forward(t, x);
    if (!program_.schedule.forward_only) kept_[t.slots.activation] = {x, y};
    if (t.slots.output == no_slot)
      losses_[t.what.micro] = loss_of(y);
    else
      buffers_[t.slots.output] = y;
  }
  void backward_input(task t) { due_[t.slots.weights] = input_gradient(t); }
  void backward_weight(task t) { add_weights(of(t), due_[t.slots.weights], kept_[t.slots.activation].x); }
  void backward(task t) {
    const vector4 before = input_gradient(t);
    add_weights(of(t), before, kept_[t.slots.activation].x);
  }
  std::span<std::byte> buffer(std::uint32_t n) { return std::as_writable_bytes(std::span(buffers_[n])); }
  std::span<std::byte> weight_gradient(std::uint16_t stage) {
    return std::as_writable_bytes(std::span(layers_[chunk_of(stage)].gradient));
  }
  std::span<std::byte> reduction_buffer(std::uint32_t n) { return std::as_writable_bytes(std::span(reductions_[n])); }
  void reduce(std::uint16_t stage, std::uint16_t, std::span<const std::byte> other) {
    std::array<vector4, width> theirs;
    REQUIRE(other.size() == sizeof theirs);
    std::memcpy(&theirs, other.data(), sizeof theirs);
    auto& mine = layers_[chunk_of(stage)].gradient;
    for (std::size_t i = 0; i < width; ++i)
      for (std::size_t j = 0; j < width; ++j) mine[i][j] += theirs[i][j];
  }

  const std::vector<layer>& layers() const { return layers_; }
  const std::vector<std::uint16_t>& stages() const { return stages_; }

 private:
  struct activation {
    vector4 x, y;
  };
  vector4 tests_forward(task t, const vector4& x) { return ::forward(of(t), x); }
  vector4 input_gradient(task t) {
    check_rank(t);
    const activation& a = kept_[t.slots.activation];
    const backward_result r = ::backward(of(t), a.y, t.slots.input == no_slot ? a.y : buffers_[t.slots.input]);
    if (t.slots.output != no_slot) buffers_[t.slots.output] = r.input;
    return r.before;
  }
  layer& of(task t) { return layers_[t.what.chunk]; }
  std::size_t chunk_of(std::uint16_t stage) const {
    return static_cast<std::size_t>(std::find(stages_.begin(), stages_.end(), stage) - stages_.begin());
  }
  void check_rank(task t) const {
    if (program_.schedule.placement.rank_of(t.what.stage, t.what.micro) != rank_) throw std::logic_error("wrong rank");
  }

  const program& program_;
  std::uint32_t rank_;
  std::vector<double>& losses_;
  std::vector<vector4> buffers_;
  std::vector<activation> kept_;
  std::vector<vector4> due_;
  std::vector<std::array<vector4, width>> reductions_;
  std::vector<layer> layers_;
  std::vector<std::uint16_t> stages_;
};

// Runs the program in threads, and puts each stage's gradient where the stage is; of replicas that of replica 0.
results in_threads(const program& p) {
  results r;
  r.losses.resize(p.schedule.micro);
  r.layers.resize(p.schedule.stages());
  std::vector<std::unique_ptr<trainer>> all;
  for (std::uint32_t rank = 0; rank < p.schedule.pp(); ++rank)
    all.push_back(std::make_unique<trainer>(p, rank, r.losses));
  struct borrowed {
    trainer& t;
    void forward(task k) { t.forward(k); }
    void backward(task k) { t.backward(k); }
    void backward_input(task k) { t.backward_input(k); }
    void backward_weight(task k) { t.backward_weight(k); }
    std::span<std::byte> buffer(std::uint32_t n) { return t.buffer(n); }
    std::span<std::byte> weight_gradient(std::uint16_t s) { return t.weight_gradient(s); }
    std::span<std::byte> reduction_buffer(std::uint32_t n) { return t.reduction_buffer(n); }
    void reduce(std::uint16_t s, std::uint16_t o, std::span<const std::byte> b) { t.reduce(s, o, b); }
  };
  run_in_process(p, [&](std::uint32_t rank) { return borrowed{*all[rank]}; });
  for (std::uint32_t rank = p.schedule.pp(); rank-- > 0;)
    for (std::size_t chunk = 0; chunk < all[rank]->stages().size(); ++chunk) {
      layer& at = r.layers[all[rank]->stages()[chunk]];
      if (p.schedule.placement.replicas() == 2 && at.gradient != decltype(at.gradient){})
        REQUIRE(at.gradient == all[rank]->layers()[chunk].gradient);  // both ranks have the same sum, bit for bit
      at = all[rank]->layers()[chunk];
    }
  return r;
}

void require_close(const results& got, const results& expected) {
  REQUIRE(got.losses == expected.losses);
  for (std::size_t s = 0; s < expected.layers.size(); ++s)
    for (std::size_t i = 0; i < width; ++i)
      for (std::size_t j = 0; j < width; ++j)
        REQUIRE(std::abs(got.layers[s].gradient[i][j] - expected.layers[s].gradient[i][j]) <=
                1e-12 * (1 + std::abs(expected.layers[s].gradient[i][j])));
}

}  // namespace

TEST_CASE("in process: every family trains as one device does, and twice the same to the bit") {
#ifdef PIPESCHED_SMALL_GRIDS
  const std::vector<std::int64_t> ranks = {2, 4};
#else
  const std::vector<std::int64_t> ranks = {1, 2, 4, 8};
#endif
  for (const family& f : families)
    for (std::int64_t pp : ranks)
      for (std::int64_t micro : {1, 3, 8, 17}) {
        if (pp % 2 != 0 && needs_even_pp(f)) continue;
        CAPTURE(f.name);
        CAPTURE(pp);
        CAPTURE(micro);
        const schedule s = f.make({.pp = pp, .micro = micro});
        const program p = lower(s);
        const results expected = on_one_device(s.stages(), s.micro), got = in_threads(p);
        require_close(got, expected);
        const results again = in_threads(p);
        REQUIRE(again.losses == got.losses);
        for (std::size_t stage = 0; stage < got.layers.size(); ++stage)
          REQUIRE(again.layers[stage].gradient == got.layers[stage].gradient);
        if (micro == 8) {
          const schedule evaluation = f.make({.pp = pp, .micro = micro, .forward_only = true});
          REQUIRE(in_threads(lower(evaluation)).losses == expected.losses);
        }
      }
}

TEST_CASE("in process: where every stage accumulates in the order of one device, the gradients are equal to the bit") {
  for (const char* name : {"gpipe", "1f1b", "interleaved_1f1b", "zb1p", "zbv", "v_half", "hanayo"}) {
    schedule s = make_schedule(name, {.pp = 4, .micro = 8});
    if (std::string(name) == "gpipe") continue;  // backward from the last micro-batch
    CAPTURE(name);
    const results expected = on_one_device(s.stages(), s.micro), got = in_threads(lower(s));
    for (std::size_t stage = 0; stage < got.layers.size(); ++stage)
      CHECK(got.layers[stage].gradient == expected.layers[stage].gradient);
  }
}

TEST_CASE("in process: transformed schedules, any depth, and the overlapped callback") {
  for (const char* name : {"1f1b", "interleaved_1f1b", "zbv", "dualpipe", "dualpipev"})
    for (const std::uint32_t depth : {1u, 2u, 8u}) {
      const schedule s = make_schedule(name, {.pp = 4, .micro = 9});
      const results expected = on_one_device(s.stages(), s.micro);
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
    const results expected = on_one_device(p.schedule.stages(), p.schedule.micro);
    std::vector<double> losses(6);
    std::vector<std::unique_ptr<trainer>> trainers;
    for (std::uint32_t rank = 0; rank < 4; ++rank) trainers.push_back(std::make_unique<trainer>(p, rank, losses));
    in_process_hub hub(p);
    {
      std::vector<std::jthread> threads;
      for (std::uint32_t rank = 0; rank < 4; ++rank)
        threads.emplace_back([&, rank] {
          in_process transport(hub, rank);
          for (int step = 0; step < 50; ++step) execute(p, rank, *trainers[rank], transport);
        });
    }
    CHECK(losses == expected.losses);
    if (p.schedule.placement.replicas() == 2) continue;  // there each step adds what the other rank has summed so far
    for (const auto& t : trainers)
      for (std::size_t chunk = 0; chunk < t->stages().size(); ++chunk)
        for (std::size_t i = 0; i < width; ++i)
          CHECK(t->layers()[chunk].gradient[i][0] ==
                doctest::Approx(50 * expected.layers[t->stages()[chunk]].gradient[i][0]).epsilon(1e-9));
  }
}

TEST_CASE("in process: the measured timeline is one that the ranks can have had") {
  const program p = lower(make_zbv_schedule({.pp = 4, .micro = 8}));
  std::vector<double> losses(8);
  const timeline t = run_in_process(p, [&](std::uint32_t rank) { return trainer(p, rank, losses); }, {.record = true});
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
    const schedule s = families[random() % std::size(families)].make({.pp = 4, .micro = 8});
    const program p = lower(s);
    const auto bad_rank = static_cast<std::uint32_t>(random() % 4);
    const cell& at = s[bad_rank][random() % s[bad_rank].size()];
    const op bad = at[random() % at.size()];
    std::vector<double> losses(8);
    struct failing : trainer {
      failing(const program& of, std::uint32_t rank, std::vector<double>& l, op o) : trainer(of, rank, l), bad(o) {}
      void forward(task t) { fail_at(t), trainer::forward(t); }
      void backward(task t) { fail_at(t), trainer::backward(t); }
      void backward_input(task t) { fail_at(t), trainer::backward_input(t); }
      void backward_weight(task t) { fail_at(t), trainer::backward_weight(t); }
      void fail_at(task t) const {
        if (t.what == bad) throw std::domain_error("not a number in " + to_string(t.what));
      }
      op bad;
    };
    in_process_hub hub(p);
    std::vector<std::unique_ptr<failing>> trainers;
    for (std::uint32_t rank = 0; rank < 4; ++rank) trainers.push_back(std::make_unique<failing>(p, rank, losses, bad));
    std::vector<std::string> said(4);
    {
      std::vector<std::jthread> threads;
      for (std::uint32_t rank = 0; rank < 4; ++rank)
        threads.emplace_back([&, rank] {
          try {
            in_process transport(hub, rank);
            execute(p, rank, *trainers[rank], transport);
            said[rank] = "ended";
          } catch (const pipeline_aborted& e) {
            said[rank] = e.what();
          } catch (const std::domain_error& e) {
            hub.abort(rank, e.what());
            said[rank] = std::string("own: ") + e.what();
          }
        });
    }
    const std::string text = "not a number in " + to_string(bad);
    CHECK(said[bad_rank] == "own: " + text);
    for (std::uint32_t rank = 0; rank < 4; ++rank)
      if (rank != bad_rank && said[rank] != "ended") {
        CHECK(said[rank].find("aborted by rank " + std::to_string(bad_rank) + " at ") == 0);
        CHECK(said[rank].find(to_string(bad)) != std::string::npos);
        CHECK(said[rank].find(text) != std::string::npos);
      }
    CHECK_THROWS_WITH_AS(run_in_process(p, [&](std::uint32_t rank) { return failing(p, rank, losses, bad); }),
                         text.c_str(), std::domain_error);
  }
}

TEST_CASE("in process: a rank that leaves, a message of the wrong size, and a stall end all ranks with the cause") {
  const program p = lower(make_1f1b_schedule({.pp = 4, .micro = 8}));
  std::mt19937_64 random(2);
  enum { leaves, wrong_size, stalls };
  for (const auto what : {leaves, wrong_size, stalls})
    for (int round = 0; round < (what == stalls ? 10 : 100); ++round) {
      const auto bad_rank = static_cast<std::uint32_t>(random() % 4);
      const std::size_t bad_buffer = random() % p.pools[bad_rank].buffers;
      struct odd : trainer {
        using trainer::trainer;
        std::span<std::byte> buffer(std::uint32_t n) {
          const auto whole = trainer::buffer(n);
          return n == odd_buffer ? whole.first(8) : whole;
        }
        void forward(task t) {
          if (t.what.micro == stall_at) std::this_thread::sleep_for(std::chrono::milliseconds(300));
          trainer::forward(t);
        }
        std::size_t odd_buffer = ~std::size_t{0};
        std::uint32_t stall_at = no_slot;
      };
      in_process_hub hub(p, std::chrono::milliseconds(what == stalls ? 50 : 20000));
      std::vector<double> losses(8);
      std::vector<std::unique_ptr<odd>> trainers;
      for (std::uint32_t rank = 0; rank < 4; ++rank) trainers.push_back(std::make_unique<odd>(p, rank, losses));
      if (what == wrong_size) trainers[bad_rank]->odd_buffer = bad_buffer;
      if (what == stalls) trainers[bad_rank]->stall_at = static_cast<std::uint32_t>(random() % 8);
      std::vector<std::string> said(4);
      {
        std::vector<std::jthread> threads;
        for (std::uint32_t rank = 0; rank < 4; ++rank)
          threads.emplace_back([&, rank] {
            try {
              in_process transport(hub, rank);
              if (what == leaves && rank == bad_rank) {
                transport.at(static_cast<std::uint32_t>(random() % p.actions[rank].size()));
                return;
              }
              execute(p, rank, *trainers[rank], transport);
            } catch (const pipeline_aborted& e) {
              said[rank] = e.what();
            }
          });
      }
      CAPTURE(what);
      CAPTURE(bad_rank);
      for (std::uint32_t rank = 0; rank < 4; ++rank) {
        if (what == stalls && said[rank].empty()) continue;  // needed nothing more
        if (rank == bad_rank && what == leaves) continue;
        CHECK(said[rank].find("aborted by rank ") == 0);
        if (what == leaves) CHECK(said[rank].find("left before the end of its step") != std::string::npos);
        if (what == wrong_size) CHECK(said[rank].find("bytes where it leaves and") != std::string::npos);
        if (what == stalls) {
          CHECK(said[rank].find("nothing came within the time limit") != std::string::npos);
          for (const char* each : {"\nrank 0 at ", "\nrank 1 at ", "\nrank 2 at ", "\nrank 3 at "})
            CHECK(said[rank].find(each) != std::string::npos);
          CHECK(said[rank].find(", which waits for ") != std::string::npos);
        }
      }
    }
}

TEST_CASE("in process: a program that check() refuses does not run to its end, and the ranks say why") {
  const program good = lower(make_1f1b_schedule({.pp = 4, .micro = 6}));
  std::mt19937_64 random(3);
  int passed = 0, refused = 0;
  for (int round = 0; round < 400; ++round) {
    program p = good;
    // Neighbouring messages of one rank change places: sometimes harmless, sometimes crossed or a circle.
    const std::size_t rank = random() % 4;
    auto row = p.actions[rank];
    const std::size_t i = random() % (row.size() - 1);
    if (row[i].kind == action_kind::compute && row[i + 1].kind == action_kind::compute) continue;
    std::swap(row[i], row[i + 1]);
    const bool expected = static_cast<bool>(check(p));
    std::vector<double> losses(6);
    bool ended = true;
    try {
      run_in_process(p, [&](std::uint32_t r) { return trainer(p, r, losses); },
                     {.time_limit = expected ? std::chrono::milliseconds(20000) : std::chrono::milliseconds(30)});
    } catch (const pipeline_aborted&) {
      ended = false;
    }
    // The transport does not see that a buffer is used before or after its message is there; check() does.
    if (expected) CHECK(ended);
    ++(expected ? passed : refused);
  }
  CHECK(passed > 50);
  CHECK(refused > 50);
}

TEST_CASE("execute: what a rank asks of its transport, and in which order") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 2}), {.depth = 2});
  std::vector<double> losses(2);
  trainer last(p, 1, losses);
  recording_transport transport([](message m, std::span<std::byte> bytes) {
    const vector4 x = input_of_micro(m.micro);
    std::memcpy(bytes.data(), &x, sizeof x);
  });
  execute(p, 1, last, transport);
  using enum recording_transport::event_kind;
  const message F0{payload::activation, 0, 0}, F1{payload::activation, 0, 1}, B0{payload::gradient, 1, 0},
      B1{payload::gradient, 1, 1};
  CHECK(transport.events() == std::vector<recording_transport::event>{{receive, F0, 0, sizeof(vector4)},
                                                                      {receive, F1, 1, sizeof(vector4)},
                                                                      {wait_received, {}, 0, 0},
                                                                      {wait_sent, {}, 2, 0},
                                                                      {send, B0, 2, sizeof(vector4)},
                                                                      {wait_received, {}, 1, 0},
                                                                      {wait_sent, {}, 3, 0},
                                                                      {send, B1, 3, sizeof(vector4)},
                                                                      {finish}});
  CHECK(losses[1] == loss_of(forward(make_layer(1), input_of_micro(1))));
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
