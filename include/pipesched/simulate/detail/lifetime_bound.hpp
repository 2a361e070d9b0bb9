// SPDX-License-Identifier: MIT
#pragma once

// A bound by the lifetimes of activations on all ranks together. Pairs save the time of their rank, but a micro-batch that is in
// a pair takes longer through that stage, and so its activations live longer on all earlier stages.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/simulate/detail/bound_unit.hpp"

namespace pipesched::detail {

/// The memory of a rank, in any unit.
struct rank_room {
  double most = 0;   // at a time
  double start = 0;  // no activation is kept earlier
  double end = 0;    // nor so long before the end of the step
  // Memory x time that is empty while the first activations come and the last ones go.
  double ramps = 0;
};

/// The memory that one activation of a unit takes, in the rank's unit.
struct unit_memory {
  double kept = 0, context = 0;  // until its gradient is done, and from then until its W is
};

/// Little's law (T6): on a rank, the sum of all activations' memory x lifetime is at most the room from `start` to `end` before
/// the end of the step, less the ramps. A lifetime is at least the least times of all ops from its F to its backward, and longer by
/// those that are in a pair of F and backward. If each rank has at least a number of such pairs (for it would not end in time
/// otherwise), the sums of several ranks, with any weights, have a least value: on each rank the pairs are those that cost
/// least. No step of a duration is possible whose room, with some weights, is less.
class lifetime_bound {
 public:
  constexpr lifetime_bound(const std::vector<bound_unit>& units, const std::vector<std::vector<std::size_t>>& hosted,
                           std::size_t stages, std::vector<rank_room> rooms, std::vector<unit_memory> memory)
      : units_(units), hosted_(hosted), stages_(stages), rooms_(std::move(rooms)), memory_(std::move(memory)) {
    for (std::size_t i = 0; i < units_.size(); ++i) lives_.push_back(life(i));
  }

  /// The shortest step, by these weights of the ranks, if each has at least so many pairs.
  constexpr double least(const std::vector<double>& weights, const std::vector<std::size_t>& pairs) {
    double room = 0, needed = 0;  // room: per time
    earlier_.assign(units_.size(), 0);
    for (std::size_t rank = 0; rank < hosted_.size(); ++rank) {
      if (weights[rank] == 0) continue;
      room += weights[rank] * rooms_[rank].most;
      const rank_room& of = rooms_[rank];
      needed += weights[rank] * (of.ramps + of.most * (of.start + of.end));
      for (std::size_t i : hosted_[rank]) {
        needed += weights[rank] * units_[i].count * lives_[i];
        if (units_[i].trained) earlier_[i] = weights[rank] * memory_[i].kept;
      }
    }
    if (!(room > 0 && room < none)) return 0;
    for (std::size_t i = 0; i < units_.size(); ++i)
      if (i % stages_ != 0) earlier_[i] += earlier_[i - 1];  // of all stages up to its own
    for (std::size_t rank = 0; rank < hosted_.size(); ++rank)
      needed += least_cost(rank, weights[rank], static_cast<double>(pairs[rank]));
    return needed / room;
  }

 private:
  static constexpr double none = std::numeric_limits<double>::max();

  // Memory x time of one activation, no op of which is in a pair of F and backward.
  constexpr double life(std::size_t i) const {
    const bound_unit& u = units_[i];
    if (!u.trained) return memory_[i].kept * u.of(pass::forward).busy;
    double until = 0;
    for (std::size_t t = i;; ++t) {
      until += units_[t].of(pass::forward).apart_step;
      if (t > i) until += step_of_backward(units_[t], &bound_unit::least::apart_step) + units_[t].after_gradient;
      if ((t + 1) % stages_ == 0) break;
      until += units_[t].after_forward;
    }
    return memory_[i].kept * until + of_backward(i, &bound_unit::least::apart_busy);
  }
  static constexpr double step_of_backward(const bound_unit& u, double bound_unit::least::*time) {
    return std::min(u.whole_backward ? u.of(pass::backward).*time : none,
                    u.input_backward ? u.of(pass::backward_input).*time : none);
  }
  constexpr double of_backward(std::size_t i, double bound_unit::least::*time) const {
    const bound_unit& u = units_[i];
    double least = none;
    if (u.whole_backward && u.of(pass::backward).*time < none) least = memory_[i].kept * (u.of(pass::backward).*time);
    if (u.input_backward && u.of(pass::backward_input).*time < none)
      least = std::min(least, memory_[i].kept * (u.of(pass::backward_input).*time) +
                                  (u.split_backward ? memory_[i].context * u.of(pass::backward_weight).busy : 0));
    return least;
  }

  // Least memory x time that so many pairs of a rank add: an F on all stages up to its own, a backward on earlier stages and,
  // by its own time, on its own. A pair may also be shorter than its ops alone: then the rank may have more pairs than it must.
  constexpr double least_cost(std::size_t rank, double weight, double pairs) {
    of_forwards_.clear(), of_backwards_.clear();
    for (std::size_t i : hosted_[rank]) {
      const bound_unit& u = units_[i];
      const bound_unit::least& F = u.of(pass::forward);
      if (F.paired_step < none) of_forwards_.push_back({(F.paired_step - F.apart_step) * earlier_[i], u.count});
      if (!u.trained) continue;
      const double paired = step_of_backward(u, &bound_unit::least::paired_step);
      if (paired == none) continue;
      const double of_own =
          of_backward(i, &bound_unit::least::paired_busy) - of_backward(i, &bound_unit::least::apart_busy);
      of_backwards_.push_back(
          {(paired - step_of_backward(u, &bound_unit::least::apart_step)) * (earlier_[i] - weight * memory_[i].kept) +
               weight * of_own,
           u.count});
    }
    std::sort(of_forwards_.begin(), of_forwards_.end());
    std::sort(of_backwards_.begin(), of_backwards_.end());
    double cost = 0;
    for (std::size_t f = 0, b = 0; f < of_forwards_.size() && b < of_backwards_.size();) {
      auto& [of_F, forwards] = of_forwards_[f];
      auto& [of_backward, backwards] = of_backwards_[b];
      const bool saves = of_F + of_backward < 0;
      if (pairs <= 0 && !saves) break;
      const double number = std::min({forwards, backwards, saves ? none : pairs});
      cost += number * (of_F + of_backward);
      forwards -= number, backwards -= number, pairs -= number;
      f += forwards <= 0, b += backwards <= 0;
    }
    return cost;
  }

  const std::vector<bound_unit>& units_;
  const std::vector<std::vector<std::size_t>>& hosted_;
  std::size_t stages_;
  std::vector<rank_room> rooms_;
  std::vector<unit_memory> memory_;  // by unit
  std::vector<double> earlier_;      // by unit: weighted memory of an activation of each earlier stage and its own
  std::vector<double> lives_;        // by unit: memory x time of an activation without pairs
  std::vector<std::pair<double, double>> of_forwards_, of_backwards_;  // of the ops of a rank in a pair: cost, number
};

}  // namespace pipesched::detail
