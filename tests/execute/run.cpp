// SPDX-License-Identifier: MIT
// Programs run by threads: messages arrive where they belong, gradients are those of one device, hooks are called in order.

#include "pipesched/execute/run.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <numeric>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "pipesched/core/transform.hpp"
#include "pipesched/execute/recording_transport.hpp"
#include "pipesched/execute/thread_transport.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/program/verify.hpp"
#include "support/families.hpp"
#include "support/tanh_model.hpp"
#include "support/two_replicas.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

template <typename Real>
using tanh_trainers = std::vector<typename tanh_model<Real>::trainer>;

template <typename Real = double>
tanh_trainers<Real> make_trainers(const program& p, const tied_stages& tied = {}) {
  tanh_trainers<Real> trainers;
  for (std::uint32_t rank = 0; rank < p.schedule.pp(); ++rank) trainers.emplace_back(p, rank, tied);
  return trainers;
}

// Every loss and every gradient once; of a stage that two ranks hold, both have the same to the bit.
template <typename Real = double, typename Trainers>
typename tanh_model<Real>::results gathered(const program& p, const Trainers& trainers) {
  typename tanh_model<Real>::results r;
  r.losses.resize(p.schedule.micro);
  r.layers.resize(p.schedule.stages());
  std::set<std::uint16_t> seen;
  for (const auto& t : trainers) {
    for (std::uint32_t m = 0; m < p.schedule.micro; ++m)
      if (t.losses[m] != -1) r.losses[m] = t.losses[m];
    for (std::size_t chunk = 0; chunk < t.stages.size(); ++chunk) {
      auto& at = r.layers[t.stages[chunk]];
      if (!seen.insert(t.stages[chunk]).second) {
        REQUIRE(at.gradient == t.layers[chunk].gradient);
        REQUIRE(at.weights == t.layers[chunk].weights);
      }
      at = t.layers[chunk];
    }
  }
  return r;
}

template <typename Real = double>
typename tanh_model<Real>::results in_threads(const program& p, const tied_stages& tied = {},
                                              const run_options& options = {}) {
  auto trainers = make_trainers<Real>(p, tied);
  thread_world world(p.schedule.pp());
  run_all(p, trainers, world, options);
  return gathered<Real>(p, trainers);
}

template <typename Results>
bool same(const Results& got, const Results& expected) {
  if (got.losses != expected.losses || got.layers.size() != expected.layers.size()) return false;
  for (std::size_t s = 0; s < expected.layers.size(); ++s)
    if (got.layers[s].gradient != expected.layers[s].gradient || got.layers[s].weights != expected.layers[s].weights)
      return false;
  return true;
}
template <typename Results>
void require_close(const Results& got, const Results& expected) {
  REQUIRE(got.losses == expected.losses);
  const double most = std::is_same_v<std::decay_t<decltype(got.losses[0])>, float> ? 1e-6 : 1e-12;
  for (std::size_t s = 0; s < expected.layers.size(); ++s)
    for (std::size_t i = 0; i < small_model::width; ++i)
      for (std::size_t j = 0; j < small_model::width; ++j) {
        const double e = expected.layers[s].gradient[i][j];
        REQUIRE(std::abs(got.layers[s].gradient[i][j] - e) <= most * (1 + std::abs(e)));
      }
}

// A rank of the tanh model that updates its weights at the end of a step.
struct descending : small_model::trainer {
  using small_model::trainer::trainer;
  std::vector<std::vector<double>> losses_of_steps{};
  void end_step(std::size_t step) {
    losses_of_steps.resize(std::max(losses_of_steps.size(), step + 1));
    losses_of_steps[step] = losses;
    for (small_model::layer& l : layers) small_model::update(l);
  }
};

// A rank of a linear model whose stages differ in the sizes of their weights and outputs: stage s takes s + 1 numbers and
// gives s + 2. The loss is half the square of the last output. Its buffers are as small as buffer_bytes() allows.
struct widening {
  static std::size_t inputs(std::size_t stage) { return stage + 1; }
  static std::size_t outputs(std::size_t stage) { return stage + 2; }
  static std::size_t bytes_of(tensor_id m) {
    return sizeof(double) * (m.kind == tensor_kind::activation ? outputs(m.stage)
                             : m.kind == tensor_kind::gradient ? inputs(m.stage)
                                                               : inputs(m.stage) * outputs(m.stage));
  }
  struct layer {
    explicit layer(std::size_t of) : stage(of), weights(inputs(of) * outputs(of)), gradient(weights.size()) {
      for (std::size_t i = 0; i < weights.size(); ++i)
        weights[i] = std::sin(static_cast<double>(i + 1)) / static_cast<double>(inputs(of));
    }
    std::vector<double> forward(const std::vector<double>& x) const {
      std::vector<double> y(outputs(stage));
      for (std::size_t o = 0; o < y.size(); ++o)
        for (std::size_t i = 0; i < x.size(); ++i) y[o] += weights[o * x.size() + i] * x[i];
      return y;
    }
    std::vector<double> backward(const std::vector<double>& x, const std::vector<double>& dy) {
      std::vector<double> dx(x.size());
      for (std::size_t o = 0; o < dy.size(); ++o)
        for (std::size_t i = 0; i < x.size(); ++i) {
          dx[i] += weights[o * x.size() + i] * dy[o];
          gradient[o * x.size() + i] += dy[o] * x[i];
        }
      return dx;
    }
    void update() {
      for (std::size_t i = 0; i < weights.size(); ++i) weights[i] -= std::exchange(gradient[i], 0) / 256;
    }
    std::size_t stage;
    std::vector<double> weights, gradient;
  };
  static std::vector<double> input_of_micro(std::uint32_t micro) { return {1 + micro / 8.0}; }
  static double loss_of(const std::vector<double>& y) {
    return std::inner_product(y.begin(), y.end(), y.begin(), 0.0) / 2;
  }
  // The losses of steps on one device, each the sum over its micro-batches.
  static std::vector<double> on_one_device(std::uint32_t stages, std::uint32_t micro, std::size_t steps) {
    std::vector<layer> layers;
    for (std::uint32_t s = 0; s < stages; ++s) layers.emplace_back(s);
    std::vector<double> losses(steps);
    for (double& loss : losses) {
      for (std::uint32_t m = 0; m < micro; ++m) {
        std::vector<std::vector<double>> x{input_of_micro(m)};
        for (const layer& l : layers) x.push_back(l.forward(x.back()));
        loss += loss_of(x.back());
        std::vector<double> d = x.back();
        for (std::uint32_t s = stages; s-- > 0;) d = layers[s].backward(x[s], d);
      }
      for (layer& l : layers) l.update();
    }
    return losses;
  }

  // Memory for all programs.
  widening(std::span<const program* const> programs, std::uint32_t rank) {
    pool_sizes sizes;
    for (const program* p : programs) {
      sizes = larger(sizes, p->pools[rank]);
      const std::vector<std::size_t> bytes = buffer_bytes(*p, rank, bytes_of);
      memory.resize(std::max<std::size_t>(memory.size(), p->pools[rank].owned_buffers()));
      for (std::size_t n = 0; n < p->pools[rank].owned_buffers(); ++n)
        memory[n].resize(std::max(memory[n].size(), bytes[n] / sizeof(double)));
    }
    activations.resize(sizes[pool::activation]);
    for (const std::uint16_t stage : programs[0]->schedule.placement.stages_of(rank)) layers.emplace_back(stage);
  }
  void begin_step(std::size_t step) {
    losses.resize(std::max(losses.size(), step + 1));
    at = step;
  }
  void end_step(std::size_t) {
    for (layer& l : layers) l.update();
  }
  void forward(task t) {
    auto& x = activations[t.slots.activation];
    x = t.slots.input == no_slot ? input_of_micro(t.what.micro) : read(t.slots.input, inputs(t.what.stage));
    const std::vector<double> y = layers[t.what.chunk].forward(x);
    if (t.slots.output == no_slot)
      losses[at] += loss_of(y);
    else
      write(t.slots.output, y);
  }
  void backward(task t) {
    const auto& x = activations[t.slots.activation];
    layer& l = layers[t.what.chunk];
    const auto dx = l.backward(x, t.slots.input == no_slot ? l.forward(x) : read(t.slots.input, outputs(t.what.stage)));
    if (t.slots.output != no_slot) write(t.slots.output, dx);
  }
  std::span<std::byte> buffer(tensor_id message, std::uint32_t n) {
    return std::as_writable_bytes(std::span(memory.at(n))).first(bytes_of(message));
  }
  std::span<std::byte> weight_gradient(std::uint32_t chunk) {
    return std::as_writable_bytes(std::span(layers[chunk].gradient));
  }
  void reduce(reduction r) {
    auto& own = layers[r.chunk].gradient;
    for (std::size_t i = 0; i < own.size(); ++i) own[i] += memory.at(r.buffer).at(i);
  }
  std::vector<double> read(std::uint32_t n, std::size_t size) const {
    return {memory.at(n).begin(), memory.at(n).begin() + static_cast<std::ptrdiff_t>(size)};
  }
  void write(std::uint32_t n, const std::vector<double>& values) {
    REQUIRE(memory.at(n).size() >= values.size());
    std::copy(values.begin(), values.end(), memory[n].begin());
  }

  std::vector<layer> layers;
  std::vector<std::vector<double>> memory, activations;
  std::vector<double> losses;  // by step, of the micro-batches whose last stage is here
  std::size_t at = 0;
};

// Leaves out some bytes at the end of each message, or all messages of a channel.
struct careless_engine : host_copy_engine {
  careless_engine(std::size_t bytes, std::uint32_t of_channel) : left_out(bytes), channel(of_channel) {}
  template <typename Where>
  void move(std::uint32_t of, std::size_t, message_side from, message_side into, std::size_t size, const Where&) {
    if (of != channel) std::memcpy(into.bytes, from.bytes, size - left_out);
  }
  std::size_t left_out;
  std::uint32_t channel;
};
struct careless_world : basic_world<careless_engine> {
  using transport_type = world_transport<careless_engine>;
  explicit careless_world(const careless_engine& engine) : basic_world(4, std::chrono::seconds(60), engine) {}
};

std::vector<widening> wide_trainers(std::initializer_list<const program*> programs) {
  std::vector<widening> trainers;
  for (std::uint32_t rank = 0; rank < (*programs.begin())->schedule.pp(); ++rank)
    trainers.emplace_back(std::span(programs.begin(), programs.size()), rank);
  return trainers;
}
void require_losses(const std::vector<widening>& trainers, const std::vector<double>& expected) {
  for (std::size_t step = 0; step < expected.size(); ++step) {
    double loss = 0;
    for (const widening& t : trainers) loss += t.losses.at(step);
    CAPTURE(step);
    CHECK(loss == doctest::Approx(expected[step]).epsilon(1e-9));
  }
}

}  // namespace

TEST_CASE("run_all: every family trains as one device does, to the bit if it sums in that order, and twice the same") {
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
        const auto orders = small_model::orders_of(s);
        const auto got = in_threads(p);
        require_close(got, small_model::on_one_device(s.stages(), s.micro));
        REQUIRE(same(got, small_model::on_one_device(s.stages(), s.micro, orders)));
        REQUIRE(same(in_threads(p), got));
        REQUIRE(same(in_threads(p, {}, {.one_thread = true}), got));
        if (micro == 17 && pp == 4 && std::all_of(orders.begin(), orders.end(), [](const small_model::order& o) {
              return o.size() == 1 && std::is_sorted(o[0].begin(), o[0].end());
            })) {
          ascending.insert(f.name);
          REQUIRE(same(got, small_model::on_one_device(s.stages(), s.micro)));
        }
        const auto in_float = in_threads<float>(p);
        require_close(in_float, tanh_model<float>::on_one_device(s.stages(), s.micro));
        REQUIRE(same(in_float, tanh_model<float>::on_one_device(s.stages(), s.micro, orders)));
        if (micro == 8) {
          const schedule evaluation = f.make({.pp = pp, .micro = micro, .forward_only = true});
          REQUIRE(in_threads(lower(evaluation)).losses == got.losses);
        }
      }
  CHECK(ascending.size() >= 16);
  CHECK(!ascending.contains("dualpipe"));
}

TEST_CASE("run_all: stages with tied weights have the sum of both gradients, on one rank, on two, and on four") {
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
      REQUIRE(same(got, small_model::on_one_device(s.stages(), s.micro, small_model::orders_of(s), tied)));
      REQUIRE(same(in_threads(p, tied, {.one_thread = true}), got));
      const auto untied = small_model::on_one_device(s.stages(), s.micro);
      CHECK(got.layers[0].gradient != untied.layers[0].gradient);
    }
}

TEST_CASE("run_all: groups of tied stages have the sum of all their gradients") {
  for (const char* name : {"1f1b", "interleaved_1f1b", "zb1p", "zbv", "dualpipe", "dualpipev", "hanayo", "v_min"})
    for (const bool three : {true, false}) {
      const schedule s = make_schedule(name, {.pp = 4, .micro = 8});
      const auto last = static_cast<std::uint16_t>(s.stages() - 1);
      const tied_stages tied = three ? tied_stages{{0, 1, last}} : tied_stages{{last, 2, 0, 1}};
      CAPTURE(name);
      CAPTURE(three);
      const program p = lower(s, {.tied = tied});
      REQUIRE(to_string(verify(p)) == "");
      const auto got = in_threads(p, tied);
      require_close(got, small_model::on_one_device(s.stages(), s.micro, tied));
      REQUIRE(got.layers[0].gradient == got.layers[1].gradient);
      REQUIRE(same(in_threads(p, tied, {.one_thread = true}), got));
    }
}

TEST_CASE("run_all: stages with tied weights, wherever two replicas of each are") {
  for (const auto& [first, second] : {std::pair(0, 1), std::pair(2, 0), std::pair(1, 2)})
    for (const std::vector<std::vector<std::uint16_t>>& homes :
         {std::vector<std::vector<std::uint16_t>>{{0, 1, 2}, {2, 0, 1}},
          {{0, 1, 2}, {1, 2, 0}},
          {{0, 1, 2}, {1, 0, 0}}}) {
      const tied_stages tied{{static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(second)}};
      const schedule s = two_replicas(homes);
      REQUIRE(to_string(verify(s)) == "");
      const program p = lower(s, {.tied = tied});
      REQUIRE(to_string(verify(p)) == "");
      require_close(in_threads(p, tied), small_model::on_one_device(3, 4, tied));
    }
}

TEST_CASE("run_all: both replicas of a stage on one rank have the sum of their gradients, as on one device") {
  for (const std::vector<std::vector<std::uint16_t>>& homes :
       {std::vector<std::vector<std::uint16_t>>{{0, 1, 2}, {0, 1, 2}},
        {{0, 1, 2}, {2, 1, 0}},
        {{0, 1, 2}, {0, 2, 1}},
        {{0, 0, 2}, {1, 0, 2}}}) {
    const schedule s = two_replicas(homes);
    REQUIRE(to_string(verify(s)) == "");
    const program p = lower(s);
    REQUIRE(to_string(verify(p)) == "");
    const auto got = in_threads(p);
    require_close(got, small_model::on_one_device(3, 4));
    REQUIRE(same(got, small_model::on_one_device(3, 4, small_model::orders_of(s))));
  }
}

TEST_CASE("run_all: transformed schedules, any depth, and the overlapped callback") {
  for (const char* name : {"1f1b", "interleaved_1f1b", "zbv", "dualpipe", "dualpipev"})
    for (const std::uint32_t depth : {1u, 2u, 8u}) {
      const schedule s = make_schedule(name, {.pp = 4, .micro = 9});
      const auto expected = small_model::on_one_device(s.stages(), s.micro);
      for (const schedule& other :
           {s, split_backward(s), merge_backward(s), overlap_neighbours(s), delay_weights(s, 2)})
        require_close(in_threads(lower(other, {.depth = depth})), expected);
    }
  struct counting {
    std::vector<std::array<std::byte, 8>> buffers;
    int pairs = 0;
    void forward(task) {}
    void backward(task) {}
    void backward_input(task) {}
    void backward_weight(task) {}
    void overlapped(task a, task b) { pairs += a.what.pass == pass::forward && b.what.pass == pass::backward; }
    std::span<std::byte> buffer(tensor_id, std::uint32_t n) { return buffers[n]; }
  };
  const program p = lower(make_dualpipev_schedule({.pp = 4, .micro = 12}));
  int expected = 0;
  for (const cell& c : p.schedule.cells.all()) expected += c.overlapped();
  std::vector<counting> trainers;
  for (const pool_sizes& n : p.pools)
    trainers.push_back({.buffers = std::vector<std::array<std::byte, 8>>(n[pool::tensor])});
  thread_world world(4);
  run_all(p, trainers, world);
  int pairs = 0;
  for (const counting& t : trainers) pairs += t.pairs;
  CHECK(pairs == expected);
}

TEST_CASE("run_all: a copy that is wrong shows in the gradients") {
  for (const char* name : {"1f1b", "zbv", "dualpipe"}) {
    const program p = lower(make_schedule(name, {.pp = 4, .micro = 8}));
    auto expected = make_trainers(p);
    thread_world careful(4);
    run_all(p, expected, careful);
    const auto is_right = [&](const careless_engine& engine) {
      auto trainers = make_trainers(p);
      careless_world world(engine);
      run_all(p, trainers, world);
      bool right = true;
      for (std::uint32_t rank = 0; rank < 4; ++rank)
        for (std::size_t chunk = 0; chunk < trainers[rank].layers.size(); ++chunk)
          right = right && trainers[rank].layers[chunk].gradient == expected[rank].layers[chunk].gradient;
      return right;
    };
    CHECK(is_right(careless_engine(0, no_slot)));
    CHECK(!is_right(careless_engine(8, no_slot)));
    CHECK(!is_right(careless_engine(0, 0)));
    CHECK(!is_right(careless_engine(0, 1)));
  }
}

TEST_CASE("run: many steps through one world, each rank at its own pace") {
  for (const char* name : {"1f1b", "dualpipe", "zbv", "interleaved_zb"}) {
    const program p = lower(make_schedule(name, {.pp = 4, .micro = 6}), {.depth = 1});
    const auto expected = small_model::on_one_device(p.schedule.stages(), p.schedule.micro);
    auto trainers = make_trainers(p);
    thread_world world(4);
    world.prepare(p);
    std::atomic<int> ended = 0;
    {
      std::vector<std::jthread> threads;
      for (std::uint32_t rank = 0; rank < 4; ++rank)
        threads.emplace_back([&, rank] {
          thread_transport transport(world, rank);
          run(p, rank, trainers[rank], transport, {.steps = 20});
          ended += run(p, rank, trainers[rank], transport, {.steps = 30, .first_step = 20}).empty();
        });
    }
    CHECK(ended == 4);
    CHECK(!world.aborted());
    if (p.schedule.placement.replicas() == 2) continue;  // there each step adds what the other rank has summed so far
    const auto got = gathered(p, trainers);
    CHECK(got.losses == expected.losses);
    for (std::size_t stage = 0; stage < got.layers.size(); ++stage)
      for (std::size_t i = 0; i < small_model::width; ++i)
        CHECK(got.layers[stage].gradient[i][0] ==
              doctest::Approx(50 * expected.layers[stage].gradient[i][0]).epsilon(1e-9));
  }
}

TEST_CASE("run_all: steps of gradient descent are those of one device, to the bit, in one call or in several") {
  for (const char* name : {"1f1b", "zbv", "interleaved_zb", "dualpipe", "chimera", "v_half"})
    for (const bool one_thread : {false, true}) {
      CAPTURE(name);
      const schedule s = make_schedule(name, {.pp = 4, .micro = 6});
      const tied_stages tied{{0, static_cast<std::uint16_t>(s.stages() - 1)}};
      const program p = lower(s, {.tied = tied});
      std::deque<descending> trainers;
      for (std::uint32_t rank = 0; rank < 4; ++rank) trainers.emplace_back(p, rank, tied);
      thread_world world(4);
      run_all(p, trainers, world, {.steps = 3, .one_thread = one_thread});
      run_all(p, trainers, world, {.steps = 0, .first_step = 3, .one_thread = one_thread});
      run_all(p, trainers, world, {.steps = 2, .first_step = 3, .one_thread = one_thread});
      auto expected = small_model::on_one_device(s.stages(), s.micro, small_model::orders_of(s), tied);
      for (std::size_t step = 0; step < 5; ++step) {
        for (std::uint32_t m = 0; m < s.micro; ++m)
          for (const descending& t : trainers) {
            REQUIRE(t.losses_of_steps.size() == 5);
            const double loss = t.losses_of_steps[step][m];
            CHECK((loss == -1 || loss == expected.losses[m]));
          }
        for (small_model::layer& l : expected.layers) small_model::update(l);
        if (step < 4)
          expected = small_model::on_one_device(std::move(expected.layers), s.micro, small_model::orders_of(s), tied);
      }
      CHECK(same(gathered(p, trainers), expected));
    }
}

TEST_CASE("run_all: hooks are called around each step, with its number, whatever the driver") {
  struct logging {
    std::vector<std::string> log{};
    std::array<std::array<std::byte, 8>, 4> messages{};
    void begin_step(std::size_t step) { log.push_back("begin " + std::to_string(step)); }
    void end_step(std::size_t step) { log.push_back("end " + std::to_string(step)); }
    void forward(task t) { log.push_back(to_string(t.what)); }
    void backward(task t) { log.push_back(to_string(t.what)); }
    std::span<std::byte> buffer(tensor_id, std::uint32_t n) { return messages.at(n); }
  };
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 1}));
  const auto expected = [](const std::string& stage) {
    std::vector<std::string> log;
    for (const char* step : {"7", "8", "9"})
      for (const std::string& line :
           {std::string("begin ") + step, stage + "F0", stage + "B0", std::string("end ") + step})
        log.push_back(line);
    return log;
  };
  for (const bool record : {false, true})
    for (const bool one_thread : {false, true}) {
      std::vector<logging> trainers(2);
      thread_world world(2);
      run_all(p, trainers, world, {.steps = 3, .first_step = 7, .record = record, .one_thread = one_thread});
      CHECK(trainers[0].log == expected("0"));
      CHECK(trainers[1].log == expected("1"));
      run_all(p, trainers, world, {.steps = 0, .one_thread = one_thread});
      CHECK(trainers[0].log == expected("0"));
    }
  logging alone;
  recording_transport transport;
  run(p, 1, alone, transport, {.steps = 3, .first_step = 7});
  CHECK(alone.log == expected("1"));
}

TEST_CASE("run_all: trainers are the caller's, in a vector or deque, or pointers to them") {
  const program p = lower(make_zbv_schedule({.pp = 4, .micro = 8}));
  const auto expected = in_threads(p);
  thread_world world(4);
  std::deque<small_model::trainer> in_place;
  std::vector<std::unique_ptr<small_model::trainer>> owned;
  for (std::uint32_t rank = 0; rank < 4; ++rank) {
    in_place.emplace_back(p, rank);
    owned.push_back(std::make_unique<small_model::trainer>(p, rank));
  }
  run_all(p, in_place, world);
  CHECK(same(gathered(p, in_place), expected));
  run_all(p, owned, world);
  tanh_trainers<double> copies;
  for (const auto& t : owned) copies.push_back(*t);
  CHECK(same(gathered(p, copies), expected));
}

TEST_CASE("run_all: messages of stages may differ in their sizes; buffers have buffer_bytes()") {
  for (const char* name : {"1f1b", "interleaved_1f1b", "dualpipev", "chimera", "hanayo"})
    for (const std::uint32_t depth : {1u, 4u}) {
      CAPTURE(name);
      const program p = lower(merge_backward(make_schedule(name, {.pp = 4, .micro = 6})), {.depth = depth});
      auto trainers = wide_trainers({&p});
      std::set<std::size_t> sizes;
      for (std::uint32_t rank = 0; rank < 4; ++rank) {
        const auto bytes = buffer_bytes(p, rank, widening::bytes_of);
        REQUIRE(bytes.size() == p.pools[rank].buffers());
        for (std::uint32_t n = 0; n < bytes.size(); ++n) CHECK((bytes[n] > 0) == (n < p.pools[rank].owned_buffers()));
        sizes.insert(bytes.begin(), bytes.end());
      }
      CHECK(sizes.size() > 2);
      thread_world world(4);
      run_all(p, trainers, world, {.steps = 4});
      require_losses(trainers, widening::on_one_device(p.schedule.stages(), p.schedule.micro, 4));
    }
}

TEST_CASE("run_all: training, evaluation and training again share a world and its trainers") {
  for (const char* name : {"1f1b", "dualpipev", "chimera"})
    for (const bool one_thread : {false, true}) {
      CAPTURE(name);
      const schedule s = merge_backward(make_schedule(name, {.pp = 4, .micro = 6}));
      const program training = lower(s);
      const program evaluation = lower(make_schedule(name, {.pp = 4, .micro = 6, .forward_only = true}), {.depth = 1});
      auto trainers = wide_trainers({&training, &evaluation});
      thread_world world(4);
      run_all(training, trainers, world, {.steps = 3, .one_thread = one_thread});
      run_all(evaluation, trainers, world, {.steps = 2, .first_step = 3, .one_thread = one_thread});
      run_all(training, trainers, world, {.steps = 2, .first_step = 5, .one_thread = one_thread});
      auto expected = widening::on_one_device(s.stages(), s.micro, 5);
      expected.insert(expected.begin() + 3, 2, expected[3]);  // the loss after three updates, twice
      require_losses(trainers, expected);
    }
}

TEST_CASE("run_all: the measured timeline is one that the ranks can have had, and empty unless asked for") {
  const program p = lower(make_zbv_schedule({.pp = 4, .micro = 8}));
  for (const bool one_thread : {false, true}) {
    auto trainers = make_trainers(p);
    thread_world world(4);
    const timeline unasked = run_all(p, trainers, world, {.one_thread = one_thread});
    CHECK(unasked.schedule == p.schedule);
    CHECK(unasked.intervals.all().empty());
    const timeline t = run_all(p, trainers, world, {.steps = 2, .record = true, .one_thread = one_thread});
    std::vector<std::vector<double>> end_of_F(8, std::vector<double>(8));
    for (std::uint32_t rank = 0; rank < 4; ++rank) {
      REQUIRE(t[rank].size() == p.schedule[rank].size());
      for (std::size_t i = 0; i < t[rank].size(); ++i) {
        CHECK(t[rank][i].start >= 0);
        CHECK(t[rank][i].start <= t[rank][i].end);
        if (i > 0) CHECK(t[rank][i - 1].end <= t[rank][i].start);
        const op o = p.schedule[rank][i][0];
        if (o.pass == pass::forward) end_of_F[o.stage][o.micro] = t[rank][i].end;
      }
    }
    for (std::uint32_t rank = 0; rank < 4; ++rank)
      for (std::size_t i = 0; i < t[rank].size(); ++i)
        if (const op o = p.schedule[rank][i][0]; o.pass == pass::forward && o.stage > 0)
          CHECK(end_of_F[o.stage - 1u][o.micro] <= t[rank][i].start);
  }
}

TEST_CASE("run: the intervals of this rank's cells in the last step, or nothing") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 4}));
  small_model::trainer last(p, 1);
  recording_transport transport;
  CHECK(run(p, 1, last, transport).empty());
  const std::vector<interval> own = run(p, 1, last, transport, {.steps = 2, .record = true});
  REQUIRE(own.size() == p.schedule[1].size());
  for (std::size_t i = 0; i < own.size(); ++i) {
    CHECK(own[i].start <= own[i].end);
    if (i > 0) CHECK(own[i - 1].end <= own[i].start);
  }
}

TEST_CASE("run: what a rank asks of its transport, and in which order") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 2}), {.depth = 2});
  small_model::trainer last(p, 1);
  recording_transport transport([](tensor_id m, std::span<std::byte> bytes) {
    const small_model::vector x = small_model::input_of_micro(m.micro);
    std::memcpy(bytes.data(), &x, sizeof x);
  });
  run(p, 1, last, transport);
  using enum recording_transport::event_kind;
  const tensor_id F0{tensor_kind::activation, 0, 0}, F1{tensor_kind::activation, 0, 1}, B0{tensor_kind::gradient, 1, 0},
      B1{tensor_kind::gradient, 1, 1};
  CHECK(transport.events() == std::vector<recording_transport::event>{{receive, F0, 0, sizeof(small_model::vector)},
                                                                      {receive, F1, 1, sizeof(small_model::vector)},
                                                                      {wait, {}, 0, 0},
                                                                      {wait, {}, 2, 0},
                                                                      {send, B0, 2, sizeof(small_model::vector)},
                                                                      {wait, {}, 1, 0},
                                                                      {wait, {}, 3, 0},
                                                                      {send, B1, 3, sizeof(small_model::vector)},
                                                                      {finish}});
  CHECK(last.losses[1] ==
        small_model::loss_of(small_model::forward_of(small_model::make_layer(1), small_model::input_of_micro(1))));
}

TEST_CASE("run: a reduction says which chunks' gradients become the sum, and where the other one is") {
  struct noting : small_model::trainer {
    using small_model::trainer::trainer;
    std::vector<reduction> reductions_made{};
    void reduce(reduction r) {
      reductions_made.push_back(r);
      small_model::trainer::reduce(r);
    }
  };
  const program p = lower(two_replicas({{0, 1, 2}, {2, 1, 0}}));
  std::vector<noting> trainers;
  for (std::uint32_t rank = 0; rank < 3; ++rank) trainers.emplace_back(p, rank);
  thread_world world(3);
  run_all(p, trainers, world);
  REQUIRE(trainers[1].reductions_made.size() == 1);
  const reduction local = trainers[1].reductions_made[0];
  CHECK(local.buffer == no_slot);
  CHECK(local.stage == 1);
  CHECK(local.other == tensor_id{tensor_kind::weight_gradient, 1, 0});
  CHECK(local.chunk + local.other_chunk == 1);
  REQUIRE(trainers[0].reductions_made.size() == 2);
  for (const reduction& r : trainers[0].reductions_made) {
    CHECK(r.buffer >= p.pools[0][pool::tensor]);
    CHECK(r.buffer < p.pools[0].owned_buffers());
    CHECK(r.other.stage == r.stage);
    CHECK(trainers[0].stages[r.chunk] == r.stage);
  }
}

TEST_CASE("run_all: what does not fit is refused before anything runs, and the world is as it was") {
  struct no_split {
    std::array<std::array<std::byte, 8>, 4> messages{};
    void forward(task) {}
    void backward(task) {}
    std::span<std::byte> buffer(tensor_id, std::uint32_t n) { return messages.at(n); }
  };
  thread_world world(2);
  std::vector<no_split> two(2), three(3);
  const program one_rank = lower(make_1f1b_schedule({.pp = 1, .micro = 1}));
  const program good = lower(make_1f1b_schedule({.pp = 2, .micro = 2}));
  const auto refused = [&](const schedule& s) {
    const program p = lower(s);
    return refusal_of([&] { run_all(p, two, world); });
  };
  CHECK(refused(make_zb1p_schedule({.pp = 2, .micro = 1})) ==
        "the trainer has no backward_input, which 0I0 needs; merge_backward() makes B of I and W");
  CHECK(refused(make_chimera_schedule({.pp = 2, .micro = 2}))
            .find("the trainer has no weight_gradient, reduce, which "
                  "the reduction of stage ") == 0);
  CHECK(refusal_of([&] { run_all(good, three, world); }) == "a program of 2 ranks needs as many trainers; got 3");
  std::vector<no_split> one(1);
  CHECK(refusal_of([&] { run_all(one_rank, one, world); }) ==
        "a program of 1 rank needs a world of as many; this one has 2");
  for (const bool one_thread : {false, true}) {
    for (const std::size_t steps : {1u, 3u})
      CHECK(refusal_of([&] { run_all(good, two, world, {.steps = steps, .graph = true, .one_thread = one_thread}); }) ==
            "a graph needs ranks on devices");
    CHECK(refusal_of([&] { run_all(good, two, world, {.steps = 0, .record = true, .one_thread = one_thread}); }) ==
          "a timeline is of at least 1 step; got 0");
  }
  CHECK(!world.aborted());
  CHECK(refused(make_1f1b_schedule({.pp = 2, .micro = 2})) == "");
}

TEST_CASE("run: a rank, a transport, a program or a time limit that does not fit is refused before anything runs") {
  const program p = lower(make_1f1b_schedule({.pp = 2, .micro = 2}));
  small_model::trainer t(p, 0);
  recording_transport any;
  CHECK(refusal_of([&] { run(p, 2, t, any); }) == "a program of 2 ranks has ranks 0 to 1; got rank 2, nearest 1");
  CHECK(refusal_of([&] { run(program{}, 0, t, any); }) == "a program of 0 ranks; got rank 0");
  CHECK(refusal_of([&] { run(p, 0, t, any, {.steps = 3, .first_step = ~std::size_t{0}}); }) ==
        "first_step + steps is at most 2^64 - 1; got 18446744073709551615 + 3");
  CHECK(refusal_of([&] { run(p, 0, t, any, {.graph = true}); }) == "a graph needs ranks on devices");
  CHECK(refusal_of([&] { run(p, 0, t, any, {.steps = 0, .record = true}); }) ==
        "a timeline is of at least 1 step; got 0");
  CHECK(refusal_of([&] { run(p, 0, t, any, {.one_thread = true}); }) ==
        "one_thread is an option of run_all(); run() runs one rank, in the thread of its caller");
  CHECK(any.events().empty());
  CHECK(refusal_of([] { thread_world(0); }) == "a world has at least 1 rank; got 0");
  {
    thread_world world(2);
    CHECK(refusal_of([&] { thread_transport(world, 2); }) == "a world of 2 ranks has ranks 0 to 1; got rank 2");
    CHECK(!world.aborted());
    thread_transport transport(world, 0);
    CHECK(refusal_of([&] { run(p, 1, t, transport); }) == "rank 1 runs with a transport of rank 0");
    CHECK(world.aborted());  // rank 1 does not run, and the others need it
  }
  thread_world unprepared(2);
  thread_transport transport(unprepared, 0);
  CHECK(refusal_of([&] { run(p, 0, t, transport); }) == "prepare the world for this program before its steps");
  for (const double limit : {0.0, -1.0, 2e9, std::nan("")}) {
    CAPTURE(limit);
    CHECK(refusal_of([&] { thread_world(2, std::chrono::duration<double>(limit)); }) ==
          detail::concat({"a time limit is above 0 and at most 1e9 seconds; got ", limit}));
  }
}
