// SPDX-License-Identifier: MIT
#pragma once

// What a timeline costs, in the timeline's unit of time.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pipesched/cost_model.hpp"
#include "pipesched/op.hpp"
#include "pipesched/schedule.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

struct rank_metrics {
  double busy = 0;    ///< sum of the durations of its cells
  double bubble = 0;  ///< makespan - busy
  double span = 0;    ///< last end - first start: the zero-bubble papers' "zero" is about span - busy

  std::uint32_t peak_activations = 0;  ///< most that live at a time, of one stage and one micro-batch each
  double peak_activations_at = 0;      ///< when that many first live
  double peak_bytes = 0;               ///< most bytes of activations at a time; 0 where the costs name none
  double peak_bytes_at = 0;            ///< when that is first so

  double overlapped_fraction = 0;  ///< share of `busy` spent in overlapped cells
  double parameter_copies = 0;     ///< stages hosted, in shares of the model of 1 / pp: 2 for DualPipe
  double weight_bytes = 0;         ///< of the stages hosted; 0 where the costs name none
};

struct metrics {
  double makespan = 0;                 ///< the last end, counted from 0
  double bubble = 0;                   ///< mean over the ranks
  double bubble_ratio = 0;             ///< bubble / makespan
  double span = 0;                     ///< longest over the ranks
  std::uint32_t peak_activations = 0;  ///< most over the ranks, as the next four
  double peak_bytes = 0;
  double overlapped_fraction = 0;
  double parameter_copies = 0;
  double weight_bytes = 0;
  std::vector<rank_metrics> ranks;
};

namespace detail {

// The height of a stack that cells pile on at their start and take from at their end, with its peak.
template <typename Number>
struct level {
  Number now{}, peak{};
  double peak_at = 0;

  constexpr void rise(Number by, double time) {
    now += by;
    if (now > peak) peak = now, peak_at = time;
  }
};

}  // namespace detail

/// The most activations that live at a time in a row: one more from the start of an F on, one less from the end of its
/// B or its W on. Forward-only rows keep none past their F.
constexpr std::uint32_t peak_activations(std::span<const cell> row, bool forward_only = false) noexcept {
  std::uint32_t live = 0, peak = 0;
  for (const cell& c : row) {
    for (op o : c) live += o.pass == pass::forward;
    peak = std::max(peak, live);
    for (op o : c) live -= forward_only || yields_weight_gradient(o.pass);
  }
  return peak;
}

/// @pre t is true. @param costs name the bytes, where they do; durations are the timeline's own. Linear in the number of
/// cells.
template <cost_model Costs = uniform_costs>
constexpr metrics measure(const timeline& t, const Costs& costs = {}) {
  const schedule& s = t.schedule;
  const bool keeps = !s.forward_only;  // an evaluation keeps no activation past its F
  metrics m;
  for (const interval& i : t.intervals.all()) m.makespan = std::max(m.makespan, i.end);
  for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
    rank_metrics of;
    double overlapped = 0;
    detail::level<std::int64_t> activations;
    detail::level<double> bytes;
    for (std::size_t i = 0; i < s[rank].size(); ++i) {
      const auto [start, end] = t[rank][i];
      const cell& c = s[rank][i];
      of.busy += end - start;
      if (c.overlapped()) overlapped += end - start;
      for (op o : c) {
        if (o.pass != pass::forward) continue;
        activations.rise(1, start);
        if constexpr (requires { costs.bytes(o); }) bytes.rise(costs.bytes(o), start);
      }
      for (op o : c) {
        if (keeps && o.pass == pass::forward) continue;
        if (o.pass != pass::backward_input) --activations.now;
        if constexpr (requires { costs.bytes(o); }) bytes.now += keeps ? costs.bytes(o) : -costs.bytes(o);
      }
    }
    if (!t[rank].empty()) of.span = t[rank].back().end - t[rank].front().start;
    of.bubble = m.makespan - of.busy;
    of.peak_activations = static_cast<std::uint32_t>(activations.peak), of.peak_activations_at = activations.peak_at;
    of.peak_bytes = bytes.peak, of.peak_bytes_at = bytes.peak_at;
    if (of.busy > 0) of.overlapped_fraction = overlapped / of.busy;
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

}  // namespace pipesched
