// SPDX-License-Identifier: MIT
#pragma once

// Metrics of a timeline: makespan, bubbles, and peaks of memory.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/ops.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/uniform_costs.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

/// Metrics of one rank. Activations are counted in whole shares: the activation of one micro-batch through all stages of one
/// replica on the rank is 1, that of one of its v stages 1/v.
struct rank_metrics {
  double busy = 0;    ///< sum of the durations of its cells
  double bubble = 0;  ///< makespan - busy
  double span = 0;    ///< last end - first start; the zero-bubble papers' "zero" is span - busy

  double peak_activations = 0;     ///< highest number of live activations, in shares
  double peak_activations_at = 0;  ///< start of the cell that first reaches it
  double peak_bytes = 0;  ///< most bytes of activations at a time, with what running ops need; 0 if the costs give none
  double peak_bytes_at = 0;  ///< start of the cell that first reaches it, or its end if an I leaves more than it found
  /// Most bytes that forwards keep for backwards to come, without what is recomputed and what running ops need.
  double peak_kept_bytes = 0;

  double overlapped_fraction = 0;  ///< part of `busy` spent in overlapped cells
  double parameter_copies = 0;     ///< stages hosted, in shares of 1 / pp of the model: 2 for DualPipe
  double weight_bytes = 0;         ///< of the stages hosted; 0 if the costs give none
};

/// Metrics of a timeline, in its unit of time.
struct metrics {
  double makespan = 0;          ///< the last end, from time 0
  double bubble = 0;            ///< mean over the ranks
  double max_bubble = 0;        ///< of the rank that idles longest; published formulas give this one
  double bubble_ratio = 0;      ///< bubble / makespan
  double span = 0;              ///< longest over the ranks
  double peak_activations = 0;  ///< highest over the ranks, in shares; the next four are over the ranks, too
  double peak_bytes = 0;
  double overlapped_fraction = 0;  ///< overlapped time of all ranks / busy time of all ranks
  double parameter_copies = 0;
  double weight_bytes = 0;
  std::vector<rank_metrics> ranks;
};

namespace detail {

// The height of a stack that cells push on at their start and pop from at their end, with its peak.
template <typename Number>
struct level {
  Number now{}, peak{};
  double peak_at = 0;

  constexpr void rise(Number by, double time) {
    now += by;
    if (now > peak) peak = now, peak_at = time;
  }
};

// Activations of a rank as whole numbers: one of replica r counts `weight[r]`, a whole share `share`.
struct activation_unit {
  std::int64_t share = 1;
  std::array<std::int64_t, 2> weight{1, 1};
};

constexpr std::vector<activation_unit> activation_units(const placement& where) {
  std::vector<activation_unit> units(where.ranks(), activation_unit{});
  std::vector<std::array<std::int64_t, 2>> hosted(where.ranks(), std::array<std::int64_t, 2>{});
  for (std::uint32_t replica = 0; replica < where.replicas(); ++replica)
    for (std::uint16_t rank : where.rank_of_stage(replica)) ++hosted[rank][replica];
  for (std::size_t rank = 0; rank < units.size(); ++rank) {
    const std::int64_t a = std::max<std::int64_t>(1, hosted[rank][0]), b = std::max<std::int64_t>(1, hosted[rank][1]);
    units[rank] = {std::lcm(a, b), {std::lcm(a, b) / a, std::lcm(a, b) / b}};
  }
  return units;
}

// The memory of a rank as its cells run: whole activations, in units of its share, and bytes.
template <typename Costs>
class memory_levels {
 public:
  constexpr memory_levels(const schedule& s, const recomputed_ops& recomputed, const activation_unit& unit,
                          const Costs& costs)
      : s_(s), recomputed_(recomputed), unit_(unit), costs_(costs) {}

  level<std::int64_t> activations;
  level<double> bytes, kept;

  constexpr void start(const cell& c, double time) {
    running_ = 0;
    for (const op o : c) {
      running_ += transient_of(costs_, o);
      if (o.pass != pass::forward && !recomputes(o.pass)) continue;
      activations.now += weight(o);
      bytes.now += bytes_of(costs_, o, o.pass == pass::forward ? pass::forward : pass::recompute);
      if (o.pass == pass::forward) kept.now += kept_by(o);
    }
    activations.rise(0, time), kept.rise(0, time), bytes.rise(running_, time);
    bytes.now -= running_;
  }
  /// With what the ops of the cell that runs need.
  constexpr double bytes_in_use() const noexcept { return bytes.now + running_; }
  constexpr void finish(const cell& c, double time) {
    running_ = 0;
    for (const op o : c) finish(o);
    bytes.rise(0, time);  // an I may leave more than it found
  }

 private:
  constexpr std::int64_t weight(op o) const { return unit_.weight[s_.placement.replica_of(o.micro)]; }
  // The bytes that the F of the op's stage and micro-batch leaves for its backward.
  constexpr double kept_by(op o) const {
    if (s_.backward_of(o.stage) == stage_backward::none) return 0;
    return bytes_of(costs_, o, pass::forward) - (recomputed_(o) ? bytes_of(costs_, o, pass::recompute) : 0);
  }
  constexpr void finish(op o) {
    const bool again = o.pass == pass::forward && recomputed_(o);
    if (s_.is_last(o) || again) activations.now -= weight(o);
    if (yields_input_gradient(o.pass)) kept.now -= kept_by(o);
    if (again)
      bytes.now -= bytes_of(costs_, o, pass::recompute);
    else if (s_.is_last(o) && !yields_weight_gradient(o.pass))
      bytes.now -= bytes_of(costs_, o, pass::forward);
    else if (o.pass != pass::forward && o.pass != pass::recompute)
      bytes.now += bytes_of(costs_, o, without_recompute(o.pass));
  }

  const schedule& s_;
  const recomputed_ops& recomputed_;
  const activation_unit& unit_;
  const Costs& costs_;
  double running_ = 0;  // bytes of the ops that run
};

// Metrics of one rank's row, without its bubble and its hosted stages.
template <typename Costs>
constexpr rank_metrics measure_row(const timeline& t, std::uint32_t rank, const recomputed_ops& recomputed,
                                   const activation_unit& unit, const Costs& costs) {
  const schedule& s = t.schedule;
  rank_metrics of;
  double overlapped = 0;
  memory_levels<Costs> memory(s, recomputed, unit, costs);
  for (std::size_t i = 0; i < s[rank].size(); ++i) {
    const auto [start, end] = t[rank][i];
    of.busy += end - start;
    if (s[rank][i].overlapped()) overlapped += end - start;
    memory.start(s[rank][i], start);
    memory.finish(s[rank][i], end);
  }
  if (!t[rank].empty()) of.span = t[rank].back().end - t[rank].front().start;
  of.peak_activations = static_cast<double>(memory.activations.peak) / static_cast<double>(unit.share);
  of.peak_activations_at = memory.activations.peak_at;
  of.peak_bytes = memory.bytes.peak, of.peak_bytes_at = memory.bytes.peak_at;
  of.peak_kept_bytes = memory.kept.peak;
  if (of.busy > 0) of.overlapped_fraction = overlapped / of.busy;
  return of;
}

}  // namespace detail

/// Highest number of live activations in a row, each of one stage and one micro-batch: one more from the start of an F, one
/// less from the end of its B or W. Forward-only rows keep none after their F. @pre nothing is recomputed or frozen: measure()
/// knows those
constexpr std::uint32_t peak_activations(std::span<const cell> row, bool forward_only = false) noexcept {
  std::uint32_t live = 0, peak = 0;
  for (const cell& c : row) {
    for (op o : c) live += o.pass == pass::forward;
    peak = std::max(peak, live);
    for (op o : c) live -= forward_only || yields_weight_gradient(o.pass);
  }
  return peak;
}

/// Measures a timeline whose schedule and times the caller has verified, or simulate() has made.
/// @pre verify(t.schedule), and finite times
template <cost_model Costs = uniform_costs>
constexpr metrics measure(const timeline& t, const Costs& costs, verified_t) {
  detail::require_intervals(t);
  const schedule& s = t.schedule;
  const std::vector<detail::activation_unit> units = detail::activation_units(s.placement);
  const detail::recomputed_ops recomputed(s);
  metrics m;
  for (const interval& i : t.intervals.all()) m.makespan = std::max(m.makespan, i.end);
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
    rank_metrics of = detail::measure_row(t, rank, recomputed, units[rank], costs);
    of.bubble = m.makespan - of.busy;
    m.ranks.push_back(of);
  }
  for (std::uint32_t replica = 0; replica < s.placement.replicas(); ++replica)
    for (std::uint32_t stage = 0; stage < s.stages(); ++stage) {
      rank_metrics& host = m.ranks[s.placement.rank_of_stage(replica)[stage]];
      host.parameter_copies += static_cast<double>(s.pp()) / s.stages();
      if constexpr (requires { costs.weights(stage); }) host.weight_bytes += costs.weights(stage);
    }

  double busy = 0, overlapped = 0;
  for (const rank_metrics& r : m.ranks) {
    busy += r.busy, overlapped += r.busy * r.overlapped_fraction;
    m.bubble += r.bubble / static_cast<double>(m.ranks.size());
    m.max_bubble = std::max(m.max_bubble, r.bubble);
    m.span = std::max(m.span, r.span);
    m.peak_activations = std::max(m.peak_activations, r.peak_activations);
    m.peak_bytes = std::max(m.peak_bytes, r.peak_bytes);
    m.parameter_copies = std::max(m.parameter_copies, r.parameter_copies);
    m.weight_bytes = std::max(m.weight_bytes, r.weight_bytes);
  }
  if (busy > 0) m.overlapped_fraction = overlapped / busy;
  if (m.makespan > 0) m.bubble_ratio = m.bubble / m.makespan;
  return m;
}

/// Measures a timeline. Durations are the timeline's own. @param costs gives the bytes, if it has any.
/// @throws schedule_error unless the timeline has one interval of finite times per cell and its schedule is valid, and if the
/// costs' own check() refuses them. Linear in the number of ops.
template <cost_model Costs = uniform_costs>
constexpr metrics measure(const timeline& t, const Costs& costs = {}) {
  detail::require_timeline(t);
  detail::check_costs(costs, t.schedule.stages(), t.schedule.pp(), t.schedule.micro);
  return measure(t, costs, verified);
}

}  // namespace pipesched
