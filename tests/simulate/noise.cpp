// SPDX-License-Identifier: MIT
// simulate_noise() against a slow twin, and its laws.

#include "pipesched/simulate/noise.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "pipesched/cost/presets.hpp"
#include "pipesched/cost/split_costs.hpp"
#include "pipesched/cost/uniform_costs.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "support/families.hpp"
#include "support/makespan.hpp"
#include "support/random_costs.hpp"
#include "support/slow_simulator.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

// splitmix64, once more: the n-th number of a sequence.
std::uint64_t mixed(std::uint64_t seed, std::uint64_t n = 1) {
  std::uint64_t z = seed + n * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

double factor(const cell& c, std::uint64_t seed, std::uint32_t draw, double noise) {
  std::vector<std::uint64_t> keys;
  for (const op o : c)
    keys.push_back((static_cast<std::uint64_t>(o.pass) << 48) + (static_cast<std::uint64_t>(o.stage) << 32) + o.micro);
  std::sort(keys.begin(), keys.end());
  if (keys.size() == 1) keys.push_back(0);
  const std::uint64_t number = mixed(mixed(mixed(seed, draw + 1) ^ keys[0]) ^ keys[1]);
  return 1 + noise * (static_cast<double>(number >> 11) / 9007199254740992.0);
}

struct slow_noise {
  const stage_costs& costs;
  noise_options options;
  std::uint32_t draw;

  double of(const cell& c) const { return factor(c, options.seed, draw, options.noise); }
  double duration(const cell& c, std::uint32_t rank) const { return costs.duration(c, rank) * of(c); }
  double duration(const cell& c) const { return costs.duration(c) * of(c); }
  double release(const cell& c, std::size_t i, std::uint32_t rank) const { return costs.release(c, i, rank) * of(c); }
  double transfer(std::uint32_t from, std::uint32_t to, tensor_id t) const { return costs.transfer(from, to, t); }
  link_busy busy(std::uint32_t from, std::uint32_t to, tensor_id t) const { return costs.busy(from, to, t); }
};

}  // namespace

TEST_CASE("noise: every draw is that of a slow simulation with shares made anew") {
  random_costs random(7);
  int families_tried = 0;
  for_all_families(4, 5, [&](const family& f, const schedule_params& p) {
    const schedule s = f.make(p);
    stage_costs costs = random.make(s);
    if (families_tried % 3 == 0) costs.transfers_busy = families_tried % 2 == 0 ? link_busy::sender : link_busy::both;
    const noise_options options{
        .noise = 0.25 * (1 + families_tried % 4), .draws = 4, .seed = static_cast<std::uint64_t>(families_tried) << 40};
    const noisy_makespan noisy = simulate_noise(s, costs, options);
    CAPTURE(f.name);
    CHECK(noisy.exact == makespan(s, costs));
    REQUIRE(noisy.draws.size() == 4);
    for (std::uint32_t draw = 0; draw < 4; ++draw) {
      double last = 0;
      for (const auto& row : slow_simulation(s, slow_noise{costs, options, draw}))
        for (const auto& [start, end] : row) last = std::max(last, end);
      REQUIRE(noisy.draws[draw] == doctest::Approx(last).epsilon(1e-12));
    }
    ++families_tried;
  });
  CHECK(families_tried > 20);
}

TEST_CASE("noise: 0 changes nothing, and no draw is shorter than without noise or longer than the noise allows") {
  random_costs random(8);
  for_all_families(3, 4, [&](const family& f, const schedule_params& p) {
    const schedule s = f.make(p);
    const stage_costs costs = random.make(s);
    CAPTURE(f.name);
    const double exact = makespan(s, costs);
    const noisy_makespan none = simulate_noise(s, costs, {.noise = 0, .draws = 5});
    CHECK(none.draws == std::vector<double>(5, exact));
    CHECK(none.mean == exact);
    CHECK(none.standard_deviation == 0);
    CHECK(none.percentile_5 == exact);
    CHECK(none.median == exact);
    CHECK(none.percentile_95 == exact);
    const noisy_makespan some = simulate_noise(s, costs, {.noise = 0.5, .draws = 20});
    for (const double draw : some.draws) {
      REQUIRE(draw >= exact);
      REQUIRE(draw <= exact * 1.5);
    }
  });
}

TEST_CASE("noise: the numbers of a seed are those of the draws, and the same everywhere") {
  const schedule s = make_schedule("dualpipe", {.pp = 8, .micro = 20});
  const stage_costs costs = deepseek_v3_costs();
  const noisy_makespan noisy = simulate_noise(s, costs, {.noise = 0.05, .draws = 1000, .seed = 1});
  CHECK(noisy.exact == doctest::Approx(4088.30));
  CHECK(noisy.draws[0] == doctest::Approx(4214.198468390).epsilon(1e-12));
  CHECK(noisy.draws[999] == doctest::Approx(4226.013507204).epsilon(1e-12));
  CHECK(noisy.mean == doctest::Approx(4215.470848753).epsilon(1e-12));
  CHECK(noisy.standard_deviation == doctest::Approx(7.603731007).epsilon(1e-9));

  std::vector<double> sorted = noisy.draws;
  std::sort(sorted.begin(), sorted.end());
  CHECK(noisy.percentile_5 == sorted[49]);
  CHECK(noisy.median == sorted[499]);
  CHECK(noisy.percentile_95 == sorted[949]);
  double sum = 0, squares = 0;
  for (const double d : sorted) sum += d, squares += d * d;
  CHECK(noisy.mean == doctest::Approx(sum / 1000));
  CHECK(noisy.standard_deviation == doctest::Approx(std::sqrt((squares - sum * sum / 1000) / 999)).epsilon(1e-6));

  // A longer run begins with a shorter one; another seed has other draws.
  const noisy_makespan shorter = simulate_noise(s, costs, {.noise = 0.05, .draws = 3, .seed = 1});
  CHECK(std::equal(shorter.draws.begin(), shorter.draws.end(), noisy.draws.begin()));
  CHECK(shorter.percentile_5 == std::min({shorter.draws[0], shorter.draws[1], shorter.draws[2]}));
  CHECK(shorter.percentile_95 == std::max({shorter.draws[0], shorter.draws[1], shorter.draws[2]}));
  CHECK(simulate_noise(s, costs, {.noise = 0.05, .draws = 3, .seed = 2}).draws != shorter.draws);
  CHECK(std::set<double>(noisy.draws.begin(), noisy.draws.end()).size() > 900);
  const noisy_makespan one = simulate_noise(s, costs, {.noise = 0.05, .draws = 1, .seed = 1});
  CHECK(one.standard_deviation == 0);
  CHECK(one.median == one.draws[0]);
}

TEST_CASE("noise: shares are uniform, and one cell has the same share in two schedules") {
  const double noise = 0.2;
  double sum = 0, squares = 0, covariance = 0;
  int n = 0;
  for (std::uint64_t draw = 0; draw < 50; ++draw)
    for (std::uint16_t stage = 0; stage < 20; ++stage)
      for (std::uint32_t micro = 0; micro < 20; ++micro) {
        const op f{pass::forward, 0, stage, micro}, b{pass::backward, 1, stage, micro + 3};
        const double share = detail::noise_share(mixed(draw), f, noise) / noise;
        REQUIRE(share >= 0);
        REQUIRE(share < 1);
        sum += share, squares += share * share, ++n;
        covariance += (share - 0.5) * (detail::noise_share(mixed(draw), b, noise) / noise - 0.5);
        REQUIRE(detail::noise_share(draw, cell(f, b), noise) == detail::noise_share(draw, cell(b, f), noise));
        op on_another_chunk = f;
        on_another_chunk.chunk = 1;
        REQUIRE(detail::noise_share(draw, f, noise) == detail::noise_share(draw, on_another_chunk, noise));
      }
  CHECK(sum / n == doctest::Approx(1.0 / 2).epsilon(0.02));
  CHECK(squares / n == doctest::Approx(1.0 / 3).epsilon(0.02));
  CHECK(std::abs(covariance / n) < 0.003);

  // Two orders of the same cells, compared draw by draw: the difference varies less than either makespan.
  const stage_costs costs{};
  const noise_options options{.noise = 0.3, .draws = 400};
  const noisy_makespan a = simulate_noise(make_schedule("1f1b", {.pp = 4, .micro = 16}), costs, options),
                       b = simulate_noise(make_schedule("gpipe", {.pp = 4, .micro = 16}), costs, options);
  double mean = 0, variance = 0;
  for (std::size_t d = 0; d < a.draws.size(); ++d) mean += (b.draws[d] - a.draws[d]) / 400;
  for (std::size_t d = 0; d < a.draws.size(); ++d) variance += std::pow(b.draws[d] - a.draws[d] - mean, 2) / 399;
  CHECK(variance < 0.8 * (std::pow(a.standard_deviation, 2) + std::pow(b.standard_deviation, 2)));
}

TEST_CASE("noise: a run that is stopped has the first draws of a whole one") {
  const schedule s = make_schedule("1f1b", {.pp = 4, .micro = 8});
  std::vector<std::uint32_t> seen;
  noise_options options{.draws = 100, .seed = 3};
  const noisy_makespan whole = simulate_noise(s, stage_costs{}, options);
  options.progress = [&](std::uint32_t draws) {
    seen.push_back(draws);
    return draws < 7;
  };
  const noisy_makespan stopped = simulate_noise(s, stage_costs{}, options);
  CHECK(seen == std::vector<std::uint32_t>{1, 2, 3, 4, 5, 6, 7});
  CHECK(stopped.draws == std::vector<double>(whole.draws.begin(), whole.draws.begin() + 7));
  CHECK(stopped.options.draws == 7);
  CHECK(!stopped.options.progress);
  CHECK(stopped.median == simulate_noise(s, stage_costs{}, {.draws = 7, .seed = 3}).median);
}

TEST_CASE("noise: any cost model, and bad input refused") {
  const schedule s = make_schedule("1f1b", {.pp = 2, .micro = 3});
  const noisy_makespan noisy = simulate_noise(s, uniform_costs{.forward = 2}, {.draws = 10});
  CHECK(noisy.exact == measure(simulate(s, uniform_costs{.forward = 2})).makespan);
  CHECK(noisy.percentile_5 > noisy.exact);
  CHECK(noisy.percentile_95 < 1.05 * noisy.exact);

  CHECK_THROWS_WITH(simulate_noise(s, uniform_costs{}, {.noise = -0.5}),
                    "noise is a share such as 0.05, finite and not negative; got -0.5, nearest 0");
  for (const double noise : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    CHECK_THROWS_WITH(simulate_noise(s, uniform_costs{}, {.noise = noise}),
                      doctest::Contains("noise is a share such as 0.05, finite and not negative; got "));
  CHECK_THROWS_WITH(simulate_noise(s, uniform_costs{}, {.draws = 0}),
                    "noise takes 1 to 10000000 draws; got 0, nearest 1");
  CHECK_THROWS_WITH(simulate_noise(s, uniform_costs{}, {.draws = max_draws + 1}),
                    "noise takes 1 to 10000000 draws; got 10000001, nearest 10000000");
  CHECK_THROWS_WITH(simulate_noise(s, stage_costs{.forward = -1}, {}), doctest::Contains("costs: forward is negative"));
  CHECK_THROWS_WITH(simulate_noise(s, stage_costs{.forward = 1e307}, {.noise = 100, .draws = 1}),
                    doctest::Contains("costs: the times add up to more than a double holds"));
  schedule broken = s;
  std::swap(broken[0][0], broken[0][1]), std::swap(broken[1][0], broken[1][1]);
  CHECK_THROWS_WITH(simulate_noise(broken, uniform_costs{}), doctest::Contains("the schedule is not valid"));
}
