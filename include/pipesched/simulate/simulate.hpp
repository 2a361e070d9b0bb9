// SPDX-License-Identifier: MIT
#pragma once

// Plays a schedule on paper. Each rank runs its cells in order; a cell starts when its rank is free and every input of
// its ops has arrived, and not before.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "pipesched/cost_model.hpp"
#include "pipesched/dependencies.hpp"
#include "pipesched/error.hpp"
#include "pipesched/schedule.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/verify.hpp"

namespace pipesched {

namespace detail {

// From the start of a cell until the output of its k-th op is where it is needed.
template <typename Costs>
constexpr double time_to_arrive(const schedule& s, const Costs& costs, std::uint32_t rank, const cell& c, std::size_t k,
                                tensor_id out) {
  double made = 0;
  if constexpr (requires { costs.release(c, k); })
    made = costs.release(c, k);
  else
    made = costs.duration(c);
  const std::uint32_t to = s.placement.rank_of(receiver_of(out), out.micro);
  return to == rank ? made : made + costs.transfer(rank, to, out);
}

}  // namespace detail

/// The timeline of a schedule under these costs (default: every F, I and W lasts 1, a B 2, an overlapped cell the sum of
/// its ops, a transfer nothing), counted from 0; exact as long as every time is a whole number below
/// 2^53. Between stages on one rank an output is there at once, between ranks `transfer` later. A schedule that is not
/// valid yields a timeline that is false and holds the report of verify(). Linear in the number of ops.
/// @throws schedule_error when the costs are refused by their own check(), or so large that times overflow.
template <cost_model Costs = uniform_costs>
constexpr timeline simulate(schedule plan, const Costs& costs = {}) {
  timeline t{.schedule = std::move(plan)};
  const schedule& s = t.schedule;
  if constexpr (requires { costs.check(s.stages()); }) costs.check(s.stages());
  if (t.report = verify(s); !t.report) return t;

  t.intervals = rows<interval>::for_overwrite_like(s.cells);

  std::vector<double> free(s.pp(), 0.0);
  detail::tensor_table<double> arrival(s, 0.0);  // at the receiver
  walk(s, [&](std::uint32_t rank, std::size_t i, const cell& c) {
    double start = free[rank];
    for (op o : c)
      if (const auto in = input_of(o, s.stages())) start = std::max(start, arrival[*in]);
    const double end = start + costs.duration(c);
    for (std::size_t k = 0; k < c.size(); ++k)
      if (const auto out = output_of(c[k], s.stages()))
        arrival[*out] = start + detail::time_to_arrive(s, costs, rank, c, k, *out);
    t.intervals[rank][i] = {start, end};
    free[rank] = end;
  });
  for (double end : free)
    if (!(end <= std::numeric_limits<double>::max()))
      throw schedule_error("costs: the times add up to more than a double holds; give them in a larger unit");
  return t;
}

}  // namespace pipesched
