// SPDX-License-Identifier: MIT

#include "pipesched/simulate/fit_model.hpp"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

#include "pipesched/generate/1f1b.hpp"
#include "pipesched/generate/interleaved_1f1b.hpp"
#include "pipesched/generate/zb1p.hpp"
#include "pipesched/model/presets.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/families.hpp"

using namespace pipesched;
using pipesched::tests::refusal_of;

namespace {

timeline measured(const model& m, const partition& p, const schedule& s) {
  return simulate(s, costs_of(m, p, s.placement));
}

// The model with other times, from which a fit starts.
model forgotten(model m) {
  double time = 1;
  for (layer& l : m.layers) {
    l.forward = time += 1, l.backward_input = time += 1, l.backward_weight = time += 1;
    l.backward.reset();
  }
  return m;
}

void check_same(const model& got, const model& expected, double epsilon) {
  REQUIRE(got.layers.size() == expected.layers.size());
  for (std::size_t i = 0; i < got.layers.size(); ++i) {
    CAPTURE(i);
    const layer &a = got.layers[i], &b = expected.layers[i];
    CHECK(a.forward == doctest::Approx(b.forward).epsilon(epsilon));
    CHECK(a.backward_times().input == doctest::Approx(b.backward_times().input).epsilon(epsilon));
    CHECK(a.backward_times().weight == doctest::Approx(b.backward_times().weight).epsilon(epsilon));
    CHECK(a.backward_times().whole == doctest::Approx(b.backward_times().whole).epsilon(epsilon));
  }
}

}  // namespace

TEST_CASE("fit_model: layers are recovered from one timeline, also with unequal ranks and lengths") {
  model m = deepseek_like_model();
  const schedule s = make_zb1p_schedule({.pp = 8, .micro = 4});
  const std::vector<partition> p = {{{4, 4, 4, 4, 4, 4, 5, 4}}};
  for (const bool unequal : {false, true}) {
    if (unequal) {
      m.ranks.assign(8, {});
      m.ranks[2].speed = 0.5, m.ranks[7].speed = 2;
      m.micro_batches = {1, 0.5, 2, 1};
    }
    const std::vector<timeline> t = {measured(m, p[0], s)};
    const model_fit fit = fit_model(t, p, forgotten(m));
    CHECK(fit.alike.empty());
    check_same(fit.fitted, m, 1e-6);
  }
}

TEST_CASE("fit_model: noise of some per cent is averaged out over stages and timelines") {
  const model m = deepseek_like_model();
  std::mt19937_64 random(7);
  std::normal_distribution<double> noise(1, 0.02);
  std::vector<timeline> times;
  std::vector<partition> partitions = {
      {{4, 4, 4, 4, 4, 4, 5, 4}}, {{5, 4, 4, 4, 4, 4, 4, 4}}, {{2, 3, 5, 5, 5, 5, 5, 3}}};
  for (const partition& p : partitions) {
    times.push_back(measured(m, p, make_zb1p_schedule({.pp = 8, .micro = 32})));
    for (interval& i : times.back().intervals.all()) i.end = i.start + (i.end - i.start) * noise(random);
  }
  check_same(fit_model(times, partitions, forgotten(m)).fitted, m, 0.02);
}

TEST_CASE("fit_model: ends with times that are not negative whatever was measured") {
  const model m{.layers = {{.kind = "embedding"}, {.kind = "block", .count = 8}, {.kind = "head"}}};
  std::mt19937_64 random(8);
  const schedule s = make_zb1p_schedule({.pp = 4, .micro = 2});
  const std::vector<partition> p(7, {{4, 3, 2, 1}});
  int zeros = 0;
  for (int i = 0; i < 1000; ++i) {
    std::vector<timeline> times(p.size(), measured(m, p[0], s));
    for (timeline& t : times)
      for (interval& of : t.intervals.all()) of.end = of.start + std::uniform_real_distribution<double>(0, 1)(random);
    for (const layer& l : fit_model(times, p, m).fitted.layers)
      for (const double time : {l.forward, *l.backward_input, *l.backward_weight}) {
        REQUIRE(time >= 0);
        zeros += time == 0;
      }
  }
  CHECK(zeros > 1000);  // of 9000: layers at the ends that seem to take less than nothing
}

TEST_CASE("fit_model: kinds that stages do not tell apart are named; another partition tells them apart") {
  const model m = gemma_model();
  const schedule s = make_1f1b_schedule({.pp = 1, .micro = 2});
  const std::vector<partition> all = {{{33}}};
  const std::vector<timeline> one = {measured(m, all[0], s)};
  const model_fit fit = fit_model(one, all, forgotten(m));
  CHECK(fit.alike == std::vector<std::vector<std::string>>{{"block", "head"}});
  CHECK(32 * fit.fitted.layers[0].forward + fit.fitted.layers[1].forward == doctest::Approx(32 + 5.72));
  CHECK(fit.fitted.layers[1].forward / fit.fitted.layers[0].forward ==
        doctest::Approx(forgotten(m).layers[1].forward / forgotten(m).layers[0].forward));
  // 1F1B has whole backwards: their halves keep the ratio of the model.
  const layer& block = fit.fitted.layers[0];
  CHECK(*block.backward_input / *block.backward_weight ==
        doctest::Approx(*forgotten(m).layers[0].backward_input / *forgotten(m).layers[0].backward_weight));

  const schedule two = make_zb1p_schedule({.pp = 2, .micro = 2});
  const std::vector<partition> both = {{{33}}, {{30, 3}}};
  const std::vector<timeline> times = {one[0], measured(m, both[1], two)};
  const model_fit better = fit_model(times, both, forgotten(m));
  CHECK(better.alike.empty());
  check_same(better.fitted, m, 1e-6);
}

TEST_CASE("fit_model: what was not measured stays, and no time is negative") {
  const model m = gemma_model();
  const schedule s = make_1f1b_schedule({.pp = 2, .micro = 2, .forward_only = true});
  const std::vector<partition> p = {{{16, 17}}};
  std::vector<timeline> t = {measured(m, p[0], s)};
  const model before = forgotten(m);
  const model_fit fit = fit_model(t, p, before);
  CHECK(fit.fitted.layers[0].forward == doctest::Approx(1));
  CHECK(fit.fitted.layers[0].backward_input == before.layers[0].backward_input);
  for (std::size_t i = 0; i < t[0][1].size(); ++i) t[0].intervals[1][i].end = t[0].intervals[1][i].start + 1;
  CHECK(fit_model(t, p, before).fitted.layers[1].forward == 0);  // the last stage takes less than its blocks
  CHECK(refusal_of([&] { fit_model({}, {}, m); }) ==
        "fit_model() needs a partition for every timeline, and at least one; got 0 timelines and 0 partitions");
  const std::vector<partition> wrong = {{{16, 16}}};
  CHECK(refusal_of([&] { fit_model(t, wrong, m); }) == "a partition of 32 layers; the model has 33");
}
