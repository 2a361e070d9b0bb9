// SPDX-License-Identifier: MIT
#pragma once

// A lower bound of the makespan that holds for all partitions of a model among the stages of a schedule's placement.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/cost/pass_pairs.hpp"
#include "pipesched/model/costs_of.hpp"
#include "pipesched/model/model.hpp"
#include "pipesched/plan/detail/layer_packing.hpp"
#include "pipesched/simulate/schedule_class.hpp"

namespace pipesched::detail {

/// For the cells of one class. Four bounds:
///  * work: that of all layers, divided by the speeds of all ranks. A rank starts only when the layers in front of its lowest
///    one have run, and these run backward after its last gradient; at best one rank starts at each of the first layers;
///  * chain: the longest micro-batch through all layers, forward and back, at the highest speed;
///  * on a linear placement or a V, over all partitions the least of the largest head + work + tail of a rank. The head and tail
///    of a rank are the layers in front of its first one, so the least over all cuts is found by dynamic programming: on a V the
///    ranks so far have the first and the last layers;
///  * whole layers: over all ways to put them on ranks in any order, the least of the largest wait + work of a rank.
/// An overlapped pair of layers saves at most what its price says; half of the most that an op can save is taken off it. An
/// op may save more than it lasts where a pair is shorter than its longer op alone; then the rest is taken off other ops.
class partition_bound {
 public:
  partition_bound(const model& m, const placement& where, std::uint32_t micro, const schedule_class& of)
      : m_(m), where_(where), class_(of), micro_(micro) {
    lengths_ = m.micro_batches.empty() ? micro : std::accumulate(m.micro_batches.begin(), m.micro_batches.end(), 0.0);
    if (!m.micro_batches.empty()) {
      shortest_ = *std::min_element(m.micro_batches.begin(), m.micro_batches.end());
      longest_ = *std::max_element(m.micro_batches.begin(), m.micro_batches.end());
    }
    // A pair that recomputes inside takes the price of one that does not, and R on top, where it has none of its own.
    for (const pass_pair p : of.pairs.pairs()) {
      pairs_.insert(p);
      pairs_.insert({without_recompute(p.first), without_recompute(p.second)});
    }
    for (std::size_t r = 0; r < where.ranks(); ++r) speeds_.push_back(rank_at(m, r).speed);
    fastest_ = *std::max_element(speeds_.begin(), speeds_.end());
    for (const layer& l : m.layers) {
      const times of_layer = times_of(l);
      layers_.insert(layers_.end(), l.count, of_layer);
      magnitude_ += lengths_ * l.count * of_layer.magnitude;
    }
  }

  double bound() const {
    double chain = 0;
    for (const times& t : layers_) chain += t.forward + t.gradient;
    double bound = std::max(over_ranks(), longest_ * chain / fastest_);
    if (where_.kind() == placement_kind::linear && layers_.size() <= max_layers_of_cuts)
      bound = std::max(bound, over_cuts());
    if (where_.kind() == placement_kind::vee && layers_.size() <= max_layers_of_nested_cuts)
      bound = std::max(bound, over_nested_cuts());
    bound = std::max(bound, over_packings());
    // Room for the rounding of these sums and those of the simulation.
    const double sums = static_cast<double>(layers_.size()) + 6.0 * micro_ * where_.stages();
    const double slowest = *std::min_element(speeds_.begin(), speeds_.end());
    return std::max(0.0, bound - (bound + magnitude_ / slowest) * sums * std::numeric_limits<double>::epsilon());
  }

 private:
  static constexpr std::size_t max_layers_of_cuts = 2000;        // quadratic in them
  static constexpr std::size_t max_layers_of_nested_cuts = 100;  // to the fourth power

  // Least times: of the op alone on the chain of a micro-batch, and what the layer adds to the work of its rank, which is
  // negative where its pairs save more than it lasts. The magnitude is that of the terms that cancel; mostly 0.
  struct times {
    double forward = 0, gradient = 0, work = 0, work_before_weights = 0, magnitude = 0;
  };

  // The most time that one op of a layer saves in a pair.
  double saving(const layer& l, pass p) const {
    double most = 0;
    for (const layer_pair& pair : m_.pairs) {
      if (!pairs_.contains(pair.passes)) continue;
      for (std::size_t k = 0; k < 2; ++k) {
        const pass own = k == 0 ? pair.passes.first : pair.passes.second,
                   partner = k == 0 ? pair.passes.second : pair.passes.first;
        if (pair.kinds[k] != l.kind || without_recompute(own) != p) continue;
        // The work of recomputation is not counted. So an R takes none of the saving off its partner, which is halved later.
        const bool lone = partner == pass::recompute;
        for (const layer& other : m_.layers)
          if (other.kind == pair.kinds[1 - k]) {
            const double beside = lone ? 0 : duration_of(other, without_recompute(partner));
            most = std::max(most, (lone ? 2 : 1) * (duration_of(l, p) + beside - pair.time));
          }
      }
    }
    return most;
  }
  times times_of(const layer& l) const {
    const auto net = [&](pass p) { return duration_of(l, p) - saving(l, p) / 2; };
    const auto alone = [&](pass p) { return std::max(0.0, duration_of(l, p) - saving(l, p)); };
    times t{.forward = alone(pass::forward), .work = net(pass::forward)};
    const auto add_magnitude = [&](double part) { t.magnitude += part < 0 ? -2 * part : 0; };
    add_magnitude(t.work);
    t.work_before_weights = t.work;
    if (class_.forward_only) return t;
    // The weight gradient saves time in cells that are counted, even where it is not counted itself.
    const double whole = net(pass::backward);
    double backward = whole, gradient = whole;
    t.gradient = alone(pass::backward);
    if (class_.split_backward) {
      const double input = net(pass::backward_input), weight = net(pass::backward_weight);
      t.gradient = std::min(t.gradient, alone(pass::backward_input));
      backward = std::min(backward, input + weight);
      gradient = std::min(gradient, input + std::min(0.0, weight));
      for (const double part : {input, weight}) add_magnitude(part);
    }
    add_magnitude(whole);
    if (!class_.backward.empty()) {  // which layers are frozen depends on the partition
      t.gradient = 0;
      backward = gradient = std::min({0.0, backward, gradient});
    }
    t.work += backward, t.work_before_weights += gradient;
    return t;
  }

  // For all work after the head, and for the forwards and gradients between head and tail.
  double over_ranks() const {
    return std::max(over_ranks([](const times& t) { return t.work; }, [](const times& t) { return t.forward; }),
                    over_ranks([](const times& t) { return t.work_before_weights; },
                               [](const times& t) { return t.forward + t.gradient; }));
  }
  // The least over numbers of ranks that have layers, the fastest of which start first.
  template <typename Work, typename Wait>
  double over_ranks(const Work& work_of, const Wait& wait_of) const {
    double work = 0, front = 0, waits = 0, speeds = 0, least = std::numeric_limits<double>::infinity();
    for (const times& t : layers_) work += lengths_ * work_of(t);
    std::vector<double> fast = speeds_;
    std::sort(fast.begin(), fast.end(), std::greater<>());
    const std::size_t replicas = where_.replicas();
    for (std::size_t k = 0; k < std::min(fast.size(), replicas * layers_.size()); ++k) {
      if (k > 0 && k % replicas == 0) front += wait_of(layers_[k / replicas - 1]);
      speeds += fast[k], waits += fast[k] * shortest_ * front / fastest_;
      least = std::min(least, (work + waits) / speeds);
    }
    return least;
  }

  // Whole layers on ranks, in any order. A rank that is the k-th to have layers waits for those in front of the k-th layer; with
  // different speeds it is not known which ranks come first.
  double over_packings() const {
    return std::max(over_packings([](const times& t) { return t.work; }, [](const times& t) { return t.forward; }),
                    over_packings([](const times& t) { return t.work_before_weights; },
                                  [](const times& t) { return t.forward + t.gradient; }));
  }
  template <typename Work, typename Wait>
  double over_packings(const Work& work_of, const Wait& wait_of) const {
    const std::size_t replicas = where_.replicas();
    if (replicas > 1 && !m_.micro_batches.empty()) return 0;
    const double lengths = replicas > 1 ? std::floor(micro_ / static_cast<double>(replicas)) : lengths_;
    std::vector<double> work;
    for (const times& t : layers_) work.insert(work.end(), replicas, lengths * work_of(t));
    std::vector<packed_rank> ranks;
    double front = 0;
    const bool alike = std::all_of(speeds_.begin(), speeds_.end(), [&](double s) { return s == fastest_; });
    for (std::size_t k = 0; k < speeds_.size(); ++k) {
      if (k > 0 && k % replicas == 0 && k / replicas <= layers_.size()) front += wait_of(layers_[k / replicas - 1]);
      ranks.push_back({.speed = speeds_[k], .wait = alike ? shortest_ * front / fastest_ : 0});
    }
    return least_largest_load(grouped(std::move(work)), ranks);
  }

  // Times of the layers in front of each.
  std::vector<times> sums() const {
    std::vector<times> before(layers_.size() + 1);
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      before[i + 1].forward = before[i].forward + layers_[i].forward;
      before[i + 1].gradient = before[i].gradient + layers_[i].gradient;
      before[i + 1].work = before[i].work + layers_[i].work;
      before[i + 1].work_before_weights = before[i].work_before_weights + layers_[i].work_before_weights;
    }
    return before;
  }
  // Head + work + tail of a rank with some work, whose first layer has these in front.
  double of_rank(const times& front, double work, double work_before_weights, double speed) const {
    const double head = shortest_ * front.forward / fastest_, tail = shortest_ * front.gradient / fastest_;
    return head + std::max(lengths_ * work / speed, lengths_ * work_before_weights / speed + tail);
  }

  // least[e]: over all ways to cut the first e layers among the ranks so far, the least of their largest bound.
  double over_cuts() const {
    const std::size_t n = layers_.size();
    const std::vector<times> before = sums();
    std::vector<double> least(n + 1, std::numeric_limits<double>::infinity());
    least[0] = 0;
    for (const double speed : speeds_) {
      std::vector<double> next(n + 1, std::numeric_limits<double>::infinity());
      for (std::size_t begin = 0; begin <= n; ++begin) {
        if (!(least[begin] < std::numeric_limits<double>::max())) continue;
        for (std::size_t end = begin; end <= n; ++end) {
          const double bound = of_rank(before[begin], before[end].work - before[begin].work,
                                       before[end].work_before_weights - before[begin].work_before_weights, speed);
          next[end] = std::min(next[end], std::max(least[begin], bound));
        }
      }
      least = std::move(next);
    }
    return least[n];
  }

  // least[i][j]: over all ways to cut the first i and the layers from j on among the ranks so far, each of which has some of
  // both, the least of their largest bound.
  double over_nested_cuts() const {
    const std::size_t n = layers_.size();
    const std::vector<times> before = sums();
    using table = std::vector<std::vector<double>>;
    const table none(n + 1, std::vector<double>(n + 1, std::numeric_limits<double>::infinity()));
    table least = none;
    least[0][n] = 0;
    for (const double speed : speeds_) {
      table next = none;
      for (std::size_t i = 0; i <= n; ++i)
        for (std::size_t j = i; j <= n; ++j)
          if (least[i][j] < std::numeric_limits<double>::max()) take_both_ends(before, i, j, speed, least[i][j], next);
      least = std::move(next);
    }
    double bound = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i <= n; ++i) bound = std::min(bound, least[i][i]);
    return bound;
  }
  void take_both_ends(const std::vector<times>& before, std::size_t i, std::size_t j, double speed, double so_far,
                      std::vector<std::vector<double>>& next) const {
    for (std::size_t begin = i; begin <= j; ++begin)
      for (std::size_t end = begin; end <= j; ++end) {
        const double work = before[begin].work - before[i].work + before[j].work - before[end].work;
        const double gradients = before[begin].work_before_weights - before[i].work_before_weights +
                                 before[j].work_before_weights - before[end].work_before_weights;
        next[begin][end] = std::min(next[begin][end], std::max(so_far, of_rank(before[i], work, gradients, speed)));
      }
  }

  const model& m_;
  const placement& where_;
  const schedule_class& class_;
  double micro_, lengths_ = 0, shortest_ = 1, longest_ = 1, fastest_ = 1, magnitude_ = 0;
  pass_pair_set pairs_;         // of cells whose prices count
  std::vector<double> speeds_;  // by rank
  std::vector<times> layers_;
};

}  // namespace pipesched::detail
