# SPDX-License-Identifier: MIT
"""Schedules of pipeline-parallel training: made, proven, costed, drawn and planned.

The words are those of the C++ library. A schedule is a value; everything else is a function from one value to the next:

    >>> import pipesched
    >>> schedule = pipesched.make_dualpipe_schedule(pp=4, micro=8)
    >>> bool(pipesched.verify(schedule))
    True
    >>> pipesched.measure(pipesched.simulate(schedule)).makespan
    26.0

make_schedule("zbv", pp=4, micro=8)     a family by name; `families` lists them
schedule[rank]                          the cells of a rank, a sequence
verify, simulate, measure, explain      proof, times, metrics, the critical path
stage_costs, read_costs, model          costs by stage, from JSON, of a model's layers
compare(pp=4, micro=8)                  all families side by side
plan, pareto, divide, refill            search: orders, fronts, partitions
lower, slot_table                       messages, buffers and slots
pipesched.torch                         schedules in PyTorch: loaded, measured, planned anew
export_megatron, write_exported         files for Megatron-LM, torchtitan, NeMo Automodel and jaxpp
read_traces, steps_of, fit_costs        measured steps, and costs from them
render_text, render_svg, render_html    pictures; notebooks show schedules by themselves
page_of_plan, page_of_front             pages of what plan() and pareto() return

Values do not change. Records are made by keyword and changed by replace(): limits.replace(seed=2). Invalid input raises
ScheduleError, a ValueError, with one sentence.
"""

from pathlib import Path as _Path

if (_Path(__file__).parents[1] / "pyproject.toml").exists() and not any(_Path(__file__).parent.glob("_pipesched.*")):
    raise ImportError(f"{_Path(__file__).parent} holds the sources of pipesched; start Python in another folder, where the installed one is found")

from . import _calls

_calls.install()  # before the names are taken from the module

from ._pipesched import *  # noqa: E402, F403
from ._pipesched import library_version as __version__
from . import _notebook
from ._compare import compare, compare_progress, comparison, study
from ._files import (
    model_document,
    read_costs,
    read_json,
    read_model,
    read_primus,
    read_schedule,
    read_times,
    read_torch_csv,
    read_traces,
    write_costs,
    write_exported,
    write_json,
    write_model,
    write_torch_comms_csv,
    write_torch_csv,
)
from ._pages import page_of_front, page_of_plan
from ._progress import Interrupted
from ._search import divide, front, pareto
from ._slots import slot_table

_notebook.install()

__all__ = sorted(name for name in globals() if not name.startswith("_")) + ["__version__"]
