// SPDX-License-Identifier: MIT
#pragma once

// Lower bounds of the makespan for a placement, a number of micro-batches, costs, and the cells that may be used. With a
// makespan they give its largest possible distance from the optimum: "makespan 66, at least 63, gap 4.8 %".

#include <array>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "pipesched/core/placement.hpp"
#include "pipesched/core/schedule.hpp"
#include "pipesched/core/verify.hpp"
#include "pipesched/cost/cost_model.hpp"
#include "pipesched/simulate/detail/bounds.hpp"
#include "pipesched/simulate/detail/memory_limits.hpp"
#include "pipesched/simulate/schedule_class.hpp"

namespace pipesched {

/// A time that no valid schedule of the class beats: the largest of these bounds, each over all ranks.
///  * Head, work and tail: the least time before the rank's first forward can start, all of its work, and the least time
///    after its last backward. With a split backward the tail follows the last gradient instead of the last W.
///  * One micro-batch from end to end.
///  * Work and pairs: a forward that starts before the rank's first backward shares no cell with one, and the rank may idle
///    until that backward can start. The least over all numbers of such forwards and of pairs of a forward and a backward. A
///    memory cap and memory limits restrict these forwards, and the work that may be left after the last forward. Skipped on
///    a rank with too many possible pairs to hold their durations.
///  * Under a memory cap or memory limits, unless activations may be recomputed: the lifetimes of all activations, divided by
///    how many of them, or of their bytes, may be kept at a time (Little's law). A micro-batch in a pair takes longer through
///    that stage, which lengthens lifetimes on earlier stages.
/// A forward-only step has the first two alone, and the plain lifetimes under a memory cap.
/// The work counts each op at its duration alone, less the most that overlapping it can save. If sums of the costs are
/// not exact in doubles, the bound is lowered by their rounding.
/// Holds for any cost model, also for costs by micro-batch, rank and pair. If no cost depends on the micro-batch (see
/// cost_model), linear in stages x micro-batches and in stages x chunks, with a memory cap or memory limits also in stages x
/// ranks; else in stages x chunks x micro-batches squared.
/// @throws schedule_error if the costs' own check() refuses them, and unless stages x micro <= 2^28.
/// Source: elementary; head, work and tail for 1F1B as in GPipe, arXiv 1811.06965; lifetimes on V shapes as in arXiv
/// 2405.15362.
template <cost_model Costs>
constexpr lower_bound_result lower_bound(const placement& where, std::uint32_t micro, const Costs& costs,
                                         const schedule_class& of) {
  detail::require_pairs("lower_bound()", where.stages(), micro);
  detail::check_costs(costs, where.stages(), where.ranks(), micro);
  detail::require_memory(of.memory_limits, where.ranks());
  if (of.memory_cap && !(*of.memory_cap >= 0))
    throw schedule_error(
        detail::concat({"a memory cap is 0 activations or more; got ", *of.memory_cap, ", nearest 0"}));
  if (!of.backward.empty() && of.backward.size() != where.stages())
    throw schedule_error(
        detail::concat({"a class of schedules says of each stage, or of none, what its backward is; got ",
                        of.backward.size(), ", nearest ", where.stages()}));
  const placement own = where.for_micro(micro);
  return detail::bounds(own, micro, costs, of).best();
}

/// The bound for all schedules with the cells that the costs allow to a planner; the backward may be split.
template <cost_model Costs>
constexpr lower_bound_result lower_bound(const placement& where, std::uint32_t micro, const Costs& costs) {
  schedule_class of;
  if constexpr (requires { costs.may_overlap(); }) of.pairs = costs.may_overlap();
  return lower_bound(where, micro, costs, of);
}

/// The bound for all schedules with the cells that this one uses, which recompute what it recomputes. That is counted where no
/// pair of the schedule can save it. @throws schedule_error as simulate(): if the schedule is not valid, or for costs
template <cost_model Costs>
constexpr lower_bound_result lower_bound(const schedule& s, const Costs& costs) {
  require_valid(s);
  detail::check_costs(costs, s.stages(), s.pp(), s.micro);
  const schedule_class of = schedule_class_of(s);
  detail::bounds all(s.placement, s.micro, costs, of);
  if (of.recompute) all.add_recompute(s);
  return all.best();
}

namespace detail {

inline std::string number_text(double value) {
  std::string text;
  append_real(text, value, 10);
  return text;
}

}  // namespace detail

/// The bound in words, with its numbers: "rank 3: no backward can begin before 1113.95; 8 forwards begin before it, so at most
/// 12 pairs of a forward and a backward are possible; forwards and gradients of the rank, its pairs, and their tail".
inline std::string describe_bound(const lower_bound_result& b) {
  using detail::count_text, detail::number_text;
  const bool of_rank = b.max_live > 0 || b.reason.find("rank") != b.reason.npos;
  std::string text;
  if (of_rank) text += "rank " + std::to_string(b.rank) + ": ";
  if (b.max_live > 0) text += "at most " + count_text(b.max_live, "activation") + " fit; ";
  if (b.forwards > 0) {
    text += "no backward can begin before " + number_text(b.first_backward) + "; " + count_text(b.forwards, "forward") +
            (b.forwards == 1 ? " begins" : " begin") + " before it";
    if (b.max_pairs > 0)
      text += ", so at most " + count_text(b.max_pairs, "pair") + " of a forward and a backward " +
              (b.max_pairs == 1 ? "is" : "are") + " possible";
    text += "; ";
  } else if (of_rank && b.first_forward > 0) {
    text += "no forward can begin before " + number_text(b.first_forward) + "; ";
  }
  if (b.min_pairs > 0)
    text += "at least " + count_text(b.min_pairs, "pair") + (b.min_pairs == 1 ? " is" : " are") +
            " needed to end in time; ";
  return text + std::string(b.reason);
}

/// "makespan 66, at least 63, gap 4.8 %".
inline std::string format_optimality_gap(double makespan, const lower_bound_result& bound) {
  using detail::number_text;
  std::array<char, 32> gap{"infinite"};
  if (bound.makespan > 0 || bound.gap(makespan) == 0)
    std::snprintf(gap.data(), gap.size(), "%.1f %%", 100 * bound.gap(makespan));
  return "makespan " + number_text(makespan) + ", at least " + number_text(bound.makespan) + ", gap " + gap.data();
}

}  // namespace pipesched
