// SPDX-License-Identifier: MIT
#pragma once

// Partitions of a model that may lead to short steps, judged by their lower bounds: where a search for the best order begins.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/model/costs_of.hpp"
#include "pipesched/model/partition.hpp"
#include "pipesched/plan/detail/partition_steps.hpp"
#include "pipesched/plan/memory_caps.hpp"
#include "pipesched/simulate/lower_bound.hpp"
#include "pipesched/simulate/schedule_class.hpp"
#include "pipesched/support/random_numbers.hpp"

namespace pipesched::detail {

/// Layers per stage, and the stages that recompute; none if empty.
struct division_choice {
  partition layers;
  std::vector<bool> recomputed{};

  friend bool operator==(const division_choice&, const division_choice&) = default;
};

/// The layers of a choice moved, or one stage made to recompute or not; the same choice where nothing came of it.
inline division_choice mutated(division_choice c, bool may_recompute, random_numbers& random) {
  const std::size_t stages = c.layers.stages();
  for (std::size_t moves = 1 + random.below(3); moves > 0; --moves) {
    if (may_recompute && random.below(4) == 0) {
      c.recomputed.resize(stages, false);
      c.recomputed[random.below(stages)].flip();
      if (std::find(c.recomputed.begin(), c.recomputed.end(), true) == c.recomputed.end()) c.recomputed.clear();
      continue;
    }
    move_layer(c.layers, random);
  }
  return c;
}

/// The best choices seen, the best first: fewest bytes that do not fit in any order, then the least bounds, with all of the
/// memory and with half of it, then work that is most alike on all ranks. Half of the memory, too, because activations live
/// longer in any order than the bound assumes.
class partition_pool {
 public:
  struct entry {
    division_choice choice;
    double excess = 0, bound = 0, tight_bound = 0, work = 0;

    friend bool operator<(const entry& a, const entry& b) {
      return std::tuple(a.excess, a.bound + a.tight_bound, a.work) <
             std::tuple(b.excess, b.bound + b.tight_bound, b.work);
    }
  };

  /// @param memory  by rank, less what the buffers of any partition take; empty: no limits. All references must outlive this.
  partition_pool(const stage_sums& sums, const placement& where, std::uint32_t micro, schedule_class of,
                 std::vector<double> memory, std::size_t size)
      : sums_(sums), where_(where), micro_(micro), class_(std::move(of)), memory_(std::move(memory)), size_(size) {}

  const std::vector<entry>& entries() const noexcept { return entries_; }

  /// A choice with its bounds.
  entry judged(division_choice c) const {
    stage_costs costs = sums_(c.layers);
    entry e{.choice = std::move(c)};
    schedule_class of = class_;
    of.recompute = false;  // the costs say what the choice recomputes
    if (!memory_.empty()) {
      of.memory_limits = beside_weights(where_, costs, memory_);
      e.excess = certain_excess(costs, e.choice.recomputed, of.memory_limits);
    }
    if (!e.choice.recomputed.empty()) costs = with_recompute_inside(std::move(costs), e.choice.recomputed);
    e.work = squares_of_work(where_, costs, [&](std::uint32_t s) { return costs.forward[s] + costs.backward[s]; });
    if (e.excess > 0) return e;
    e.bound = e.tight_bound = lower_bound(where_, micro_, costs, of).makespan;
    if (of.memory_limits.empty()) return e;
    for (double& bytes : of.memory_limits) bytes *= 0.5;
    e.tight_bound = lower_bound(where_, micro_, costs, of).makespan;
    return e;
  }

  void add(division_choice c) {
    if (std::any_of(entries_.begin(), entries_.end(), [&](const entry& e) { return e.choice == c; })) return;
    entry e = judged(std::move(c));
    if (entries_.size() == size_ && !(e < entries_.back())) return;
    entries_.insert(std::upper_bound(entries_.begin(), entries_.end(), e), std::move(e));
    if (entries_.size() > size_) entries_.pop_back();
  }

  /// Moves the layers of a choice, as move_layers_to_fit() does, and adds the result.
  template <typename GoOn>
  void add_fitting(division_choice c, GoOn&& go_on) {
    const auto excess_of = [&] {
      const stage_costs costs = sums_(c.layers);
      return certain_excess(costs, c.recomputed, beside_weights(where_, costs, memory_));
    };
    if (!memory_.empty()) move_layers_to_fit(c.layers, excess_of, go_on);
    add(std::move(c));
  }

  /// Changes entries at random, the good ones more often, for so many bounds. @pre there is an entry
  void search(std::uint64_t bounds, bool may_recompute, random_numbers& random) {
    for (std::uint64_t i = 0; i < bounds; ++i) {
      const std::size_t a = random.below(entries_.size()), b = random.below(entries_.size());
      add(mutated(entries_[std::min(a, b)].choice, may_recompute, random));
    }
  }

 private:
  // Bytes that one micro-batch at a time needs beyond the room of the ranks, added. When an op of a stage runs, the stages
  // before it on its rank keep theirs.
  double certain_excess(const stage_costs& costs, const std::vector<bool>& recomputed,
                        const std::vector<double>& room) const {
    double excess = 0;
    for (std::uint32_t rank = 0; rank < where_.ranks(); ++rank) {
      double kept = 0, needed = 0;
      for (const std::uint16_t s : where_.stages_of(rank)) {
        if (where_.replicas() > 1 || class_.forward_only) kept = 0;
        needed = std::max(needed, kept + costs.kept_by_forward[s] + running(costs, s));
        kept += !recomputed.empty() && recomputed[s] ? costs.kept_input[s] : costs.kept_by_forward[s];
      }
      if (needed > with_rounding(room[rank])) excess += needed - room[rank];
    }
    return excess;
  }
  // Bytes that an F, or the smaller one of the forms of a backward, needs while it runs.
  double running(const stage_costs& costs, std::uint16_t stage) const {
    const auto of = [&](pass p) { return costs.transient({.pass = p, .stage = stage}); };
    if (class_.forward_only) return of(pass::forward);
    return std::max(of(pass::forward), std::min(of(pass::backward), of(pass::backward_input)));
  }

  // R as a part of the backward, so that the bound counts it.
  static stage_costs with_recompute_inside(stage_costs costs, const std::vector<bool>& recomputed) {
    std::vector<double> input, whole, kept;
    for (std::uint32_t s = 0; s < recomputed.size(); ++s) {
      const double more = recomputed[s] ? costs.recompute[s] : 0;
      input.push_back(costs.backward_input[s] + more), whole.push_back(costs.backward[s] + more);
      kept.push_back(recomputed[s] ? costs.kept_input[s] : costs.kept_by_forward[s]);
    }
    costs.backward_input = per_stage(std::move(input)), costs.backward = per_stage(std::move(whole));
    costs.kept_by_forward = per_stage(std::move(kept)), costs.context.reset();
    return costs;
  }

  const stage_sums& sums_;
  const placement& where_;
  std::uint32_t micro_;
  schedule_class class_;
  std::vector<double> memory_;
  std::size_t size_;
  std::vector<entry> entries_;
};

}  // namespace pipesched::detail
