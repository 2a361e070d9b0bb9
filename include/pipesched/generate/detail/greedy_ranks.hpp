// SPDX-License-Identifier: MIT
#pragma once

// The state of a greedy search: ranks that take ops one at a time under a memory limit, each with its clock, the memory
// in use, the idle time so far and the pending W's. The family chooses the next op; W's fill the gaps before an input
// arrives, and run earlier where memory must be freed.
// Source: Qi et al., "Zero Bubble Pipeline Parallelism" (arXiv 2401.10241), section 3 and appendix B.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/support/rows.hpp"

namespace pipesched::detail {

/// The most that an activation of a stage takes at a time: after its F or, as context, after its I. In bytes.
constexpr double bytes_of_activation(const stage_costs& costs, std::uint32_t stage) {
  return costs.context ? std::max(costs.kept_by_forward[stage], (*costs.context)[stage]) : costs.kept_by_forward[stage];
}
/// Bytes of it that its I frees.
inline double freed_by_input(const stage_costs& costs, std::uint16_t stage) {
  return std::max(0.0, -costs.bytes(op{pass::backward_input, 0, stage, 0}));
}

/// The memory that an activation of each stage takes: bytes, or 1 if the costs give no bytes.
inline std::vector<double> kept_by_stage(const placement& where, const stage_costs& costs) {
  std::vector<double> kept;
  for (std::uint32_t s = 0; s < where.stages(); ++s) kept.push_back(bytes_of_activation(costs, s));
  if (std::none_of(kept.begin(), kept.end(), [](double bytes) { return bytes > 0; })) kept.assign(kept.size(), 1);
  return kept;
}

/// The limit of a rank whose share keeps so much, with room for rounding. 0 bytes times infinity would not be a limit.
constexpr double scaled_limit(double share, double limit) { return share * (std::min(limit, 1e300) * (1 + 1e-9)); }

/// The ranks. F's and I's of a stage are taken in the order of micro-batches, W's in the order of the I's of the rank.
class greedy_ranks {
 public:
  /// @param limit  in activations of a rank's whole share
  greedy_ranks(const placement& where, std::int64_t micro, const stage_costs& costs, double limit)
      : micro_(static_cast<std::size_t>(micro)), stages_(where.stages()), ranks_(where.ranks()) {
    const std::vector<double> kept = kept_by_stage(where, costs);
    for (std::uint32_t i = 0; i < where.stages(); ++i) {
      stage& s = stages_[i];
      const auto number = static_cast<std::uint16_t>(i);
      s.rank = static_cast<std::uint16_t>(where.rank_of(i, 0)), s.chunk = where.chunk_of(i, 0);
      s.F = costs.unit_duration(op{pass::forward, s.chunk, number, 0}) / costs.speed_of(s.rank);
      s.I = costs.unit_duration(op{pass::backward_input, s.chunk, number, 0}) / costs.speed_of(s.rank);
      s.W = costs.unit_duration(op{pass::backward_weight, s.chunk, number, 0}) / costs.speed_of(s.rank);
      s.kept = kept[i];
      s.freed_by_I = freed_by_input(costs, number);
      s.freed_by_W = s.kept - s.freed_by_I;
      const auto transfer = [&](bool gradient, std::uint32_t from) {
        const std::uint32_t sender = where.rank_of(from, 0);
        return sender == s.rank ? 0
                                : costs.transfer(sender, s.rank,
                                                 tensor_id{gradient ? tensor_kind::gradient : tensor_kind::activation,
                                                           static_cast<std::uint16_t>(from), 0});
      };
      if (i > 0) s.activation_transfer = transfer(false, i - 1);
      if (i + 1 < where.stages()) s.gradient_transfer = transfer(true, i + 1);
      s.end_of_F.resize(micro_), s.end_of_I.resize(micro_);
      ranks_[s.rank].limit += s.kept;
      ranks_[s.rank].stages.push_back(number);
    }
    for (rank& r : ranks_) {
      r.limit = scaled_limit(r.limit, limit);
      r.owed.resize(micro_ * r.stages.size()), r.taken.resize(3 * micro_ * r.stages.size());
    }
  }

  /// Returns to the start without giving memory back.
  void restart() {
    for (stage& s : stages_) s.forwards = s.inputs = s.weights = 0;
    for (rank& r : ranks_) {
      r.memory = r.clock = r.started = r.bubble = 0;
      r.incurred = r.paid = r.count = 0;
    }
    longest_bubble_ = 0;
  }

  std::size_t micro() const { return micro_; }
  std::size_t count() const { return ranks_.size(); }
  std::size_t stages() const { return stages_.size(); }

  // Per stage: the ops taken so far, and the durations, preconditions and arrivals of the next ones.
  std::size_t forwards(std::size_t s) const { return stages_[s].forwards; }
  std::size_t inputs(std::size_t s) const { return stages_[s].inputs; }
  double duration_of_F(std::size_t s) const { return stages_[s].F; }
  double duration_of_I(std::size_t s) const { return stages_[s].I; }
  bool can_F(std::size_t s) const { return forwards(s) < micro_ && (s == 0 || forwards(s - 1) > forwards(s)); }
  bool can_I(std::size_t s) const {
    return inputs(s) < forwards(s) && (s + 1 == stages_.size() || inputs(s + 1) > inputs(s));
  }
  /// The arrival of the input of the next F or I. @pre can_F(s) or can_I(s)
  double arrival_of_F(std::size_t s) const {
    return s == 0 ? 0 : stages_[s - 1].end_of_F[forwards(s)] + stages_[s].activation_transfer;
  }
  double arrival_of_I(std::size_t s) const {
    return s + 1 == stages_.size() ? 0 : stages_[s + 1].end_of_I[inputs(s)] + stages_[s].gradient_transfer;
  }
  /// The arrival of the input of an I of stage s if the next stage ends its I at `end`.
  double arrival_of_I(std::size_t s, double end) const { return end + stages_[s].gradient_transfer; }

  double clock(std::size_t r) const { return ranks_[r].clock; }
  double bubble(std::size_t r) const { return ranks_[r].bubble; }
  double longest_bubble() const { return longest_bubble_; }
  std::size_t owed(std::size_t r) const { return ranks_[r].incurred - ranks_[r].paid; }
  /// Whether there is memory for so many more F's of the stage.
  bool fits(std::size_t s, std::size_t more = 1) const {
    const rank& r = ranks_[stages_[s].rank];
    return r.memory + static_cast<double>(more) * stages_[s].kept <= r.limit;
  }
  /// Whether n F's of one stage and one of another stage of the same rank fit into an empty memory.
  bool leaves_room(std::size_t s, std::size_t n, std::size_t other) const {
    return static_cast<double>(n) * stages_[s].kept + stages_[other].kept <= ranks_[stages_[s].rank].limit;
  }
  /// The time of the W's that must run before an F of the stage fits.
  double time_to_fit(std::size_t s) const {
    const rank& r = ranks_[stages_[s].rank];
    double time = 0, memory = r.memory;
    for (std::size_t i = r.paid; i < r.incurred && memory + stages_[s].kept > r.limit; ++i)
      memory -= stages_[r.owed[i]].freed_by_W, time += stages_[r.owed[i]].W;
    return time;
  }

  void put_F(std::size_t s) {
    stage& at = stages_[s];
    rank& r = ranks_[at.rank];
    take(r, arrival_of_F(s), at.F);
    r.taken[r.count++] = {pass::forward, at.chunk};
    at.end_of_F[at.forwards++] = r.clock;
    r.memory += at.kept;
  }
  void put_I(std::size_t s) {
    stage& at = stages_[s];
    rank& r = ranks_[at.rank];
    take(r, arrival_of_I(s), at.I);
    r.taken[r.count++] = {pass::backward_input, at.chunk};
    at.end_of_I[at.inputs++] = r.clock;
    r.memory -= at.freed_by_I;
    r.owed[r.incurred++] = static_cast<std::uint16_t>(s);
  }
  /// Takes the oldest pending W. @pre owed(rank) > 0
  void put_W(std::size_t number) {
    rank& r = ranks_[number];
    stage& at = stages_[r.owed[r.paid++]];
    take(r, 0, at.W);
    r.taken[r.count++] = {pass::backward_weight, at.chunk};
    ++at.weights;
    r.memory -= at.freed_by_W;
  }
  /// Takes W's until an F of the stage fits. Returns whether it does.
  bool make_room(std::size_t s) {
    const std::size_t r = stages_[s].rank;
    while (!fits(s) && owed(r) > 0) put_W(r);
    return fits(s);
  }
  /// Takes W's as long as they end by `arrival`.
  void fill_gap(std::size_t number, double arrival) {
    const rank& r = ranks_[number];
    while (owed(number) > 0 && r.clock + stages_[r.owed[r.paid]].W <= arrival) put_W(number);
  }
  /// The number of ops taken.
  std::size_t taken() const {
    std::size_t ops = 0;
    for (const rank& r : ranks_) ops += r.count;
    return ops;
  }
  void put_all_W(std::size_t r) {
    while (owed(r) > 0) put_W(r);
  }

  /// A time before which no order of all ops ends: each rank's work after the first input that can reach it. Linear.
  double least_makespan() const {
    double arrival = 0, least = 0;
    std::vector<double> first(ranks_.size(), std::numeric_limits<double>::infinity()), work(ranks_.size(), 0);
    for (const stage& s : stages_) {
      arrival += s.activation_transfer;
      first[s.rank] = std::min(first[s.rank], arrival);
      work[s.rank] += static_cast<double>(micro_) * (s.F + s.I + s.W);
      arrival += s.F;
    }
    for (std::size_t r = 0; r < ranks_.size(); ++r) least = std::max(least, first[r] + work[r]);
    return least;
  }

  /// Whether the ops taken so far leave a shorter span or an earlier end than these possible. Linear in the number of ranks.
  bool may_beat(double span, double makespan) const {
    double least_span = 0, least_makespan = 0;
    for (const rank& r : ranks_) {
      double left = 0;
      for (const std::uint16_t number : r.stages) {
        const stage& s = stages_[number];
        left += static_cast<double>(micro_ - s.forwards) * s.F + static_cast<double>(micro_ - s.inputs) * s.I +
                static_cast<double>(micro_ - s.weights) * s.W;
      }
      least_span = std::max(least_span, r.clock - r.started + left);
      least_makespan = std::max(least_makespan, r.clock + left);
    }
    return least_span < span || least_makespan < makespan;
  }

  /// The longest of the ranks' spans.
  double span() const {
    double longest = 0;
    for (const rank& r : ranks_) longest = std::max(longest, r.clock - r.started);
    return longest;
  }
  double makespan() const {
    double last = 0;
    for (const rank& r : ranks_) last = std::max(last, r.clock);
    return last;
  }
  rows<cell> cells() const {
    std::vector<std::size_t> lengths;
    for (const rank& r : ranks_) lengths.push_back(r.count);
    auto all = rows<cell>::for_overwrite(lengths);
    for (std::size_t number = 0; number < ranks_.size(); ++number) {
      const rank& r = ranks_[number];
      std::vector<std::array<std::uint32_t, 5>> micro(r.stages.size());  // the next one of each chunk and pass
      for (std::size_t i = 0; i < r.count; ++i) {
        const auto [pass, chunk] = r.taken[i];
        all[number][i] = op{pass, chunk, r.stages[chunk], micro[chunk][static_cast<std::size_t>(pass)]++};
      }
    }
    return all;
  }

 private:
  struct stage {
    std::uint16_t rank = 0;
    std::uint8_t chunk = 0;
    double F = 0, I = 0, W = 0, kept = 0, freed_by_I = 0, freed_by_W = 0;
    double activation_transfer = 0, gradient_transfer = 0;  // of the inputs
    std::vector<double> end_of_F{}, end_of_I{};             // of the ops taken
    std::size_t forwards = 0, inputs = 0, weights = 0;      // the number of them
  };
  struct step {  // its micro-batch is the next one of its stage and pass
    pipesched::pass pass;
    std::uint8_t chunk;
  };
  struct rank {
    double limit = 0, memory = 0, clock = 0, started = 0, bubble = 0;  // bubble: idle time after the first op
    std::size_t incurred = 0, paid = 0, count = 0;                     // W's that may run, that have run; all ops
    std::vector<std::uint16_t> owed{};    // stages in the order of their I's; the first `paid` W's have run
    std::vector<std::uint16_t> stages{};  // by chunk
    std::vector<step> taken{};            // the first `count`
  };

  void take(rank& r, double arrival, double duration) {
    const double start = std::max(r.clock, arrival);
    if (r.count == 0)
      r.started = start;
    else
      r.bubble += start - r.clock, longest_bubble_ = std::max(longest_bubble_, r.bubble);
    r.clock = start + duration;
  }

  std::size_t micro_;
  std::vector<stage> stages_;
  std::vector<rank> ranks_;
  double longest_bubble_ = 0;
};

}  // namespace pipesched::detail
