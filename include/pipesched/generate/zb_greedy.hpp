// SPDX-License-Identifier: MIT
#pragma once

// Zero bubble by greedy search under a memory limit, on the costs of each stage: ZB-1p, ZB-2p and anything between with one
// stage a rank, and ZB-V with two. Each search has rules that can be switched; all combinations are tried, and the order
// with the shortest span wins.
// Source: Qi et al., "Zero Bubble Pipeline Parallelism" (arXiv 2401.10241), sections 3 and 6 and appendix B; the authors'
// zb.py and zbv.py (sail-sg/zero-bubble-pipeline-parallelism 39f2c186), which reduce stages to their median: here each
// counts.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/cost_model.hpp"
#include "pipesched/error.hpp"
#include "pipesched/generate/greedy.hpp"
#include "pipesched/generate/params.hpp"
#include "pipesched/generate/sink.hpp"
#include "pipesched/generate/zbv.hpp"
#include "pipesched/schedule.hpp"

namespace pipesched {

/// `make_zb_schedule({.pp = 8, .micro = 24, .costs = measured, .memory_limit = 12})`
struct zb_params {
  std::int64_t pp;      ///< pipeline ranks
  std::int64_t micro;   ///< micro-batches of the step
  stage_costs costs{};  ///< durations, transfers and bytes; without bytes an F keeps 1 until its W
  double memory_limit =
      0;  ///< in activations, that is in what one F of the rank keeps; 0: pp times the stages of a rank
  bool forward_only = false;  ///< evaluation
};

namespace detail {

// One stage a rank. Round by round every rank takes a forward, if it has one to take and memory for it, then an I.
class zb_search : public greedy_ranks {
 public:
  // Never let a forward delay the first backward; hold forwards back where that brings a backward earlier; run a W in every
  // gap, however it delays what comes.
  struct switches {
    bool keep_first_backward, prioritize_backward, fill_every_gap;
  };

  zb_search(const zb_params& p, const placement& where)
      : greedy_ranks(where, p.micro, p.costs, p.memory_limit), wish_(count()) {}

  void run(switches s) {
    restart();
    switches_ = s;
    warm_up();
    for (std::size_t round = 1; round < micro(); ++round) {
      wish_for_forwards();
      for (std::size_t j = 0; j < count(); ++j)
        if (wish_[j]) take_forward(j);
      for (std::size_t j = count(); j-- > 0;) take_backward(j);
    }
    for (std::size_t j = 0; j < count(); ++j) put_all_W(j);
  }

 private:
  // One F on every rank; as many more as fit before the first gradient comes; then the first I from the last rank up.
  void warm_up() {
    for (std::size_t j = 0; j < count(); ++j) put_F(j);
    std::vector<std::size_t> extra(count(), 0);
    double gradient = 0;  // when the rank below has made the first one
    for (std::size_t j = count(); j-- > 0;) {
      if (j + 1 == count()) {
        gradient = clock(j) + duration_of_I(j);
        continue;
      }
      const double arrival = arrival_of_I(j, gradient), F = duration_of_F(j);
      double end = clock(j);
      while (1 + extra[j] < micro() && fits(j, extra[j] + 1) &&
             !(switches_.keep_first_backward ? end + F > arrival : end >= arrival))
        end += F, ++extra[j];
      gradient = std::max(end, arrival) + duration_of_I(j);
    }
    for (std::size_t j = 1; j < count(); ++j) {  // fewer the further down, or all there are
      const std::size_t above = extra[j - 1];
      extra[j] = std::min(extra[j], 1 + above == micro() ? above : std::max<std::size_t>(above, 1) - 1);
    }
    for (std::size_t j = 0; j < count(); ++j)
      for (; extra[j] > 0; --extra[j]) put_F(j);
    for (std::size_t j = count(); j-- > 0;) put_I(j);
  }

  void wish_for_forwards() {
    for (std::size_t j = 0; j < count(); ++j) {
      wish_[j] = forwards(j) < micro();
      const std::size_t below = j + 1;
      if (!wish_[j] || !switches_.prioritize_backward || below == count() || forwards(j) < forwards(below) + 2)
        continue;
      const double next_gradient =  // at the earliest
          arrival_of_I(j, clock(below) + duration_of_F(below) + duration_of_I(below));
      wish_[j] = clock(j) < next_gradient && (clock(j) + duration_of_F(j) + time_to_fit(j) <= next_gradient ||
                                              next_gradient - clock(j) > longest_bubble() - bubble(j));
    }
    for (std::size_t j = count() - 1; j-- > 0;) wish_[j] = wish_[j] && wish_[j + 1];
  }

  // W's into the gap before something comes: those that fit, and one that does not where the gap would make this the rank
  // that idles longest, or every gap is to be filled.
  void fill(std::size_t j, double arrival) {
    fill_gap(j, arrival);
    if (owed(j) > 0 && clock(j) < arrival &&
        (switches_.fill_every_gap || arrival - clock(j) > longest_bubble() - bubble(j)))
      put_W(j);
  }

  void take_forward(std::size_t j) {
    if (!can_F(j)) return;                                 // the rank above held it back
    if (!make_room(j) && forwards(j) > inputs(j)) return;  // no room: the backward to come makes some
    fill(j, arrival_of_F(j));
    put_F(j);
  }

  void take_backward(std::size_t j) {
    fill(j, arrival_of_I(j));
    if (j == 0 && forwards(j) == micro()) put_all_W(j);
    put_I(j);
  }

  switches switches_{};
  std::vector<char> wish_;
};

// Two stages a rank, rank i hosting stage i on the way down and 2pp-1-i on the way back. Round by round every rank takes an
// I, then a forward.
class zbv_search : public greedy_ranks {
 public:
  // A W that does not fit into the gap before an I of the way back, or before a forward, may be run where the gap would
  // make the rank idle longest.
  struct switches {
    bool fill_before_backward, fill_before_forward;
  };

  zbv_search(const zb_params& p, const placement& where)
      : greedy_ranks(where, p.micro, p.costs, p.memory_limit),
        limit_(p.memory_limit),
        slack_(count()),
        takes_down_(count()) {}

  // `allowed`: the idle times of an earlier search, or none; a rank may idle longer by as much as it had less than the
  // others then.
  void run(switches s, const std::vector<double>& allowed) {
    restart();
    switches_ = s;
    const double longest = allowed.empty() ? 0 : *std::max_element(allowed.begin(), allowed.end());
    for (std::size_t i = 0; i < count(); ++i) slack_[i] = allowed.empty() ? 0 : longest - allowed[i];
    warm_up();
    while (inputs(0) < micro()) {
      const std::size_t before = taken();
      take_backwards();
      for (std::size_t i = 0; i < count(); ++i) take_forward(i);
      if (taken() == before)
        throw schedule_error(concat({"zbv_greedy cannot go on within a memory limit of ", limit_,
                                     " activations, because of rounding; nearest ", 1.001 * limit_}));
    }
    for (std::size_t i = 0; i < count(); ++i) put_all_W(i);
  }

  std::vector<double> bubbles() const {
    std::vector<double> all;
    for (std::size_t i = 0; i < count(); ++i) all.push_back(bubble(i));
    return all;
  }

 private:
  std::size_t down(std::size_t i) const { return i; }
  std::size_t back(std::size_t i) const { return stages() - 1 - i; }
  bool last(std::size_t i) const { return i + 1 == count(); }

  // Memory for it? The micro-batches that have yet to come back leave room for one of them to do so; those that have been
  // back will free what they keep. So no rank waits for memory that nobody frees.
  bool fits_F(std::size_t i, bool way_back) const {
    if (way_back) return fits(back(i));
    return fits(down(i)) && leaves_room(down(i), forwards(down(i)) - forwards(back(i)) + 1, back(i));
  }
  bool put_if_possible(std::size_t i, bool way_back) {
    const std::size_t s = way_back ? back(i) : down(i);
    if (!can_F(s) || !fits_F(i, way_back)) return false;
    put_F(s);
    return true;
  }

  void warm_up() {
    // The first micro-batch down; on its way back, every rank first takes as many more as fit before it arrives.
    for (std::size_t i = 0; i < count(); ++i) put_F(down(i));
    put_F(back(count() - 1));
    for (std::size_t i = count() - 1; i-- > 0;) {
      const double arrival = arrival_of_F(back(i));
      const auto fit_above = [&] {
        for (std::size_t j = 0; j <= i; ++j)
          if (!fits_F(j, false)) return false;
        return true;
      };
      while (forwards(down(i)) < micro() && clock(i) + duration_of_F(down(i)) <= arrival && fits(down(i), 2 * i + 2) &&
             fit_above())
        for (std::size_t j = 0; j <= i; ++j) put_F(down(j));
      put_F(back(i));
    }
    // No rank takes fewer than the one above it, down and back in turn.
    const auto all = [&](std::size_t i) { return forwards(down(i)) + forwards(back(i)); };
    bool way_back = false;
    for (std::size_t i = 1; i < count(); ++i)
      for (int refused = 0; refused < 2;) {
        const std::size_t here = forwards(back(i)), above = forwards(back(i - 1));
        if (all(i) >= all(i - 1) && (here > above || above == micro())) break;
        bool any = false;
        for (std::size_t j = count(); j-- > i;) any = put_if_possible(j, way_back) || any;
        way_back = !way_back;
        refused = any ? 0 : refused + 1;
      }
  }

  void fill(std::size_t i, double arrival, bool one_more) {
    fill_gap(i, arrival);
    if (one_more && owed(i) > 0 && arrival - clock(i) > std::max(longest_bubble(), slack_[i]) - bubble(i)) put_W(i);
  }

  void take_backwards() {
    // Who takes one of the way down: those with more of the way back behind them, where its gradient has been made.
    for (std::size_t i = 0; i < count(); ++i)
      takes_down_[i] = inputs(down(i)) < inputs(back(i)) &&
                       (last(i) || inputs(down(i + 1)) > inputs(down(i)) || inputs(back(i)) == micro());
    for (std::size_t i = count(); i-- > 0;)
      if (takes_down_[i] && can_I(down(i))) {
        if (!last(i)) fill(i, arrival_of_I(down(i)), true);
        put_I(down(i));
      }
    for (std::size_t i = 0; i < count(); ++i)
      if (!takes_down_[i] && can_I(back(i))) {
        if (i > 0) fill(i, arrival_of_I(back(i)), switches_.fill_before_backward);
        put_I(back(i));
      }
  }

  void take_forward(std::size_t i) {
    if (forwards(back(i)) == micro()) return;
    const bool way_back = can_F(back(i));
    const std::size_t s = way_back ? back(i) : down(i);
    if (!can_F(s)) return;
    while (!fits_F(i, way_back) && owed(i) > 0) put_W(i);
    if (!fits_F(i, way_back)) return;
    fill(i, arrival_of_F(s), switches_.fill_before_forward);
    put_F(s);
  }

  switches switches_{};
  double limit_;
  std::vector<double> slack_;
  std::vector<char> takes_down_;
};

// What both searches refuse, and the order of the forwards alone.
inline void require(const family_limits& rule, const zb_params& p, double least_limit) {
  pipesched::require(rule, pipeline_params{.pp = p.pp, .micro = p.micro});
  const auto stages = static_cast<std::uint32_t>(p.pp * rule.stages_per_rank);
  p.costs.check(stages);
  for (std::uint32_t s = 0; p.costs.freed_by_weight && s < stages; ++s) {
    const double kept = p.costs.kept_by_forward[s], freed = p.costs.freed_by_input[s] + (*p.costs.freed_by_weight)[s];
    if (std::abs(kept - freed) > 1e-9 * kept)
      throw schedule_error(
          concat({rule.family, " needs costs whose I and W free all that F keeps; stage ", s, " keeps ", kept,
                  " and frees ", freed, ", nearest freed_by_weight = ", kept - p.costs.freed_by_input[s]}));
  }
  if (p.memory_limit != 0 && !(p.memory_limit >= least_limit))
    throw schedule_error(concat({rule.family, " needs a memory limit of at least ", least_limit,
                                 least_limit == 1 ? " activation a rank; got " : " activations a rank; got ",
                                 p.memory_limit, ", nearest ", least_limit}));
}

inline schedule make_named_zb(std::string_view name, zb_params p) {
  const family_limits rule{.family = name};
  require(rule, p, 1);
  const pipeline_params sizes{.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only};
  if (p.forward_only)
    return make_schedule(rule, sizes, placement::linear(p.pp),
                         [&](std::int64_t rank, auto& sink) { repeat(sink, p.micro, stage_ops(rank).F(0)); });
  if (p.memory_limit == 0) p.memory_limit = static_cast<double>(p.pp);
  placement where = placement::linear(p.pp);
  double best_span = 0;
  rows<cell> best;
  zb_search search(p, where);
  for (int combination = 0; combination < 8; ++combination) {
    search.run({.keep_first_backward = (combination & 4) == 0,
                .prioritize_backward = (combination & 2) == 0,
                .fill_every_gap = (combination & 1) == 0});
    if (combination > 0 && !(search.span() < best_span)) continue;
    best_span = search.span();
    best = search.cells();
  }
  return make_schedule(name, sizes, std::move(where), std::move(best));
}

}  // namespace detail

/// The greedy order for every pp >= 1 and micro >= 1, on these costs. Each rank keeps at most `memory_limit` times what one
/// of its forwards keeps; where the limit stops a forward that the next backward does not need, the forward waits (the
/// source gives up there). With 1 the ranks take turns; without transfers and with F = I = W more than 2 pp does not help.
/// @throws schedule_error on bad parameters, costs that make no sense, or a limit below 1.
/// O(pp * micro) for each of the eight combinations.
inline schedule make_zb_schedule(const zb_params& p) { return detail::make_named_zb("zb_greedy", p); }
inline schedule make_zb_greedy_schedule(const zb_params& p) { return make_zb_schedule(p); }

/// ZB-1p and ZB-2p: limits of pp and of 2 pp activations. Source: section 3 of the paper; its table 5 comes out to all
/// digits.
inline schedule make_zb_greedy_1p_schedule(zb_params p) {
  p.memory_limit = static_cast<double>(p.pp);
  return detail::make_named_zb("zb_greedy_1p", p);
}
inline schedule make_zb_greedy_2p_schedule(zb_params p) {
  p.memory_limit = 2 * static_cast<double>(p.pp);
  return detail::make_named_zb("zb_greedy_2p", p);
}

/// ZB-H1 and ZB-H2: the greedy order for F = I = W and no transfers, with limits of pp and of 2 pp - 1 activations,
/// whatever the costs. For micro >= pp, W <= F and W <= I ZB-H1 has the bubble (pp-1)(F+I-W); for micro >= 2 pp - 1 and F =
/// I = W ZB-H2 has none in its span. Source: section 2 and table 2 of the paper.
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

inline constexpr family_limits zbv_greedy_rule{.family = "zbv_greedy", .stages_per_rank = 2};

/// ZB-V by greedy search for every pp >= 1 and micro >= 1, on these costs: two stages a rank, the last one where the first
/// is. The limit is in activations of one stage, 2 pp unless given, the memory of 1F1B; with F = I = W the span then has no
/// bubble for micro >= 2 pp. Any limit from 2 on is kept: below 2 pp, where the source gives up, forwards wait for memory,
/// and v_half and v_min idle less; there a little more memory can even make a worse order. @throws schedule_error on bad
/// parameters, costs that make no sense, or a limit below 2. O(pp * micro) for each search; four searches, each repeated
/// with what the one before learnt as long as that helps.
inline schedule make_zbv_greedy_schedule(zb_params p) {
  detail::require(zbv_greedy_rule, p, 2);
  const pipeline_params sizes{.pp = p.pp, .micro = p.micro, .forward_only = p.forward_only};
  if (p.forward_only)
    return make_schedule(zbv_greedy_rule, sizes, placement::vee(p.pp),
                         [&](std::int64_t r, auto& sink) { emit_zbv(sizes, r, sink); });
  if (p.memory_limit == 0) p.memory_limit = 2 * static_cast<double>(p.pp);
  placement where = placement::vee(p.pp);
  double best_span = 0;
  rows<cell> best;
  detail::zbv_search search(p, where);
  for (int combination = 0; combination < 4; ++combination) {
    std::vector<double> allowed;
    for (double before = 0;;) {
      search.run({.fill_before_backward = (combination & 2) == 0, .fill_before_forward = (combination & 1) == 0},
                 allowed);
      const double bubble = search.longest_bubble();
      if (!allowed.empty() && !(bubble < before)) break;
      allowed = search.bubbles();
      before = bubble;
      if (best.count() > 0 && !(search.span() < best_span)) continue;
      best_span = search.span();
      best = search.cells();
    }
  }
  return make_schedule(zbv_greedy_rule.family, sizes, std::move(where), std::move(best));
}

}  // namespace pipesched
