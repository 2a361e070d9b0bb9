# SPDX-License-Identifier: MIT
"""Searches whose arguments or results have a Python shape: divide() for a family, pareto() with a front that shows itself."""

import functools
from collections.abc import Callable, Iterable, Sequence  # noqa: F401, of annotations

from . import _pipesched as _c
from ._calls import called_as, checked
from ._pages import in_frame, page_of_front
from ._progress import Interrupted


def _model_of(m):
    """A model, or the one of a name."""
    return _c.find_model(m) if isinstance(m, str) else m


@checked
def divide(
    m: "model | str",
    what: "schedule | family | str | placement",
    make: "Callable | None" = None,
    limits: "divide_limits" = _c.divide_limits(),
    progress: "Callable | bool | None" = None,
    **parameters,
):
    """The best partition found of a model's layers among stages.

    m     a model, or the name of one of model_names
    what  a schedule, whose order is kept; a family or its name, with its parameters (pp=8, micro=20); or a placement, with
          make(costs), which makes the schedule for the costs of every partition

    `progress` is called now and then with a divide_progress, and stops the search with the best so far if it returns False;
    True shows a bar. Ctrl-C raises Interrupted, whose `result` is the best so far.
    """
    m = _model_of(m)
    if isinstance(what, (str, _c.family)):
        family = _c.find_family(what) if isinstance(what, str) else what
        if "costs" in parameters:
            raise _c.ScheduleError("divide() takes the costs from the model; got costs among the parameters as well")
        with called_as("divide"):
            made = family.place(**parameters) if "costs" in family.parameters else family.make(**parameters)
        if isinstance(made, _c.schedule):
            return _c._divide(m, made, limits, progress)
        return _c._divide(m, made, lambda costs: family.make(costs=costs, **parameters), limits, progress)
    if parameters:
        raise TypeError(f"divide() takes parameters with a family; got {', '.join(parameters)}")
    if isinstance(what, _c.placement):
        if make is None:
            raise TypeError("divide() of a placement needs make(costs)")
        return _c._divide(m, what, make, limits, progress)
    return _c._divide(m, what, limits, progress)


def unit_name(costs):
    """The unit of time of costs or a model: s, ms or us; empty without one."""
    return "" if costs.time_unit == _c.time_unit.none else costs.time_unit.name


def family_of(name):
    """The family of a name, for pickle."""
    return _c.find_family(name)


def _unit_of(unit):
    """A unit of memory, or the one of a name."""
    if isinstance(unit, _c.memory_unit):
        return unit
    if unit not in _c.memory_unit.__members__:
        raise TypeError(f"pareto() takes activations or bytes as the unit; got {unit!r}")
    return _c.memory_unit[unit]


class front(tuple):
    """The points of pareto(): limits of memory, each with its plan. A notebook shows its page."""

    @functools.partial(checked, called="front")
    def __new__(
        cls,
        points: "Iterable[pareto_point | model_pareto_point]" = (),
        costs: "stage_costs | Iterable[placed_step] | None" = None,
        unit: "memory_unit | str" = "activations",
    ):
        self = super().__new__(cls, points)
        #: of the plans on one placement, or the placed_steps; None for a model, whose plans have them
        self.costs = costs if costs is None or isinstance(costs, _c.stage_costs) else tuple(costs)
        self.unit = _unit_of(unit)  #: of the limits: activations or bytes
        return self

    def points(self):
        """The points as render_front_svg() takes them."""
        return _c.points_of(list(self))

    def _repr_svg_(self):
        return _c.render_front_svg(self.points(), _c.front_style(memory=self.unit, time_unit=self.time_unit)) if self else None

    @property
    def time_unit(self):
        """Of the makespans: s, ms or us; empty if the costs name none."""
        costs = self.costs
        if costs is None:
            costs = [point.plan.costs for point in self if isinstance(point, _c.model_pareto_point)]
        elif not isinstance(costs, _c.stage_costs):
            costs = [step.costs for step in costs]
        return unit_name(costs if isinstance(costs, _c.stage_costs) else costs[0] if costs else _c.stage_costs())

    @checked
    def to_html(self, style: "html_style | None" = None):
        """The interactive page of the front; see page_of_front()."""
        return page_of_front(self, self.costs, style or _c.html_style(memory=self.unit))

    def _repr_html_(self):
        return in_frame(self.to_html(), 520, "front of memory and time") if self else None


@checked
def pareto(
    problem: "plan_problem | model | str | Iterable[placed_step]",
    costs: "stage_costs | model_problem | Iterable[model_problem] | None" = None,
    caps: "Sequence[float]" = (),
    limits: "plan_limits" = _c.plan_limits(),
    progress: "Callable | bool | None" = None,
    unit: "memory_unit | str | None" = None,
):
    """One plan for each limit of memory: a front of memory and time, more memory never worse.

    problem  a plan_problem with its costs; a list of placed_steps, one a placement, without costs; or a model, or its name, with
             a list of model_problems in place of costs
    caps     the limits of each rank: live activations or bytes, as `unit` says; bytes for a model
    unit     activations, or bytes, which count weights, a second copy of them, and message buffers; a model has bytes alone

    `progress` as for plan().
    """
    if isinstance(problem, (_c.model, str)):
        m, unit, shown = _model_of(problem), unit or "bytes", None
        if _unit_of(unit) != _c.memory_unit.bytes:
            raise TypeError("pareto() of a model takes limits of bytes; got activations")
        if isinstance(costs, _c.stage_costs):
            raise TypeError("pareto() of a model takes model_problems; the model has costs of its own")
        problems = [costs] if isinstance(costs, _c.model_problem) else list(costs or ())
    elif isinstance(problem, _c.plan_problem):
        if costs is not None and not isinstance(costs, _c.stage_costs):
            raise TypeError("pareto() of a plan_problem takes stage_costs; model_problems go with a model")
        m, shown = None, costs or _c.stage_costs()
        problems = [_c.placed_step(problem=problem, costs=shown)]
    else:
        if costs is not None:
            raise TypeError("pareto() takes costs with a plan_problem; placed_steps have their own")
        m, shown = None, list(problem)
        problems = shown
    unit = unit or "activations"
    try:
        if m is not None:
            return front(_c._model_pareto(m, problems, caps, limits, progress), shown, unit)
        return front(_c._pareto(problems, caps, _unit_of(unit), limits, progress), shown, unit)
    except Interrupted as interrupted:
        raise Interrupted(front(interrupted.result, shown, unit)) from None
