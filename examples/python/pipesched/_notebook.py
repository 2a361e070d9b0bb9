# SPDX-License-Identifier: MIT
"""How values show themselves in a notebook."""

import html

from . import _pipesched as _c
from ._pages import in_frame

#: More cells than this are no picture: it would be megabytes.
MAX_CELLS_OF_SVG = 20_000
#: More cells than this are a page, which is then smaller than the picture; many more are described in a line.
MAX_CELLS_OF_PICTURE, MAX_CELLS_OF_PAGE = 2_000, 1_000_000


def _cells(timeline):
    return timeline.offsets[-1]


def svg_of(timeline, style=_c.svg_style()):
    """The picture of a timeline, or None if it has too many cells."""
    return _c.render_svg(timeline, style) if _cells(timeline) <= MAX_CELLS_OF_SVG else None


def html_of(timeline, style=_c.svg_style()):
    """The picture in a frame that scrolls, the page, or the facts, by the number of cells."""
    if _cells(timeline) <= MAX_CELLS_OF_PICTURE:
        svg = svg_of(timeline, style).replace("max-width:100%", "max-width:none", 1)  # to scroll, not shrink
        return f'<div style="overflow-x:auto">{svg}</div>'
    facts = html.escape(_c.facts_of(timeline))
    if _cells(timeline) <= MAX_CELLS_OF_PAGE:
        return in_frame(_c.render_html(_c.make_panel(timeline)), 560, facts)
    return f"<p>{facts}; too many cells to show here: render_html() makes a page</p>"


def _svg_of_schedule(schedule):
    return svg_of(_c.simulate(schedule)) if _c.verify(schedule) else None


def _html_of_schedule(schedule):
    report = _c.verify(schedule)
    return html_of(_c.simulate(schedule)) if report else f"<pre>{html.escape(repr(schedule))}\n{html.escape(str(report))}</pre>"


def _style_of_plan(plan):
    """The makespans of a plan, as it does not know its costs: cells are drawn with times of 1."""
    best = f", {plan.published} {plan.published_makespan:.6g}" if plan.published else ""
    makespans = f"planned {plan.makespan:.6g}, at least {plan.bound.makespan:.6g}{best}"
    return _c.svg_style(title=f"{makespans}; the order of its cells, not their times")


def install():
    """Gives the classes of the module their pictures."""
    _c.schedule._repr_svg_ = _svg_of_schedule
    _c.schedule._repr_html_ = _html_of_schedule
    _c.timeline._repr_svg_ = svg_of
    _c.timeline._repr_html_ = html_of
    _c.plan_result._repr_svg_ = lambda plan: svg_of(_c.simulate(plan.schedule), _style_of_plan(plan))
    _c.plan_result._repr_html_ = lambda plan: html_of(_c.simulate(plan.schedule), _style_of_plan(plan))
    _c.model_plan._repr_svg_ = lambda plan: svg_of(_c.simulate(plan.plan.schedule, plan.costs))
    _c.model_plan._repr_html_ = lambda plan: html_of(_c.simulate(plan.plan.schedule, plan.costs))
