// SPDX-License-Identifier: MIT
#pragma once

// Partition, recomputation and order of a model's step, searched together.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/model/costs_of.hpp"
#include "pipesched/model/model.hpp"
#include "pipesched/model/partition.hpp"
#include "pipesched/plan/detail/one_at_a_time.hpp"
#include "pipesched/plan/detail/partition_bound.hpp"
#include "pipesched/plan/detail/partition_pool.hpp"
#include "pipesched/plan/detail/published.hpp"
#include "pipesched/plan/detail/shared_progress.hpp"
#include "pipesched/plan/detail/word_portfolio.hpp"
#include "pipesched/plan/divide.hpp"
#include "pipesched/plan/memory_caps.hpp"
#include "pipesched/plan/model_problem.hpp"
#include "pipesched/plan/plan.hpp"
#include "pipesched/plan/plan_in_memory.hpp"
#include "pipesched/program/fits.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/random_numbers.hpp"

namespace pipesched::detail {

/// The cells that plans of a model may have.
inline schedule_class class_of(const model_problem& problem, const pass_pair_set& pairs) {
  return {
      .pairs = pairs, .either_order = true, .forward_only = problem.forward_only, .recompute = problem.may_recompute};
}

/// The pairs that plans of a model may have: of the limits, or else those that its costs allow.
inline pass_pair_set pairs_for(const model& m, const model_problem& problem, const plan_limits& limits) {
  if (limits.pairs) return *limits.pairs;
  const placement& where = problem.placement;
  return costs_of(m, uniform_partition(m, where.stages()), where).may_overlap();
}

/// A bound for all partitions and orders.
inline double bound_over_partitions(const model& m, const model_problem& problem, const pass_pair_set& pairs) {
  const schedule shape = planned_shape(problem.placement, problem.micro, problem.forward_only);
  const schedule_class of = class_of(problem, pairs);
  return partition_bound(m, shape, of, true).bound();
}

/// A bound for all orders of a partition within the memory of its ranks, if that is limited.
inline lower_bound_result bound_of_partition(const model_problem& problem, const stage_costs& costs,
                                             const pass_pair_set& pairs, bool recomputes,
                                             const std::vector<double>& memory) {
  schedule_class of = class_of(problem, pairs);
  of.recompute = recomputes;
  if (!memory.empty()) of.memory_limits = beside_weights(problem.placement, costs, memory);
  return lower_bound(problem.placement, problem.micro, costs, of);
}

/// A stage recomputes to keep less, which makes no step shorter where memory is not limited.
inline bool recompute_may_help(const model& m, const model_problem& problem) {
  return !memory_limits(m, problem.placement.ranks()).empty() && !problem.forward_only &&
         std::any_of(m.layers.begin(), m.layers.end(), [](const layer& l) { return l.kept_input < l.kept; });
}

class model_planner {
 public:
  model_planner(const model& m, const model_problem& problem, const plan_limits& limits)
      : model_planner(m, problem, limits, bound_over_partitions(m, problem, pairs_for(m, problem, limits))) {}
  /// @param bound  for all partitions and orders. All references must outlive this
  model_planner(const model& m, const model_problem& problem, const plan_limits& limits, double bound)
      : m_(m),
        problem_(problem),
        limits_(limits),
        sums_(m, problem.placement),
        memory_(memory_limits(m, problem.placement.ranks())),
        random_(limits.seed),
        pairs_(pairs_for(m, problem, limits)),
        bound_(bound),
        progress_(limits.progress, bound_),
        recomputes_(problem.may_recompute && recompute_may_help(m, problem)) {}

  /// Families with the uniform partition, and each with its own best. Once, before the first run() or in it.
  void look_at_families() {
    const placement& where = problem_.placement;
    starts_.push_back({uniform_partition(m_, where.stages())});
    for (const family& f : families)
      for (const schedule_params& p :
           parameters_for(f, where, problem_.micro, problem_.forward_only, std::nullopt, std::nullopt)) {
        if (progress_.stopped()) return;
        try {
          if (same_stages_on_ranks(f.place(p), where)) look_at(f, p);
        } catch (const schedule_error&) {  // not for these numbers
        }
      }
  }
  /// The same from a search for the same model and placement.
  void take_families(const model_planner& from) {
    starts_ = from.starts_, uniform_ = from.uniform_, divided_ = from.divided_, family_ = from.family_;
    if (family_) take(*family_);
  }
  /// Evaluations that are spent, and the ops of so many.
  double evaluations() const { return progress_.evaluations(); }
  std::uint64_t ops(double evaluations) const {
    const double each = problem_.micro * problem_.placement.stages() * (problem_.forward_only ? 1.0 : 2.0);
    return static_cast<std::uint64_t>(std::llround(evaluations * each));
  }
  /// Begins with a plan of the same problem, which may be that of an earlier search. @pre it fits into the memory
  void start_from(const model_plan& known) {
    candidate c = of_choice({known.partition, known.recomputed});
    c.plan = known.plan;
    continues_ = true;
    take(c);
  }
  /// Plans until so many evaluations are spent, those of earlier calls among them. @throws no_fit_error if nothing found fits
  model_plan run(double evaluations) {
    end_ = evaluations;
    if (starts_.empty()) look_at_families();
    search();
    if (!best_) refuse();
    return result();
  }

 private:
  struct candidate {
    division_choice choice;
    double bound = 0;  // for all orders
    std::optional<plan_result> plan{};
    stage_costs costs{};

    double makespan() const { return plan ? plan->makespan : std::numeric_limits<double>::infinity(); }
  };

  double left() const { return std::max(0.0, end_ - progress_.evaluations()); }

  void search() {
    std::vector<candidate> all = candidates();
    continues_ = true;
    halve(all);
    if (!best_) take_smallest();
    take_turns();
  }
  // If nothing is found that fits, one micro-batch at a time: layers move as long as fewer bytes of it do not fit.
  void take_smallest() {
    division_choice choice = pools_.front().entries().front().choice;
    const double end = left() / 2;
    const auto go_on = [&] { return left() > end && !progress_.stopped(); };
    if (move_layers_to_fit(
            choice.layers, [&] { return excess_of(choice); }, go_on) > 0)
      return;
    candidate c = of_choice(choice);
    progress_.charge(improve(c, left() / 4, random_.next(), limits_.threads));
    take(c);
  }
  // The memory beside the buffers of any partition: those of one micro-batch at a time, with the smallest messages.
  std::vector<double> beside_buffers() const {
    std::vector<double> memory = memory_;
    if (memory.empty()) return memory;
    const schedule shape = planned_shape(problem_.placement, problem_.micro, problem_.forward_only);
    stage_costs costs = sums_(starts_.front().layers);
    costs.message_bytes = std::ranges::min(m_.layers, {}, &layer::message).message;
    const memory_report m = memory_of(one_at_a_time(shape, false), costs);
    for (std::size_t r = 0; r < memory.size(); ++r) memory[r] -= std::min(m.ranks[r].buffers, memory[r]);
    return memory;
  }
  // Bytes that one micro-batch at a time needs beyond the memory of the ranks, added.
  double excess_of(const division_choice& c) {
    const schedule shape = planned_shape(problem_.placement, problem_.micro, problem_.forward_only);
    const memory_report m = memory_of(one_at_a_time(shape, false, c.recomputed), sums_(c.layers));
    progress_.charge(1);
    double excess = 0;
    for (std::size_t r = 0; r < memory_.size(); ++r)
      if (const double total = m.ranks[r].total(); total > with_rounding(memory_[r])) excess += total - memory_[r];
    return excess;
  }

  void look_at(const family& f, const schedule_params& p) {
    const double most = f.limits.takes.contains(parameter::costs) ? 2'000 : 20'000;
    const division d = divide(m_, f, p,
                              {.evaluations = static_cast<std::uint64_t>(
                                   std::clamp(static_cast<double>(limits_.evaluations) / 50, 20.0, most)),
                               .progress = progress_.of_division()});
    progress_.charge(static_cast<double>(d.evaluations));
    starts_.push_back({d.partition});
    if (!uses_only(d.schedule, pairs_)) return;
    const std::string name(d.schedule.name.view());
    if (d.uniform_fits && d.uniform_makespan < uniform_.makespan) uniform_ = {name, d.uniform_makespan};
    if (!d.fits || d.makespan >= divided_.makespan) return;
    divided_ = {name, d.makespan};
    candidate c = of_choice({d.partition});
    c.plan = as_plan(d.schedule, c.costs);
    family_ = c;
    take(c);
  }

  candidate of_choice(division_choice choice) const {
    stage_costs costs = sums_(choice.layers);
    return {.choice = std::move(choice), .costs = std::move(costs)};
  }
  // A schedule as a plan, without a bound.
  static plan_result as_plan(const schedule& s, const stage_costs& costs) {
    const metrics m = measure(simulate(s, costs, verified), costs, verified);
    return {.schedule = s, .makespan = m.makespan, .peak_activations = m.peak_activations};
  }
  memory_report memory_of(const schedule& s, const stage_costs& costs) const {
    return pipesched::fits(lower(s, {}, verified), costs, memory_);
  }
  bool may_beat_best(double bound) const { return !best_ || bound < best_->makespan(); }
  void take(const candidate& c) {
    if (!c.plan || (best_ && c.makespan() >= best_->makespan())) return;
    best_ = c;
    progress_.found(c.makespan());
  }

  // Partitions to plan for: those of the families, and others with small bounds. If stages may recompute, as many of choices in
  // which all do: a bound tells little of how much memory an order needs.
  std::vector<candidate> candidates() {
    // Evaluations of a first plan that tell good choices from bad ones.
    const double enough = 10.0 * problem_.micro * problem_.placement.stages() * 2;
    std::size_t size = 1;
    for (double rounds = 2; size < 32 && 0.6 * left() > enough * 2 * static_cast<double>(size) * rounds; ++rounds)
      size *= 2;
    const double bounds = std::clamp(left() / 8, 100.0, 10'000.0);
    const std::vector<double> memory = beside_buffers();
    pools_.clear();
    for (const bool all_recompute : {true, false})
      if (recomputes_ || !all_recompute) add_pool(std::max<std::size_t>(8, 2 * size), all_recompute, bounds, memory);
    // In a search that continues another one, the best so far would win against any that is planned for shortly.
    std::vector<candidate> all;
    if (family_ && (!continues_ || may_beat_best(pools_.back().judged(family_->choice).bound))) all.push_back(*family_);
    if (recomputes_) size = std::max<std::size_t>(size, 3);  // one of each pool beside the family
    for (std::size_t i = 0; i < pools_.back().entries().size(); ++i)
      for (const partition_pool& pool : pools_) {
        if (i >= pool.entries().size() || all.size() == size) continue;
        const partition_pool::entry& e = pool.entries()[i];
        const auto same = [&](const candidate& c) { return c.choice == e.choice; };
        if ((!all.empty() || best_) &&
            (e.excess > 0 || !may_beat_best(e.bound) || std::any_of(all.begin(), all.end(), same)))
          continue;
        all.push_back(of_choice(e.choice));
        all.back().bound = e.bound;
      }
    if (all.empty()) all.push_back(*best_);
    return all;
  }
  void add_pool(std::size_t size, bool all_recompute, double bounds, const std::vector<double>& memory) {
    const std::size_t stages = problem_.placement.stages();
    const std::vector<bool> recomputed(recomputes_ ? stages : 0, true);
    partition_pool pool(sums_, problem_.placement, problem_.micro, class_of(problem_, pairs_), memory, size);
    for (const division_choice& c : starts_) {
      if (!all_recompute) pool.add(c);
      if (recomputes_) pool.add({c.layers, recomputed});
    }
    const double ops = 2.0 * problem_.micro * static_cast<double>(stages);
    if (pool.entries().front().excess > 0) {
      const double price = static_cast<double>(stages + sums_.layers().size()) / ops, end = left() / 4;
      double spent = 0;
      pool.add_fitting({starts_.front().layers, recomputed},
                       [&] { return (spent += price) < end && !progress_.stopped(); });
      progress_.charge(spent);
    }
    if (recomputes_ && !all_recompute)  // the first stages keep most
      for (std::size_t first = 1; first < stages; ++first)
        for (const auto& e : {pools_.front().entries().front(), pool.entries().front()}) {
          division_choice c{e.choice.layers, std::vector<bool>(stages, false)};
          std::fill_n(c.recomputed.begin(), first, true);
          pool.add(std::move(c));
        }
    bounds /= recomputes_ ? 2 : 1;
    if (!progress_.stopped()) pool.search(static_cast<std::uint64_t>(bounds), recomputes_ && !all_recompute, random_);
    progress_.charge(bounds / 4);
    pools_.push_back(std::move(pool));
  }

  // Plans for all, then with twice the evaluations for the better half, and so on.
  void halve(std::vector<candidate>& all) {
    const auto rounds = std::ceil(std::log2(static_cast<double>(all.size()))) + 1;
    const double share = 0.65 * left() / rounds;
    while (!progress_.stopped()) {
      plan_all(all, share / static_cast<double>(all.size()));
      std::stable_sort(all.begin(), all.end(),
                       [](const candidate& a, const candidate& b) { return a.makespan() < b.makespan(); });
      for (const candidate& c : all) take(c);
      if (all.size() == 1) return;
      all.resize((all.size() + 1) / 2);
      all.erase(std::remove_if(all.begin() + 1, all.end(), [&](const candidate& c) { return !may_beat_best(c.bound); }),
                all.end());
    }
  }
  void plan_all(std::vector<candidate>& all, double evaluations) {
    std::vector<std::uint64_t> seeds;
    for (std::size_t i = 0; i < all.size(); ++i) seeds.push_back(random_.next());
    std::vector<double> spent(all.size(), 0);
    run_on_threads(all.size(), limits_.threads, [&](std::size_t i) {
      const unsigned threads = all.size() == 1 ? limits_.threads : 1;
      if (!progress_.stopped()) spent[i] = improve(all[i], evaluations, seeds[i], threads);
    });
    for (const double s : spent) progress_.charge(s);
  }

  // Plans for a choice, from the plan that it has. The evaluations that it took.
  double improve(candidate& c, double evaluations, std::uint64_t seed, unsigned threads) {
    plan_limits limits{.pairs = pairs_, .seed = seed, .threads = threads};
    if (c.plan) limits.starts.push_back(c.plan->schedule);
    const plan_problem problem{.placement = problem_.placement,
                               .micro = problem_.micro,
                               .forward_only = problem_.forward_only,
                               .recomputed = c.choice.recomputed};
    limits.evaluations = static_cast<std::uint64_t>(std::max(1.0, evaluations));
    double spent = 0;
    std::optional<plan_result> found = found_in_memory(problem, c.costs, memory_, limits, spent, progress_);
    if (found && found->makespan < c.makespan()) c.plan = std::move(found);
    return spent;
  }

  // Partition and order in turns, as long as the step gets shorter.
  void take_turns() {
    if (!best_) return;
    const double share = left() / 2;
    std::vector<division_choice> tried{best_->choice};
    for (const double end = left() - share; left() > end && !progress_.stopped();) {
      const division_choice choice = mutated(best_->choice, recomputes_, random_);
      const bool again = std::find(tried.begin(), tried.end(), choice) != tried.end();
      progress_.charge(again ? 1 : 0);
      if (again) continue;
      tried.push_back(choice);
      candidate next = of_choice(choice);
      const partition_pool::entry e = pools_.back().judged(choice);
      progress_.charge(0.5);
      if (e.excess > 0 || !may_beat_best(e.bound)) continue;
      carry_order(next);
      progress_.charge(improve(next, share / 40, random_.next(), limits_.threads));
      take(next);
    }
    if (!progress_.stopped()) progress_.charge(improve(*best_, left(), random_.next(), limits_.threads));
  }
  // The order of the best with another partition, if it fits there and the same stages recompute.
  void carry_order(candidate& next) const {
    const schedule& s = best_->plan->schedule;
    if (next.choice.recomputed != best_->choice.recomputed) return;
    if (memory_.empty() || memory_of(s, next.costs)) next.plan = as_plan(s, next.costs);
  }

  model_plan result() {
    model_plan r{.partition = best_->choice.layers,
                 .recomputed = best_->choice.recomputed,
                 .costs = best_->costs,
                 .plan = *best_->plan,
                 .lower_bound = bound_,
                 .uniform = uniform_,
                 .divided = divided_};
    r.plan.bound = bound_of_partition(problem_, r.costs, pairs_, !r.recomputed.empty(), memory_);
    r.memory = memory_of(r.plan.schedule, r.costs);
    r.evaluations = progress_.evaluations();
    r.ops_simulated = ops(r.evaluations);
    return r;
  }
  [[noreturn]] void refuse() const {
    throw no_fit_error(progress_.stopped()
                           ? "plan() was stopped before it found a plan that fits into the memory of the ranks"
                           : "plan() finds no partition of the model whose step fits into the memory of the ranks",
                       progress_.evaluations());
  }

  const model& m_;
  const model_problem& problem_;
  const plan_limits& limits_;
  stage_sums sums_;
  std::vector<double> memory_;  // by rank; empty: no limits
  random_numbers random_;
  pass_pair_set pairs_;
  double bound_;
  shared_progress progress_;
  double end_ = 0;  // evaluations to spend so far
  bool recomputes_;
  bool continues_ = false;  // with the best of an earlier search
  std::vector<division_choice> starts_;
  divided_family uniform_, divided_;
  std::vector<partition_pool> pools_;       // of choices in which all stages recompute, and of all choices
  std::optional<candidate> family_, best_;  // the best family, and the best of all
};

}  // namespace pipesched::detail
