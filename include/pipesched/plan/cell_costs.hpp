// SPDX-License-Identifier: MIT
#pragma once

// Times of overlapped pairs from the tasks of layers: each pair takes as long as its planned inside.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "pipesched/core/op.hpp"
#include "pipesched/core/placement.hpp"
#include "pipesched/cost/pass_pairs.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/model/costs_of.hpp"
#include "pipesched/model/model.hpp"
#include "pipesched/model/partition.hpp"
#include "pipesched/plan/cell_plan.hpp"
#include "pipesched/plan/cell_tasks.hpp"
#include "pipesched/support/error.hpp"

namespace pipesched {

/// The tasks of one layer: of F and of I in the order in which they run, and of W, whose `after` is an index in `backward`.
struct layer_tasks {
  std::string kind = "layer";
  std::vector<cell_task> forward, backward{};
  std::vector<movable_task> weight{};

  friend bool operator==(const layer_tasks&, const layer_tasks&) = default;
};

namespace detail {

inline void append_backward(op_tasks& to, const layer_tasks& l, bool with_weight) {
  const std::size_t first = to.chain.size();
  to.chain.insert(to.chain.end(), l.backward.begin(), l.backward.end());
  if (!with_weight) return;
  for (movable_task m : l.weight) {
    if (m.after) *m.after += first;
    to.movable.push_back(m);
  }
}

}  // namespace detail

/// The tasks of one pass through a stage: F and R from its first layer, backwards from its last. B has those of W as movable
/// tasks; W alone has nothing else. A backward that recomputes runs the forward of each layer before its backward.
/// @param layers  in the order of the model
inline op_tasks tasks_of(const std::vector<layer_tasks>& layers, pass p) {
  op_tasks tasks;
  if (p == pass::forward || p == pass::recompute) {
    for (const layer_tasks& l : layers) tasks.chain.insert(tasks.chain.end(), l.forward.begin(), l.forward.end());
    return tasks;
  }
  const pass alone = without_recompute(p);
  for (std::size_t i = layers.size(); i-- > 0;) {
    const layer_tasks& l = layers[i];
    if (p == pass::backward_weight) {
      for (movable_task m : l.weight) m.after.reset(), tasks.movable.push_back(m);
      continue;
    }
    if (p != alone) tasks.chain.insert(tasks.chain.end(), l.forward.begin(), l.forward.end());
    detail::append_backward(tasks, l, alone == pass::backward);
  }
  return tasks;
}

/// The layers of every stage as tasks, by their kinds. A layer of a kind without tasks is one compute task per pass.
/// @throws schedule_error if check() refuses the model, the partition is of other layers, or a kind is given twice
inline std::vector<std::vector<layer_tasks>> stage_tasks(const model& m, const partition& p,
                                                         const std::vector<layer_tasks>& kinds) {
  check(m);
  require_partition(p, m, static_cast<std::uint32_t>(p.stages()));
  std::map<std::string, const layer_tasks*> by_kind;
  for (const layer_tasks& k : kinds)
    if (!by_kind.emplace(k.kind, &k).second)
      throw schedule_error("cell_plan: the kind \"" + k.kind + "\" has tasks twice; expected once");
  const std::vector<layer> layers = expanded(m.layers);
  const std::vector<std::size_t> first = first_layers(p);
  std::vector<std::vector<layer_tasks>> stages(p.stages());
  for (std::size_t s = 0; s < p.stages(); ++s)
    for (std::size_t i = first[s]; i < first[s + 1]; ++i) {
      const layer& l = layers[i];
      const auto known = by_kind.find(l.kind);
      const detail::backward_times t = l.backward_times();
      stages[s].push_back(known != by_kind.end() ? *known->second
                                                 : layer_tasks{.kind = l.kind,
                                                               .forward = {{"F", l.forward}},
                                                               .backward = {{"I", t.input}},
                                                               .weight = {{"W", t.weight, 0}}});
    }
  return stages;
}

struct pair_plan_options {
  pass_pair_set pairs = pass_pair_set::forward_with_backward();  ///< to plan
  cell_plan_options cell{};
  /// For a model: layers in a row of each kind, in the cell whose length is divided by it. One layer alone hides less.
  std::uint32_t layers = 4;
};

namespace detail {

// Planned lengths of the cells of stages, of which many are alike.
class pair_plans {
 public:
  pair_plans(const std::vector<std::vector<layer_tasks>>& stages, const cell_plan_options& options)
      : stages_(stages), options_(options) {
    for (std::size_t s = 0; s < stages.size(); ++s) {
      std::size_t same = 0;
      while (stages[same] != stages[s]) ++same;
      alike_.push_back(same);
    }
  }

  double length(std::size_t a, pass x, std::size_t b, pass y) {
    const auto key = std::tuple(alike_[a], x, alike_[b], y);
    const auto [at, is_new] = lengths_.try_emplace(key, 0);
    if (is_new) at->second = cell_plan(tasks_of(stages_[a], x), tasks_of(stages_[b], y), options_).length;
    return at->second;
  }

 private:
  const std::vector<std::vector<layer_tasks>>& stages_;
  const cell_plan_options& options_;
  std::vector<std::size_t> alike_;  // by stage, the first one with the same layers
  std::map<std::tuple<std::size_t, pass, std::size_t, pass>, double> lengths_;
};

}  // namespace detail

/// The costs with the planned lengths of the overlapped cells of all stages that share a rank, in `pairs`, in place of entries
/// for the same cells; a pair never takes longer than its ops one after the other. One plan for all stages that are alike.
/// @param costs   per stage, in the unit of the tasks
/// @param stages  the layers of every stage, as stage_tasks() makes them
/// @throws schedule_error if there is another number of stages than in the placement, check() refuses the costs, or cell_plan()
/// refuses tasks
inline stage_costs with_planned_pairs(stage_costs costs, const std::vector<std::vector<layer_tasks>>& stages,
                                      const placement& where, const pair_plan_options& options = {}) {
  if (stages.size() != where.stages())
    throw schedule_error(detail::concat({"cell_plan: there are tasks for ", detail::count_text(stages.size(), "stage"),
                                         "; expected ", where.stages(), ", as in the placement"}));
  costs.check(where.stages());
  const auto together = detail::stages_together(where);
  detail::pair_plans plans(stages, options.cell);
  keyed_list<pair_time> planned;
  for (const pass_pair& passes : options.pairs.pairs())
    for (const auto& [a, b] : together) {
      if (passes.first == passes.second && a > b) continue;  // the same cells as of b and a
      const double alone =
          costs.unit_duration(op{passes.first, 0, a, 0}) + costs.unit_duration(op{passes.second, 0, b, 0});
      planned.push_back({.passes = passes,
                         .stages = std::array{a, b},
                         .time = std::min(plans.length(a, passes.first, b, passes.second), alone)});
    }
  costs.pairs.erase_if([&](const pair_time& old) { return planned.find(key_of(old)) != nullptr; });
  for (const pair_time& p : planned) costs.pairs.push_back(p);
  return costs;
}

/// The model with planned times of its pairs of layers, in place of entries for the same pairs: the length of a cell with some
/// layers of both kinds in a row, divided by their number, and at most the two layers one after the other.
/// @throws schedule_error if check() refuses the model, a kind is given twice or is of no layer, `options.layers` is 0, or
/// cell_plan() refuses tasks
inline model with_planned_pairs(model m, const std::vector<layer_tasks>& kinds, const pair_plan_options& options = {}) {
  check(m);
  if (options.layers == 0)
    throw schedule_error("cell_plan: pairs are planned with 0 layers in a row; expected 1 or more, nearest 1");
  std::vector<const layer*> layer_of;
  std::vector<std::vector<layer_tasks>> rows;
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const auto known =
        std::find_if(m.layers.begin(), m.layers.end(), [&](const layer& l) { return l.kind == kinds[i].kind; });
    if (known == m.layers.end())
      throw schedule_error("cell_plan: there are tasks for the kind \"" + kinds[i].kind + "\", which no layer has");
    for (std::size_t before = 0; before < i; ++before)
      if (kinds[before].kind == kinds[i].kind)
        throw schedule_error("cell_plan: the kind \"" + kinds[i].kind + "\" has tasks twice; expected once");
    layer_of.push_back(&*known);
    rows.emplace_back(options.layers, kinds[i]);
  }
  detail::pair_plans plans(rows, options.cell);
  std::vector<layer_pair> planned;
  for (const pass_pair& passes : options.pairs.pairs())
    for (std::size_t a = 0; a < kinds.size(); ++a)
      for (std::size_t b = passes.first == passes.second ? a : 0; b < kinds.size(); ++b) {
        const double alone =
            detail::duration_of(*layer_of[a], passes.first) + detail::duration_of(*layer_of[b], passes.second);
        planned.push_back({.kinds = {kinds[a].kind, kinds[b].kind},
                           .passes = passes,
                           .time = std::min(plans.length(a, passes.first, b, passes.second) / options.layers, alone)});
      }
  std::set<detail::layers_of_pair> priced;
  for (const layer_pair& p : planned) priced.insert(detail::layers_of(p));
  std::erase_if(m.pairs, [&](const layer_pair& old) { return priced.contains(detail::layers_of(old)); });
  m.pairs.insert(m.pairs.end(), planned.begin(), planned.end());
  return m;
}

}  // namespace pipesched
