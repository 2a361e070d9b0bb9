// SPDX-License-Identifier: MIT
#pragma once

// A front over placements: plans for every placement and limit of memory, and more evaluations for those that may be the best.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "pipesched/plan/detail/shared_progress.hpp"
#include "pipesched/plan/plan.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched::detail {

/// The limits in rising order, each once. @throws schedule_error for none, and for one that is not more than 0
inline std::vector<double> rising_caps(std::vector<double> caps) {
  if (caps.empty()) throw schedule_error("pareto() needs at least 1 limit of memory; got none");
  for (const double cap : caps)
    if (!(cap > 0 && cap < std::numeric_limits<double>::infinity()))
      throw schedule_error(concat({"a limit of memory is finite and more than 0; got ", cap}));
  std::sort(caps.begin(), caps.end());
  caps.erase(std::unique(caps.begin(), caps.end()), caps.end());
  return caps;
}

/// @throws schedule_error if two placements are not of the same step
template <typename Problem>
void require_one_step(const Problem& p, const Problem& first) {
  if (p.micro != first.micro || p.placement.ranks() != first.placement.ranks() || p.forward_only != first.forward_only)
    throw schedule_error(
        concat({"pareto() takes placements of one step; got ", first.placement.ranks(), " and ",
                count_text(p.placement.ranks(), "rank"), ", ", first.micro, " and ", count_text(p.micro, "micro-batch"),
                p.forward_only != first.forward_only ? ", forward only and not" : ""}));
}

/// Searches a front. `Steps` has what is planned:
///   using result;                                             a plan
///   std::size_t size();                                       the number of steps, one a placement
///   static double least_evaluations;                          of a rough plan; with fewer, none is made
///   result plan(i, cap, limits, const result* known);         known: a plan for this limit, or null; throws
///                                                             no_fit_error if nothing fits
///   static double makespan(result), bound(result), published(result);  the bound: for any schedule of the step
///   static void add_work(result& own, const result& other);   the evaluations of another plan
///   static void take_published(result& own, const result& other);      the best family of another plan, if it is shorter
///   static void set_bound(result&, double);                    lowers it
///   void carry(result& own, const result& below, i, cap);     the plan for less memory in place of a longer one
///   double bound(i, cap);                                     for a step without a plan; infinite if it certainly does not fit
template <typename Steps>
class front_search {
 public:
  using result = typename Steps::result;

  struct point {
    double cap;
    std::size_t step;
    result plan;
    double lower_bound;  // for all steps
  };

  front_search(const Steps& steps, std::vector<double> caps, plan_limits limits)
      : steps_(steps),
        caps_(std::move(caps)),
        limits_(std::move(limits)),
        report_(std::move(limits_.progress)),
        progress_(report_, std::nullopt),
        cells_(steps.size() * caps_.size()) {}

  std::vector<point> run() {
    // First a rough plan everywhere, so that a search that is stopped has one for every limit.
    const auto all = std::max(1.0, static_cast<double>(limits_.evaluations)) / static_cast<double>(caps_.size());
    const auto steps = static_cast<double>(steps_.size());
    double rough = std::min(0.04 * all / steps, 1000.0);
    if (rough < Steps::least_evaluations) rough = 0;
    for (std::size_t c = 0; c < caps_.size(); ++c)
      for (std::size_t i = 0; i < steps_.size() && rough > 0; ++i) plan(i, c, rough);
    halve(all - rough * steps);
    std::vector<point> points;
    for (std::size_t c = 0; c < caps_.size(); ++c)
      for (std::size_t i = 0; i < steps_.size(); ++i) fill(i, c);
    for (std::size_t c = 0; c < caps_.size(); ++c) add_point(c, points);
    if (points.empty()) std::rethrow_exception(refused_);
    return points;
  }

 private:
  std::optional<result>& cell(std::size_t i, std::size_t c) { return cells_[c * steps_.size() + i]; }

  // Rounds in which the worse half of the steps drops out, with half of the evaluations; the rest is for the step that is left.
  void halve(double evaluations) {
    std::vector<std::size_t> all(steps_.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    int rounds = 1;
    for (std::size_t n = all.size(); n > 1; n = (n + 1) / 2) ++rounds;
    const double share = evaluations / 2 / std::max(1, rounds - 1);
    std::vector<double> left(caps_.size(), evaluations);
    std::vector alive(caps_.size(), all);
    for (int round = 0; round < rounds; ++round)
      for (std::size_t c = 0; c < caps_.size(); ++c) {
        const double now = alive[c].size() > 1 ? share : left[c];
        left[c] -= now;
        for (const std::size_t i : alive[c])
          if (now > 0) plan(i, c, now / static_cast<double>(alive[c].size()));
        alive[c] = better_half(alive[c], c);
      }
  }

  void plan(std::size_t i, std::size_t c, double evaluations) {
    if (has_plan_ && progress_.stopped()) return;
    plan_limits limits = limits_;
    limits.evaluations = static_cast<std::uint64_t>(std::max(1.0, evaluations));
    limits.progress = progress_.of_search();
    try {
      std::optional<result>& best = cell(i, c);
      result found = steps_.plan(i, caps_[c], limits, best ? &*best : nullptr);
      has_plan_ = true;
      if (best && Steps::makespan(*best) <= Steps::makespan(found)) std::swap(*best, found);
      if (best) Steps::add_work(found, *best), Steps::take_published(found, *best);
      best = std::move(found);
    } catch (const no_fit_error&) {
      if (!refused_ || c > refused_at_) refused_ = std::current_exception(), refused_at_ = c;
    }
    for (std::size_t at = std::max<std::size_t>(c, 1); at < caps_.size(); ++at) {
      const std::optional<result>& below = cell(i, at - 1);
      std::optional<result>& own = cell(i, at);
      if (below && own && Steps::makespan(*below) < Steps::makespan(*own)) steps_.carry(*own, *below, i, caps_[at]);
    }
  }

  // For limits that a stopped search has not reached: the plan for less memory, with the bound for this limit.
  void fill(std::size_t i, std::size_t c) {
    if (c == 0 || cell(i, c) || !cell(i, c - 1)) return;
    cell(i, c) = cell(i, c - 1);
    steps_.carry(*cell(i, c), *cell(i, c - 1), i, caps_[c]);
    Steps::set_bound(*cell(i, c), steps_.bound(i, caps_[c]));
  }

  // Of the steps with a plan, those with the shorter ones, without those whose bound is no less than the shortest.
  std::vector<std::size_t> better_half(std::vector<std::size_t> steps, std::size_t c) {
    steps.erase(std::remove_if(steps.begin(), steps.end(), [&](std::size_t i) { return !cell(i, c); }), steps.end());
    std::stable_sort(steps.begin(), steps.end(), [&](std::size_t a, std::size_t b) {
      return Steps::makespan(*cell(a, c)) < Steps::makespan(*cell(b, c));
    });
    if (steps.size() < 2) return steps;
    steps.resize((steps.size() + 1) / 2);
    const double shortest = Steps::makespan(*cell(steps.front(), c));
    steps.erase(std::remove_if(steps.begin() + 1, steps.end(),
                               [&](std::size_t i) { return Steps::bound(*cell(i, c)) >= shortest; }),
                steps.end());
    return steps;
  }

  void add_point(std::size_t c, std::vector<point>& points) {
    std::optional<std::size_t> best;
    double bound = std::numeric_limits<double>::infinity();
    const result* published = nullptr;  // that with the best family
    for (std::size_t i = 0; i < steps_.size(); ++i) {
      const std::optional<result>& of = cell(i, c);
      bound = std::min(bound, of ? Steps::bound(*of) : steps_.bound(i, caps_[c]));
      if (!of) continue;
      if (!best || Steps::makespan(*of) < Steps::makespan(*cell(*best, c))) best = i;
      if (published == nullptr || Steps::published(*of) < Steps::published(*published)) published = &*of;
    }
    if (!best) return;
    Steps::take_published(*cell(*best, c), *published);
    points.push_back({caps_[c], *best, std::move(*cell(*best, c)), bound});
  }

  const Steps& steps_;
  std::vector<double> caps_;
  plan_limits limits_;  // without progress
  std::function<bool(const plan_progress&)> report_;
  shared_progress progress_;
  std::vector<std::optional<result>> cells_;  // by cap and step
  bool has_plan_ = false;                     // in some cell
  std::exception_ptr refused_;                // of the first step, for the largest limit
  std::size_t refused_at_ = 0;
};

}  // namespace pipesched::detail
