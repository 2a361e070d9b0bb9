// SPDX-License-Identifier: MIT
#pragma once

// From layers to stages: the costs of a model under a partition.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/model/model.hpp"
#include "pipesched/model/partition.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/keyed_list.hpp"

namespace pipesched {

namespace detail {

constexpr double duration_of(const layer& l, pass p) noexcept {
  const backward_times t = l.backward_times();
  return p == pass::forward           ? l.forward
         : p == pass::backward        ? t.whole
         : p == pass::backward_input  ? t.input
         : p == pass::backward_weight ? t.weight
         : p == pass::recompute       ? l.recompute.value_or(l.forward)
         : p != pass::none            ? duration_of(l, without_recompute(p)) + duration_of(l, pass::recompute)
                                      : 0;
}

/// The ordered pairs of stages that share a rank, of whichever replica, in ascending order.
inline std::vector<std::pair<std::uint16_t, std::uint16_t>> stages_together(const placement& where) {
  std::vector<std::pair<std::uint16_t, std::uint16_t>> pairs;
  for (std::uint32_t rank = 0; rank < where.ranks(); ++rank) {
    const std::vector<std::uint16_t> hosted = where.stages_of(rank);
    for (const std::uint16_t a : hosted)
      for (const std::uint16_t b : hosted) pairs.push_back({a, b});
  }
  std::sort(pairs.begin(), pairs.end());
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  return pairs;
}

/// Sums the layers of stages, by number of stage, for one partition after another.
class stage_sums {
 public:
  /// @param m  must outlive this. @throws schedule_error if check() refuses it, or for ranks or links that do not exist
  stage_sums(const model& m, const placement& where) : m_(m), where_(where), layers_(expanded(m.layers)) {
    check(m);
    if (m.ranks.size() > 1 && m.ranks.size() != where.ranks())
      throw schedule_error(concat({"model: there are ", m.ranks.size(), " entries in ranks; expected 1, or ",
                                   where.ranks(), ", one per rank"}));
    require_ranks_of_links();
    for (const layer_pair& p : m.pairs)
      if (std::find(passes_.begin(), passes_.end(), p.passes) == passes_.end()) passes_.push_back(p.passes);
    if (!passes_.empty()) stages_ = stages_together(where), set_prices();
    set_machine();
  }

  const std::vector<layer>& layers() const { return layers_; }

  /// @pre the partition has as many stages as the placement and all layers
  stage_costs operator()(const partition& p) const {
    stage_costs costs = machine_;
    const std::vector<std::size_t> first = first_layers(p);
    const auto sums = [&](auto&& of) {
      std::vector<double> values;
      for (std::size_t s = 0; s < p.stages(); ++s) {
        double sum = 0;
        for (std::size_t i = first[s]; i < first[s + 1]; ++i) sum += of(layers_[i]);
        values.push_back(sum);
      }
      return per_stage(std::move(values));
    };
    costs.forward = sums([](const layer& l) { return l.forward; });
    costs.backward_input = sums([](const layer& l) { return l.backward_times().input; });
    costs.backward_weight = sums([](const layer& l) { return l.backward_times().weight; });
    costs.backward = sums([](const layer& l) { return l.backward_times().whole; });
    costs.kept_by_forward = sums([](const layer& l) { return l.kept; });
    costs.recompute = sums([](const layer& l) { return l.recompute.value_or(l.forward); });
    costs.context = sums([](const layer& l) { return l.context.value_or(l.kept); });
    costs.kept_input = sums([](const layer& l) { return l.kept_input; });
    costs.weight_bytes = sums([](const layer& l) { return l.weights; });
    costs.message_bytes = messages(first);
    const auto largest = [&](auto&& of) {
      std::vector<double> values(p.stages(), 0);
      for (std::size_t s = 0; s < p.stages(); ++s)
        for (std::size_t i = first[s]; i < first[s + 1]; ++i)
          values[s] = std::max<double>(values[s], of(layers_[i].transient));
      return per_stage(std::move(values));
    };
    using bytes = transient_bytes;
    costs.transient_forward = largest([](const bytes& t) { return t.forward; });
    costs.transient_backward = largest([](const bytes& t) { return t.backward; });
    costs.transient_backward_input = largest([](const bytes& t) { return t.backward_input.value_or(t.backward); });
    costs.transient_backward_weight = largest([](const bytes& t) { return t.backward_weight.value_or(t.backward); });
    costs.transient_recompute = largest([](const bytes& t) { return t.recompute.value_or(t.forward); });
    for (const auto& [a, b] : stages_)
      for (const pass_pair& passes : passes_)
        if (auto priced = pair_of_stages(first, a, b, passes)) costs.pairs.push_back(*priced);
    return costs;
  }

 private:
  // An empty stage passes on what it got; in front of the first layer that is nothing.
  per_stage messages(const std::vector<std::size_t>& first) const {
    std::vector<double> values;
    for (std::size_t s = 0; s + 1 < first.size(); ++s)
      values.push_back(first[s + 1] > 0 ? layers_[first[s + 1] - 1].message : 0);
    return per_stage(std::move(values));
  }

  void require_ranks_of_links() const {
    for (std::size_t i = 0; i < m_.links.size(); ++i)
      for (const std::optional<std::uint32_t>& rank : {m_.links[i].from, m_.links[i].to})
        if (rank && *rank >= where_.ranks())
          throw schedule_error(concat({"model: links[", i, "] names rank ", *rank, "; expected 0 to ",
                                       where_.ranks() - 1, ", nearest ", where_.ranks() - 1}));
  }
  void set_machine() {
    machine_.time_unit = m_.time_unit;
    const double per_unit = 1 / units_per_second(m_.time_unit);
    const auto bandwidth = [&](const model_link& l) {
      return l.bandwidth ? std::optional<double>(*l.bandwidth * per_unit) : std::nullopt;
    };
    for (const model_link& l : m_.links) {
      if (!l.from) {
        machine_.transfer_time = l.latency, machine_.transfers_busy = l.busy;
        if (l.bandwidth) machine_.bandwidth = *bandwidth(l);
        continue;
      }
      machine_.links.push_back({*l.from, *l.to, l.latency, bandwidth(l), l.busy});
    }
    for (std::uint32_t r = 0; r < where_.ranks(); ++r) machine_.rank_speeds.push_back(rank_at(m_, r).speed);
    if (std::all_of(machine_.rank_speeds.begin(), machine_.rank_speeds.end(), [](double s) { return s == 1; }))
      machine_.rank_speeds.clear();
    machine_.micro_batches = m_.micro_batches;
    machine_.allowed_pairs = m_.allowed_pairs;
    if (m_.allowed_pairs || m_.pairs.empty()) return;
    machine_.allowed_pairs = pass_pair_set::forward_with_backward();
    for (const pass_pair& p : passes_) machine_.allowed_pairs->insert(p);
  }

  // The price of two layers, which are given by the numbers of their kinds.
  struct price {
    std::uint64_t key;
    double time;
    friend std::uint64_t key_of(const price& p) { return p.key; }
  };
  static std::uint64_t key_of_layers(std::size_t a, pass x, std::size_t b, pass y) {
    return key_of_pair(x, static_cast<std::int32_t>(a), y, static_cast<std::int32_t>(b));
  }
  // At most as many kinds as layers, which are fewer than the stages of a pair's key may be.
  void set_prices() {
    std::unordered_map<std::string_view, std::size_t> kinds;
    for (const layer& l : layers_) kind_of_.push_back(kinds.try_emplace(l.kind, kinds.size()).first->second);
    for (const layer_pair& p : m_.pairs)
      prices_.push_back(
          {key_of_layers(kinds.at(p.kinds[0]), p.passes.first, kinds.at(p.kinds[1]), p.passes.second), p.time});
  }

  // Of two layers: their own price, else that of the same pair without recomputation and R on top.
  std::optional<double> price_of(std::size_t a, std::size_t b, pass_pair passes) const {
    const auto given = [&](pass x, pass y) { return prices_.find(key_of_layers(kind_of_[a], x, kind_of_[b], y)); };
    if (const price* own = given(passes.first, passes.second)) return own->time;
    const pass x = without_recompute(passes.first), y = without_recompute(passes.second);
    if (x == passes.first && y == passes.second) return std::nullopt;
    const price* plain = given(x, y);
    if (!plain) return std::nullopt;
    return plain->time + (x == passes.first ? 0 : duration_of(layers_[a], pass::recompute)) +
           (y == passes.second ? 0 : duration_of(layers_[b], pass::recompute));
  }

  // The layers of both chains in the order in which they run, one of each at a time. Nothing if no two of them have a price.
  std::optional<pair_time> pair_of_stages(const std::vector<std::size_t>& first, std::uint16_t a, std::uint16_t b,
                                          pass_pair passes) const {
    if (passes.first == passes.second && a > b) return std::nullopt;  // the same cells as of b and a
    const auto nth = [&](std::uint16_t stage, pass p, std::size_t i) {
      return p == pass::forward || p == pass::recompute ? first[stage] + i : first[stage + 1u] - 1 - i;
    };
    const std::size_t of_a = first[a + 1u] - first[a], of_b = first[b + 1u] - first[b];
    bool any = false;
    double time = 0;
    for (std::size_t i = 0; i < std::max(of_a, of_b); ++i) {
      const double alone_a = i < of_a ? duration_of(layers_[nth(a, passes.first, i)], passes.first) : 0;
      const double alone_b = i < of_b ? duration_of(layers_[nth(b, passes.second, i)], passes.second) : 0;
      const std::optional<double> together =
          i < std::min(of_a, of_b) ? price_of(nth(a, passes.first, i), nth(b, passes.second, i), passes) : std::nullopt;
      time += together.value_or(alone_a + alone_b);
      any = any || together;
    }
    if (!any) return std::nullopt;
    return pair_time{.passes = passes, .stages = std::array{a, b}, .time = time};
  }

  const model& m_;
  const placement& where_;
  std::vector<layer> layers_;
  std::vector<std::size_t> kind_of_;                             // by layer, where pairs have prices
  keyed_list<price> prices_;                                     // of pairs
  std::vector<pass_pair> passes_;                                // of the prices
  std::vector<std::pair<std::uint16_t, std::uint16_t>> stages_;  // that may meet in a cell
  stage_costs machine_;                                          // all that does not depend on the partition
};

}  // namespace detail

/// Costs by stage: times, bytes and weights are sums over the stage's layers, what an op needs while it runs is that of the
/// layer that needs most, its message is that of its last layer, an empty
/// stage passes on what it got. In an overlapped cell the layers of both stages are paired in the order in which they run,
/// those of a backward from the last; each pair takes its time in `pairs`, or the sum where none is given, and layers left
/// over run alone. A pair that recomputes inside takes its own price, else that of the same pair without it and R on top.
/// Linear in layers, and in stages times the chunks of a rank where pairs have prices.
/// @throws schedule_error if check() refuses the model, if it has another number of ranks than the placement, or if the
/// partition has other numbers of stages or layers
inline stage_costs costs_of(const model& m, const partition& p, const placement& where) {
  require_partition(p, m, where.stages());
  return detail::stage_sums(m, where)(p);
}

}  // namespace pipesched
