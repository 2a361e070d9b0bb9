# SPDX-License-Identifier: MIT
"""Pages of plans and fronts, and the frame in which a notebook shows a page."""

from collections.abc import Iterable  # noqa: F401, of annotations

from . import _pipesched as _c
from ._calls import checked


def panel_of_study(study):
    """The panel of one family of a comparison."""
    panel = _c.make_panel(study.timeline, study.costs)
    panel.lower_bound = study.bound.makespan
    return panel


@checked
def page_of_plan(
    plan: "plan_result | model_plan",
    costs: "stage_costs | None" = None,
    beside: "Iterable[study | html_panel]" = (),
    style: "html_style" = _c.html_style(),
):
    """The page of a plan: its schedule, then the best published one and all others, the shortest first.

    costs   those of the plan; the plan of a model has its own
    beside  studies or panels of the same step and costs, such as compare(); their schedules are shown once
    """
    beside = [each if isinstance(each, _c.html_panel) else panel_of_study(each) for each in beside]
    if not isinstance(plan, _c.model_plan):
        return _c._page_of_plan(plan, costs or _c.stage_costs(), beside, style)
    if costs is not None:
        raise TypeError("the plan of a model has costs of its own; got others as well")
    return _c._page_of_plan(plan, beside, style)


@checked
def page_of_front(
    front: "Iterable[pareto_point | model_pareto_point]",
    costs: "stage_costs | Iterable[placed_step] | None" = None,
    style: "html_style" = _c.html_style(),
):
    """The page of the points of pareto(): a click on one shows its plan beside the best published schedule within that limit.

    costs  of a front on one placement, or the placed_steps of one over placements; the front of a model has its own
    """
    points = list(front)
    if len({type(point) for point in points}) > 1:
        raise TypeError("page_of_front: front takes points of one kind; got pareto_points and model_pareto_points")
    if costs is None:
        costs = getattr(front, "costs", None)
    if points and isinstance(points[0], _c.model_pareto_point):
        if costs is not None:
            raise TypeError("the front of a model has costs of its own; got others as well")
        return _c._page_of_front(points, style)
    if costs is None or isinstance(costs, _c.stage_costs):
        where = points[0].plan.schedule.placement if points else _c.placement.linear(1)
        costs = [_c.placed_step(problem=_c.plan_problem(placement=where), costs=costs or _c.stage_costs())]
    return _c._page_of_front(points, list(costs), style)


def in_frame(page, height, title):
    """A page inside another one."""
    inside = page.replace("&", "&amp;").replace('"', "&quot;")
    return (
        f'<iframe srcdoc="{inside}" title="{title}" loading="lazy" '
        f'style="width:100%;height:{height}px;border:1px solid #d7dce2;border-radius:4px"></iframe>'
    )
