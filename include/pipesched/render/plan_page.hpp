// SPDX-License-Identifier: MIT
#pragma once

// Pages of plans and of fronts of memory and time, beside the schedules that are published.

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipesched/core/placement.hpp"
#include "pipesched/cost/memory_unit.hpp"
#include "pipesched/cost/stage_costs.hpp"
#include "pipesched/cost/time_unit.hpp"
#include "pipesched/plan/model_pareto.hpp"
#include "pipesched/plan/model_problem.hpp"
#include "pipesched/plan/pareto.hpp"
#include "pipesched/plan/plan.hpp"
#include "pipesched/program/fits.hpp"
#include "pipesched/render/front.hpp"
#include "pipesched/render/html.hpp"
#include "pipesched/render/html_panel.hpp"
#include "pipesched/render/html_style.hpp"
#include "pipesched/simulate/simulate.hpp"
#include "pipesched/support/concat.hpp"

namespace pipesched {

/// The points of a front, as its pictures take them; placements are named if there are several.
inline std::vector<front_point> points_of(const std::vector<pareto_point>& front) {
  std::vector<front_point> points;
  for (const pareto_point& p : front)
    points.push_back({.memory = p.cap,
                      .makespan = p.plan.makespan,
                      .lower_bound = p.lower_bound,
                      .published = p.plan.published,
                      .published_makespan = p.plan.published_makespan});
  const auto same = [&](const pareto_point& p) { return p.step == front.front().step; };
  if (!std::all_of(front.begin(), front.end(), same))
    for (std::size_t i = 0; i < front.size(); ++i) points[i].placement = to_string(front[i].plan.schedule.placement);
  return points;
}

/// The same for a model; its families have partitions of their own.
inline std::vector<front_point> points_of(const std::vector<model_pareto_point>& front) {
  std::vector<pareto_point> plain;
  for (const model_pareto_point& p : front) plain.push_back(detail::plain_point(p));
  return points_of(plain);
}

namespace detail {

inline html_panel panel_with_bound(const schedule& s, const stage_costs& costs, double bound) {
  html_panel panel = make_panel(simulate(s, costs), costs);
  panel.lower_bound = bound;
  return panel;
}

inline html_panel panel_of_plan(const plan_result& plan, const stage_costs& costs, std::string name) {
  html_panel panel = panel_with_bound(plan.schedule, costs, plan.bound.makespan);
  panel.name = std::move(name), panel.planned = true;
  return panel;
}

// Adds the best published schedule, unless a panel shows that timeline already.
inline void add_published(std::vector<html_panel>& beside, const plan_result& plan, const stage_costs& costs,
                          std::string_view note) {
  if (plan.published_schedule.pp() == 0) return;
  html_panel best = panel_with_bound(plan.published_schedule, costs, plan.bound.makespan);
  const auto same = [&](const html_panel& p) { return p.timeline == best.timeline; };
  if (std::any_of(beside.begin(), beside.end(), same)) return;
  best.name = concat({plan.published, ", ", note});
  beside.push_back(std::move(best));
}

// The page of a plan before others, the shortest of them first.
inline std::string page_beside(html_panel planned, std::vector<html_panel> beside, const html_style& style) {
  std::stable_sort(beside.begin(), beside.end(),
                   [](const html_panel& a, const html_panel& b) { return a.measured.makespan < b.measured.makespan; });
  beside.insert(beside.begin(), std::move(planned));
  return render_html(beside, style);
}

// The style with the unit of the costs, unless it has one.
inline html_style with_unit_of(const stage_costs& costs, html_style style) {
  if (style.unit.empty() && costs.time_unit != time_unit::none) style.unit = to_string(costs.time_unit);
  return style;
}

// The limits of the ranks, as fits() takes them.
inline std::vector<double> limits_of(const memory_report& memory) {
  std::vector<double> limits;
  for (const rank_memory& r : memory.ranks) limits.push_back(r.limit);
  return limits;
}

// The panels of a front: every schedule once, however many points show it.
class front_panels {
 public:
  std::size_t of(html_panel panel) {
    const auto at = std::find_if(panels.begin(), panels.end(), [&](const html_panel& p) {
      return p.planned == panel.planned && p.timeline == panel.timeline;
    });
    const auto index = static_cast<std::size_t>(at - panels.begin());
    if (at == panels.end()) panels.push_back(std::move(panel));
    return index;
  }

  std::vector<html_panel> panels;
};

// The name of the plan of a point: "planned, limit 9", "planned, 80 GB, vee".
inline std::string name_of_plan(const front_point& p, memory_unit unit, double most) {
  const memory_axis axis = memory_axis_of(unit, most);
  const std::string limit =
      unit == memory_unit::bytes ? concat({p.memory / axis.scale, " ", axis.unit}) : concat({"limit ", p.memory});
  return concat({"planned, ", limit, p.placement.empty() ? "" : ", ", p.placement});
}

}  // namespace detail

/// The page of a plan: first its schedule, then the best published one and all others, the shortest first.
/// @param costs  with which it was planned
/// @param beside  panels of other schedules of the same step, such as those of a comparison
/// @param style  without a unit it takes that of the costs
/// @throws schedule_error as simulate() and render_html() do
inline std::string page_of_plan(const plan_result& plan, const stage_costs& costs, std::vector<html_panel> beside = {},
                                const html_style& style = {}) {
  detail::add_published(beside, plan, costs, "best parameters");
  html_panel planned = detail::panel_of_plan(plan, costs, "planned");
  return detail::page_beside(std::move(planned), std::move(beside), detail::with_unit_of(costs, style));
}

/// The same for a model, with its own costs and the memory of its ranks. The published schedule has the planned partition.
inline std::string page_of_plan(const model_plan& plan, std::vector<html_panel> beside = {},
                                const html_style& style = {}) {
  const std::size_t given = beside.size();
  detail::add_published(beside, plan.plan, plan.costs, "same layers");
  if (beside.size() > given)
    beside.back().limits = room_of(fits(plan.plan.published_schedule, plan.costs, detail::limits_of(plan.memory)));
  html_panel planned = detail::panel_of_plan(plan.plan, plan.costs, "planned");
  planned.limits = room_of(plan.memory);
  return detail::page_beside(std::move(planned), std::move(beside), detail::with_unit_of(plan.costs, style));
}

/// The page of a front: a click on a point shows its plan beside the best published schedule within that limit.
/// @param steps  for which it was planned
/// @param style  with the unit of the limits; its front is replaced; without a unit of time it takes that of the costs
/// @throws schedule_error for no steps, points of other steps, and as simulate() and render_html() do
inline std::string page_of_front(const std::vector<pareto_point>& front, const std::vector<placed_step<>>& steps,
                                 html_style style = {}) {
  if (steps.empty()) throw schedule_error("the page of a front needs the steps for which it was planned; got none");
  style.front.clear();
  detail::front_panels shown;
  const std::vector<front_point> points = points_of(front);
  for (std::size_t i = 0; i < front.size(); ++i) {
    const pareto_point& p = front[i];
    if (p.step >= steps.size())
      throw schedule_error(
          detail::concat({"a point of a front has one of the ", steps.size(), " steps; got ", p.step}));
    const std::string name = detail::name_of_plan(points[i], style.memory, points.back().memory);
    const std::size_t plan = shown.of(detail::panel_of_plan(p.plan, steps[p.step].costs, name));
    style.front.push_back({.point = points[i], .plan = plan});
    const schedule& best = p.plan.published_schedule;
    const auto at = std::find_if(steps.begin(), steps.end(), [&](const placed_step<>& step) {
      return same_stages_on_ranks(step.problem.placement, best.placement);
    });
    if (best.pp() > 0 && at != steps.end())
      style.front.back().published = shown.of(detail::panel_with_bound(best, at->costs, p.lower_bound));
  }
  return render_html(shown.panels, detail::with_unit_of(steps.front().costs, std::move(style)));
}

/// The same for a front on one placement, in live activations.
inline std::string page_of_front(const std::vector<pareto_point>& front, const stage_costs& costs,
                                 const html_style& style = {}) {
  const std::vector<placed_step<>> one = {
      {.problem = {.placement = front.empty() ? placement() : front.front().plan.schedule.placement}, .costs = costs}};
  return page_of_front(front, one, style);
}

/// The same for the front of a model, in bytes; families, whose layers are divided in other ways, are not shown.
inline std::string page_of_front(const std::vector<model_pareto_point>& front, html_style style = {}) {
  style.front.clear(), style.memory = memory_unit::bytes;
  detail::front_panels shown;
  const std::vector<front_point> points = points_of(front);
  for (std::size_t i = 0; i < front.size(); ++i) {
    const model_plan& p = front[i].plan;
    html_panel panel = detail::panel_of_plan(p.plan, p.costs,
                                             detail::name_of_plan(points[i], memory_unit::bytes, points.back().memory));
    panel.limits = room_of(p.memory);
    style.front.push_back({.point = points[i], .plan = shown.of(std::move(panel))});
  }
  return render_html(shown.panels,
                     front.empty() ? style : detail::with_unit_of(front.front().plan.costs, std::move(style)));
}

}  // namespace pipesched
