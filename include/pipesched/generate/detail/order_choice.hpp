// SPDX-License-Identifier: MIT
#pragma once

// The choice among searched orders and known ones. A search is judged by its span, as in the papers, but a known order
// of another family that keeps the memory limit and ends earlier is never passed over.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/detail/greedy_ranks.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched::detail {

/// Whether each rank of a valid schedule of single F, I and W keeps at most `limit` activations of its whole share, by
/// the bytes of the costs where there are any. Linear in the number of ops.
inline bool keeps_limit(const schedule& s, const stage_costs& costs, double limit) {
  const std::vector<double> kept = kept_by_stage(s.placement, costs);
  std::vector<double> freed_by_I(s.stages()), share(s.pp(), 0);
  for (std::uint32_t stage = 0; stage < s.stages(); ++stage) {
    freed_by_I[stage] = freed_by_input(costs, static_cast<std::uint16_t>(stage));
    share[s.placement.rank_of(stage, 0)] += kept[stage];
  }
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
    const double most = scaled_limit(share[rank], limit);
    double memory = 0;
    for (const cell& c : s[rank]) {
      const std::uint16_t stage = c[0].stage;
      if (c[0].pass == pass::forward) memory += kept[stage];
      if (memory > most) return false;
      if (c[0].pass == pass::backward_input) memory -= freed_by_I[stage];
      if (c[0].pass == pass::backward_weight) memory -= kept[stage] - freed_by_I[stage];
    }
  }
  return true;
}

/// The makespan of a valid schedule of single F, I and W, by the rules of simulate(), but for links that keep ranks busy.
/// Linear in the number of ops.
inline double makespan_of(const schedule& s, const stage_costs& costs) {
  struct times {
    double duration[5] = {};              // by pass
    double activation = 0, gradient = 0;  // how long what the stage receives is on its way
  };
  std::vector<times> of(s.stages());
  for (std::uint32_t stage = 0; stage < s.stages(); ++stage) {
    const auto number = static_cast<std::uint16_t>(stage);
    const std::uint32_t rank = s.placement.rank_of(stage, 0);
    for (const pass p : {pass::forward, pass::backward_input, pass::backward_weight})
      of[stage].duration[static_cast<std::size_t>(p)] = costs.unit_duration(op{p, 0, number, 0}) / costs.speed_of(rank);
    const auto transfer = [&](tensor_kind kind, std::uint32_t from) {
      const std::uint32_t sender = s.placement.rank_of(from, 0);
      return sender == rank ? 0 : costs.transfer(sender, rank, tensor_id{kind, static_cast<std::uint16_t>(from), 0});
    };
    if (stage > 0) of[stage].activation = transfer(tensor_kind::activation, stage - 1);
    if (stage + 1 < s.stages()) of[stage].gradient = transfer(tensor_kind::gradient, stage + 1);
  }
  std::vector<double> clock(s.pp(), 0);
  tensor_table<double> made(s, 0);
  walk(s, [&](std::uint32_t rank, std::size_t, const cell& c) {
    const times& t = of[c[0].stage];
    double start = clock[rank];
    if (const auto in = input_of(c[0], s.chain()))
      start = std::max(start, made[*in] + (in->kind == tensor_kind::activation ? t.activation : t.gradient));
    clock[rank] = start + t.duration[static_cast<std::size_t>(c[0].pass)];
    if (const auto out = output_of(c[0], s.chain())) made[*out] = clock[rank];
  });
  return *std::max_element(clock.begin(), clock.end());
}

/// Remembers how the best searched orders were found, and compares known orders with them.
/// @tparam Recipe  what a search takes to find an order again: `search.run(recipe)`
template <typename Recipe>
class order_choice {
 public:
  /// Whether a search may still end with an order that would be chosen.
  bool worth_going_on(const greedy_ranks& so_far) const {
    return !shortest_span_ || so_far.may_beat(shortest_span_->span, first_end_->makespan);
  }

  /// Takes the order that a search has just found.
  void consider(const greedy_ranks& found, const Recipe& recipe) {
    const double span = found.span(), makespan = found.makespan();
    if (!shortest_span_ || span < shortest_span_->span) shortest_span_ = {recipe, span, makespan};
    if (!first_end_ || makespan < first_end_->makespan) first_end_ = {recipe, span, makespan};
  }

  /// Whether an order that needs no search can end before the searched one. @pre consider() was called
  bool known_may_win(const greedy_ranks& search) const {
    return shortest_span_->makespan > search.least_makespan() * (1 + 1e-12);
  }

  /// Takes an order that needs no search, if it keeps the limit. @pre consider() was called
  void consider_known(schedule known, const stage_costs& costs, double limit) {
    if (!keeps_limit(known, costs, limit)) return;
    const double makespan = makespan_of(known, costs);
    if (makespan < (known_ ? known_makespan_ : shortest_span_->makespan))
      known_makespan_ = makespan, known_ = std::move(known);
  }

  /// The searched order with the shortest span; or, if a known order ends before that one, the order that ends first.
  template <typename Search>
  rows<cell> take(Search& search) {
    if (known_ && known_makespan_ <= first_end_->makespan) return std::move(known_->cells);
    search.run(known_ ? first_end_->recipe : shortest_span_->recipe, [] { return true; });
    return search.cells();
  }

 private:
  struct searched {
    Recipe recipe;
    double span, makespan;
  };
  std::optional<searched> shortest_span_, first_end_;
  std::optional<schedule> known_;
  double known_makespan_ = 0;
};

}  // namespace pipesched::detail
