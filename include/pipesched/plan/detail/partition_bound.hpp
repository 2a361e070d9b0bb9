// SPDX-License-Identifier: MIT
#pragma once

// A lower bound of the makespan that holds for all partitions of a model among the stages of a schedule's placement.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/cost/pass_pairs.hpp"
#include "pipesched/model/costs_of.hpp"
#include "pipesched/model/model.hpp"
#include "pipesched/plan/detail/layer_packing.hpp"
#include "pipesched/plan/detail/least_times.hpp"
#include "pipesched/plan/detail/memory_bound.hpp"
#include "pipesched/plan/detail/partition_steps.hpp"
#include "pipesched/simulate/schedule_class.hpp"

namespace pipesched::detail {

/// For the cells of a schedule, and what it recomputes and has frozen. Bounds:
///  * work: that of all layers, divided by the speeds of all ranks. A rank starts only when the layers in front of its lowest
///    one have run, and these run backward after its last gradient; at best one rank starts at each of the first layers;
///  * chain: the longest micro-batch through all layers, forward and back, at the highest speed;
///  * on a linear placement or a V, over all partitions the least of the largest head + work + tail of a rank. The head and tail
///    of a rank are the layers in front of its first one, so the least over all cuts is found by dynamic programming: on a V the
///    ranks so far have the first and the last layers;
///  * whole layers: over all ways to put them on ranks in any order, the least of the largest wait + work of a rank.
/// An overlapped pair of layers saves at most what its price says; half of the most that an op can save is taken off it. An
/// op may save more than it lasts where a pair is shorter than its longer op alone; then the rest is taken off other ops.
///  * memory, if asked for, on a linear placement, a V, and a loop of two stages per rank: the same with that of memory_bound.
/// A layer may be on any stage of its stage_run. The third bound of a linear placement knows which, and so its backward and
/// how often it recomputes; the others take the least of them. Recomputation is counted where no pair can save any of it.
class partition_bound {
 public:
  /// @param s, of  a valid schedule and its class. All references must outlive this.
  /// @param memory  only partitions and orders count that fit into the memory of the model's ranks
  partition_bound(const model& m, const schedule& s, const schedule_class& of, bool memory = false)
      : m_(m),
        where_(s.placement),
        class_(of),
        micro_(s.micro),
        runs_(stage_runs(m, s.stages(), of)),
        again_(s.stages(), 0) {
    lengths_ = m.micro_batches.empty() ? micro_ : std::accumulate(m.micro_batches.begin(), m.micro_batches.end(), 0.0);
    if (!m.micro_batches.empty()) {
      shortest_ = *std::min_element(m.micro_batches.begin(), m.micro_batches.end());
      longest_ = *std::max_element(m.micro_batches.begin(), m.micro_batches.end());
    }
    // A pair that recomputes inside takes the price of one that does not, and R on top, where it has none of its own.
    for (const pass_pair p : of.pairs.pairs()) {
      pairs_.insert(p);
      pairs_.insert({without_recompute(p.first), without_recompute(p.second)});
    }
    for (std::size_t r = 0; r < where_.ranks(); ++r) speeds_.push_back(rank_at(m, r).speed);
    fastest_ = *std::max_element(speeds_.begin(), speeds_.end());
    if (of.recompute && !pairs_may_save_recompute()) count_recompute(s);
    set_layers();
    if (memory) set_memory();
  }

  double bound() const {
    const std::vector<times> least = least_of_stages();
    double chain = 0;
    for (const times& t : least) chain += t.forward + t.gradient;
    double bound = std::max(over_ranks(least), longest_ * chain / fastest_);
    if (where_.kind() == placement_kind::linear && layers() <= max_layers_of_cuts) bound = std::max(bound, over_cuts());
    if (where_.kind() == placement_kind::vee && layers() <= max_layers_of_nested_cuts)
      bound = std::max(bound, over_two_stages(least));
    if (memory_ && where_.kind() == placement_kind::looped && where_.stages() == 2 * where_.ranks() &&
        layers() <= max_layers_of_looped_cuts)
      bound = std::max(bound, over_two_stages(least));
    bound = std::max(bound, over_packings(least));
    if (bound == std::numeric_limits<double>::infinity()) return bound;  // no partition fits
    // Room for the rounding of these terms and those of the simulation.
    const double terms =
        static_cast<double>(layers()) * static_cast<double>(speeds_.size() + 1) + 6.0 * micro_ * where_.stages();
    const double slowest = *std::min_element(speeds_.begin(), speeds_.end());
    return std::max(0.0, bound - (bound + magnitude_ / slowest) * terms * std::numeric_limits<double>::epsilon());
  }

 private:
  static constexpr std::size_t max_layers_of_cuts = 2000;        // quadratic in them
  static constexpr std::size_t max_layers_of_nested_cuts = 100;  // to the fourth power
  static constexpr std::size_t max_layers_of_looped_cuts = 50;   // to the fifth power
  static constexpr double max_steps_of_frozen = 3e8;             // cubic in them

  using times = least_times;
  static constexpr std::array all_backwards{stage_backward::none, stage_backward::input, stage_backward::full};

  std::size_t layers() const { return again_of_layer_.size(); }
  stage_backward backward_of(std::size_t stage) const {
    return class_.backward.empty() ? stage_backward::full : class_.backward[stage];
  }
  bool has(stage_backward b) const {
    return class_.backward.empty()
               ? b == stage_backward::full
               : std::find(class_.backward.begin(), class_.backward.end(), b) != class_.backward.end();
  }

  // True if an R may be in a pair, or a pair with a backward that recomputes inside may have a price of its own.
  bool pairs_may_save_recompute() const {
    const auto any = [](pass_pair p) { return recomputes(p.first) || recomputes(p.second); };
    const std::vector<pass_pair> used = class_.pairs.pairs();
    if (std::none_of(used.begin(), used.end(), any)) return false;
    return std::any_of(used.begin(), used.end(),
                       [](pass_pair p) { return p.first == pass::recompute || p.second == pass::recompute; }) ||
           std::any_of(m_.pairs.begin(), m_.pairs.end(), [&](const layer_pair& p) { return any(p.passes); });
  }
  void count_recompute(const schedule& s) {
    for (const cell& c : s.cells.all())
      for (const op o : c)
        if (recomputes(o.pass)) again_[o.stage] += m_.micro_batches.empty() ? 1 : m_.micro_batches[o.micro];
  }

  void set_layers() {
    for (const layer& l : m_.layers)
      for (const pass p : {pass::forward, pass::backward, pass::backward_input, pass::backward_weight}) {
        double& longest = longest_of_kind_[{l.kind, p}];
        longest = std::max(longest, duration_of(l, p));
      }
    for (const layer_pair& p : m_.pairs)
      if (pairs_.contains(p.passes))
        for (const std::string& kind : std::set<std::string>{p.kinds[0], p.kinds[1]}) priced_[kind].push_back(&p);
    for (const layer& l : m_.layers) {
      const savings saved = savings_of(l);
      double magnitude = 0;
      for (const stage_backward b : all_backwards) {
        std::vector<times>& of = by_backward_[static_cast<std::size_t>(b)];
        if (has(b)) of.insert(of.end(), l.count, times_of(l, b, saved, magnitude));
      }
      magnitude_ += lengths_ * l.count * magnitude;
      again_of_layer_.insert(again_of_layer_.end(), l.count, duration_of(l, pass::recompute));
    }
  }

  void set_memory() {
    const std::vector<double> limits = memory_limits(m_, speeds_.size());
    if (limits.empty() || !m_.micro_batches.empty() || where_.replicas() > 1) return;
    if (class_.forward_only || !class_.backward.empty()) return;
    std::vector<layer_times> layers;
    for (const times& t : by_backward_[static_cast<std::size_t>(stage_backward::full)])
      layers.push_back({.forward = t.forward, .gradient = t.gradient, .whole = t.whole, .weight = t.weight});
    memory_.emplace(m_, limits, speeds_, micro_, class_.recompute, !priced_.empty(), layers);
  }
  double memory_of(std::size_t rank, std::size_t a, std::size_t b, std::size_t c, std::size_t d) const {
    return memory_ ? (*memory_)(rank, a, b, c, d) : 0;
  }

  // By pass, the most time that one op of a layer saves in a pair.
  using savings = std::array<double, 5>;
  savings savings_of(const layer& l) const {
    savings most{};
    const auto priced = priced_.find(l.kind);
    if (priced == priced_.end()) return most;
    for (const layer_pair* of_kind : priced->second) {
      const layer_pair& pair = *of_kind;
      for (std::size_t k = 0; k < 2; ++k) {
        if (pair.kinds[k] != l.kind) continue;
        const pass own = without_recompute(k == 0 ? pair.passes.first : pair.passes.second),
                   partner = k == 0 ? pair.passes.second : pair.passes.first;
        if (own == pass::recompute) continue;
        // The work of recomputation is not counted. So an R takes none of the saving off its partner, which is halved later.
        const bool lone = partner == pass::recompute;
        const double beside = lone ? 0 : longest_of_kind_.at({pair.kinds[1 - k], without_recompute(partner)});
        double& of = most[static_cast<std::size_t>(own)];
        of = std::max(of, (lone ? 2 : 1) * (duration_of(l, own) + beside - pair.time));
      }
    }
    return most;
  }

  // For a stage with that backward. The magnitude becomes that of the terms that cancel, if that is more; it is mostly 0.
  times times_of(const layer& l, stage_backward has, const savings& saved, double& magnitude) const {
    const auto saving = [&](pass p) { return saved[static_cast<std::size_t>(p)]; };
    const auto net = [&](pass p) { return duration_of(l, p) - saving(p) / 2; };
    const auto alone = [&](pass p) { return std::max(0.0, duration_of(l, p) - saving(p)); };
    double cancels = 0;
    const auto add_magnitude = [&](double part) { cancels += part < 0 ? -2 * part : 0; };
    times t{.forward = alone(pass::forward), .work = net(pass::forward)};
    add_magnitude(t.work);
    t.work_before_weights = t.work;
    if (!class_.forward_only && has != stage_backward::none) {
      const double whole = net(pass::backward), input = net(pass::backward_input), weight = net(pass::backward_weight);
      const bool full = has == stage_backward::full;
      // The weight gradient saves time in cells that are counted, even where it is not counted itself.
      double backward = full ? whole : input, gradient = backward;
      t.gradient = alone(full ? pass::backward : pass::backward_input);
      if (full)
        t.whole = alone(pass::backward), t.weight = class_.split_backward ? alone(pass::backward_weight) : t.whole;
      if (full && class_.split_backward) {
        t.gradient = std::min(t.gradient, alone(pass::backward_input));
        backward = std::min(backward, input + weight);
        gradient = std::min(gradient, input + std::min(0.0, weight));
      }
      for (const double part : {full ? whole : 0, full && !class_.split_backward ? 0 : input, full ? weight : 0})
        add_magnitude(part);
      t.work += backward, t.work_before_weights += gradient;
    }
    magnitude = std::max(magnitude, cancels);
    return t;
  }

  // By layer, the least of all stages that it may be on, for one micro-batch of length 1: recomputation is a share of the work.
  std::vector<times> least_of_stages() const {
    std::vector<times> least;
    for (const stage_run& run : runs_)
      for (const stage_backward b : all_backwards) {
        std::optional<double> again;
        for (std::size_t s = run.first_stage; s < run.end_stage; ++s)
          if (backward_of(s) == b) again = std::min(again.value_or(again_[s]), again_[s]);
        for (std::size_t i = run.first_layer; again && i < run.end_layer; ++i) {
          const double share = *again / lengths_ * again_of_layer_[i];
          const times one =
              by_backward_[static_cast<std::size_t>(b)][i] + times{.work = share, .work_before_weights = share};
          if (i < least.size())
            least[i] = times::least(least[i], one);
          else
            least.push_back(one);
        }
      }
    return least;
  }

  // For all work after the head, and for the forwards and gradients between head and tail.
  double over_ranks(const std::vector<times>& layers) const {
    return std::max(over_ranks(
                        layers, [](const times& t) { return t.work; }, [](const times& t) { return t.forward; }),
                    over_ranks(
                        layers, [](const times& t) { return t.work_before_weights; },
                        [](const times& t) { return t.forward + t.gradient; }));
  }
  // The least over numbers of ranks that have layers, the fastest of which start first.
  template <typename Work, typename Wait>
  double over_ranks(const std::vector<times>& layers, const Work& work_of, const Wait& wait_of) const {
    double work = 0, front = 0, waits = 0, speeds = 0, least = std::numeric_limits<double>::infinity();
    for (const times& t : layers) work += lengths_ * work_of(t);
    std::vector<double> fast = speeds_;
    std::sort(fast.begin(), fast.end(), std::greater<>());
    const std::size_t replicas = where_.replicas();
    for (std::size_t k = 0; k < std::min(fast.size(), replicas * layers.size()); ++k) {
      if (k > 0 && k % replicas == 0) front += wait_of(layers[k / replicas - 1]);
      speeds += fast[k], waits += fast[k] * shortest_ * front / fastest_;
      least = std::min(least, (work + waits) / speeds);
    }
    return least;
  }

  // Sums over the first layers.
  struct sums {
    std::array<std::vector<times>, 3> of;       // by backward
    std::vector<double> again{0}, gradient{0};  // of a stage with a backward: the least
  };
  sums sums_of_layers() const {
    sums all;
    for (const stage_backward b : all_backwards) {
      const auto k = static_cast<std::size_t>(b);
      all.of[k].emplace_back();
      for (const times& t : by_backward_[k]) all.of[k].push_back(all.of[k].back() + t);
    }
    for (std::size_t i = 0; i < layers(); ++i) {
      all.again.push_back(all.again.back() + again_of_layer_[i]);
      double gradient = std::numeric_limits<double>::infinity();
      for (const stage_backward b : {stage_backward::input, stage_backward::full})
        if (has(b)) gradient = std::min(gradient, by_backward_[static_cast<std::size_t>(b)][i].gradient);
      all.gradient.push_back(all.gradient.back() + gradient);
    }
    return all;
  }

  // Gradients end at the first stage with a backward: a bound for every number of layers in front of it, if these are few.
  double over_cuts() const {
    const sums before = sums_of_layers();
    const std::size_t n = layers();
    std::size_t trained = 0;  // the first stage that is
    while (backward_of(trained) == stage_backward::none) ++trained;
    std::vector<double> least(n + 1, std::numeric_limits<double>::infinity());
    least[0] = 0;
    for (std::size_t stage = 0; stage < trained; ++stage) least = after_stage(before, least, stage, n);
    const auto rest = [&](std::vector<double> from, std::size_t untrained) {
      for (std::size_t stage = trained; stage < speeds_.size(); ++stage)
        from = after_stage(before, from, stage, untrained);
      return from[n];
    };
    const double steps = static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(speeds_.size());
    if (trained == 0) return rest(least, 0);
    if (steps * static_cast<double>(n) > max_steps_of_frozen) return rest(least, n);
    double best = std::numeric_limits<double>::infinity();
    for (std::size_t untrained = 0; untrained <= n; ++untrained) {
      std::vector<double> from(n + 1, std::numeric_limits<double>::infinity());
      from[untrained] = least[untrained];
      best = std::min(best, rest(from, untrained));
    }
    return best;
  }
  // least[e]: over all ways to cut the first e layers among the stages so far, the least of their largest bound. Gradients end
  // at the first trained layer, which `untrained` are in front of.
  std::vector<double> after_stage(const sums& before, const std::vector<double>& least, std::size_t stage,
                                  std::size_t untrained) const {
    const std::size_t n = layers();
    const std::optional<std::size_t> fixed = end_of_run(runs_, stage);
    const std::vector<times>& of = before.of[static_cast<std::size_t>(backward_of(stage))];
    std::vector<double> next(n + 1, std::numeric_limits<double>::infinity());
    for (std::size_t begin = 0; begin <= n; ++begin) {
      if (!(least[begin] < std::numeric_limits<double>::max())) continue;
      const double head = shortest_ * of[begin].forward / fastest_;
      const double back = std::max(0.0, before.gradient[begin] - before.gradient[std::min(untrained, n)]);
      const double tail = shortest_ * back / fastest_;
      for (std::size_t end = begin; end <= n; ++end) {
        if (end != fixed.value_or(end)) continue;
        const double again = again_[stage] * (before.again[end] - before.again[begin]);
        const double work = lengths_ * (of[end].work - of[begin].work) + again;
        const double gradients = lengths_ * (of[end].work_before_weights - of[begin].work_before_weights) + again;
        const double of_rank = head + std::max(work / speeds_[stage], gradients / speeds_[stage] + tail);
        next[end] = std::min(next[end], std::max({least[begin], of_rank, memory_of(stage, begin, end, n, n)}));
      }
    }
    return next;
  }

  // On a V, or in a loop with two stages per rank.
  double over_two_stages(const std::vector<times>& least) const {
    std::vector<times> before(1);
    for (const times& t : least) before.push_back(before.back() + t);
    const auto bound_of = [&](std::size_t rank, std::size_t a, std::size_t b, std::size_t c, std::size_t d) {
      const auto of_rank = [&](double times::*what) {
        return lengths_ * (before[b].*what - before[a].*what + before[d].*what - before[c].*what) / speeds_[rank];
      };
      const double head = before[a].forward, tail = before[a].gradient;
      const double of_work =
          std::max(of_rank(&times::work), of_rank(&times::work_before_weights) + shortest_ * tail / fastest_);
      return std::max(shortest_ * head / fastest_ + of_work, memory_of(rank, a, b, c, d));
    };
    return where_.kind() == placement_kind::vee ? least_over_nested_cuts(least.size(), speeds_.size(), bound_of)
                                                : least_over_looped_cuts(least.size(), speeds_.size(), bound_of);
  }

  // A rank that is the k-th to have layers waits for those in front of the k-th layer; with different speeds it is not known which
  // ranks come first.
  double over_packings(const std::vector<times>& least) const {
    return std::max(
        over_packings(least, &times::work, [](const times& t) { return t.forward; }),
        over_packings(least, &times::work_before_weights, [](const times& t) { return t.forward + t.gradient; }));
  }
  template <typename Wait>
  double over_packings(const std::vector<times>& least, double times::*work_of, const Wait& wait_of) const {
    const std::size_t replicas = where_.replicas();
    if (replicas > 1 && !m_.micro_batches.empty()) return 0;
    const double lengths = replicas > 1 ? std::floor(micro_ / static_cast<double>(replicas)) : lengths_;
    std::vector<double> work;
    for (const times& t : least) work.insert(work.end(), replicas, lengths * t.*work_of);
    std::vector<packed_rank> ranks;
    double front = 0;
    const bool alike = std::all_of(speeds_.begin(), speeds_.end(), [&](double s) { return s == fastest_; });
    for (std::size_t k = 0; k < speeds_.size(); ++k) {
      if (k > 0 && k % replicas == 0 && k / replicas <= least.size()) front += wait_of(least[k / replicas - 1]);
      ranks.push_back({.speed = speeds_[k], .wait = alike ? shortest_ * front / fastest_ : 0});
    }
    return least_largest_load(grouped(std::move(work)), ranks);
  }

  const model& m_;
  const placement& where_;
  const schedule_class& class_;
  double micro_, lengths_ = 0, shortest_ = 1, longest_ = 1, fastest_ = 1, magnitude_ = 0;
  std::vector<stage_run> runs_;
  pass_pair_set pairs_;  // of cells whose prices count
  std::map<std::pair<std::string, pass>, double> longest_of_kind_;
  std::map<std::string, std::vector<const layer_pair*>> priced_;  // by kind
  std::vector<double> speeds_;                                    // by rank
  std::vector<double> again_;  // by stage: the lengths of all micro-batches that it recomputes
  std::array<std::vector<times>, 3>
      by_backward_;  // of the layers on a stage with that backward; empty if no stage has it
  std::vector<double> again_of_layer_;
  std::optional<memory_bound> memory_;
};

}  // namespace pipesched::detail
