# SPDX-License-Identifier: MIT
"""All families side by side, for the same ranks, micro-batches and costs."""

import html
import functools
from collections.abc import Callable, Iterable, Sequence  # noqa: F401, of annotations
from dataclasses import dataclass

from . import _pipesched as _c
from ._calls import CLASSES, called_as, checked, plural
from ._overview import svg_of_studies
from ._pages import in_frame, panel_of_study
from ._progress import Interrupted, bar
from ._search import _model_of, divide, unit_name


@dataclass(frozen=True, repr=False)
class study:
    """One family of a comparison: its timeline under its costs, what it measures, a proven bound, and the published formula."""

    name: str
    timeline: _c.timeline
    costs: _c.stage_costs
    metrics: _c.metrics
    bound: _c.lower_bound_result
    formula: "_c.closed_form | None"
    division: "_c.division | None" = None

    @property
    def schedule(self):
        return self.timeline.schedule

    @property
    def makespan(self):
        return self.metrics.makespan

    @property
    def gap(self):
        """Distance of the makespan from the bound: (makespan - bound) / bound."""
        return self.bound.gap(self.makespan)

    def __repr__(self):
        return f"<study of {self.name}: makespan {self.makespan:.6g}, at least {self.bound.makespan:.6g}>"

    def _repr_svg_(self):
        return self.timeline._repr_svg_()

    def _repr_html_(self):
        return self.timeline._repr_html_()


CLASSES["study"] = study


@dataclass(frozen=True)
class compare_progress:
    """How far compare() is."""

    done: int  #: families, with those that are left out
    all: int  #: families to compare
    makespan: float  #: of the best so far; infinite without one


class comparison(Sequence):
    """The studies of compare(), in the order of the families: a sequence, or comparison["zbv"]. print() shows a table."""

    @functools.partial(checked, called="comparison")
    def __init__(self, studies: "Iterable[study]", left_out: "dict", title: "str", note: "str" = "", unit: "str" = ""):
        self.studies = tuple(studies)
        self.left_out = dict(left_out)  #: why a family has no study, by its name
        self.title = title
        self.note = note  #: what the costs are of
        self.unit = unit  #: of time: s, ms, us, or empty

    def __len__(self):
        return len(self.studies)

    def __iter__(self):
        return iter(self.studies)

    def __getitem__(self, which):
        if not isinstance(which, str):
            return self.studies[which]
        for s in self.studies:
            if s.name == which:
                return s
        raise KeyError(self.left_out.get(which, which))

    def __contains__(self, which):
        """Of a study, or the name of one."""
        return any(which == (s.name if isinstance(which, str) else s) for s in self.studies)

    def _state(self):
        return self.studies, tuple(self.left_out.items()), self.title, self.note, self.unit

    def __eq__(self, other):
        return self._state() == other._state() if isinstance(other, comparison) else NotImplemented

    def __hash__(self):
        return hash(self._state())

    @property
    def best(self):
        """The study with the shortest makespan, the first of several."""
        if not self.studies:
            raise _c.ScheduleError("a comparison without studies has no best one")
        return min(self.studies, key=lambda s: s.makespan)

    def _columns(self):
        columns = {
            "schedule": lambda s: s.name,
            "makespan": lambda s: f"{s.makespan:.6g}",
            "bubble %": lambda s: f"{_share(s.metrics.max_bubble, s):.1f}",
            "formula %": lambda s: "" if s.formula is None else f"{_share(s.formula.bubble, s):.1f}{'' if s.formula.holds else '*'}",
            "bound": lambda s: f"{s.bound.makespan:.6g}",
            "gap %": lambda s: f"{100 * s.gap:.1f}",
            "peak": lambda s: f"{s.metrics.peak_activations:.4g}",
        }
        if any(s.metrics.peak_bytes for s in self):
            columns["bytes"] = lambda s: f"{s.metrics.peak_bytes:.4g}"
        columns["copies"] = lambda s: f"{s.metrics.parameter_copies:.3g}"
        return columns

    def __str__(self):
        columns = self._columns()
        lines = [list(columns)] + [[cell(s) for cell in columns.values()] for s in self]
        widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
        table = [" ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths))).rstrip() for line in lines]
        notes = [f"left out: {reason}" for reason in self.left_out.values()]
        return "\n".join([self.title, *table, *notes])

    def __repr__(self):
        return f"<comparison: {self.title}, {plural(len(self), 'family')}>"

    def _repr_svg_(self):
        return svg_of_studies(self.title, self, self.unit)

    def _repr_html_(self):
        if not self.studies:
            return f"<pre>{html.escape(str(self))}</pre>"
        page = in_frame(self.to_html(), 170 + 24 * len(self), html.escape(self.title))
        return f"{page}<details><summary>as a table</summary><pre>{html.escape(str(self))}</pre></details>"

    @checked
    def to_html(self, style: "html_style" = _c.html_style()):
        """An interactive page: a bar for each family, the shortest first, and its schedule.

        style  its subject begins the headline, and its notes follow those of the comparison
        """
        notes = [self.note, *(f"left out: {reason}" for reason in self.left_out.values()), *style.notes]
        panels = [panel_of_study(s) for s in sorted(self, key=lambda s: s.makespan)]
        return _c.render_html(panels, style.replace(unit=style.unit or self.unit, notes=notes))


def _share(part, s):
    return 100 * part / s.makespan if s.makespan > 0 else 0


def _taken(family, parameters):
    return {name: value for name, value in parameters.items() if name in family.parameters}


def _refuse_unused(families, parameters):
    for name in parameters:
        if not any(name in family.parameters for family in families):
            raise _c.ScheduleError(f"no compared family takes {name}; got {name} = {parameters[name]}")


def _study(family, sizes, parameters, costs, model):
    parameters = _taken(family, parameters)
    division = None
    if model is not None:
        division = divide(model, family, **sizes, **parameters)
        schedule, own = division.schedule, division.costs
    else:
        own = _c.split_stage_costs(costs, family.place(**sizes, **parameters))
        with_costs = {"costs": own} if "costs" in family.parameters else {}
        schedule = family.make(**sizes, **parameters, **with_costs)
    timeline = _c.simulate(schedule, own)
    formula = _c.closed_form_of(schedule, own)
    return study(family.name, timeline, own, _c.measure(timeline, own), _c.lower_bound(schedule, own), formula, division)


def _families_of(names):
    if names is None:
        return list(_c.families)
    chosen = [name if isinstance(name, _c.family) else _c.find_family(name) for name in names]
    if not chosen:
        raise _c.ScheduleError("compare() needs at least 1 family; got none")
    for i, family in enumerate(chosen):
        if family in chosen[:i]:
            raise _c.ScheduleError(f"compare() got {family.name} twice; expected once")
    return chosen


def _best(studies):
    return min((s.makespan for s in studies), default=float("inf"))


@checked
def compare(
    pp: "int",
    micro: "int",
    costs: "stage_costs | None" = None,
    *,
    model: "model | str | None" = None,
    families: "Iterable[str | family] | None" = None,
    forward_only: "bool" = False,
    progress: "Callable | bool | None" = None,
    **parameters,
):
    """Simulates families with the same ranks, micro-batches and costs.

    costs       of a rank's whole share, divided among its stages; fields with a number per stage are per stage
    model       in place of costs, or the name of one of model_names: each family gets the best partition found of its layers
    families    names; default: all. A family whose limits do not allow these sizes is left out, with the reason
    progress    called after each family with a compare_progress; False stops, and the other families are left out; True shows a bar.
                Ctrl-C raises Interrupted, whose `result` has the families so far
    parameters  chunks, waves, group_size and so on, for the families that take them
    """
    if costs is not None and model is not None:
        raise TypeError("compare() takes costs or a model, not both")
    model = model if model is None else _model_of(model)
    chosen = _families_of(families)
    _refuse_unused(chosen, parameters)
    sizes = {"pp": pp, "micro": micro, "forward_only": forward_only}
    studies, left_out = [], {}
    report = bar(len(chosen), " families") if progress is True else progress or None
    goes_on, interrupted = True, False
    try:
        for i, family in enumerate(chosen):
            try:
                with called_as("compare"):
                    studies.append(_study(family, sizes, parameters, costs or _c.stage_costs(), model))
            except _c.ScheduleError as error:
                left_out[family.name] = str(error)
            goes_on = report is None or report(compare_progress(i + 1, len(chosen), _best(studies))) is not False
            if not goes_on:
                break
    except KeyboardInterrupt:
        interrupted = True
    finally:
        if hasattr(report, "close"):
            report.close()
    for family in chosen[len(studies) + len(left_out) :]:
        left_out[family.name] = f"{family.name} was not reached"
    if not studies and goes_on and not interrupted:
        first, others = next(iter(left_out.values())), len(left_out) - 1
        raise _c.ScheduleError(f"no family can be compared: {first} (and {others} more)" if others else first)
    title = f"{plural(pp, 'rank')}, {plural(micro, 'micro-batch')}{', forward only' if forward_only else ''}"
    note = "the best partition found for each family" if model else "costs of a rank's whole share, divided among its stages"
    unit = unit_name(model or costs or _c.stage_costs())
    found = comparison(studies, left_out, title, note, unit)
    if interrupted:
        raise Interrupted(found)
    return found
