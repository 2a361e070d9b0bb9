// SPDX-License-Identifier: MIT
#pragma once

// The best order of the tasks inside an overlapped cell, and a length that no order beats.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "pipesched/plan/cell_tasks.hpp"
#include "pipesched/plan/detail/cell_problem.hpp"
#include "pipesched/plan/detail/cell_search.hpp"
#include "pipesched/support/concat.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

struct cell_plan_options {
  /// Length by the tasks / length of the same order as measured, more than 0 and at most 1: every time is divided by it.
  double efficiency = 1;
  /// Partial orders to look at before an order is returned that is not proved; 0: the movable tasks fill gaps alone.
  std::size_t max_states = 100'000;
};

namespace detail {

constexpr void check_cell(const op_tasks& a, const op_tasks& b, double efficiency) {
  check(a, 0), check(b, 1);
  if (!(efficiency > 0 && efficiency <= 1))
    throw schedule_error(concat({"cell_plan: efficiency is more than 0 and at most 1; got ", efficiency, ", nearest ",
                                 efficiency > 1 ? "1" : "0.01"}));
  double sum = 0;
  for (const op_tasks* of : {&a, &b}) {
    for (const cell_task& t : of->chain) sum += t.duration;
    for (const movable_task& t : of->movable) sum += t.duration;
  }
  if (!(sum / efficiency <= std::numeric_limits<double>::max()))
    throw schedule_error("cell_plan: the durations add up to more than a double holds; give them in a larger unit");
}

// Adds the tasks of length 0, sorts all, and divides by the efficiency.
constexpr void complete(planned_cell& cell, const std::array<const op_tasks*, 2>& ops, double efficiency) {
  std::array<std::vector<double>, 2> end;  // of every task of a chain
  for (std::uint8_t c = 0; c < 2; ++c) {
    end[c].assign(ops[c]->chain.size(), 0);
    for (const timed_task& t : cell.tasks)
      if (t.task.op == c && !t.task.movable) end[c][t.task.index] = t.end;
    for (std::uint32_t i = 0; i < end[c].size(); ++i)
      if (!(ops[c]->chain[i].duration > 0)) {
        end[c][i] = i == 0 ? 0 : end[c][i - 1];
        cell.tasks.push_back({{c, false, i}, end[c][i], end[c][i]});
      }
    for (std::uint32_t i = 0; i < ops[c]->movable.size(); ++i)
      if (const movable_task& m = ops[c]->movable[i]; !(m.duration > 0)) {
        const double at = m.after ? end[c][*m.after] : 0;
        cell.tasks.push_back({{c, true, i}, at, at});
      }
  }
  std::sort(cell.tasks.begin(), cell.tasks.end(), [](const timed_task& a, const timed_task& b) {
    const auto key = [](const timed_task& t) {
      return std::tuple(t.start, t.end, t.task.op, t.task.movable, t.task.index);
    };
    return key(a) < key(b);
  });
  for (timed_task& t : cell.tasks) t.start /= efficiency, t.end /= efficiency;
  cell.length /= efficiency, cell.lower_bound /= efficiency, cell.chains /= efficiency;
}

}  // namespace detail

/// Plans the inside of the cell of two ops. Without movable tasks the order is exact: quadratic in the tasks, times the tasks
/// between two conflicts. With them the order is exact, and proved so by `lower_bound`, unless more states are needed than
/// the options allow or there are more than 128 of them. The same on every platform, up to rounding.
/// @param a, b  either may be empty  @throws schedule_error if check() refuses one of them, or the efficiency is not in (0, 1]
constexpr planned_cell cell_plan(const op_tasks& a, const op_tasks& b, const cell_plan_options& options = {}) {
  detail::check_cell(a, b, options.efficiency);
  const std::array ops{&a, &b};
  const detail::cell_problem problem(ops);
  const detail::chain_table chains(problem);
  planned_cell cell{.tasks = {}, .chains = chains.end_from(0, 0, 0, 0)};
  detail::cell_search search(problem, chains, detail::fill_gaps(problem, chains.schedule()));
  if (problem.movable.size() <= detail::cell_search::max_movable) search.run(options.max_states);
  cell.length = search.length(), cell.lower_bound = search.lower_bound(), cell.states = search.states();
  std::array<std::size_t, 2> next{};
  for (const detail::placed_op& o : search.best()) {
    const bool movable = o.op >= 2;
    const std::uint8_t op = movable ? problem.movable[o.op - 2].chain : static_cast<std::uint8_t>(o.op);
    const detail::solid_task& t = movable ? problem.movable[o.op - 2] : problem.chain[op][next[op]++];
    cell.tasks.push_back({{op, movable, t.index}, o.start, o.start + t.duration});
  }
  detail::complete(cell, ops, options.efficiency);
  return cell;
}

namespace detail {

// Refuses an order that does not have every task once, each after the one that it needs.
constexpr void require_order(const std::array<const op_tasks*, 2>& ops, const std::vector<task_ref>& order) {
  std::array<std::array<std::vector<bool>, 2>, 2> placed;
  for (std::size_t c = 0; c < 2; ++c)
    placed[c] = {std::vector<bool>(ops[c]->chain.size()), std::vector<bool>(ops[c]->movable.size())};
  const auto what = [](const task_ref& t) {
    return concat({t.movable ? "movable task " : "task ", t.index, " of op ", t.op});
  };
  for (const task_ref& t : order) {
    if (t.op > 1 || t.index >= placed[t.op][t.movable ? 1 : 0].size())
      throw schedule_error("cell_in_order: there is no " + what(t) + "; expected a task of the two ops");
    if (placed[t.op][t.movable ? 1 : 0][t.index])
      throw schedule_error("cell_in_order: " + what(t) + " is given twice; expected once");
    placed[t.op][t.movable ? 1 : 0][t.index] = true;
    if (const auto before = task_before(ops, t); before && !placed[t.op][0][*before])
      throw schedule_error(concat({"cell_in_order: ", what(t), " comes before task ", *before, ", which it needs"}));
  }
  const std::size_t all = ops[0]->chain.size() + ops[0]->movable.size() + ops[1]->chain.size() + ops[1]->movable.size();
  if (order.size() != all)
    throw schedule_error(concat({"cell_in_order: got ", count_text(order.size(), "task"), "; expected all ", all}));
}

}  // namespace detail

/// The inside of a cell in an order of its tasks: each resource runs them in that order, each as early as possible. Its bound
/// is that of any order, without a search. Linear, and quadratic in the tasks for the bound.
/// @throws schedule_error as cell_plan() does, and if the order does not have every task once, after what it needs
constexpr planned_cell cell_in_order(const op_tasks& a, const op_tasks& b, const std::vector<task_ref>& order,
                                     double efficiency = 1) {
  detail::check_cell(a, b, efficiency);
  const std::array ops{&a, &b};
  detail::require_order(ops, order);
  planned_cell cell;
  std::array<double, 2> free{};
  std::array<std::vector<double>, 2> end{std::vector<double>(a.chain.size()), std::vector<double>(b.chain.size())};
  for (const task_ref& t : order) {
    const cell_task task = detail::task_of(ops, t);
    if (!(task.duration > 0)) continue;  // takes no resource
    const auto r = static_cast<std::size_t>(task.resource);
    const std::optional<std::size_t> before = detail::task_before(ops, t);
    const double start = std::max(free[r], before ? end[t.op][*before] : 0);
    free[r] = start + task.duration;
    if (!t.movable) std::fill(end[t.op].begin() + t.index, end[t.op].end(), free[r]);  // also of those of length 0
    cell.tasks.push_back({t, start, free[r]});
  }
  cell.length = std::max(free[0], free[1]);
  const planned_cell any = cell_plan(a, b, {.max_states = 0});
  cell.lower_bound = std::min(any.lower_bound, cell.length), cell.chains = any.chains;
  detail::complete(cell, ops, efficiency);
  return cell;
}

}  // namespace pipesched
