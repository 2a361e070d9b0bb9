// SPDX-License-Identifier: MIT
// Partitions found, against all partitions of small models and the best that is known of larger ones.

#include "pipesched/plan/divide.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/freeze.hpp"
#include "pipesched/core/recompute.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/model/partition.hpp"
#include "pipesched/model/presets.hpp"
#include "pipesched/plan/place_recompute.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/any_variant.hpp"
#include "support/families.hpp"
#include "support/makespan.hpp"

using namespace pipesched;
using pipesched::tests::makespan;
using pipesched::tests::refusal_of;

namespace {

void for_all_partitions(std::size_t layers, std::size_t stages, const std::function<void(const partition&)>& f) {
  partition p;
  const std::function<void(std::size_t)> rest = [&](std::size_t left) {
    if (p.stages() + 1 == stages) {
      p.layers.push_back(static_cast<std::uint32_t>(left));
      f(p);
      p.layers.pop_back();
      return;
    }
    for (std::size_t n = 0; n <= left; ++n) {
      p.layers.push_back(static_cast<std::uint32_t>(n));
      rest(left - n);
      p.layers.pop_back();
    }
  };
  rest(layers);
}

// The layers of frozen stages are those that the uniform partition has there.
bool trains_the_same(const schedule& s, const partition& p, const partition& uniform) {
  const auto frozen = [&](const partition& of) {
    std::vector<bool> layers;
    for (std::size_t stage = 0; stage < of.stages(); ++stage)
      layers.insert(layers.end(), of.layers[stage], !s.backward.empty() && s.backward[stage] != stage_backward::full);
    return layers;
  };
  return frozen(p) == frozen(uniform);
}

// Also, stages are frozen or trained for the same layers, where some have none.
bool keeps_runs(const schedule& s, const partition& p, const partition& uniform) {
  std::size_t layers = 0, of_uniform = 0;
  for (std::size_t stage = 0; stage < p.stages(); ++stage) {
    if (!s.backward.empty() && stage > 0 && layers != of_uniform &&
        (s.backward[stage] == stage_backward::full) != (s.backward[stage - 1] == stage_backward::full))
      return false;
    layers += p.layers[stage], of_uniform += uniform.layers[stage];
  }
  return true;
}

// Random whole numbers.
model random_model(std::mt19937_64& random, std::size_t layers, std::size_t ranks, std::uint32_t micro) {
  const auto number = [&](int least, int most) {
    return static_cast<double>(std::uniform_int_distribution<int>(least, most)(random));
  };
  model m;
  for (std::size_t i = 0; i < layers; ++i)
    m.layers.push_back({.kind = number(0, 1) == 0 ? "a" : "b",
                        .forward = number(0, 5),
                        .backward_input = number(0, 5),
                        .backward_weight = number(0, 5),
                        .kept = number(1, 3),
                        .weights = number(0, 4)});
  if (number(0, 1) == 0)
    for (std::size_t r = 0; r < ranks; ++r) m.ranks.push_back({.speed = 1 / number(1, 2)});
  if (number(0, 1) == 0)
    for (std::uint32_t i = 0; i < micro; ++i) m.micro_batches.push_back(number(1, 3));
  m.layers[0].kind = "a", m.layers.back().kind = "b";
  if (number(0, 2) == 0) m.pairs = {{{"a", "b"}, {pass::forward, pass::backward}, number(0, 4)}};
  return m;
}

// The schedule with some cells of a rank merged with the next one, where that is valid.
schedule with_random_pairs(schedule s, std::mt19937_64& random) {
  for (std::size_t rank = 0; rank < s.pp(); ++rank)
    for (std::size_t i = 0; i + 1 < s[rank].size(); ++i) {
      if (random() % 4 == 0 || s[rank][i].overlapped() || s[rank][i + 1].overlapped()) continue;
      schedule merged = s;
      merged.edit(rank, [&](std::vector<cell>& row) {
        row[i] = cell(row[i][0], row[i + 1][0]);
        row.erase(row.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      });
      if (verify(merged)) s = std::move(merged);
    }
  return s;
}

}  // namespace

TEST_CASE("divide: as good as the best of all partitions of small models, and its bound is below all of them") {
  std::mt19937_64 random(5);
  int compared = 0, optimal = 0;
  double worst = 1;
  for (const char* name : {"1f1b", "zb1p", "gpipe", "interleaved_1f1b", "zbv", "dualpipe", "dualpipev", "hanayo"})
    for (int round = 0; round < 12; ++round) {
      const family& f = find_family(name);
      const auto micro = static_cast<std::uint32_t>(2 + round % 5);
      const schedule_params p{.pp = 2 + 2 * (round % 2), .micro = micro, .forward_only = round % 6 == 5};
      const schedule s = f.make(p);
      const std::size_t layers = s.stages() > 4 ? 6 : 8;
      const model m = random_model(random, layers, s.pp(), micro);
      double best = std::numeric_limits<double>::infinity();
      const division d = divide(m, f, p, {.evaluations = 3000});
      for_all_partitions(layers, s.stages(), [&](const partition& all) {
        const double there = makespan(s, costs_of(m, all, s.placement));
        REQUIRE(d.lower_bound <= there);
        best = std::min(best, there);
      });
      CAPTURE(name);
      CAPTURE(round);
      CAPTURE(to_string(d.partition));
      CHECK(d.makespan == makespan(s, costs_of(m, d.partition, s.placement)));
      CHECK(d.uniform_makespan == makespan(s, costs_of(m, uniform_partition(m, s.stages()), s.placement)));
      CHECK(d.makespan <= d.uniform_makespan);
      CHECK(d.partition_bound.makespan <= d.makespan);
      CHECK(d.makespan >= best);
      optimal += d.makespan == best, worst = std::max(worst, d.makespan / best);
      ++compared;
    }
  CHECK(compared == 96);
  CHECK(optimal == compared);
  CHECK(worst == 1);
}

TEST_CASE("divide: the bound of pairs shorter than their longer op alone is below all partitions") {
  const family& overlapped = find_family("interleaved_1f1b");
  const schedule_params of_overlapped{.pp = 3, .micro = 6, .overlap = true};
  const model uneven{.layers = {{.forward = 0.1, .backward = 2}},
                     .pairs = {{{"layer", "layer"}, {pass::forward, pass::backward}, 0.5}}};
  const division d = divide(uneven, overlapped, of_overlapped);
  CHECK(d.makespan == doctest::Approx(6.2));
  CHECK(d.lower_bound <= d.makespan);

  std::mt19937_64 random(19);
  const auto below = [&](std::uint64_t n) { return random() % n; };
  const auto number = [&] { return static_cast<double>(below(9)) / 2; };
  const auto short_or_long = [&] { return number() / (below(3) == 0 ? 1 : 16); };
  int compared = 0, short_pairs = 0;
  for (int round = 0; round < 1000; ++round) {
    const char* const names[] = {"1f1b", "zb1p", "interleaved_1f1b", "dualpipe", "zbv"};
    schedule_params p{.pp = static_cast<std::int64_t>(2 + below(2)), .micro = static_cast<std::int64_t>(2 + below(7))};
    const family& f = find_family(names[below(std::size(names))]);
    p.overlap = f.limits.takes.contains(parameter::overlap);
    if (!refusal_of([&] { f.make(p); }).empty()) continue;
    schedule s = f.make(p);
    if (below(2) == 0) s = tests::any_variant(s, random);
    if (below(2) == 0) s = with_random_pairs(s, random);
    model m{.layers = {}};
    for (const char* kind : {"a", "b"})
      m.layers.push_back({.kind = below(2) == 0 ? "a" : kind,
                          .count = static_cast<std::uint32_t>(1 + below(2)),
                          .forward = short_or_long(),
                          .backward_input = number(),
                          .backward_weight = short_or_long(),
                          .recompute = number()});
    for (const pass_pair passes : schedule_class_of(s).pairs.pairs())
      for (const char* kind : {"a", "b"}) {
        pass_pair priced = passes;
        if (below(4) == 0) priced = {without_recompute(passes.first), without_recompute(passes.second)};
        m.pairs.push_back({{kind, below(2) == 0 ? "a" : "b"}, priced, number() / 16});
        if (!refusal_of([&] { check(m); }).empty()) m.pairs.pop_back();
      }
    short_pairs += !m.pairs.empty();
    if (below(3) == 0)
      for (std::size_t r = 0; r < s.pp(); ++r) m.ranks.push_back({.speed = 1 + number()});
    if (below(3) == 0)
      for (std::uint32_t i = 0; i < s.micro; ++i) m.micro_batches.push_back(0.5 + number());
    const division found = divide(m, s, {.evaluations = 50});
    CAPTURE(round);
    CAPTURE(f.name);
    const partition uniform = uniform_partition(m, s.stages());
    for_all_partitions(layer_count(m), s.stages(), [&](const partition& all) {
      if (!keeps_runs(s, all, uniform)) return;
      const double there = makespan(s, costs_of(m, all, s.placement));
      CHECK(found.lower_bound <= there);
    });
    CHECK(found.partition_bound.makespan <= found.makespan);
    ++compared;
  }
  CHECK(compared > 500);
  CHECK(short_pairs > 300);
}

namespace {

// The schedule with some of its activations recomputed, and some stages frozen.
schedule with_recompute_and_frozen(schedule s, std::mt19937_64& random) {
  std::vector<std::int64_t> frozen, again;
  for (std::int64_t stage = 0; stage < std::int64_t{s.stages()}; ++stage) {
    if (random() % 3 == 0 && frozen.size() + 1 < s.stages()) frozen.push_back(stage);
    if (random() % 2 == 0) again.push_back(stage);
  }
  if (random() % 2 == 0) s = freeze(s, frozen);
  const recompute_choice which{.stages = again,
                               .count = 1 + static_cast<std::int64_t>(random() % 2),
                               .of_every = 2,
                               .inside_backward = random() % 2 == 0};
  return recompute(s, which);
}

}  // namespace

TEST_CASE("divide: the bound counts recomputation and frozen stages, and is below all partitions") {
  std::mt19937_64 random(23);
  int compared = 0, above_forwards = 0;
  for (int round = 0; round < 600; ++round) {
    const char* const names[] = {"1f1b", "zb1p", "gpipe", "interleaved_1f1b", "zbv", "dualpipe"};
    const family& f = find_family(names[static_cast<std::size_t>(round) % std::size(names)]);
    const auto micro = static_cast<std::uint32_t>(2 + random() % 5);
    const schedule_params p{.pp = f.name == "dualpipe" ? 2 : 2 + static_cast<std::int64_t>(random() % 2),
                            .micro = micro};
    if (!refusal_of([&] { f.make(p); }).empty()) continue;
    const schedule s = with_recompute_and_frozen(f.make(p), random);
    model m = random_model(random, s.stages() > 4 ? 4 : 6, s.pp(), micro);
    for (layer& l : m.layers) {
      l.recompute = static_cast<double>(random() % 4);
      if (random() % 4 == 0) l.forward += 0.1, l.recompute = l.forward / 3;
    }
    const division d = divide(m, s, {.evaluations = 2000});
    double best = std::numeric_limits<double>::infinity(), forwards = 0;
    for (const layer& l : m.layers) forwards += l.forward;
    const partition uniform = uniform_partition(m, s.stages());
    CHECK(trains_the_same(s, d.partition, uniform));
    for_all_partitions(layer_count(m), s.stages(), [&](const partition& all) {
      if (!keeps_runs(s, all, uniform)) return;
      best = std::min(best, makespan(s, costs_of(m, all, s.placement)));
    });
    CAPTURE(round);
    CAPTURE(f.name);
    CHECK(d.lower_bound <= best);
    CHECK(d.partition_bound.makespan <= d.makespan);
    CHECK(d.makespan <= d.uniform_makespan);
    CHECK(d.makespan == doctest::Approx(best).epsilon(1e-12));  // the search ends at the bound, but for rounding
    above_forwards += d.lower_bound > forwards * micro / static_cast<double>(s.pp());
    ++compared;
  }
  CHECK(compared > 400);
  CHECK(above_forwards > 100);
}

TEST_CASE("divide: bounds with recomputation and frozen stages by hand") {
  const model m{.layers = {{.count = 4, .forward = 1, .backward = 2, .recompute = 0.5}}};
  const schedule s = find_family("1f1b").make({.pp = 2, .micro = 8});
  const auto bound = [&](const schedule& of) { return divide(m, of).lower_bound; };
  // 8 micro-batches of two layers, and the other rank's two layers forward and back once.
  CHECK(bound(s) == doctest::Approx(8 * 6 + 6));
  CHECK(bound(recompute(s)) == doctest::Approx(8 * 7 + 6));
  CHECK(bound(recompute(s, {.inside_backward = true})) == doctest::Approx(8 * 7 + 6));
  CHECK(bound(recompute(s, {.count = 1, .of_every = 4})) == doctest::Approx(8 * 6 + 2 * 1 + 6));
  // Rank 0 is frozen: only forwards. Two layers each, as they would not train the same otherwise: two forward before the work of
  // rank 1.
  CHECK(bound(freeze(s, {0})) == doctest::Approx(2 + 8 * 6));
  // Rank 1 is frozen, and needs the gradients of inputs alone, which take half of a backward: the work of rank 0.
  CHECK(bound(freeze(s, {1})) <= divide(m, freeze(s, {1})).makespan);
  CHECK(bound(freeze(s, {1})) == doctest::Approx(8 * 6));
  // The bound of the partition counts recomputation, too.
  CHECK(divide(m, recompute(s)).partition_bound.makespan == doctest::Approx(8 * 7 + 6));
}

TEST_CASE("divide: the layers of frozen stages stay on frozen stages, so that as many are trained") {
  const model m{
      .layers = {{.kind = "embedding", .forward = 3, .backward = 0}, {.count = 15, .forward = 1, .backward = 2}}};
  const auto layers = [&](const std::vector<std::int64_t>& frozen) {
    return divide(m, freeze(find_family("1f1b").make({.pp = 4, .micro = 8}), frozen)).partition.layers;
  };
  const std::vector<std::uint32_t> uniform = uniform_partition(m, 4).layers;  // 5 4 4 3
  const auto sum = [](const std::vector<std::uint32_t>& of, std::size_t first, std::size_t end) {
    return std::accumulate(of.begin() + static_cast<std::ptrdiff_t>(first),
                           of.begin() + static_cast<std::ptrdiff_t>(end), 0u);
  };
  CHECK(sum(layers({0, 1}), 0, 2) == sum(uniform, 0, 2));
  CHECK(layers({0, 1})[0] < uniform[0]);  // they are divided among the two
  CHECK(layers({0})[0] == uniform[0]);
  CHECK(sum(layers({1}), 0, 1) == uniform[0]);
  CHECK(sum(layers({1}), 1, 2) == uniform[1]);
  CHECK(layers({0, 2, 3})[1] == uniform[1]);
  // Each stage is a run of its own: nothing moves, with few evaluations or many.
  const model many{.layers = {{.count = 400, .forward = 1, .backward = 2}}};
  const schedule turns = freeze(find_family("1f1b").make({.pp = 4, .micro = 8}), {0, 2});
  CHECK(divide(many, turns).partition == uniform_partition(many, 4));
}

TEST_CASE("divide: ends where no partition is shorter") {
  const model even{.layers = {{.count = 8, .forward = 1, .backward = 2}}};
  const division at_once = divide(even, find_family("1f1b"), {.pp = 2, .micro = 4});
  CHECK(at_once.makespan == doctest::Approx(at_once.lower_bound));
  CHECK(at_once.partition == uniform_partition(even, 2));
  CHECK(at_once.evaluations == 1);
  // The head is worth four layers. With fewer evaluations than partitions, and with more.
  const model uneven{
      .layers = {{.count = 20, .forward = 1, .backward = 2}, {.kind = "head", .forward = 4, .backward = 8}}};
  for (const std::uint64_t evaluations : std::vector<std::uint64_t>{200, 20'000}) {
    const division found = divide(uneven, find_family("1f1b"), {.pp = 3, .micro = 64}, {.evaluations = evaluations});
    CHECK(found.partition.layers == std::vector<std::uint32_t>{8, 8, 5});
    CHECK(found.makespan == doctest::Approx(found.lower_bound));
    CHECK(found.evaluations < 60);
  }
  // A partition that does not fit the memory ends nothing.
  model fat{.layers = {{.count = 8, .forward = 1, .backward = 2, .kept = 1}},
            .ranks = {{.memory = 7}, {.memory = 100}}};
  const division fits = divide(fat, find_family("1f1b"), {.pp = 2, .micro = 4});
  CHECK(fits.fits);
  CHECK(fits.partition.layers == std::vector<std::uint32_t>{3, 5});
}

TEST_CASE("divide: schedules that depend on the costs are made anew for every partition") {
  model m{.layers = {{.count = 6, .forward = 1, .backward = 2, .recompute = 1, .kept = 10, .kept_input = 1}},
          .ranks = {{.memory = 1000}}};
  const schedule s = recompute(find_family("1f1b").make({.pp = 3, .micro = 6}), {.stages = {0}});
  const division d =
      divide(m, s.placement, [&](const stage_costs& costs) { return place_recompute(s, costs); }, {.evaluations = 300});
  CHECK(d.schedule == place_recompute(s, d.costs));
  CHECK(makespan(d.schedule, d.costs) == d.makespan);
  CHECK(d.makespan <= divide(m, s, {.evaluations = 300}).makespan);
  CHECK(d.uniform_fits);
}

TEST_CASE("divide: at least as good as what is known of two published models, with 8 ranks and 32 micro-batches") {
  struct known {
    std::string_view family;
    double gemma_uniform, gemma, deepseek_uniform, deepseek;
  };
  for (const known& k : {known{"1f1b", 688.04, 528.75, 1206.36, 999.98},
                         {"zb1p", 671.08, 515.71, 1190.84, 990.02},
                         {"interleaved_1f1b", 647.86, 481.02, 1123.34, 885.52},
                         {"zbv", 626.68, 486.78, 965.44, 852.20},
                         {"v_half", 657.30, 543.83, 1062.32, 1042.37},
                         {"dualpipev", 627.70, 494.06, 966.58, 891.05}}) {
    CAPTURE(k.family);
    for (const bool gemma : {true, false}) {
      const division d = divide(gemma ? gemma_model() : deepseek_like_model(), find_family(k.family),
                                {.pp = 8, .micro = 32}, {.evaluations = 2000});
      CHECK(d.uniform_makespan == doctest::Approx(gemma ? k.gemma_uniform : k.deepseek_uniform));
      CHECK(d.makespan <= (gemma ? k.gemma : k.deepseek) * (1 + 1e-9));
      CHECK(d.lower_bound >= (gemma ? 397.4 : 760.72) * (1 - 1e-9));
      CHECK(d.lower_bound <= d.makespan);
    }
  }
}

TEST_CASE("divide: 127 blocks and a head on 16 ranks, 64 micro-batches") {
  model m = gemma_model();
  m.layers[0].count = 127;
  double work = 0;
  for (const layer& l : m.layers) work += l.count * (l.forward + l.backward_times().whole);
  for (const char* name : {"1f1b", "zb1p", "zbv"}) {
    CAPTURE(name);
    const division d = divide(m, find_family(name), {.pp = 16, .micro = 64}, {.evaluations = 2000});
    CHECK(d.makespan < 0.96 * d.uniform_makespan);
    CHECK(d.lower_bound >= 64 * work / 16 * (1 - 1e-9));
    CHECK(d.partition_bound.makespan >= d.lower_bound * (1 - 1e-9));
    CHECK(d.partition_bound.makespan <= d.makespan);
  }
}

TEST_CASE("divide: a family that searches on costs is made anew for every partition") {
  const family& f = find_family("zbv_greedy");
  const division d = divide(gemma_model(), f, {.pp = 4, .micro = 8}, {.evaluations = 100});
  CHECK(d.makespan < d.uniform_makespan);
  CHECK(d.schedule == make_schedule(f, {.pp = 4, .micro = 8, .costs = d.costs}));
  CHECK(makespan(d.schedule, d.costs) == d.makespan);
  CHECK(refusal_of([&] { divide(gemma_model(), f, {.pp = 4, .micro = 8, .costs = stage_costs{}}); }) ==
        "divide() takes the costs from the model; got costs among the parameters as well");
}

TEST_CASE("divide: the memory of the ranks is kept; without a partition that fits, the excess is least") {
  model m{.layers = {{.kind = "fat", .count = 2, .forward = 1, .backward = 2, .kept = 10, .weights = 5},
                     {.kind = "lean", .count = 6, .forward = 1, .backward = 2, .kept = 1, .weights = 5}},
          .ranks = {{.memory = 45}, {.memory = 1000}}};
  const family& f = find_family("1f1b");
  const schedule_params p{.pp = 2, .micro = 4};
  const auto bytes_of_rank_0 = [&](const partition& of) {
    const schedule s = f.make(p);
    const stage_costs c = costs_of(m, of, s.placement);
    const metrics found = measure(simulate(s, c), c);
    return found.ranks[0].peak_bytes + found.ranks[0].weight_bytes;
  };
  const division d = divide(m, f, p);
  CHECK(d.fits);
  CHECK(bytes_of_rank_0(d.partition) <= 45);
  CHECK(d.partition.layers == std::vector<std::uint32_t>{1, 7});  // of 2: 50
  CHECK(d.makespan > d.uniform_makespan);                         // which does not fit
  CHECK(!d.uniform_fits);
  m.ranks[0].memory.reset();
  CHECK(divide(m, f, p).partition.layers == std::vector<std::uint32_t>{4, 4});
  m.ranks = {{.memory = 1}};
  const division none = divide(m, f, p);
  CHECK(!none.fits);
}

TEST_CASE("divide: deterministic, and any number of evaluations gives a partition") {
  const family& f = find_family("zbv");
  const schedule_params p{.pp = 4, .micro = 8};
  const division a = divide(gemma_model(), f, p, {.evaluations = 300, .seed = 3}),
                 b = divide(gemma_model(), f, p, {.evaluations = 300, .seed = 3});
  CHECK(a.partition == b.partition);
  CHECK(a.evaluations == b.evaluations);
  CHECK(a.evaluations <= 300);
  for (const std::uint64_t n : std::vector<std::uint64_t>{0, 1, 2}) {
    const division few = divide(gemma_model(), f, p, {.evaluations = n});
    CHECK(few.makespan <= few.uniform_makespan);
  }
  CHECK(divide({.layers = {{}}}, f, p).partition.layers.size() == 8);  // one layer, eight stages
  CHECK(divide({.layers = {{.count = 3}}}, find_family("1f1b"), {.pp = 1, .micro = 1}).partition.layers ==
        std::vector<std::uint32_t>{3});
}

TEST_CASE("divide: reports each partition, and stops with the best so far") {
  const model m = deepseek_v3_model();
  for (const char* name : {"1f1b", "zb_greedy"}) {  // its order kept; made anew for every partition
    CAPTURE(name);
    const family& f = find_family(name);
    const schedule_params p{.pp = 4, .micro = 8};
    std::vector<divide_progress> seen;
    divide_limits limits{.evaluations = 300};
    const division whole = divide(m, f, p, limits);
    limits.progress = [&](const divide_progress& now) {
      seen.push_back(now);
      return true;
    };
    CHECK(divide(m, f, p, limits).partition == whole.partition);
    REQUIRE(seen.size() >= whole.evaluations);
    CHECK(seen.front().makespan == whole.uniform_makespan);
    CHECK(seen.back().makespan == whole.makespan);
    CHECK(seen.back().evaluations >= 300);
    CHECK(seen.back().evaluations < 302);

    std::size_t calls = 0;
    limits.progress = [&](const divide_progress&) { return ++calls < 20; };
    const division stopped = divide(m, f, p, limits);
    CHECK(calls == 20);
    CHECK(stopped.makespan == seen[19].makespan);
    CHECK(stopped.makespan == makespan(stopped.schedule, stopped.costs));
  }
  // Few partitions, all of which are tried.
  const model small{.layers = {{.count = 6}}};
  const divide_limits at_once{.progress = [](const divide_progress&) { return false; }};
  const division first = divide(small, find_family("1f1b"), {.pp = 2, .micro = 4}, at_once);
  CHECK(first.partition == uniform_partition(small, 2));
  CHECK(first.evaluations == 1);
}
