// SPDX-License-Identifier: MIT
#pragma once

// The inside of an overlapped cell as values: each op is a chain of tasks on two resources, compute and communication, with
// tasks beside the chain that may run at any time after one of its tasks, such as the weight gradients of a backward.

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#include "pipesched/support/concat.hpp"
#include "pipesched/support/error.hpp"
#include "pipesched/support/fixed_string.hpp"

namespace pipesched {

/// Resources of a rank. Each runs one task at a time, without preemption.
enum class cell_resource : std::uint8_t { compute, communication };
constexpr std::string_view to_string(cell_resource r) noexcept {
  return r == cell_resource::compute ? "compute" : "communication";
}

using task_name = fixed_string<31>;

/// A kernel, or several that run together.
struct cell_task {
  task_name name{};
  double duration = 0;
  cell_resource resource = cell_resource::compute;

  friend constexpr bool operator==(const cell_task&, const cell_task&) = default;
};

/// A task beside a chain.
struct movable_task {
  task_name name{};
  double duration = 0;
  std::optional<std::size_t> after{};  ///< index of the task of the chain that it needs; default: none
  cell_resource resource = cell_resource::compute;

  friend constexpr bool operator==(const movable_task&, const movable_task&) = default;
};

/// The tasks of one op: a chain, of which each task needs the one before it, and movable tasks.
struct op_tasks {
  std::vector<cell_task> chain;
  std::vector<movable_task> movable{};

  friend constexpr bool operator==(const op_tasks&, const op_tasks&) = default;
};

/// A task of a cell: of its op 0 or 1, of the chain or movable, by index.
struct task_ref {
  std::uint8_t op = 0;
  bool movable = false;
  std::uint32_t index = 0;

  friend constexpr bool operator==(const task_ref&, const task_ref&) = default;
};

struct timed_task {
  task_ref task;
  double start = 0, end = 0;

  friend constexpr bool operator==(const timed_task&, const timed_task&) = default;
};

/// An order for the inside of a cell, with its times from the start of the cell.
struct planned_cell {
  std::vector<timed_task> tasks;  ///< by start, all tasks of both ops
  double length = 0;              ///< the last end
  double lower_bound = 0;         ///< no order is shorter
  double chains = 0;              ///< the least length of the two chains without their movable tasks
  std::size_t states = 0;         ///< partial orders that were looked at

  /// (length - lower_bound) / lower_bound.
  constexpr double gap() const noexcept { return lower_bound > 0 ? (length - lower_bound) / lower_bound : 0; }

  friend constexpr bool operator==(const planned_cell&, const planned_cell&) = default;
};

/// The last end of the tasks of an op, from the start of the cell. Linear.
constexpr double end_of(const planned_cell& cell, std::size_t op) noexcept {
  double end = 0;
  for (const timed_task& t : cell.tasks)
    if (t.task.op == op && t.end > end) end = t.end;
  return end;
}
/// The same for its chain alone: its output may leave then.
constexpr double chain_end_of(const planned_cell& cell, std::size_t op) noexcept {
  double end = 0;
  for (const timed_task& t : cell.tasks)
    if (t.task.op == op && !t.task.movable && t.end > end) end = t.end;
  return end;
}

namespace detail {

/// The task that a reference names, of whichever sort. @pre it exists
constexpr cell_task task_of(const std::array<const op_tasks*, 2>& ops, task_ref t) {
  if (!t.movable) return ops[t.op]->chain[t.index];
  const movable_task& m = ops[t.op]->movable[t.index];
  return {m.name, m.duration, m.resource};
}
/// The task of the chain that it needs, if it needs one. @pre it exists
constexpr std::optional<std::size_t> task_before(const std::array<const op_tasks*, 2>& ops, task_ref t) {
  if (t.movable) return ops[t.op]->movable[t.index].after;
  return t.index > 0 ? std::optional<std::size_t>(t.index - 1) : std::nullopt;
}

constexpr void require_duration(double duration, std::string_view name, std::size_t op) {
  if (duration >= 0 && duration <= std::numeric_limits<double>::max()) return;
  throw schedule_error(concat({"cell_plan: task \"", name, "\" of op ", op, " has a duration that is ",
                               duration < 0   ? "negative"
                               : duration > 0 ? "infinite"
                                              : "not a number",
                               "; expected a finite number that is not negative, nearest 0"}));
}

}  // namespace detail

/// @throws schedule_error if a duration is negative, infinite or NaN, or a movable task needs a task that the chain does not have.
constexpr void check(const op_tasks& tasks, std::size_t op = 0) {
  for (const cell_task& t : tasks.chain) detail::require_duration(t.duration, t.name, op);
  for (const movable_task& t : tasks.movable) {
    detail::require_duration(t.duration, t.name, op);
    if (!t.after || *t.after < tasks.chain.size()) continue;
    if (tasks.chain.empty())
      throw schedule_error(detail::concat({"cell_plan: movable task \"", t.name.view(), "\" of op ", op,
                                           " comes after task ", *t.after, " of an empty chain; expected no task"}));
    throw schedule_error(detail::concat({"cell_plan: movable task \"", t.name.view(), "\" of op ", op,
                                         " comes after task ", *t.after, " of the chain; expected 0 to ",
                                         tasks.chain.size() - 1, ", nearest ", tasks.chain.size() - 1}));
  }
}

}  // namespace pipesched
