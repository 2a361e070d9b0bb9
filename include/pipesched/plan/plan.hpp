// SPDX-License-Identifier: MIT
#pragma once

// A planner: the order of the cells of all ranks that makes a step as short as it can find, for a placement, costs and a limit
// of memory, with a bound on what is possible.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/recompute.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/plan/detail/block_search.hpp"
#include "pipesched/plan/detail/list_search.hpp"
#include "pipesched/plan/detail/narrow_search.hpp"
#include "pipesched/plan/detail/one_at_a_time.hpp"
#include "pipesched/plan/detail/published.hpp"
#include "pipesched/plan/detail/word_portfolio.hpp"
#include "pipesched/plan/detail/word_simulator.hpp"
#include "pipesched/plan/detail/word_starts.hpp"
#include "pipesched/plan/detail/word_table.hpp"
#include "pipesched/plan/detail/words.hpp"
#include "pipesched/plan/memory_caps.hpp"
#include "pipesched/simulate/lower_bound.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/schedule_class.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// The step to plan.
struct plan_problem {
  pipesched::placement placement{};
  std::uint32_t micro = 0;
  bool forward_only = false;
  std::vector<bool> recomputed{};  ///< by stage: its backwards recompute inside, as RB or RI; empty: none
};

/// How far a search has come.
struct plan_progress {
  double evaluations = 0;
  double makespan = 0;     ///< of the best so far; infinite before there is one
  double lower_bound = 0;  ///< for any schedule of the problem
};

/// The limits of a plan, and how long plan() searches. The result depends on these numbers alone, never on time or threads,
/// unless `progress` stops the search.
struct plan_limits {
  memory_caps memory{};
  std::optional<pass_pair_set> pairs{};  ///< passes that may share a cell; default: those that the costs allow
  /// Simulations of a whole step; one of a part costs its part of the ops.
  std::uint64_t evaluations = 200'000;
  std::uint64_t seed = 1;
  unsigned threads = 1;
  std::vector<schedule> starts{};  ///< to begin with, beside the families: same placement, micro-batches and passes
  /// Called now and then by one thread at a time; false: stop with the best so far.
  std::function<bool(const plan_progress&)> progress{};
};

/// Nothing that a search has found fits into the memory.
struct no_fit_error : schedule_error {
  explicit no_fit_error(const std::string& text, double spent = 0) : schedule_error(text), evaluations(spent) {}

  double evaluations;  ///< that the search has spent
};

/// The result of plan(): a valid schedule within the limits.
struct plan_result {
  pipesched::schedule schedule;
  double makespan = 0;
  lower_bound_result bound{};  ///< for any schedule of the problem within the limits
  std::string published{};     ///< the best family within the limits, empty if none is
  double published_makespan = std::numeric_limits<double>::infinity();
  pipesched::schedule published_schedule{};  ///< its schedule; no ranks if none is
  double peak_activations = 0;               ///< as in metrics
  double evaluations = 0;
  std::uint64_t ops_simulated = 0;
};

namespace detail {

/// @throws schedule_error unless there is something to plan, and stages x micro <= 2^28
inline void require_step(const placement& where, std::uint32_t micro) {
  if (where.ranks() < 1) throw schedule_error("plan() needs a placement on at least 1 rank; got none, nearest 1");
  if (micro < 1) throw schedule_error("plan() needs at least 1 micro-batch; got 0, nearest 1");
  require_pairs("plan()", where.stages(), micro);
}

/// A schedule of a step without its cells.
inline schedule planned_shape(const placement& where, std::uint32_t micro, bool forward_only) {
  return {.name = "planned",
          .placement = where.for_micro(micro),
          .micro = micro,
          .forward_only = forward_only,
          .cells = {}};
}

/// True if all pairs of a schedule are allowed; one that recomputes inside is if it is without that.
inline bool uses_only(const schedule& s, const pass_pair_set& allowed) {
  const std::vector<pass_pair> used = schedule_class_of(s).pairs.pairs();
  return std::all_of(used.begin(), used.end(), [&](pass_pair p) {
    return allowed.contains(p) || allowed.contains({without_recompute(p.first), without_recompute(p.second)});
  });
}

/// The pairs that a plan may use.
template <typename Costs>
pass_pair_set pairs_for(const Costs& costs, const plan_limits& limits) {
  if (limits.pairs) return *limits.pairs;
  if constexpr (requires { costs.may_overlap(); }) return costs.may_overlap();
  return pass_pair_set::forward_with_backward();
}

/// A bound for any schedule of a problem within limits of memory.
template <typename Costs>
lower_bound_result bound_for(const plan_problem& problem, const Costs& costs, const pass_pair_set& pairs,
                             const memory_caps& memory) {
  schedule_class of{.pairs = pairs, .forward_only = problem.forward_only};
  of.memory_cap = memory.activations, of.memory_limits = memory.bytes;
  of.recompute = !problem.recomputed.empty();
  return lower_bound(problem.placement, problem.micro, costs, of);
}

/// Every family for some placement, with what the problem recomputes.
template <typename Costs>
std::vector<schedule> published_for(const plan_problem& problem, const placement& where, std::uint32_t micro,
                                    const Costs& costs, std::optional<double> cap) {
  std::optional<stage_costs> given;
  if constexpr (std::is_same_v<Costs, stage_costs>)
    if (where.stages() == problem.placement.stages()) given = costs;
  std::vector<schedule> all = published_schedules(where, micro, problem.forward_only, given, cap);
  recompute_choice which{.inside_backward = true};
  for (std::size_t s = 0; s < problem.recomputed.size(); ++s)
    if (problem.recomputed[s]) which.stages.push_back(static_cast<std::int64_t>(s));
  if (!which.stages.empty() && !problem.forward_only)
    for (schedule& s : all) s = recompute(s, which);
  return all;
}

template <typename Costs>
class planner {
 public:
  planner(const plan_problem& problem, const Costs& costs, const plan_limits& limits)
      : problem_(problem), costs_(costs), limits_(limits), pairs_(pairs_for(costs, limits)) {}

  plan_result run() {
    const schedule shape = shape_for(problem_.micro);
    word_table all(shape, costs_, pairs_, limits_.memory, problem_.recomputed);
    ops_ = all.ops();
    result_.bound = bound_for(problem_, costs_, pairs_, limits_.memory);
    search_monitor monitor([this](std::uint64_t ops, double makespan) { return report(ops, makespan); });
    look_at_published(monitor);
    const std::optional<word_table> half = all.folded();
    if (!half || !search(all, *half, monitor)) search(all, all, monitor);
    if (!has_plan()) throw no_fit_error(refusal(all), evaluations(monitor.ops()));
    result_.ops_simulated = monitor.ops();
    result_.evaluations = evaluations(monitor.ops());
    return std::move(result_);
  }

 private:
  schedule shape_for(std::uint32_t micro) const {
    return planned_shape(problem_.placement, micro, problem_.forward_only);
  }
  double evaluations(std::uint64_t ops) const { return static_cast<double>(ops) / static_cast<double>(ops_); }
  bool report(std::uint64_t ops, double makespan) {
    if (!limits_.progress) return true;
    if (!is_short_) shown_ = std::min(shown_, makespan);
    return limits_.progress(
        {.evaluations = evaluations(ops), .makespan = shown_, .lower_bound = result_.bound.makespan});
  }

  // Keeps a schedule if it is allowed and the shortest so far.
  void offer(const schedule& s, bool is_published) {
    timeline t = simulate(s, costs_, verified);
    const metrics m = measure(t, costs_, verified);
    if (!uses_only(s, pairs_) || !fits(limits_.memory, m)) return;
    if (is_published && m.makespan < result_.published_makespan)
      result_.published_makespan = m.makespan, result_.published = s.name.view(), result_.published_schedule = s;
    if (has_plan() && m.makespan >= result_.makespan) return;
    result_.makespan = m.makespan, result_.peak_activations = m.peak_activations;
    result_.schedule = std::move(t.schedule);
    shown_ = std::min(shown_, m.makespan);
  }
  std::vector<schedule> published(const placement& where, std::uint32_t micro) const {
    return published_for(problem_, where, micro, costs_, limits_.memory.activations);
  }
  bool has_plan() const { return result_.schedule.cells.size() > 0; }
  void look_at_published(search_monitor& monitor) {
    families_ = published(problem_.placement, problem_.micro);
    monitor.charge((limits_.starts.size() + families_.size()) * ops_);
    for (const schedule& s : limits_.starts) offer(s, false);
    for (const schedule& s : families_) offer(s, true);
  }

  // Words of blocks after some evaluations; none for placements without them.
  word_rows blocks(const word_table& part, std::uint64_t evaluations, search_monitor& monitor) const {
    constexpr std::uint64_t enough_per_rank = 1000;
    std::uint64_t first = 0;
    std::optional<block_search> search = block_search::on(part, limits_.seed, first);
    monitor.charge(first * part.ops());
    if (!search) return {};
    search->anneal(std::min(evaluations, enough_per_rank * part.ranks()), [&](std::uint64_t since, double makespan) {
      monitor.charge(since * part.ops());
      monitor.found(makespan);
      return !monitor.stopped();
    });
    return search->words();
  }

  // Words of lists, if they are shorter than others: after some evaluations, or after few where they are much longer.
  word_rows lists(const word_table& part, double shortest, std::uint64_t evaluations, search_monitor& monitor) const {
    constexpr std::uint64_t most = 3000 * list_search::price, few = 60;
    if (!part.alike()) return {};
    list_search search(part, limits_.seed);
    std::uint64_t made = 0;
    search.run(std::min(evaluations, most), [&](std::uint64_t ops, double makespan) {
      monitor.charge(ops);
      if (makespan < shortest) monitor.found(makespan);
      return !monitor.stopped() && (++made < few || makespan < 1.15 * shortest);
    });
    return search.makespan() < shortest ? search.words() : word_rows{};
  }

  // Words that run, the shortest first, of as many micro-batches as the table has.
  // @param evaluations  for the searches for blocks and for lists, each
  std::vector<word_rows> starts(const word_table& all, const word_table& part, std::uint64_t evaluations,
                                search_monitor& monitor) const {
    const schedule& shape = all.shape();
    const bool is_whole = shape.micro == problem_.micro;
    std::vector<schedule> from = is_whole ? families_ : published(shape.placement, shape.micro);
    if (is_whole) from.insert(from.end(), limits_.starts.begin(), limits_.starts.end());
    if (part.ranks() < all.ranks())
      for (const schedule& s : published(placement::vee(shape.pp() / 2), shape.micro / 2))
        from.push_back(twice_mirrored(s, shape.placement));
    std::vector<std::pair<double, word_rows>> found;
    const auto add = [&](word_rows w) {
      w.resize(part.ranks());
      std::uint64_t tries = 0;
      std::optional<word_rows> runs = repaired(part, std::move(w), tries);
      monitor.charge((tries + (runs ? 1 : 0)) * part.ops());
      if (!runs) return;
      const word_times times = word_simulator(part).run(*runs);
      const bool known = std::any_of(found.begin(), found.end(), [&](const auto& f) { return f.second == *runs; });
      if (!known) found.push_back({times.makespan, std::move(*runs)});
    };
    for (const schedule& s : from)
      for (const bool keep_weights : {false, true}) add(words_of(all, s, keep_weights));
    if (word_rows w = blocks(part, evaluations, monitor); !w.empty()) add(std::move(w));
    add(words_of(all, one_at_a_time(shape, true), true));
    if (!limits_.memory.bytes.empty()) add(words_of(all, one_at_a_time(shape, false), true));
    std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    const double shortest = found.empty() ? std::numeric_limits<double>::infinity() : found.front().first;
    std::vector<word_rows> result;
    if (word_rows w = lists(part, shortest, evaluations, monitor); !w.empty()) result.push_back(std::move(w));
    for (auto& [makespan, w] : found) result.push_back(std::move(w));
    return result;
  }

  // The micro-batches from which on a plan for fewer is made and then lengthened.
  std::uint32_t short_micro() const {
    const std::uint32_t replicas = problem_.placement.replicas();
    const std::uint32_t few = 2 * problem_.placement.ranks() + 4;
    if (!micro_batches_alike(costs_) || !limits_.starts.empty() || problem_.micro < few + 2 * replicas)
      return problem_.micro;
    return few - few % replicas + problem_.micro % replicas;
  }

  // Of all rows or of the folded ones. False if it finds none to start from: some orders are not their own mirror image.
  bool search(const word_table& all, const word_table& part, search_monitor& monitor) {
    const bool folds = part.ranks() < all.ranks();
    const std::uint32_t few = short_micro();
    std::vector<word_rows> from;
    const std::uint64_t all_ops = limits_.evaluations * ops_;
    const auto budget = [&](const word_table& t, double share) {
      const std::uint64_t left = all_ops - std::min(all_ops, monitor.ops());
      return static_cast<std::uint64_t>(share * static_cast<double>(left) / static_cast<double>(t.ops()));
    };
    if (few < problem_.micro) {
      const word_table short_all(shape_for(few), costs_, pairs_, limits_.memory, problem_.recomputed);
      const std::optional<word_table> short_half = folds ? short_all.folded() : std::nullopt;
      const word_table& short_part = short_half ? *short_half : short_all;
      is_short_ = true;
      std::vector<word_rows> short_from = starts(short_all, short_part, budget(short_part, 0.1), monitor);
      if (!short_from.empty() && short_part.ranks() == part.ranks()) {
        word_portfolio portfolio(short_part, std::move(short_from), limits_.seed, limits_.threads, monitor);
        portfolio.run(budget(short_part, 0.8));
        std::uint64_t tries = 0;
        const std::uint32_t more = (problem_.micro - few) / problem_.placement.replicas();
        if (std::optional<word_rows> w = lengthened(part, portfolio.best(), more, tries)) from.push_back(std::move(*w));
        monitor.charge(tries * part.ops());
      }
      is_short_ = false;
    }
    const bool has_long = !from.empty();
    for (word_rows& w : starts(all, part, has_long ? 0 : budget(part, 0.1), monitor)) from.push_back(std::move(w));
    if (from.empty()) return false;
    const std::uint64_t left = budget(part, 1);
    narrow_search search_all(part, std::move(from), limits_.seed, limits_.threads, monitor);
    const word_rows best = search_all.run(left, has_long ? 0.2 : 1);
    monitor.charge(2 * ops_);
    offer(schedule_of(all, folds ? unfold(all, best) : best), false);
    return true;
  }

  // Why there is no plan, with the least memory with which some schedule runs, one micro-batch at a time.
  std::string refusal(const word_table& all) const {
    const auto measured = [&](bool split) {
      return measure(simulate(one_at_a_time(all.shape(), split, problem_.recomputed), costs_, verified), costs_,
                     verified);
    };
    const metrics m = measured(true), whole = measured(false);
    if (limits_.memory.activations)
      return concat({"plan() finds no schedule with at most ", *limits_.memory.activations,
                     " live activations per rank; nearest ", m.peak_activations});
    for (std::size_t r = 0; r < limits_.memory.bytes.size(); ++r)
      if (const double least = std::min(m.ranks[r].peak_bytes, whole.ranks[r].peak_bytes);
          least > limits_.memory.bytes[r])
        return concat({"plan() finds no schedule with at most ", limits_.memory.bytes[r], " bytes on rank ", r,
                       "; nearest ", least});
    return "plan() finds no schedule within the limits of memory";
  }

  const plan_problem& problem_;
  const Costs& costs_;
  const plan_limits& limits_;
  pass_pair_set pairs_;
  std::uint64_t ops_ = 1;
  std::vector<schedule> families_;                          // on the placement
  bool is_short_ = false;                                   // a plan for fewer micro-batches is being made
  double shown_ = std::numeric_limits<double>::infinity();  // the best makespan that progress has seen
  plan_result result_;
};

/// @throws schedule_error unless plan() takes these
template <typename Costs>
void require_plan(const plan_problem& problem, const Costs& costs, const plan_limits& limits) {
  const placement& where = problem.placement;
  require_step(where, problem.micro);
  check_costs(costs, where.stages(), where.ranks(), problem.micro);
  check(limits.memory, where.ranks());
  if (!problem.recomputed.empty() && problem.recomputed.size() != where.stages())
    throw schedule_error(concat({"plan() takes one entry of recomputed per stage, or none; got ",
                                 problem.recomputed.size(), " for ", count_text(where.stages(), "stage")}));
  for (const schedule& s : limits.starts) {
    require_valid(s);
    if (s.micro != problem.micro || s.forward_only != problem.forward_only || !same_stages_on_ranks(s.placement, where))
      throw schedule_error(concat({"plan() starts from schedules of its own problem; got ", s.name.view(), " with ",
                                   count_text(s.micro, "micro-batch"), " on ", count_text(s.pp(), "rank"), " and ",
                                   count_text(s.stages(), "stage")}));
  }
}

}  // namespace detail

/// The shortest schedule found, never longer than any family of the library on the same placement within the same limits.
/// Method: simulated annealing on rows without micro-batch numbers, from those families and from rows of DualPipe's blocks with
/// annealed lengths; a problem that is its own mirror image is halved; many micro-batches are planned as few, and the middle of
/// their rows is repeated. With many evaluations, some of them are spent with less memory first, on the busiest rank or on all.
/// @throws schedule_error as check() of the costs and of the caps do, and for no micro-batches; no_fit_error if not even one
/// micro-batch at a time fits into the memory. Time: `evaluations` times a simulation of the step.
template <cost_model Costs>
plan_result plan(const plan_problem& problem, const Costs& costs, const plan_limits& limits = {}) {
  detail::require_plan(problem, costs, limits);
  plan_problem own = problem;
  own.placement = problem.placement.for_micro(problem.micro);
  return detail::planner(own, costs, limits).run();
}

}  // namespace pipesched
