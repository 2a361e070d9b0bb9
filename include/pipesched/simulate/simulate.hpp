// SPDX-License-Identifier: MIT
#pragma once

// Simulation of a schedule. Each rank runs its cells in order; a cell starts as soon as its rank is free and every input of
// its ops has arrived.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/uniform_costs.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

namespace detail {

// Time that a rank spends after a cell on sending the outputs of its ops 0 to `last`.
template <typename Costs>
constexpr double time_to_send(const schedule& s, const Costs& costs, std::uint32_t rank, const cell& c,
                              std::size_t last = 1) {
  double time = 0;
  for (std::size_t k = 0; k < c.size() && k <= last; ++k)
    if (const auto out = output_of(c[k], s.chain())) {
      const std::uint32_t to = s.placement.rank_of(receiver_of(*out), out->micro);
      if (to != rank && busy_of(costs, rank, to, *out) != link_busy::none) time += costs.transfer(rank, to, *out);
    }
  return time;
}

// Time that a rank spends before a cell on receiving its inputs.
template <typename Costs>
constexpr double time_to_receive(const schedule& s, const Costs& costs, std::uint32_t rank, const cell& c) {
  double time = 0;
  for (const op o : c)
    if (const auto in = input_of(o, s.chain())) {
      const std::uint32_t from = s.placement.rank_of(in->stage, in->micro);
      if (from != rank && busy_of(costs, from, rank, *in) == link_busy::both) time += costs.transfer(from, rank, *in);
    }
  return time;
}

// Time from the start of a cell until the output of its k-th op arrives where it is needed. @param duration  of the cell
template <typename Costs>
constexpr double time_to_arrive(const schedule& s, const Costs& costs, std::uint32_t rank, const cell& c, std::size_t k,
                                tensor_id out, double duration) {
  const std::uint32_t to = s.placement.rank_of(receiver_of(out), out.micro);
  double made = release_of(costs, rank, c, k, duration);
  if (to == rank) return made;
  made += costs.transfer(rank, to, out);
  if (busy_of(costs, rank, to, out) == link_busy::none) return made;
  return std::max(made, duration + time_to_send(s, costs, rank, c, k));
}
template <typename Costs>
constexpr double time_to_arrive(const schedule& s, const Costs& costs, std::uint32_t rank, const cell& c, std::size_t k,
                                tensor_id out) {
  return time_to_arrive(s, costs, rank, c, k, out, duration_of(costs, rank, c));
}

// Refuses the end of a rank that is infinite or NaN.
constexpr void require_sum_of_times(double end) {
  if (!(end <= std::numeric_limits<double>::max()))
    throw schedule_error("costs: the times add up to more than a double holds; give them in a larger unit");
}

// Fills in the intervals of a valid schedule. Ranks run until an input is missing; the producer of that input wakes its
// receiver. One table holds, for every tensor, its arrival or one of the two marks below.
template <typename Costs>
class simulation {
 public:
  constexpr simulation(timeline& t, const Costs& costs)
      : t_(t), s_(t.schedule), costs_(costs), arrival_(s_, absent), done_(s_.pp(), 0) {}

  /// Overwrites the intervals. A second run, for costs that have changed since, allocates nothing.
  constexpr void run() {
    if (std::exchange(has_run_, true)) arrival_.fill(absent), std::fill(done_.begin(), done_.end(), 0);
    for (std::uint32_t rank = s_.pp(); rank-- > 0;) runnable_.push_back(rank);
    while (!runnable_.empty()) {
      const std::uint32_t rank = runnable_.back();
      runnable_.pop_back();
      run_rank(rank);
    }
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank) {
      if (done_[rank] != s_[rank].size())
        throw schedule_error(
            concat({"a schedule passed as verified deadlocks on rank ", rank, "; verify() names the cycle"}));
      if (done_[rank] > 0) require_sum_of_times(t_[rank].back().end);
    }
  }

 private:
  static constexpr double absent = -1, awaited = -2;

  // Start of a cell on a rank that is free at `start`; negative if an input is missing, whose producer will wake the rank.
  constexpr double start_of(const cell& c, double start) {
    for (op o : c)
      if (const auto in = input_of(o, chain_)) {
        double& arrives = arrival_[*in];
        if (arrives < 0) return arrives = awaited;
        start = std::max(start, arrives);
      }
    return start;
  }

  constexpr void run_rank(std::uint32_t rank) {
    const std::span<const cell> row = s_[rank];
    const std::span<interval> times = t_[rank];
    std::size_t i = done_[rank];
    double free = i == 0 ? 0 : times[i - 1].end;
    if (busy_ && i > 0) free += time_to_send(s_, costs_, rank, row[i - 1]);
    for (; i < row.size(); ++i) {
      if (busy_) free += time_to_receive(s_, costs_, rank, row[i]);
      const double start = start_of(row[i], free);
      if (start < 0) break;
      const double duration = duration_of(costs_, rank, row[i]);
      free = start + duration;
      if (!(free >= start)) refuse_time("duration", row[i]);
      times[i] = {start, free};
      for (std::size_t k = 0; k < row[i].size(); ++k)
        if (const auto out = output_of(row[i][k], chain_)) {
          double& arrives = arrival_[*out];
          if (arrives == awaited) runnable_.push_back(s_.placement.rank_of(receiver_of(*out), out->micro));
          arrives = start + time_to_arrive(s_, costs_, rank, row[i], k, *out, duration);
          if (!(arrives >= start)) refuse_time("time to the arrival of an output", row[i]);
        }
      if (busy_) free += time_to_send(s_, costs_, rank, row[i]);
    }
    done_[rank] = i;
  }

  // For cost models without a check() of their own.
  static constexpr void refuse_time(std::string_view what, const cell& c) {
    throw schedule_error(concat({"costs: the ", what, " of ", to_string(c),
                                 " is negative or not a number; expected a finite "
                                 "number that is not negative, nearest 0"}));
  }

  timeline& t_;
  const schedule& s_;
  const Costs& costs_;
  stage_chain chain_ = s_.chain();
  bool busy_ = may_be_busy(costs_);
  tensor_table<double> arrival_;
  std::vector<std::size_t> done_;
  std::vector<std::uint32_t> runnable_;
  bool has_run_ = false;
};

}  // namespace detail

/// Simulates the schedule of a timeline again, under other costs, and overwrites its intervals: the cheapest step of a sweep
/// over costs, which neither copies nor verifies the schedule. @pre t was made by simulate() and its schedule has not
/// changed since. @throws schedule_error as simulate() does for costs. Linear in the number of ops.
template <cost_model Costs>
constexpr void simulate_again(timeline& t, const Costs& costs) {
  detail::check_costs(costs, t.schedule.stages(), t.schedule.pp(), t.schedule.micro);
  detail::require_intervals(t);
  detail::simulation(t, costs).run();
}

/// The timeline of a schedule that the caller has verified. @pre verify(plan) @throws schedule_error as below, for costs.
template <cost_model Costs = uniform_costs>
constexpr timeline simulate(schedule plan, const Costs& costs, verified_t) {
  timeline t{.schedule = std::move(plan)};
  t.intervals = rows<interval>::for_overwrite_like(t.schedule.cells);
  simulate_again(t, costs);
  return t;
}

/// The timeline of a schedule under these costs, from time 0. Default: every F, I and W lasts 1, a B 2, an overlapped cell
/// the sum of its ops, a transfer 0. Exact as long as every time is a whole number below 2^53. On one rank an output is
/// available at once, on another rank `transfer` later. A message that keeps its sender busy leaves after the cell, one after
/// the other, and the next cell waits for it; its receiver may be busy for as long right before the cell that
/// needs it. Linear in the number of ops.
/// @throws schedule_error with the first violation and the number of others if the schedule is not valid; if the costs' own
/// check() refuses them; or if they are so large that times overflow.
template <cost_model Costs = uniform_costs>
constexpr timeline simulate(schedule plan, const Costs& costs = {}) {
  require_valid(plan);
  detail::check_costs(costs, plan.stages(), plan.pp(), plan.micro);
  return simulate(std::move(plan), costs, verified);
}

}  // namespace pipesched
