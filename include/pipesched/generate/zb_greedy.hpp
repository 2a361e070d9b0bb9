// SPDX-License-Identifier: MIT
#pragma once

// Zero bubble by greedy search under a memory limit: ZB-1p, ZB-2p and anything between, on the costs of each stage. Round by
// round every rank takes a forward, if it has one to take and memory for it, then a backward for inputs; weight gradients
// fill the gaps and are run early where memory must be freed. Three rules can be switched; all eight combinations are tried,
// and the order with the shortest span wins.
// Source: Qi et al., "Zero Bubble Pipeline Parallelism" (arXiv 2401.10241), section 3 and appendix B; the authors' zb.py
// (sail-sg/zero-bubble-pipeline-parallelism 39f2c186), which reduces stages to their median: here each counts.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/cost_model.hpp"
#include "pipesched/error.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

/// `make_zb_schedule({.pp = 8, .micro = 24, .costs = measured, .memory_limit = 12})`
struct zb_params {
  std::int64_t pp;            ///< pipeline ranks
  std::int64_t micro;         ///< micro-batches of the step
  stage_costs costs{};        ///< durations, transfers and bytes; without bytes an F keeps 1 until its W
  double memory_limit = 0;    ///< in activations, that is in what one F of the rank keeps; at least 1; 0: pp
  bool forward_only = false;  ///< evaluation
};

namespace detail {

class zb_greedy {
 public:
  // Never let a forward delay the first backward; hold forwards back where that brings a backward earlier; run a W in every
  // gap, however it delays what comes.
  struct switches {
    bool keep_first_backward, prioritize_backward, fill_every_gap;
  };

  zb_greedy(const zb_params& p, switches s) : micro_(p.micro), switches_(s), ranks_(static_cast<std::size_t>(p.pp)) {
    for (std::size_t j = 0; j < ranks_.size(); ++j) {
      rank& r = ranks_[j];
      const auto stage = static_cast<std::uint16_t>(j);
      r.F = p.costs.duration(op{pass::forward, 0, stage, 0});
      r.I = p.costs.duration(op{pass::backward_input, 0, stage, 0});
      r.W = p.costs.duration(op{pass::backward_weight, 0, stage, 0});
      r.kept = p.costs.bytes(op{pass::forward, 0, stage, 0});
      r.freed_by_I = -p.costs.bytes(op{pass::backward_input, 0, stage, 0});
      r.freed_by_W = -p.costs.bytes(op{pass::backward_weight, 0, stage, 0});
      if (r.kept == 0) r.kept = r.freed_by_W = 1, r.freed_by_I = 0;
      r.limit = r.kept * (p.memory_limit > 0 ? p.memory_limit : static_cast<double>(p.pp)) * (1 + 1e-12);
      if (j > 0) r.from_above = p.costs.transfer(0, 0, tensor{false, static_cast<std::uint16_t>(j - 1), 0});
      if (j + 1 < ranks_.size())
        r.from_below = p.costs.transfer(0, 0, tensor{true, static_cast<std::uint16_t>(j + 1), 0});
      r.end_of_F.reserve(static_cast<std::size_t>(micro_));
      r.end_of_I.reserve(static_cast<std::size_t>(micro_));
      r.row.reserve(static_cast<std::size_t>(3 * micro_));
    }
  }

  void run() {
    warm_up();
    for (std::int64_t round = 1; round < micro_; ++round) {
      wish_for_forwards();
      for (std::size_t j = 0; j < ranks_.size(); ++j)
        if (ranks_[j].wish) take_forward(j);
      for (std::size_t j = ranks_.size(); j-- > 0;) take_backward(j);
    }
    for (std::size_t j = 0; j < ranks_.size(); ++j)
      while (ranks_[j].weights < micro_) put_W(j);
  }

  // The longest of the ranks' spans.
  double span() const {
    double longest = 0;
    for (const rank& r : ranks_) longest = std::max(longest, r.clock - r.started);
    return longest;
  }
  std::vector<cell>& row(std::size_t j) { return ranks_[j].row; }

 private:
  struct rank {
    double F = 0, I = 0, W = 0, kept = 0, freed_by_I = 0, freed_by_W = 0, limit = 0;
    double from_above = 0, from_below = 0;  // transfers of the activation and of the gradient that come in
    std::int64_t forwards = 0, inputs = 0, weights = 0;
    double clock = 0, started = 0, memory = 0, bubble = 0;  // idle time is counted after the first F
    std::int64_t extra = 0;
    bool wish = false;
    std::vector<double> end_of_F, end_of_I;
    std::vector<cell> row;
  };

  void put(rank& r, double arrival, double duration) {
    const double start = std::max(r.clock, arrival);
    if (r.forwards > 0)
      r.bubble += start - r.clock;
    else
      r.started = start;
    r.clock = start + duration;
  }
  double arrival_of_F(std::size_t j, std::int64_t k) const {
    return j == 0 ? 0 : ranks_[j - 1].end_of_F[static_cast<std::size_t>(k)] + ranks_[j].from_above;
  }
  double arrival_of_I(std::size_t j, std::int64_t k) const {
    return j + 1 == ranks_.size() ? 0 : ranks_[j + 1].end_of_I[static_cast<std::size_t>(k)] + ranks_[j].from_below;
  }
  void put_F(std::size_t j) {
    rank& r = ranks_[j];
    put(r, arrival_of_F(j, r.forwards), r.F);
    r.end_of_F.push_back(r.clock);
    r.memory += r.kept;
    r.row.push_back(stage_ops(static_cast<std::int64_t>(j)).F(r.forwards++));
  }
  void put_I(std::size_t j) {
    rank& r = ranks_[j];
    put(r, arrival_of_I(j, r.inputs), r.I);
    r.end_of_I.push_back(r.clock);
    r.memory -= r.freed_by_I;
    r.row.push_back(stage_ops(static_cast<std::int64_t>(j)).I(r.inputs++));
  }
  void put_W(std::size_t j) {
    rank& r = ranks_[j];
    put(r, 0, r.W);
    r.memory -= r.freed_by_W;
    r.row.push_back(stage_ops(static_cast<std::int64_t>(j)).W(r.weights++));
  }

  // One F on every rank; as many more as fit before the first gradient comes; then the first I from the last rank up.
  void warm_up() {
    for (std::size_t j = 0; j < ranks_.size(); ++j) put_F(j);
    double gradient = 0;  // when the rank below has made the first one
    for (std::size_t j = ranks_.size(); j-- > 0;) {
      rank& r = ranks_[j];
      if (j + 1 == ranks_.size()) {
        gradient = r.clock + r.I;
        continue;
      }
      const double arrival = gradient + r.from_below;
      double clock = r.clock, memory = r.memory;
      while (r.forwards + r.extra < micro_ && memory + r.kept <= r.limit &&
             !(switches_.keep_first_backward ? clock + r.F > arrival : clock >= arrival)) {
        memory += r.kept, clock += r.F;
        ++r.extra;
      }
      gradient = std::max(clock, arrival) + r.I;
    }
    for (std::size_t j = 1; j < ranks_.size(); ++j) {  // fewer the further down, or all there are
      const std::int64_t above = ranks_[j - 1].extra;
      ranks_[j].extra = std::min(ranks_[j].extra, 1 + above == micro_ ? above : std::max<std::int64_t>(above - 1, 0));
    }
    for (std::size_t j = 0; j < ranks_.size(); ++j)
      for (; ranks_[j].extra > 0; --ranks_[j].extra) put_F(j);
    for (std::size_t j = ranks_.size(); j-- > 0;) put_I(j);
  }

  double longest_bubble() const {
    double longest = 0;
    for (const rank& r : ranks_) longest = std::max(longest, r.bubble);
    return longest;
  }

  void wish_for_forwards() {
    const double longest = longest_bubble();
    for (std::size_t j = 0; j < ranks_.size(); ++j) {
      rank& r = ranks_[j];
      r.wish = r.forwards < micro_;
      if (!r.wish || !switches_.prioritize_backward || j + 1 == ranks_.size()) continue;
      const rank& below = ranks_[j + 1];
      if (r.forwards < below.forwards + 2) continue;
      const double next_gradient = below.clock + below.F + below.I + r.from_below;  // at the earliest
      if (r.clock >= next_gradient) {
        r.wish = false;
        continue;
      }
      double needed = r.F, memory = r.memory;
      for (std::int64_t w = r.weights; w < r.inputs && memory + r.kept > r.limit; ++w)
        memory -= r.freed_by_W, needed += r.W;
      r.wish = r.clock + needed <= next_gradient || next_gradient - r.clock > longest - r.bubble;
    }
    for (std::size_t j = ranks_.size() - 1; j-- > 0;) ranks_[j].wish = ranks_[j].wish && ranks_[j + 1].wish;
  }

  // Weight gradients into the gap before something comes: those that fit, and one that does not where the gap would make this
  // the rank that idles longest, or every gap is to be filled.
  void fill_gap(std::size_t j, double arrival) {
    rank& r = ranks_[j];
    while (r.weights < r.inputs && r.clock + r.W <= arrival) put_W(j);
    if (r.weights < r.inputs && r.clock < arrival &&
        (arrival - r.clock > longest_bubble() - r.bubble || switches_.fill_every_gap))
      put_W(j);
  }

  void take_forward(std::size_t j) {
    rank& r = ranks_[j];
    if (j > 0 && r.forwards >= ranks_[j - 1].forwards) return;  // the rank above held it back
    while (r.memory + r.kept > r.limit && r.weights < r.inputs) put_W(j);
    if (r.memory + r.kept > r.limit && r.forwards > r.inputs) return;  // no room: the backward to come makes some
    if (j > 0) fill_gap(j, arrival_of_F(j, r.forwards));
    put_F(j);
  }

  void take_backward(std::size_t j) {
    rank& r = ranks_[j];
    if (j + 1 < ranks_.size()) fill_gap(j, arrival_of_I(j, r.inputs));
    if (j == 0 && r.forwards == micro_)
      while (r.weights < r.inputs) put_W(j);
    put_I(j);
  }

  std::int64_t micro_;
  switches switches_;
  std::vector<rank> ranks_;
};

}  // namespace detail

namespace detail {

inline schedule make_named_zb(std::string_view name, const zb_params& p) {
  const params_rule rule{.family = name};
  const pipeline_params sizes{.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only};
  require(rule, sizes);
  p.costs.check(static_cast<std::uint32_t>(p.pp));
  if (p.memory_limit != 0 && !(p.memory_limit >= 1))
    throw schedule_error(concat({name, " needs a memory limit of at least 1 activation a rank; nearest 1"}));
  if (p.forward_only)
    return make_schedule_of(rule, sizes, placement::linear(p.pp),
                            [&](std::int64_t rank, auto& sink) { repeat(sink, p.micro, stage_ops(rank).F(0)); });
  double best_span = 0;
  rows<cell> best;
  for (int combination = 0; combination < 8; ++combination) {
    zb_greedy search(p, {.keep_first_backward = (combination & 4) == 0,
                         .prioritize_backward = (combination & 2) == 0,
                         .fill_every_gap = (combination & 1) == 0});
    search.run();
    if (combination > 0 && !(search.span() < best_span)) continue;
    best_span = search.span();
    best = {};
    for (std::int64_t rank = 0; rank < p.pp; ++rank) best.append(search.row(static_cast<std::size_t>(rank)));
  }
  return {.name = name,
          .placement = placement::linear(p.pp),
          .micro = static_cast<std::uint32_t>(p.micro),
          .forward_only = false,
          .cells = std::move(best)};
}

}  // namespace detail

/// The greedy order for every pp >= 1 and micro >= 1, on these costs. Each rank keeps at most `memory_limit` times what one of
/// its forwards keeps; where the limit stops a forward that the next backward does not need, the forward waits (the source
/// gives up there). With 1 the ranks take turns; from about 2 pp on more does not help.
/// @throws schedule_error on bad parameters, costs that make no sense, or a limit below 1.
/// O(pp * micro) for each of the eight combinations.
inline schedule make_zb_schedule(const zb_params& p) { return detail::make_named_zb("zb_greedy", p); }
inline schedule make_zb_greedy_schedule(const zb_params& p) { return make_zb_schedule(p); }

/// ZB-1p and ZB-2p: limits of pp and of 2 pp activations. Source: section 3 of the paper; its table 5 comes out to all digits.
inline schedule make_zb_greedy_1p_schedule(zb_params p) {
  p.memory_limit = static_cast<double>(p.pp);
  return detail::make_named_zb("zb_greedy_1p", p);
}
inline schedule make_zb_greedy_2p_schedule(zb_params p) {
  p.memory_limit = 2 * static_cast<double>(p.pp);
  return detail::make_named_zb("zb_greedy_2p", p);
}

/// ZB-H1 and ZB-H2: the greedy order for F = I = W and no transfers, with limits of pp and of 2 pp - 1 activations, whatever
/// the costs. For micro >= pp ZB-H1 has the bubble (pp-1)(F+I-W); for micro >= 2 pp - 1 and F = I = W ZB-H2 has none in its
/// span. Source: section 2 and table 2 of the paper.
inline schedule make_zb_h1_schedule(const pipeline_params& p) {
  return detail::make_named_zb(
      "zb_h1",
      {.pp = p.pp, .micro = p.micro, .memory_limit = static_cast<double>(p.pp), .forward_only = p.forward_only});
}
inline schedule make_zb_h2_schedule(const pipeline_params& p) {
  return detail::make_named_zb("zb_h2", {.pp = p.pp,
                                         .micro = p.micro,
                                         .memory_limit = 2 * static_cast<double>(p.pp) - 1,
                                         .forward_only = p.forward_only});
}

}  // namespace pipesched
