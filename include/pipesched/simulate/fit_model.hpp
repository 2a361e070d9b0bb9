// SPDX-License-Identifier: MIT
#pragma once

// Costs of layers fitted to measured timelines, so that other partitions can be simulated with them.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/model/costs_of.hpp"
#include "pipesched/model/model.hpp"
#include "pipesched/model/partition.hpp"
#include "pipesched/simulate/fit_costs.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// The result of fit_model().
struct model_fit {
  model fitted;
  /// Kinds that no measured stage tells apart, in groups: their sums are right, and their ratios those of the model given.
  std::vector<std::vector<std::string>> alike;
};

namespace detail {

/// Least squares with few unknowns, none of them negative. Of all solutions it takes the one nearest to a multiple of
/// `ratios`.
class small_least_squares {
 public:
  explicit small_least_squares(std::vector<double> ratios) { set_ratios(std::move(ratios)); }
  void set_ratios(std::vector<double> ratios) {
    ratios_ = std::move(ratios);
    if (std::all_of(ratios_.begin(), ratios_.end(), [](double r) { return r == 0; })) ratios_.assign(ratios_.size(), 1);
  }
  void add(std::vector<double> factors, double value) { rows_.push_back(std::move(factors)), values_.push_back(value); }
  bool empty() const { return rows_.empty(); }

  std::vector<double> solve() const {
    std::vector<bool> fixed(ratios_.size(), false);  // at 0
    while (true) {
      std::vector<double> x = solve(fixed);
      const auto least = std::min_element(x.begin(), x.end());
      if (*least >= 0) return x;
      fixed[static_cast<std::size_t>(least - x.begin())] = true;
    }
  }

  /// Groups of unknowns of which only sums are determined: those with a part in a combination that no equation sees.
  std::vector<std::vector<std::size_t>> undetermined() const {
    std::vector<std::vector<double>> a = rows_;
    const std::size_t n = ratios_.size();
    std::vector<std::size_t> pivots;
    for (std::size_t column = 0, row = 0; column < n && row < a.size(); ++column) {
      std::size_t best = row;
      for (std::size_t i = row; i < a.size(); ++i)
        if (std::abs(a[i][column]) > std::abs(a[best][column])) best = i;
      if (std::abs(a[best][column]) < 1e-9) continue;
      std::swap(a[row], a[best]);
      for (std::size_t i = 0; i < a.size(); ++i)
        if (const double factor = a[i][column] / a[row][column]; i != row && factor != 0)
          for (std::size_t k = 0; k < n; ++k) a[i][k] -= factor * a[row][k];
      pivots.push_back(column), ++row;
    }
    std::vector<std::vector<std::size_t>> groups;
    for (std::size_t column = 0; column < n; ++column) {
      if (std::find(pivots.begin(), pivots.end(), column) != pivots.end()) continue;
      std::vector<std::size_t> group{column};
      for (std::size_t i = 0; i < pivots.size(); ++i)
        if (std::abs(a[i][column]) > 1e-9) group.push_back(pivots[i]);
      merge(groups, std::move(group));
    }
    return groups;
  }

 private:
  static void merge(std::vector<std::vector<std::size_t>>& groups, std::vector<std::size_t> group) {
    for (std::size_t g = groups.size(); g-- > 0;)
      if (std::find_first_of(groups[g].begin(), groups[g].end(), group.begin(), group.end()) != groups[g].end()) {
        group.insert(group.end(), groups[g].begin(), groups[g].end());
        groups.erase(groups.begin() + static_cast<std::ptrdiff_t>(g));
      }
    std::sort(group.begin(), group.end());
    group.erase(std::unique(group.begin(), group.end()), group.end());
    groups.push_back(std::move(group));
  }

  // Each round solves the normal equations with a very small pull towards the result of the round before, which moves only what
  // they leave open: the first one towards the ratios, the others to where the pull no longer matters.
  std::vector<double> solve(const std::vector<bool>& fixed) const {
    constexpr int rounds = 3;
    std::vector<double> x = scaled_ratios();
    for (int round = 0; round < rounds; ++round) x = solve_near(x, fixed);
    return x;
  }
  // The multiple of the ratios that fits best.
  std::vector<double> scaled_ratios() const {
    double along = 0, square = 0;
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      double of_ratios = 0;
      for (std::size_t i = 0; i < ratios_.size(); ++i) of_ratios += rows_[r][i] * ratios_[i];
      along += of_ratios * values_[r], square += of_ratios * of_ratios;
    }
    std::vector<double> scaled = ratios_;
    for (double& ratio : scaled) ratio *= square > 0 ? along / square : 0;
    return scaled;
  }
  std::vector<double> solve_near(const std::vector<double>& target, const std::vector<bool>& fixed) const {
    const std::size_t n = ratios_.size();
    std::vector<std::vector<double>> a(n, std::vector<double>(n + 1, 0));
    double largest = 0;
    for (std::size_t r = 0; r < rows_.size(); ++r)
      for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t k = 0; k < n; ++k) a[i][k] += rows_[r][i] * rows_[r][k];
        a[i][n] += rows_[r][i] * values_[r];
      }
    for (std::size_t i = 0; i < n; ++i) largest = std::max(largest, a[i][i]);
    const double pull = std::max(largest, 1.0) * 1e-10;
    for (std::size_t i = 0; i < n; ++i) a[i][i] += pull, a[i][n] += pull * target[i];
    for (std::size_t i = 0; i < n; ++i) {
      if (!fixed[i]) continue;
      for (std::vector<double>& row : a) row[i] = 0;  // no other row takes part: the result is 0 to the bit
      a[i].assign(n + 1, 0);
      a[i][i] = 1;
    }
    return eliminate(std::move(a));
  }
  // @pre the matrix is regular
  static std::vector<double> eliminate(std::vector<std::vector<double>> a) {
    const std::size_t n = a.size();
    for (std::size_t column = 0; column < n; ++column) {
      std::size_t best = column;
      for (std::size_t i = column + 1; i < n; ++i)
        if (std::abs(a[i][column]) > std::abs(a[best][column])) best = i;
      std::swap(a[column], a[best]);
      for (std::size_t i = 0; i < n; ++i)
        if (const double factor = a[i][column] / a[column][column]; i != column && factor != 0)
          for (std::size_t k = column; k <= n; ++k) a[i][k] -= factor * a[column][k];
    }
    std::vector<double> x;
    for (std::size_t i = 0; i < n; ++i) x.push_back(a[i][n] / a[i][i]);
    return x;
  }

  std::vector<double> ratios_;
  std::vector<std::vector<double>> rows_;
  std::vector<double> values_;
};

class model_fitter {
 public:
  explicit model_fitter(const model& m) : m_(m), layers_(expanded(m.layers)) {
    check(m);
    for (const layer& l : m.layers)
      if (kind_of(l) == kinds_.size()) kinds_.push_back(l.kind);
    for (const pass p : passes) {
      std::vector<double> ratios;
      for (const std::string& kind : kinds_)
        for (const layer& l : m.layers)
          if (l.kind == kind) {
            ratios.push_back(duration_of(l, p));
            break;
          }
      equations_.emplace_back(std::move(ratios));
    }
  }

  // One equation for every stage and pass that has run alone: the median over micro-batches.
  void add(const timeline& t, const partition& p) {
    const schedule& s = t.schedule;
    require_timeline(t);
    require_partition(p, m_, s.stages());
    const stage_costs machine = stage_sums(m_, s.placement)(p);
    machine.check(s.stages(), s.pp(), s.micro);
    std::array<std::vector<std::vector<double>>, std::size(pass_table)> samples;
    samples.fill(std::vector<std::vector<double>>(s.stages()));
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank)
      for (std::size_t i = 0; i < s[rank].size(); ++i) {
        const cell& c = s[rank][i];
        if (c.overlapped()) continue;
        const double unit = machine.speed_of(rank) / machine.length_of(c[0].micro);
        samples[static_cast<std::size_t>(c[0].pass)][c[0].stage].push_back((t[rank][i].end - t[rank][i].start) * unit);
      }
    const std::vector<std::size_t> first = first_layers(p);
    for (std::size_t k = 0; k < passes.size(); ++k)
      for (std::size_t stage = 0; stage < s.stages(); ++stage) {
        std::vector<double>& of = samples[static_cast<std::size_t>(passes[k])][stage];
        if (of.empty()) continue;
        std::vector<double> counts(kinds_.size(), 0);
        for (std::size_t i = first[stage]; i < first[stage + 1]; ++i) ++counts[kind_of(layers_[i])];
        equations_[k].add(std::move(counts), median(of));
      }
  }

  model_fit result() {
    model_fit fit{.fitted = m_, .alike = {}};
    std::array<std::optional<std::vector<double>>, passes.size()> times;
    std::vector<std::vector<std::size_t>> groups;
    for (std::size_t k = 0; k < passes.size(); ++k) {
      if (equations_[k].empty()) continue;
      const bool has_halves = passes[k] == pass::backward && times[1] && times[2];
      if (has_halves) equations_[k].set_ratios(sums(*times[1], *times[2]));
      times[k] = equations_[k].solve();
      for (const std::vector<std::size_t>& group : equations_[k].undetermined())
        if (!has_halves && std::find(groups.begin(), groups.end(), group) == groups.end()) groups.push_back(group);
    }
    for (const std::vector<std::size_t>& group : groups) {
      fit.alike.emplace_back();
      for (const std::size_t kind : group) fit.alike.back().push_back(kinds_[kind]);
    }
    for (layer& l : fit.fitted.layers) {
      const std::size_t kind = kind_of(l);
      const auto time = [&](std::size_t k) { return times[k] ? std::optional((*times[k])[kind]) : std::nullopt; };
      if (const auto forward = time(0)) l.forward = *forward;
      if (const auto recompute = time(4)) l.recompute = recompute;
      set_backward(l, time(3), time(1), time(2));
    }
    return fit;
  }

 private:
  // A whole backward comes after its halves: of all its solutions it takes the one nearest to their sum.
  static constexpr std::array passes = {pass::forward, pass::backward_input, pass::backward_weight, pass::backward,
                                        pass::recompute};

  static std::vector<double> sums(std::vector<double> a, const std::vector<double>& b) {
    for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
    return a;
  }
  // If B alone was measured, its halves keep the ratio that the model has.
  static void set_backward(layer& l, std::optional<double> whole, std::optional<double> input,
                           std::optional<double> weight) {
    if (!whole && !input && !weight) return;
    const backward_times before = l.backward_times();
    if (whole && !input && !weight) {
      const double share = before.whole > 0 ? before.input / before.whole : 0.5;
      l.backward_input = *whole * share, l.backward_weight = *whole * (1 - share), l.backward = whole;
      return;
    }
    l.backward_input = input.value_or(whole && weight ? std::max(0.0, *whole - *weight) : before.input);
    l.backward_weight = weight.value_or(whole && input ? std::max(0.0, *whole - *input) : before.weight);
    l.backward = whole;
  }
  std::size_t kind_of(const layer& l) const {
    return static_cast<std::size_t>(std::find(kinds_.begin(), kinds_.end(), l.kind) - kinds_.begin());
  }

  const model& m_;
  std::vector<layer> layers_;
  std::vector<std::string> kinds_;
  std::vector<small_least_squares> equations_;  // by pass
};

}  // namespace detail

/// The model with the times that fit measured timelines best, each of the partition at its place: for every kind of layer
/// and every pass that ran alone, by least squares over all stages. Backwards that recompute inside are ignored. Layers of one
/// kind get one time; what was not measured stays, as do bytes, pairs and machine. Linear in the ops, cubic in the kinds.
/// @throws schedule_error unless there are as many partitions as timelines, at least one, and each fits its timeline and the
/// model; as check() does
inline model_fit fit_model(std::span<const timeline> times, std::span<const partition> partitions, const model& m) {
  if (times.empty() || times.size() != partitions.size())
    throw schedule_error(detail::concat({"fit_model() needs a partition for every timeline, and at least one; got ",
                                         times.size(), " timelines and ", partitions.size(), " partitions"}));
  detail::model_fitter fitter(m);
  for (std::size_t i = 0; i < times.size(); ++i) fitter.add(times[i], partitions[i]);
  return fitter.result();
}

}  // namespace pipesched
