// SPDX-License-Identifier: MIT
#pragma once

// Insides of cells for tests: random tasks, the shortest order by trying all of them, and what an order must satisfy.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "pipesched/plan/cell_presets.hpp"
#include "pipesched/plan/cell_tasks.hpp"

namespace pipesched::tests {

constexpr auto compute = cell_resource::compute, communication = cell_resource::communication;

using two_ops = std::array<op_tasks, 2>;

/// Up to so many tasks per chain, with whole lengths from 0 to 6, and movable tasks.
inline two_ops random_ops(std::mt19937_64& random, std::size_t max_chain, std::size_t max_movable) {
  two_ops ops;
  const auto resource = [&] { return random() % 2 == 0 ? compute : communication; };
  for (op_tasks& of : ops) {
    const std::size_t tasks = random() % (max_chain + 1);
    for (std::size_t i = 0; i < tasks; ++i) of.chain.push_back({"t", static_cast<double>(random() % 7), resource()});
  }
  const std::size_t movable = max_movable == 0 ? 0 : random() % (max_movable + 1);
  for (std::size_t i = 0; i < movable; ++i) {
    op_tasks& of = ops[random() % 2];
    movable_task m{"m", static_cast<double>(random() % 7), {}, resource()};
    if (!of.chain.empty() && random() % 4 != 0) m.after = random() % of.chain.size();
    of.movable.push_back(m);
  }
  return ops;
}

/// F and B of layers like DeepSeek-V3's: every length is its own times 0.5 to 1.5; the same in all layers or not. All
/// communication is longer or shorter by another such factor.
inline two_ops random_layers(std::mt19937_64& random, std::size_t layers, bool alike) {
  const auto factor = [&] { return 0.5 + static_cast<double>(random() >> 11) * 0x1p-53; };
  const double messages = factor();
  const auto layer = [&] {
    layer_tasks l = deepseek_v3_layer_tasks();
    for (auto* chain : {&l.forward, &l.backward})
      for (cell_task& t : *chain) t.duration *= factor() * (t.resource == cell_resource::communication ? messages : 1);
    for (movable_task& t : l.weight) t.duration *= factor();
    return l;
  };
  std::vector<layer_tasks> all(layers, layer());
  for (std::size_t i = 1; i < layers && !alike; ++i) all[i] = layer();
  return {tasks_of(all, pass::forward), tasks_of(all, pass::backward)};
}

/// An empty text if the cell has every task once, each as long as given, after the one that it needs and after the one before
/// it on its resource; else the first rule that is broken.
inline std::string broken_rule(const planned_cell& cell, const two_ops& ops, double efficiency = 1) {
  constexpr double eps = 1e-9;
  std::array<std::vector<double>, 2> end{std::vector<double>(ops[0].chain.size(), -1),
                                         std::vector<double>(ops[1].chain.size(), -1)};
  std::array<double, 2> free{};
  std::vector<task_ref> seen;
  double last = 0;
  for (const timed_task& t : cell.tasks)
    if (!t.task.movable) end[t.task.op][t.task.index] = t.end;
  for (const timed_task& t : cell.tasks) {
    const auto& [op, movable, index] = t.task;
    if (std::find(seen.begin(), seen.end(), t.task) != seen.end()) return "twice";
    seen.push_back(t.task);
    const double takes = (movable ? ops[op].movable[index].duration : ops[op].chain[index].duration) / efficiency;
    if (std::abs(t.end - t.start - takes) > eps) return "duration";
    double ready = 0;
    if (movable && ops[op].movable[index].after) ready = end[op][*ops[op].movable[index].after];
    if (!movable && index > 0) ready = end[op][index - 1];
    if (t.start < ready - eps) return "before the task that it needs";
    last = std::max(last, t.end);
    if (takes == 0) continue;
    double& busy_until =
        free[static_cast<std::size_t>(movable ? ops[op].movable[index].resource : ops[op].chain[index].resource)];
    if (t.start < busy_until - eps) return "two tasks on one resource";
    busy_until = t.end;
  }
  if (seen.size() != ops[0].chain.size() + ops[1].chain.size() + ops[0].movable.size() + ops[1].movable.size())
    return "not all tasks";
  return std::abs(last - cell.length) > eps ? "length" : "";
}

/// The shortest cell by trying all orders: each next task starts as early as the tasks before it allow. With `below`, orders
/// that cannot be shorter are cut off by the work that is left on a resource and in a chain, and so are those that are nowhere
/// ahead of one with the same tasks; the result is at most `below`.
class exact_cell {
 public:
  explicit exact_cell(const two_ops& ops, double below = std::numeric_limits<double>::infinity())
      : ops_(ops), cuts_(below < std::numeric_limits<double>::infinity()), best_(below) {
    for (std::size_t op = 0; op < 2; ++op)
      for (std::size_t m = 0; m < ops[op].movable.size(); ++m) movable_.push_back({op, m});
  }

  double length() {
    place({});
    return best_;
  }

 private:
  struct state {
    std::array<double, 2> free{}, ready{};
    std::array<std::size_t, 2> next{};
    std::uint64_t done = 0;
    std::array<std::vector<double>, 2> ends{};  // of the chains' tasks
  };

  void place(const state& s) {
    bool complete = true;
    if (cuts_ && !worth(s)) return;
    for (std::size_t op = 0; op < 2; ++op)
      if (s.next[op] < ops_[op].chain.size()) {
        complete = false;
        const cell_task& t = ops_[op].chain[s.next[op]];
        state after = s;
        double& free = after.free[static_cast<std::size_t>(t.resource)];
        const double end = t.duration > 0 ? std::max(free, s.ready[op]) + t.duration : s.ready[op];
        if (t.duration > 0) free = end;
        after.ready[op] = end, ++after.next[op], after.ends[op].push_back(end);
        place(after);
      }
    for (std::size_t m = 0; m < movable_.size(); ++m) {
      const movable_task& t = ops_[movable_[m].first].movable[movable_[m].second];
      if ((s.done >> m & 1) != 0) continue;
      complete = false;
      const auto& ends = s.ends[movable_[m].first];
      if (t.after && *t.after >= ends.size()) continue;
      state after = s;
      after.done |= std::uint64_t{1} << m;
      if (t.duration > 0) {
        double& free = after.free[static_cast<std::size_t>(t.resource)];
        free = std::max(free, t.after ? ends[*t.after] : 0) + t.duration;
      }
      place(after);
    }
    if (complete) best_ = std::min(best_, last(s));
  }

  static double last(const state& s) { return std::max({s.free[0], s.free[1], s.ready[0], s.ready[1]}); }

  bool worth(const state& s) {
    double bound = last(s);
    std::array<double, 2> work = s.free;
    for (std::size_t op = 0; op < 2; ++op) {
      double rest = 0;
      for (std::size_t i = s.next[op]; i < ops_[op].chain.size(); ++i) {
        rest += ops_[op].chain[i].duration;
        work[static_cast<std::size_t>(ops_[op].chain[i].resource)] += ops_[op].chain[i].duration;
      }
      bound = std::max(bound, s.ready[op] + rest);
    }
    for (std::size_t m = 0; m < movable_.size(); ++m)
      if (const movable_task& t = ops_[movable_[m].first].movable[movable_[m].second]; (s.done >> m & 1) == 0)
        work[static_cast<std::size_t>(t.resource)] += t.duration;
    if (std::max({bound, work[0], work[1]}) >= best_ * (1 - 1e-9)) return false;
    // Times by which an earlier state with the same tasks may be ahead everywhere.
    std::vector<double> times{s.free[0], s.free[1], s.ready[0], s.ready[1]};
    for (std::size_t m = 0; m < movable_.size(); ++m) {
      const movable_task& t = ops_[movable_[m].first].movable[movable_[m].second];
      const auto& ends = s.ends[movable_[m].first];
      if ((s.done >> m & 1) == 0 && t.after && *t.after < ends.size())
        times.push_back(std::max(ends[*t.after], s.free[static_cast<std::size_t>(t.resource)]));
    }
    auto& known = seen_[{s.next[0], s.next[1], s.done}];
    for (const auto& other : known)
      if (std::equal(other.begin(), other.end(), times.begin(), [](double a, double b) { return a <= b; }))
        return false;
    known.push_back(std::move(times));
    return true;
  }

  const two_ops& ops_;
  bool cuts_;
  double best_;
  std::vector<std::pair<std::size_t, std::size_t>> movable_;
  std::map<std::tuple<std::size_t, std::size_t, std::uint64_t>, std::vector<std::vector<double>>> seen_;
};

}  // namespace pipesched::tests
