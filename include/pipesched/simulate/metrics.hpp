// SPDX-License-Identifier: MIT
#pragma once

// What a timeline costs, in the timeline's unit of time.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pipesched/op.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

struct rank_metrics {
  double busy = 0;                   ///< sum of the durations of its cells
  double bubble = 0;                 ///< makespan - busy
  double span = 0;                   ///< last end - first start
  std::uint32_t peak_activations = 0;  ///< of one stage and one micro-batch each
};

struct metrics {
  double makespan = 0;  ///< the last end, counted from 0
  double bubble_ratio = 0;  ///< mean bubble / makespan
  std::vector<rank_metrics> ranks;
};

/// The most activations that live at a time in a row: one more from the start of an F on, one less from the end of its
/// B or its W on. Forward-only rows keep none past their F.
constexpr std::uint32_t peak_activations(std::span<const cell> row, bool forward_only = false) noexcept {
  std::uint32_t live = 0, peak = 0;
  for (const cell& c : row) {
    for (op o : c) live += o.pass == pass::forward;
    peak = std::max(peak, live);
    for (op o : c) live -= forward_only || o.pass == pass::backward || o.pass == pass::backward_weight;
  }
  return peak;
}

/// @pre t is true. Linear in the number of cells.
constexpr metrics measure(const timeline& t) {
  metrics m;
  for (const interval& i : t.intervals.all()) m.makespan = std::max(m.makespan, i.end);
  double idle = 0;
  for (std::size_t rank = 0; rank < t.intervals.count(); ++rank) {
    rank_metrics of{.peak_activations = peak_activations(t.schedule[rank], t.schedule.forward_only)};
    for (const interval& i : t[rank]) of.busy += i.end - i.start;
    if (!t[rank].empty()) of.span = t[rank].back().end - t[rank].front().start;
    of.bubble = m.makespan - of.busy;
    idle += of.bubble;
    m.ranks.push_back(of);
  }
  if (m.makespan > 0) m.bubble_ratio = idle / (m.makespan * static_cast<double>(m.ranks.size()));
  return m;
}

}  // namespace pipesched
