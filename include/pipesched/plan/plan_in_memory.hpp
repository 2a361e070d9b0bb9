// SPDX-License-Identifier: MIT
#pragma once

// A plan within all bytes of the ranks: weights and message buffers count as well as what ops keep and need.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/plan/detail/one_at_a_time.hpp"
#include "pipesched/plan/detail/shared_progress.hpp"
#include "pipesched/plan/memory_caps.hpp"
#include "pipesched/plan/plan.hpp"
#include "pipesched/program/fits.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/simulate/lower_bound.hpp"
#include "pipesched/simulate/metrics.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

namespace detail {

/// One micro-batch at a time, with whole backwards or split ones, if that fits.
/// @param spent  grows by the evaluations
template <typename Costs>
std::optional<plan_result> smallest_plan(const plan_problem& problem, const Costs& costs,
                                         const std::vector<double>& memory, double& spent) {
  const schedule shape = planned_shape(problem.placement, problem.micro, problem.forward_only);
  for (const bool split : {false, true}) {
    const schedule s = one_at_a_time(shape, split, problem.recomputed);
    ++spent;
    if (!fits(lower(s, {}, verified), costs, memory)) continue;
    const metrics m = measure(simulate(s, costs, verified), costs, verified);
    return plan_result{.schedule = s, .makespan = m.makespan, .peak_activations = m.peak_activations, .evaluations = 1};
  }
  return std::nullopt;
}

template <typename Costs>
bool has_messages(const placement& where, const Costs& costs) {
  if constexpr (requires(tensor_id t) { costs.message(t); })
    for (std::uint32_t s = 0; s + 1 < where.stages(); ++s)
      if (costs.message({tensor_kind::activation, static_cast<std::uint16_t>(s), 0}) > 0) return true;
  return false;
}

/// A plan that fits, if one is found. If there are messages, a short search shows how much room their buffers take, which is
/// about the same for all plans. If nothing fits beside that much, half of it is tried.
/// @param memory  by rank; empty: no limits  @param spent  grows by the evaluations
/// @param progress  of all tries, in place of that of `limits`
template <typename Costs>
std::optional<plan_result> found_in_memory(const plan_problem& problem, const Costs& costs,
                                           const std::vector<double>& memory, plan_limits limits, double& spent,
                                           shared_progress& progress) {
  const double end = spent + static_cast<double>(limits.evaluations);
  const bool has_buffers = !memory.empty() && has_messages(problem.placement, costs);
  std::vector<double> buffers(memory.size(), 0);
  std::optional<plan_result> best;
  for (int tries = 0; tries < (has_buffers ? 4 : 1) && (tries == 0 || !progress.stopped()); ++tries) {
    const double share = !has_buffers || tries == 3 ? 1 : tries == 0 ? 1.0 / 16 : 7.0 / 8;
    limits.progress = progress.of_search();
    limits.evaluations = static_cast<std::uint64_t>(std::max(1.0, share * (end - spent)));
    if (!memory.empty()) limits.memory.bytes = beside_weights(problem.placement, costs, memory);
    bool has_room = true;
    for (std::size_t r = 0; r < buffers.size(); ++r) has_room = (limits.memory.bytes[r] -= buffers[r]) > 0 && has_room;
    std::optional<plan_result> found;
    if (has_room) try {
        found = plan(problem, costs, limits);
      } catch (const no_fit_error& e) {
        spent += e.evaluations;
      }
    if (!found) {
      for (double& bytes : buffers) bytes /= 2;
      continue;
    }
    spent += found->evaluations;
    if (memory.empty()) return found;
    const memory_report m = fits(lower(found->schedule, {}, verified), costs, memory);
    for (std::size_t r = 0; r < buffers.size(); ++r) buffers[r] = std::max(buffers[r], m.ranks[r].buffers);
    if (m && !(best && best->makespan <= found->makespan)) best = std::move(found);
    if (m && tries > 0) break;
  }
  return best ? best : smallest_plan(problem, costs, memory, spent);
}

// Makes the best published schedule that fits, with its own buffers, that of a result, and the plan if it is the shorter one.
template <typename Costs>
void compare_with_published(plan_result& result, const plan_problem& problem, const Costs& costs,
                            const std::vector<double>& memory, const pass_pair_set& pairs) {
  std::vector<std::pair<metrics, schedule>> all;
  for (schedule& s : published_for(problem, problem.placement, problem.micro, costs, std::nullopt))
    if (uses_only(s, pairs)) {
      metrics m = measure(simulate(s, costs, verified), costs, verified);
      all.emplace_back(std::move(m), std::move(s));
    }
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.first.makespan < b.first.makespan; });
  const auto best = std::find_if(all.begin(), all.end(), [&](const auto& a) {
    return static_cast<bool>(fits(lower(a.second, {}, verified), costs, memory));
  });
  result.published.clear(), result.published_makespan = std::numeric_limits<double>::infinity();
  result.published_schedule = {};
  if (best == all.end()) return;
  const auto& [m, s] = *best;
  result.published = s.name.view(), result.published_makespan = m.makespan, result.published_schedule = s;
  if (m.makespan < result.makespan)
    result.schedule = s, result.makespan = m.makespan, result.peak_activations = m.peak_activations;
}

// Says why no plan is found.
template <typename Costs>
[[noreturn]] void refuse_memory(const plan_problem& problem, const Costs& costs, const std::vector<double>& memory,
                                plan_limits limits, double spent) {
  limits.memory.bytes = beside_weights(problem.placement, costs, memory);
  for (std::size_t r = 0; r < memory.size(); ++r)
    if (const double room = limits.memory.bytes[r]; !(room > 0))
      throw no_fit_error(concat({"plan_in_memory() finds nothing that fits: rank ", r, " has ", memory[r],
                                 " bytes, and its weights take ", memory[r] - room}),
                         spent);
  limits.evaluations = 1, limits.progress = {};
  try {
    plan(problem, costs, limits);
  } catch (const no_fit_error& e) {
    throw no_fit_error(concat({e.what(), ", beside its weights"}), spent);
  }
  throw no_fit_error("plan_in_memory() finds no schedule whose message buffers fit into the memory of the ranks, too",
                     spent);
}

}  // namespace detail

/// plan() within the memory of the ranks, as fits() counts it: weights of both replicas, what ops keep and need while they run,
/// and the buffers of messages. Never longer than a published schedule that fits.
/// @param memory  bytes of each rank, or one number for all
/// @param limits  without memory; the bound of the result is for any schedule whose weights and activations fit
/// @throws schedule_error as plan() does, for limits of memory in `limits`, and for another number of ranks or a negative number
/// in `memory`; no_fit_error if nothing found fits. Time: that of plan(), and a lowering for each published schedule that may
/// be the best.
template <cost_model Costs>
plan_result plan_in_memory(const plan_problem& problem, const Costs& costs, std::vector<double> memory,
                           const plan_limits& limits = {}) {
  const placement& where = problem.placement;
  detail::require_plan(problem, costs, limits);
  detail::require_memory(memory, where.ranks());
  if (!limits.memory.empty())
    throw schedule_error("plan_in_memory() takes the bytes of the ranks; got limits of memory for plan() as well");
  if (memory.empty()) return plan(problem, costs, limits);
  memory.resize(where.ranks(), memory.front());
  plan_problem own = problem;
  own.placement = where.for_micro(problem.micro);
  const pass_pair_set pairs = detail::pairs_for(costs, limits);
  const std::optional<memory_caps> room = detail::room_beside_weights(own.placement, costs, memory);
  if (!room) detail::refuse_memory(own, costs, memory, limits, 0);
  double spent = 0;
  detail::shared_progress progress(limits.progress, std::nullopt);
  plan_result none;
  none.makespan = std::numeric_limits<double>::infinity();
  plan_result found = detail::found_in_memory(own, costs, memory, limits, spent, progress).value_or(none);
  detail::compare_with_published(found, own, costs, memory, pairs);
  if (found.schedule.pp() == 0) detail::refuse_memory(own, costs, memory, limits, spent);
  found.bound = detail::bound_for(own, costs, pairs, *room);
  found.evaluations = spent;
  return found;
}

}  // namespace pipesched
