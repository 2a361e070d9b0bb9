// SPDX-License-Identifier: MIT
#pragma once

// Micro-batches of different lengths: which of them runs when.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/simulate/timeline.hpp"

namespace pipesched {

namespace detail {

// The micro-batches from `begin` to `end`, in the order of some rules of thumb: by length, and from both ends to the middle.
template <typename Costs>
std::vector<std::vector<std::uint32_t>> micro_batch_orders(const Costs& costs, std::uint32_t begin, std::uint32_t end) {
  std::vector<std::uint32_t> rising(end - begin);
  std::iota(rising.begin(), rising.end(), begin);
  std::ranges::stable_sort(rising, {}, [&](std::uint32_t m) { return costs.length_of(m); });
  std::vector<std::uint32_t> falling(rising.rbegin(), rising.rend()), hill(rising.size()), valley(rising.size());
  for (std::size_t i = 0; i < rising.size(); ++i) {
    const std::size_t at = i % 2 == 0 ? i / 2 : rising.size() - 1 - i / 2;  // outside first
    hill[at] = rising[i], valley[at] = falling[i];
  }
  return {rising, falling, hill, valley};
}

}  // namespace detail

/// The schedule with its micro-batches in another order, for costs that depend on their lengths: by length, rising or falling,
/// or with the short or the long ones at both ends; each replica keeps its own. The one with the shortest step by simulation
/// is returned; the schedule itself if none is shorter. Five simulations.
/// @param costs  a cost model with length_of(micro), such as stage_costs with micro_batches
/// @throws schedule_error as simulate() does
template <cost_model Costs>
requires requires(const Costs& costs, std::uint32_t micro) { costs.length_of(micro); }
schedule reorder_micro_batches(const schedule& s, const Costs& costs) {
  timeline best = simulate(s, costs);
  const std::uint32_t second = std::min(s.micro, s.placement.replica_begin(1));
  const auto up = detail::micro_batch_orders(costs, 0, second),
             down = detail::micro_batch_orders(costs, second, s.micro);
  for (std::size_t rule = 0; rule < up.size(); ++rule) {
    schedule other = s;
    for (cell& c : other.cells.all())
      for (op& o : c) o.micro = o.micro < second ? up[rule][o.micro] : down[rule][o.micro - second];
    timeline then = simulate(std::move(other), costs, verified);
    if (detail::last_end(then) < detail::last_end(best)) best = std::move(then);
  }
  return std::move(best.schedule);
}

}  // namespace pipesched
