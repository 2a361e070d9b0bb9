// SPDX-License-Identifier: MIT
#pragma once

// The bounds by pairs: of each rank, and of the lifetimes of activations on all ranks together.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/simulate/detail/bound_unit.hpp"
#include "pipesched/simulate/detail/lifetime_bound.hpp"
#include "pipesched/simulate/detail/memory_limits.hpp"
#include "pipesched/simulate/detail/most_value.hpp"
#include "pipesched/simulate/detail/pair_bounds.hpp"
#include "pipesched/simulate/detail/pair_sums.hpp"
#include "pipesched/simulate/detail/pair_times.hpp"
#include "pipesched/simulate/detail/rank_bounds.hpp"
#include "pipesched/simulate/schedule_class.hpp"

namespace pipesched::detail {

class rank_pair_bounds : protected rank_bounds {
 protected:
  constexpr rank_pair_bounds(const placement& where, std::uint32_t micro, const schedule_class& of)
      : rank_bounds(where, micro, of), by_pairs_(where.ranks()) {}
  ~rank_pair_bounds() = default;

  // Pairs, and the idle time before the first backward.
  constexpr void bound_pairs(std::uint32_t rank, const pair_times& pairs) {
    const std::optional<rank_frame> frame = frame_of(rank);
    if (!frame) return;
    pair_sum_maker maker(units_, hosted_[rank], pairs, *frame);
    pair_bounds& bound = *(by_pairs_[rank] = pair_bounds(*frame, maker.make(), maker.forwards(), maker.gradients()));
    double work = frame->first_backward + frame->after_forward + frame->after_gradient;
    for (std::size_t i : hosted_[rank])
      for (const pass p : {pass::forward, pass::backward, pass::backward_input, pass::backward_weight})
        if (units_[i].of(p).alone < never) work += units_[i].count * units_[i].of(p).alone;
    const pair_bounds::result found = bound.least(best_.makespan);
    const double rounding =
        exact_.holds_for(16.0 * work_ops()) ? 0 : 8 * path() * std::numeric_limits<double>::epsilon() * work;
    if (!offer(found.makespan - rounding, rank, found.reason)) return;
    best_.first_backward = frame->first_backward;
    best_.forwards = static_cast<std::uint32_t>(found.forwards);
    best_.max_pairs = static_cast<std::uint32_t>(found.max_pairs);
    if (frame->full < never_full) best_.max_live = static_cast<std::uint32_t>(frame->full);
  }

  // Lifetimes on all ranks together (T6), by the memory that a rank has: activations of one stage, under the cap; bytes; and
  // activations whose backward has not ended, under the cap or as many as fit in bytes. These are no more than all that live,
  // and none is left when the rank's last backward has ended.
  constexpr void bound_lifetimes() {
    if (class_.recompute) return;  // what is recomputed is not kept all the time
    std::vector<rank_room> rooms(p_.ranks());
    std::vector<unit_memory> memory(units_.size());
    const auto bound = [&](std::string_view reason) {
      bound_lifetimes(lifetime_bound(units_, hosted_, p_.stages(), rooms, memory), reason);
    };
    if (class_.memory_cap) {
      for (unit_memory& m : memory) m = {1, 1};
      for (std::uint32_t rank = 0; rank < p_.ranks(); ++rank)
        rooms[rank] = room_for(live_activations(rank), rank, true);
      bound("lifetimes of activations, which pairs make longer, under the memory cap");
      for (std::size_t i = 0; i < units_.size(); ++i) memory[i] = {units_[i].trained ? 1.0 : 0.0, 0};
      for (std::uint32_t rank = 0; rank < p_.ranks(); ++rank)
        rooms[rank] = room_for(live_activations(rank), rank, false);
      bound(
          "lifetimes of activations until their backward, which pairs make longer, and its tail, under the memory cap");
    }
    const auto frees_all = [](const bound_unit& u) { return u.frees_all; };
    if (class_.memory_limits.empty() || !std::all_of(units_.begin(), units_.end(), frees_all)) return;
    for (std::size_t i = 0; i < units_.size(); ++i) memory[i] = {units_[i].kept, units_[i].context};
    for (std::uint32_t rank = 0; rank < p_.ranks(); ++rank)
      rooms[rank] = {.most = limit_of(class_.memory_limits, rank), .start = first_forward(rank)};
    bound("lifetimes of activations in bytes, which pairs make longer, under the memory limits");
    for (std::size_t i = 0; i < units_.size(); ++i) memory[i] = {units_[i].trained ? 1.0 : 0.0, 0};
    for (std::uint32_t rank = 0; rank < p_.ranks(); ++rank)
      if (rank_frame frame; limit_of(class_.memory_limits, rank) < never)
        rooms[rank] = room_for(std::max<std::size_t>(1, limit_bytes(frame, rank)), rank, false);
    bound(
        "lifetimes of activations until their backward, which pairs make longer, and its tail, under the memory "
        "limits");
  }

  static constexpr double never = std::numeric_limits<double>::max();

 private:
  static constexpr std::size_t max_units_of_lifetimes = 1024;
  static constexpr std::size_t never_full = std::numeric_limits<std::size_t>::max();

  // True if the class has cells of these two passes, which may recompute.
  constexpr bool may_pair(pass a, pass b) const {
    const auto pairs = class_.pairs.pairs();
    return std::any_of(pairs.begin(), pairs.end(), [&](const pass_pair& p) {
      return pass_pair{without_recompute(p.first), without_recompute(p.second)} == pass_pair{a, b};
    });
  }
  constexpr bool may_pair_backwards() const {
    for (const pass a : {pass::backward, pass::backward_input})
      for (const pass b : {pass::backward, pass::backward_input, pass::backward_weight})
        if (may_pair(a, b)) return true;
    return false;
  }

  // Nothing if the rank trains no stage.
  constexpr std::optional<rank_frame> frame_of(std::uint32_t rank) const {
    const auto& hosted = hosted_[rank];
    rank_frame frame{
        .first_forward = first_forward(rank), .first_backward = never, .after_gradient = never, .after_forward = never};
    std::size_t trained = 0, untrained = 0;
    const bool paired = may_pair_backwards();
    for (std::size_t i : hosted) {
      const bound_unit& u = units_[i];
      (u.trained ? trained : untrained) += static_cast<std::size_t>(u.count);
      if (u.trained) frame.first_backward = std::min(frame.first_backward, u.first_backward);
      if (u.trained && comes_last(u, hosted))
        frame.after_gradient = std::min(frame.after_gradient, after_last_gradient(u, paired));
      if (is_highest(u, hosted)) frame.after_forward = std::min(frame.after_forward, after_last_forward(u));
    }
    if (trained == 0) return std::nullopt;
    if (untrained > 0) frame.after_gradient = 0, frame.min_gradients = 0;  // the last cell may be an F
    frame.max_live = trained;
    if (class_.memory_cap && !class_.recompute) frame.max_live = std::min(frame.max_live, live_activations(rank));
    frame.max_forwards = std::max(frame.min_forwards, std::min(frame.max_live, limit_bytes(frame, rank)) + untrained);
    if (untrained == 0 && frame.max_forwards < trained) frame.full = frame.max_forwards;
    return frame;
  }

  // True if the micro-batches of the unit pass no stage after it on its rank.
  constexpr bool is_highest(const bound_unit& u, const std::vector<std::size_t>& hosted) const {
    return std::none_of(hosted.begin(), hosted.end(),
                        [&](std::size_t i) { return units_[i].micro == u.micro && units_[i].stage > u.stage; });
  }
  // Least time after the last of all cells of a rank with an F or a gradient. That is the unit's gradient, as each F of a
  // trained stage has its own after it: B or I alone, or paired with another gradient or W, with the tail of either. A B takes
  // longer than the least gradient, and an I leaves a W.
  constexpr double after_last_gradient(const bound_unit& u, bool paired) const {
    const bound_unit::least &B = u.of(pass::backward), &I = u.of(pass::backward_input),
                            &W = u.of(pass::backward_weight);
    const double least = std::min(u.whole_backward ? B.alone : never, u.input_backward ? I.alone : never);
    double after = never;
    if (u.whole_backward) after = u.after_cell(pass::backward) + (paired ? 0 : B.alone - least);
    if (u.input_backward)
      after = std::min(after, std::max(u.split_backward ? W.busy : 0.0, u.after_cell(pass::backward_input)) +
                                  (paired ? 0 : I.alone - least));
    return after;
  }
  // Least time after the end of the rank's last F, if the unit has it: until its own backward starts, and from then on.
  constexpr double after_last_forward(const bound_unit& u) const {
    return u.trained ? turn(u) + std::max(u.rest, gradient_step(u) + u.tail) : 0;
  }

  // Sets the most bytes of activations when the last F has ended, and returns the most forwards before the first backward. When
  // one of them or that backward starts, all of them are kept, and it needs its own bytes on top.
  constexpr std::size_t limit_bytes(rank_frame& frame, std::uint32_t rank) const {
    const double limit = limit_of(class_.memory_limits, rank) * (1 + 1e-9);
    if (!(limit < never)) return never_full / 4;
    std::vector<sized_value> kept;  // and how often
    double of_forward = never, of_gradient = never;
    bool frees_all = true, input_frees = true;
    for (std::size_t i : hosted_[rank]) {
      const bound_unit& u = units_[i];
      of_forward = std::min(of_forward, u.trained ? u.forward_bytes : 0);
      if (!u.trained) continue;
      of_gradient = std::min(of_gradient, u.gradient_bytes);
      kept.push_back({u.count * u.kept, u.count});
      frees_all = frees_all && u.frees_all, input_frees = input_frees && u.input_frees;
    }
    if (frees_all) frame.bytes = std::max(0.0, limit - (input_frees ? of_forward : 0));
    frame.first_bytes = std::max(0.0, limit - std::max(of_forward, of_gradient));
    return static_cast<std::size_t>(most_value(densest_first(std::move(kept)), frame.first_bytes) * (1 + 1e-9));
  }

  // Least time after the last gradient of a rank; 0 if an F may come later.
  constexpr double after_all_gradients(std::uint32_t rank) const {
    double after = never;
    for (std::size_t i : hosted_[rank]) {
      if (!units_[i].trained) return 0;
      if (comes_last(units_[i], hosted_[rank])) after = std::min(after, after_last_gradient(units_[i], true));
    }
    return after;
  }

  // For so many activations of one stage, that are kept until their backward or until their W. The j-th of the first forwards
  // starts after j - 1 others, and so with the last backwards.
  constexpr rank_room room_for(std::size_t activations, std::uint32_t rank, bool until_weights) const {
    rank_room room{.most = static_cast<double>(activations), .start = first_forward(rank)};
    if (!until_weights) room.end = after_all_gradients(rank);
    double forward = never, backward = never, count = 0;
    for (std::size_t i : hosted_[rank]) {
      const bound_unit& u = units_[i];
      count += u.count, forward = std::min(forward, u.of(pass::forward).busy);
      if (!u.trained) backward = 0;
      if (u.whole_backward) backward = std::min(backward, u.of(pass::backward).busy);
      if (u.input_backward) backward = std::min(backward, u.of(pass::backward_input).busy);
      if (u.split_backward && until_weights) backward = std::min(backward, u.of(pass::backward_weight).busy);
    }
    if (may_pair(pass::forward, pass::forward)) forward = 0;
    if (may_pair_backwards() || may_pair(pass::backward_weight, pass::backward_weight)) backward = 0;
    if (room.most <= count) room.ramps = (forward + backward) * room.most * (room.most - 1) / 2;
    return room;
  }

  // The longest step that is impossible, by bisection: the longer a step, the fewer pairs its ranks need. Weights: of each rank
  // alone, of each with its mirror image, and of all.
  constexpr void bound_lifetimes(lifetime_bound bound, std::string_view reason) {
    const std::size_t ranks = p_.ranks();
    std::vector<std::vector<double>> weights{std::vector<double>(ranks, 1)};
    for (std::size_t r = 0; r < ranks; ++r) {
      weights.emplace_back(ranks, 0.0)[r] = 1;
      if (p_.replicas() == 1 || r >= ranks / 2) continue;
      weights.push_back(weights.back()), weights.back()[ranks - 1 - r] = 1;
    }
    std::vector<std::size_t> pairs(ranks, 0);
    const bool few = units_.size() <= max_units_of_lifetimes;  // else the number of pairs is not looked for
    std::size_t worst = 0;                                     // weights
    double shortest = 0;                                       // of steps with so many pairs
    const auto impossible = [&](double makespan) {
      for (std::size_t r = 0; r < ranks && few; ++r)
        if (by_pairs_[r]) pairs[r] = by_pairs_[r]->least_pairs(makespan);
      if (std::find(pairs.begin(), pairs.end(), never_full) != pairs.end()) return true;
      shortest = 0;
      for (std::size_t w = 0; w < weights.size(); ++w)
        if (const double least = bound.least(weights[w], pairs); least > shortest) shortest = least, worst = w;
      return shortest > makespan * (1 + 1e-9);
    };
    double low = best_.makespan;
    if (!impossible(low)) return;
    // A step that is a little longer may need fewer pairs. If it needs as many, it is as long as these take.
    double high = never, exact = 0;
    std::vector<std::size_t> at_low;
    std::vector<double> of_ranks;
    const auto is_exact = [&] {
      at_low = pairs, of_ranks = weights[worst], exact = shortest;
      if (exact == 0 || exact >= high) return false;
      impossible(exact);
      return pairs == at_low;
    };
    bool found = is_exact();
    high = exact > 0 ? exact : low * 1.02;
    while (exact == 0 && impossible(high)) low = high, high *= 1.1;
    for (int step = 0; step < 24 && !found; ++step) {
      const double middle = (low + high) / 2;
      if (impossible(middle))
        low = middle, found = is_exact();
      else
        high = middle;
    }
    if (exact == 0) return;
    const double rounding = exact_.holds_for(16.0 * work_ops()) ? 0 : 1e-11;
    if (!offer(found ? exact * (1 - rounding) : low * (1 - 1e-9), rank_of(of_ranks), reason)) return;
    best_.min_pairs = static_cast<std::uint32_t>(at_low[best_.rank]);
    if (class_.memory_cap) best_.max_live = static_cast<std::uint32_t>(live_activations(best_.rank));
  }
  // The first that has a weight.
  static constexpr std::uint32_t rank_of(const std::vector<double>& weights) {
    std::uint32_t rank = 0;
    while (weights[rank] == 0) ++rank;
    return rank;
  }

  std::vector<std::optional<pair_bounds>> by_pairs_;  // [rank]
};

}  // namespace pipesched::detail
