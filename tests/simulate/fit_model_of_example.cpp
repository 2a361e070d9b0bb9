// SPDX-License-Identifier: MIT
// fit_model() against runs of the example's trainer. Its numbers count their own arithmetic, and a rank's clock is that count:
// what a layer costs is exactly known, on any machine and under any load.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "../../examples/train/trainer.hpp"
#include "pipesched/core/recompute.hpp"
#include "pipesched/execute/run.hpp"
#include "pipesched/execute/thread_transport.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/model/costs_of.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/simulate/fit_model.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"

using namespace pipesched;

namespace {

thread_local std::uint64_t arithmetic = 0;  // of this thread, which runs one rank

// A number that counts what is computed with it.
class counted {
 public:
  counted() = default;
  template <typename Number>
  requires std::is_arithmetic_v<Number> counted(Number value)
      : value_(static_cast<double>(value)) {}  // NOLINT: implicit, as from a literal
  explicit operator double() const { return value_; }

  friend counted operator+(counted a, counted b) { return done(a.value_ + b.value_); }
  friend counted operator-(counted a, counted b) { return done(a.value_ - b.value_); }
  friend counted operator*(counted a, counted b) { return done(a.value_ * b.value_); }
  friend counted operator/(counted a, counted b) { return done(a.value_ / b.value_); }
  friend counted operator-(counted a) { return done(-a.value_); }
  counted& operator+=(counted b) { return *this = *this + b; }
  counted& operator-=(counted b) { return *this = *this - b; }
  counted& operator*=(counted b) { return *this = *this * b; }
  counted& operator/=(counted b) { return *this = *this / b; }
  friend auto operator<=>(counted a, counted b) { return a.value_ <=> b.value_; }
  friend counted exp(counted a) { return done(std::exp(a.value_)); }
  friend counted erf(counted a) { return done(std::erf(a.value_)); }
  friend counted sqrt(counted a) { return done(std::sqrt(a.value_)); }

 private:
  static counted done(double value) {
    ++arithmetic;
    return value;
  }
  double value_ = 0;
};

// Threads whose cells are measured by that count.
class counting_transport : public thread_transport {
 public:
  using thread_transport::thread_transport;
  void start_clock() { cells_.assign(cells(), {}), zero_ = arithmetic; }
  void begin_cell(std::uint32_t i) {
    if (!cells_.empty()) cells_[i].start = now();
  }
  void end_cell(std::uint32_t i) {
    if (!cells_.empty()) cells_[i].end = now();
  }
  void read_clock(std::span<interval> into) { std::ranges::copy(std::exchange(cells_, {}), into.begin()); }

 private:
  double now() const { return static_cast<double>(arithmetic - zero_); }
  std::vector<interval> cells_;
  std::uint64_t zero_ = 0;
};
struct counting_world : thread_world {
  using transport_type = counting_transport;
  using thread_world::thread_world;
};

const train::text& characters() {
  static const train::text data("a rank runs its cells in order; a cell starts when its inputs have arrived.", 1);
  return data;
}
const train::model_sizes sizes{
    .vocabulary = characters().vocabulary(), .layers = 5, .width = 8, .heads = 2, .context = 8, .batch = 1};

// The second of two steps.
timeline trained(const schedule& s, const partition& layers) {
  const program programs[] = {lower(s)};
  std::vector<double> losses(2 * s.micro);
  std::deque<train::trainer<counted>> trainers;
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
    trainers.emplace_back(programs, rank, train::settings{sizes, &characters(), 1, 0.01, layers});
    trainers.back().begin(programs[0], losses);
  }
  counting_world world(s.pp());
  return run_all(programs[0], trainers, world, {.steps = 2, .record = true});
}

model alone() {
  return train::costs_alone<counted>(sizes, 1, 3, [] { return static_cast<double>(arithmetic); });
}

// Any model of the same kinds of layers, from which a fit starts.
model unknown() {
  model m = train::layers_of(sizes);
  m.layers[0].forward = 5, m.layers[2].backward_input = 7;
  return m;
}

void check_fit(const model& fitted, const model& expected) {
  for (std::size_t i = 0; i < expected.layers.size(); ++i) {
    const layer &got = fitted.layers[i], &known = expected.layers[i];
    CAPTURE(known.kind);
    CHECK(got.forward == doctest::Approx(known.forward).epsilon(1e-9));
    CHECK(got.backward_times().input == doctest::Approx(known.backward_times().input).epsilon(1e-9));
    CHECK(got.backward_times().weight == doctest::Approx(known.backward_times().weight).epsilon(1e-9));
    CHECK(got.backward_times().whole == doctest::Approx(known.backward_times().whole).epsilon(1e-9));
  }
}

}  // namespace

TEST_CASE("fit_model: a run of the example gives the costs that its layers have alone") {
  const model known = alone();
  CHECK(known.layers[1].forward > 10 * known.layers[0].forward);  // the kinds differ
  const double rows = 8, width = 8, letters = static_cast<double>(sizes.vocabulary);
  CHECK(known.layers[0].forward == 2 * rows * width);                                    // two embeddings are added
  CHECK(*known.layers[0].backward_input == 0);                                           // copied
  CHECK(*known.layers[2].backward_weight == letters * (width * (2 * rows + 1) + rows));  // a matrix and a bias
  for (const char* family : {"zb1p", "zbv", "dualpipev", "interleaved_zb"}) {
    CAPTURE(family);
    const schedule s = split_backward(make_schedule(family, {.pp = 3, .micro = 4}));
    const std::vector<partition> layers = {s.stages() == 3 ? partition{{2, 3, 2}} : partition{{2, 1, 1, 0, 1, 2}}};
    const std::vector<timeline> measured = {trained(s, layers[0])};
    const model_fit fit = fit_model(measured, layers, unknown());
    CHECK(fit.alike.empty());
    check_fit(fit.fitted, known);
  }
}

TEST_CASE("fit_model: two runs of the example with whole backwards, of different partitions, tell its layers apart") {
  const model known = alone();
  const schedule s = make_schedule("1f1b", {.pp = 2, .micro = 3});
  const std::vector<partition> layers = {{{1, 6}}, {{4, 3}}};
  const std::vector<timeline> measured = {trained(s, layers[0]), trained(s, layers[1])};
  CHECK(fit_model(std::span(measured).first(1), std::span(layers).first(1), unknown()).alike ==
        std::vector<std::vector<std::string>>{{"block", "head"}});
  const model_fit fit = fit_model(measured, layers, unknown());
  CHECK(fit.alike.empty());
  for (std::size_t i = 0; i < known.layers.size(); ++i) {
    CAPTURE(known.layers[i].kind);
    CHECK(fit.fitted.layers[i].forward == doctest::Approx(known.layers[i].forward).epsilon(1e-9));
    CHECK(*fit.fitted.layers[i].backward == doctest::Approx(known.layers[i].backward_times().whole).epsilon(1e-9));
  }
}

TEST_CASE("fit_model: the R of the example's layers takes the time of their F") {
  const model known = alone();
  const schedule s = recompute(make_schedule("zb1p", {.pp = 3, .micro = 4}), {.count = 1, .of_every = 2});
  const std::vector<partition> layers = {{{2, 3, 2}}};
  const std::vector<timeline> measured = {trained(s, layers[0])};
  const model_fit fit = fit_model(measured, layers, unknown());
  check_fit(fit.fitted, known);
  for (std::size_t i = 0; i < known.layers.size(); ++i)
    CHECK(*fit.fitted.layers[i].recompute == doctest::Approx(known.layers[i].forward).epsilon(1e-9));
}

TEST_CASE("fit_model: costs fitted to one partition of the example foretell each cell of another") {
  const schedule s = make_schedule("zbv", {.pp = 2, .micro = 4});
  const std::vector<partition> one = {{{2, 2, 2, 1}}};
  const std::vector<timeline> measured = {trained(s, one[0])};
  const model fitted = fit_model(measured, one, unknown()).fitted;
  const partition other{{1, 0, 3, 3}};
  const timeline foretold = simulate(s, costs_of(fitted, other, s.placement)), got = trained(s, other);
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
    for (std::size_t i = 0; i < s[rank].size(); ++i)
      CHECK(got[rank][i].end - got[rank][i].start ==
            doctest::Approx(foretold[rank][i].end - foretold[rank][i].start).epsilon(1e-9));
}
