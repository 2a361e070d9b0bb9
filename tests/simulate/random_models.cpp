// SPDX-License-Identifier: MIT
// Random cost models of every kind that the concept allows, on random families and sizes: bounds, formulas, simulation.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "pipesched/core/transform.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/simulate/closed_form_of.hpp"
#include "pipesched/simulate/detail/step_replay.hpp"
#include "pipesched/simulate/lower_bound.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "support/any_variant.hpp"
#include "support/slow_simulator.hpp"

using namespace pipesched;

namespace {

#ifdef PIPESCHED_SMALL_GRIDS
constexpr int models = 400;
#else
constexpr int models = 10'000;
#endif

// A cost model whose numbers depend on any arguments of the concept. `key` hashes those that this model uses.
class wild_costs {
 public:
  enum looks : unsigned { at_stage = 1, at_rank = 2, at_micro = 4, at_partner = 8, at_order = 16 };
  enum class numbers { whole, equal, zeros, fractions, huge_and_tiny };

  wild_costs(std::uint64_t seed, unsigned looks_at, numbers kind, bool releases, const placement& where)
      : seed_(seed), looks_(looks_at), kind_(kind), releases_(releases), where_(where) {}

  double duration(const cell& c) const {
    if (!c.overlapped()) return number(key(c[0]), 1);
    const double sum = number(key(c[0]), 1) + number(key(c[1]), 1);
    if (!(looks_ & at_partner)) return sum;
    std::uint64_t a = key(c[0]), b = key(c[1]);
    if (!(looks_ & at_order) && a > b) std::swap(a, b);
    return sum * static_cast<double>(hash(a * 31 + b) % 5) / 4;  // from 0 to the sum of the ops
  }
  double release(const cell& c, std::size_t i) const {
    const double whole = duration(c);
    return releases_ ? whole * static_cast<double>(hash(key(c[i]) + 7) % 6) / 4 : whole;  // even after the end
  }
  double transfer(std::uint32_t from, std::uint32_t to, tensor_id t) const {
    std::uint64_t k = 3;
    if (looks_ & at_stage) k += hash(t.stage + 11u) + static_cast<std::uint64_t>(t.kind);
    if (looks_ & at_rank) k += hash(from * 977u + to);
    if (looks_ & at_micro) k += hash(t.micro + 5u);
    return number(hash(k), 0.5);
  }

  link_busy busy(std::uint32_t from, std::uint32_t to, tensor_id) const {
    return busy_ ? static_cast<link_busy>(hash(seed_ + from * 31 + to) % 3) : link_busy::none;
  }
  bool busy_ = false;
  bool tells_micro_batches_apart() const { return (looks_ & at_micro) != 0; }

 private:
  static std::uint64_t hash(std::uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u, x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
  }
  std::uint64_t key(op o) const {
    std::uint64_t k = seed_ + hash(static_cast<std::uint64_t>(o.pass) + 1);
    if (looks_ & at_stage) k += hash(o.stage + 100u);
    if (looks_ & at_rank) k += hash(where_.rank_of(o.stage, o.micro) + 10'000u);
    if (looks_ & at_micro) k += hash(o.micro + 1'000'000u);
    return hash(k);
  }
  double number(std::uint64_t k, double scale) const {
    const auto small = static_cast<double>(hash(k + 1) % 16);
    switch (kind_) {
      case numbers::whole: return scale * (2 + 2 * small);
      case numbers::equal: return scale * 8;
      case numbers::zeros: return hash(k + 2) % 3 == 0 ? scale * 2 * small : 0;
      case numbers::fractions: return scale * static_cast<double>(hash(k) % 1'000'003) / 1'000'003;
      case numbers::huge_and_tiny:
        return scale * std::pow(10.0, small * 2 - 12) * static_cast<double>(hash(k) % 97 + 1);
    }
    return 0;
  }

  std::uint64_t seed_;
  unsigned looks_;
  numbers kind_;
  bool releases_;
  placement where_;
};

// A random valid schedule: a family, perhaps transformed, with a few cells merged or moved.
schedule random_schedule(std::mt19937_64& random) {
  const auto number = [&](std::int64_t least, std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(least, most)(random);
  };
  const family& f = families[static_cast<std::size_t>(number(0, std::ssize(families) - 1))];
  const std::int64_t pp = f.limits.even_pp ? 2 * number(1, 3) : number(1, 6);
  schedule s = f.make({.pp = pp, .micro = number(1, 10), .forward_only = number(0, 7) == 0});
  if (!s.forward_only && number(0, 4) == 0) s = number(0, 1) == 0 ? split_backward(s) : merge_backward(s);
  if (!s.forward_only && number(0, 4) == 0) s = overlap_neighbours(s);
  for (int changes = static_cast<int>(number(0, 12)); changes > 0; --changes) {
    const auto rank = static_cast<std::size_t>(number(0, pp - 1));
    std::vector<std::vector<cell>> all;
    for (std::uint32_t r = 0; r < s.pp(); ++r) all.emplace_back(s[r].begin(), s[r].end());
    std::vector<cell>& row = all[rank];
    const auto i = number(0, std::ssize(row) - 1), j = number(0, std::ssize(row) - 1);
    if (number(0, 1) == 0 && i != j && !row[static_cast<std::size_t>(i)].overlapped() &&
        !row[static_cast<std::size_t>(j)].overlapped()) {
      row[static_cast<std::size_t>(i)] = cell(row[static_cast<std::size_t>(i)][0], row[static_cast<std::size_t>(j)][0]);
      row.erase(row.begin() + j);
    } else {
      std::rotate(row.begin() + std::min(i, j), row.begin() + std::max(i, j), row.end());
    }
    schedule other = s;
    other.cells = rows<cell>(all);
    if (verify(other)) s = std::move(other);
  }
  return number(0, 2) == 0 ? tests::any_variant(std::move(s), random) : s;
}

wild_costs random_model(std::mt19937_64& random, const schedule& s) {
  wild_costs costs(random(), static_cast<unsigned>(random() % 32), static_cast<wild_costs::numbers>(random() % 5),
                   random() % 3 == 0, s.placement);
  costs.busy_ = random() % 4 == 0;
  return costs;
}

// The least work of the busiest rank: every op alone, or half of the shortest pair that the schedule's kinds of cells allow.
double least_work(const schedule& s, const wild_costs& costs) {
  const schedule_class of = schedule_class_of(s);
  if (of.recompute || !of.backward.empty()) return 0;
  double busiest = 0;
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
    std::vector<op> ops;
    for (std::uint32_t stage = 0; stage < s.stages(); ++stage)
      for (std::uint32_t micro = 0; micro < s.micro; ++micro)
        for (pass p : {pass::forward, pass::backward, pass::backward_input, pass::backward_weight})
          if (s.placement.rank_of(stage, micro) == rank)
            ops.push_back({p, s.placement.chunk_of(stage, micro), static_cast<std::uint16_t>(stage), micro});
    std::map<op, double> least;
    for (const op& a : ops) {
      least[a] = costs.duration(cell(a));
      for (const op& b : ops)
        if (a != b && of.pairs.contains({a.pass, b.pass}))
          least[a] = std::min({least[a], costs.duration(cell(a, b)) / 2, costs.duration(cell(b, a)) / 2});
    }
    double work = 0;
    for (const op& o : ops) {
      const auto time = [&](pass p) { return least.at({p, o.chunk, o.stage, o.micro}); };
      if (o.pass != pass::forward) continue;
      work += time(pass::forward);
      if (s.forward_only) continue;
      double backward = time(pass::backward);
      if (of.split_backward) backward = std::min(backward, time(pass::backward_input) + time(pass::backward_weight));
      work += backward;
    }
    busiest = std::max(busiest, work);
  }
  return busiest;
}

}  // namespace

TEST_CASE("random models: the bound is never above the makespan, nor below the busiest rank's least work") {
  std::mt19937_64 random(20260806);
  int spoke = 0, tight = 0;
  for (int i = 0; i < models; ++i) {
    const schedule s = random_schedule(random);
    const wild_costs costs = random_model(random, s);
    CAPTURE(i);
    CAPTURE(s.name.view());
    CAPTURE(to_string(s));
    const timeline t = simulate(s, costs, verified);
    const double makespan = measure(t).makespan;
    detail::step_replay again(s, !costs.tells_micro_batches_apart());
    for (int run = 0; run < 2; ++run) REQUIRE(again.makespan(costs) == makespan);
    const lower_bound_result bound = lower_bound(s, costs);
    CAPTURE(bound.reason);
    REQUIRE(bound.makespan <= makespan);
    REQUIRE(bound.makespan >= least_work(s, costs) * (1 - 1e-9));
    spoke += bound.makespan > 0 || makespan == 0;
    tight += bound.gap(makespan) < 0.25;
    const auto slow = tests::slow_simulation(s, costs);
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
      for (std::size_t c = 0; c < s[rank].size(); ++c)
        REQUIRE((t[rank][c].start == doctest::Approx(slow[rank][c].first).epsilon(1e-12) &&
                 t[rank][c].end == doctest::Approx(slow[rank][c].second).epsilon(1e-12)));
  }
  CHECK(spoke >= models * 90 / 100);
  CHECK(tight > models / 4);  // a bound of nothing would pass all of the above
}

TEST_CASE("random models: a formula marked as holding equals the simulation") {
  std::mt19937_64 random(6);
  int held = 0, failed = 0;
  for (int i = 0; i < models; ++i) {
    const auto number = [&](std::int64_t least, std::int64_t most) {
      return std::uniform_int_distribution<std::int64_t>(least, most)(random);
    };
    const family& f = families[static_cast<std::size_t>(number(0, std::ssize(families) - 1))];
    const std::int64_t pp = f.limits.even_pp ? 2 * number(1, 4) : number(1, 8);
    const schedule s = f.make({.pp = pp, .micro = number(1, 3 * pp), .forward_only = number(0, 5) == 0});
    stage_costs costs;
    const bool alike = number(0, 1) == 0;
    const auto any = [&](std::int64_t least, std::int64_t most) {
      if (number(0, 9) > 0) return per_stage(static_cast<double>(number(least, most)));
      std::vector<double> values;
      for (std::uint32_t stage = 0; stage < s.stages(); ++stage)
        values.push_back(static_cast<double>(number(least, most)));
      return per_stage(values);
    };
    costs.forward = any(0, 6);
    if (alike)
      costs.backward_input = costs.backward_weight = costs.forward;
    else
      costs.backward_input = any(0, 6), costs.backward_weight = any(0, 6);
    if (number(0, 3) == 0) costs.backward = any(12, 14);
    if (number(0, 1) == 0) costs.overlapped = any(0, 20);
    if (number(0, 5) == 0) costs.transfer_time = any(0, 2);
    if (number(0, 5) == 0) costs.release_forward = any(0, 20);
    const auto form = closed_form_of(s, costs);
    if (!form) continue;
    if (!form->holds()) {
      ++failed;
      continue;
    }
    ++held;
    CAPTURE(s.name.view());
    CAPTURE(pp);
    CAPTURE(s.micro);
    CAPTURE(costs.forward[0]);
    CAPTURE(costs.duration(op{pass::backward_input, 0, 0, 0}));
    CAPTURE(costs.duration(op{pass::backward_weight, 0, 0, 0}));
    CAPTURE(costs.duration(cell(op{pass::forward, 0, 0, 0}, op{pass::backward, 0, 0, 0})));
    const metrics m = measure(simulate(s, costs), costs);
    REQUIRE(m.max_bubble == form->bubble);
    REQUIRE(m.peak_activations == form->peak_activations);
  }
  CHECK(held > models / 50);
  CHECK(failed > models / 50);
}
