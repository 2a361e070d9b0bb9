// SPDX-License-Identifier: MIT
#pragma once

// W's in the stalls of a schedule.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "pipesched/core/dependencies.hpp"
#include "pipesched/core/op.hpp"
#include "pipesched/core/ops.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/plan/memory_caps.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/simulate/timeline.hpp"
#include "pipesched/support/worklist.hpp"

namespace pipesched {

namespace detail {

// Runs a schedule without its lone W's and puts each of them where there is time for it, or where its memory is needed.
template <typename Costs>
class refilling {
 public:
  refilling(const schedule& s, const Costs& costs, const memory_caps& caps, const metrics& before)
      : s_(s),
        costs_(costs),
        recomputed_(s),
        units_(activation_units(s.placement)),
        arrival_(s, -1),
        paired_(s, std::uint8_t{0}),
        runnable_(s.pp()) {
    for (std::uint32_t rank = 0; rank < s.pp(); ++rank) {
      rank_state r{.memory = {s, recomputed_, units_[rank], costs}};
      const auto share = static_cast<double>(units_[rank].share);
      if (caps.activations) r.activations = with_rounding(*caps.activations * share);
      if (!caps.bytes.empty()) r.bytes = with_rounding(caps.bytes[rank]);
      if (caps.empty()) r.activations = with_rounding(before.ranks[rank].peak_activations * share);
      if (caps.empty()) r.bytes = with_rounding(before.ranks[rank].peak_bytes);
      ranks_.push_back(std::move(r));
    }
    for (const cell& c : s.cells.all())
      if (c.overlapped())
        for (const op o : c)
          if (o.pass == pass::backward_weight) paired_[product_of(o)] = 1;
  }

  schedule run() {
    runnable_.run([&](std::uint32_t rank) { advance(rank); });
    schedule result = s_;
    result.cells = {};
    for (std::uint32_t rank = 0; rank < s_.pp(); ++rank) {
      rank_state& r = ranks_[rank];
      while (!r.delayed.empty()) run_weight(r, rank);
      result.cells.append(r.row);
    }
    return result;
  }

 private:
  struct rank_state {
    memory_levels<Costs> memory;
    double activations = std::numeric_limits<double>::infinity(), bytes = activations, free = 0;
    std::size_t next = 0;
    std::deque<op> delayed{};
    std::vector<cell> row{};
  };

  // A lone B without its W.
  static cell split(const cell& c) {
    return !c.overlapped() && yields_weight_gradient(c[0].pass) && c[0].pass != pass::backward_weight
               ? cell(with_pass(c[0], for_inputs(c[0].pass)))
               : c;
  }
  bool fits(const rank_state& r, const cell& c) const {
    memory_levels<Costs> then = r.memory;
    then.start(c, 0);
    const bool started = static_cast<double>(then.activations.now) <= r.activations && then.bytes_in_use() <= r.bytes;
    then.finish(c, 0);
    return started && then.bytes_in_use() <= r.bytes;
  }
  double duration(std::uint32_t rank, op w) const { return duration_of(costs_, rank, cell(w)); }

  void run_weight(rank_state& r, std::uint32_t rank) {
    const op w = r.delayed.front();
    r.delayed.pop_front();
    r.memory.start(w, 0), r.memory.finish(w, 0);
    r.free += duration(rank, w);
    r.row.push_back(w);
  }

  // The start of a cell but for what its rank does before; nothing if an input is to come.
  std::optional<double> arrival_of(const cell& c) const {
    double at = 0;
    for (const op o : c)
      if (const auto in = input_of(o, s_.chain())) {
        if (arrival_[*in] < 0) return std::nullopt;
        at = std::max(at, arrival_[*in]);
      }
    return at;
  }

  void advance(std::uint32_t rank) {
    rank_state& r = ranks_[rank];
    for (; r.next < s_[rank].size(); ++r.next) {
      const cell c = split(s_[rank][r.next]);
      if (!c.overlapped() && c[0].pass == pass::backward_weight) continue;
      const std::optional<double> arrival = arrival_of(c);
      if (!arrival) return;
      const double before = time_to_receive(s_, costs_, rank, c);
      while (!r.delayed.empty() && r.free + duration(rank, r.delayed.front()) <= *arrival - before &&
             fits(r, r.delayed.front()))
        run_weight(r, rank);
      while (!r.delayed.empty() && !fits(r, c)) run_weight(r, rank);
      run_cell(r, rank, c, std::max(*arrival, r.free + before));
    }
  }
  void run_cell(rank_state& r, std::uint32_t rank, const cell& c, double start) {
    r.memory.start(c, 0), r.memory.finish(c, 0);
    r.free = start + duration_of(costs_, rank, c) + time_to_send(s_, costs_, rank, c);
    r.row.push_back(c);
    for (std::size_t k = 0; k < c.size(); ++k) {
      const op own = with_pass(c[k], without_recompute(c[k].pass));
      if (own.pass == pass::backward_input && s_.backward_of(own.stage) == stage_backward::full &&
          paired_[product_of(own)] == 0)
        r.delayed.push_back(with_pass(own, pass::backward_weight));
      if (const auto out = output_of(c[k], s_.chain())) {
        arrival_[*out] = start + time_to_arrive(s_, costs_, rank, c, k, *out);
        runnable_.wake(s_.placement.rank_of(receiver_of(*out), out->micro));
      }
    }
  }

  const schedule& s_;
  const Costs& costs_;
  recomputed_ops recomputed_;
  std::vector<activation_unit> units_;
  tensor_table<double> arrival_;
  tensor_table<std::uint8_t> paired_;  // by the gradient of a stage's I: its W is in a pair
  std::vector<rank_state> ranks_;
  worklist runnable_;
};

}  // namespace detail

/// The schedule with every lone B split into I and W, and every lone W moved: into the first stall in which it fits, to where
/// memory is needed, or to the end of its row. The order of all else stays. The schedule itself if that is not shorter or needs
/// more memory.
/// @param caps  default: no rank keeps more than now
/// @throws schedule_error as simulate() and check() of the caps do. Linear in the number of ops.
template <cost_model Costs>
schedule refill(const schedule& s, const Costs& costs, const memory_caps& caps = {}) {
  check(caps, s.pp());
  const timeline t = simulate(s, costs);
  const metrics before = measure(t, costs, verified);
  if (s.forward_only) return s;
  schedule filled = detail::refilling(s, costs, caps, before).run();
  const timeline then = simulate(filled, costs, verified);
  const metrics after = measure(then, costs, verified);
  const auto exceeds = [](double peak, double was, std::optional<double> cap) {
    return peak > detail::with_rounding(std::max(was, cap.value_or(0)));
  };
  for (std::size_t r = 0; r < s.pp(); ++r) {
    const rank_metrics &a = before.ranks[r], &b = after.ranks[r];
    const auto bytes = caps.bytes.empty() ? std::nullopt : std::optional(caps.bytes[r]);
    if (!bytes && exceeds(b.peak_activations, a.peak_activations, caps.activations)) return s;
    if (!caps.activations && exceeds(b.peak_bytes, a.peak_bytes, bytes)) return s;
  }
  return after.makespan < before.makespan ? filled : s;
}

}  // namespace pipesched
