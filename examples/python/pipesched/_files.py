# SPDX-License-Identifier: MIT
"""Files: JSON, PyTorch's CSV, measured times, and files for trainers. A file is a path or an open text file; to_json() and
from_json() take texts."""

import json
import os
from collections.abc import Iterable  # noqa: F401, of annotations
from typing import IO  # noqa: F401

from . import _pipesched as _c
from ._calls import checked


def _name_of(file):
    """The path, or the name of an open file; None if it has none."""
    return getattr(file, "name", None) if hasattr(file, "read") else os.fspath(file)


def _read(file):
    try:
        if not hasattr(file, "read"):
            with open(os.fspath(file), encoding="utf-8") as opened:
                return opened.read()
        text = file.read()
        return text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise _c.ScheduleError(f"{_name_of(file) or 'the file'}: not UTF-8 from byte {error.start} on") from None


def _parsed(file, parse):
    """What `parse` makes of the text of a file; its errors name the file, if it has a name."""
    text, name = _read(file), _name_of(file)
    try:
        return parse(text)
    except _c.ScheduleError as error:
        if name is None:
            raise
        named = type(error)(f"{name}: {error}")
        named.__dict__.update(vars(error))  # the path of a ModelError
        raise named from None


def _is_file(file):
    return isinstance(file, (str, os.PathLike)) or hasattr(file, "read")


def _write(file, text):
    if hasattr(file, "write"):
        file.write(text)
        return
    with open(os.fspath(file), "w", encoding="utf-8") as opened:
        opened.write(text)


@checked
def read_json(file: "str | os.PathLike | IO"):
    """The schedule of a JSON file."""
    return _parsed(file, _c.schedule.from_json)


@checked
def write_json(file: "str | os.PathLike | IO", value: "schedule | program"):
    """Writes a schedule or a program as JSON."""
    _write(file, value.to_json())


@checked
def read_torch_csv(file: "str | os.PathLike | IO"):
    """The schedule of a CSV file of PyTorch, in either form, and its other actions."""
    return _parsed(file, _c.torch_csv.from_text)


@checked
def write_torch_csv(file: "str | os.PathLike | IO", schedule: "schedule"):
    """Writes the compute_only form of PyTorch's CSV."""
    _write(file, schedule.to_torch_csv())


@checked
def write_torch_comms_csv(file: "str | os.PathLike | IO", schedule: "schedule", waits: "torch_waits" = _c.torch_waits.written):
    """Writes the compute_comms form of PyTorch's CSV, with its messages."""
    _write(file, schedule.to_torch_comms_csv(waits))


@checked
def read_schedule(file: "str | os.PathLike | IO"):
    """A schedule as JSON or PyTorch's CSV, by its content."""
    return _parsed(file, _c.schedule_file.from_text)


@checked
def read_costs(file: "str | os.PathLike | IO"):
    """Costs by stage from a JSON file."""
    return _parsed(file, _c.stage_costs.from_json)


@checked
def write_costs(file: "str | os.PathLike | IO", costs: "stage_costs"):
    """Writes costs by stage as JSON."""
    _write(file, costs.to_json())


@checked
def read_model(file: "str | os.PathLike | IO"):
    """A model of layers from a JSON file."""
    return _parsed(file, _c.model.from_json)


@checked
def write_model(file: "str | os.PathLike | IO", model: "model"):
    """Writes a model of layers as JSON."""
    _write(file, model.to_json())


@checked
def model_document(model: "model"):
    """The JSON document of a model as a dict."""
    return json.loads(model.to_json())


# Measured times


@checked
def read_times(file: "str | os.PathLike | IO"):
    """The events of a hook from a JSON file: [{"rank": 0, "action": "0F3", "start": 12.5, "end": 14.0}, ...]."""
    return _parsed(file, _c.measured_times.from_text)


def _named(files):
    """(name, text) of each file, for errors; one without a name has its number."""
    if _is_file(files):
        files = [files]
    return [(str(_name_of(file) or f"file {i}"), _read(file)) for i, file in enumerate(files)]


@checked
def read_traces(files: "str | os.PathLike | IO | Iterable[str | os.PathLike | IO]"):
    """The cells of Chrome traces, whose events are named after actions: one file, or all of a run."""
    return _c._read_traces(_named(files))


@checked
def read_primus(schedule: "schedule", files: "str | os.PathLike | IO | Iterable[str | os.PathLike | IO]"):
    """The steps of a run of the schedule from the files of Primus: a folder with pp_rank_0.json and on, or files by rank."""
    if isinstance(files, (str, os.PathLike)):
        files = [os.path.join(files, f"pp_rank_{rank}.json") for rank in range(len(schedule))]
    return _c._read_primus(schedule, _named(files))


# Files for trainers


@checked
def write_exported(folder: "str | os.PathLike", exported: "exported"):
    """Writes the files of an export into a folder, which is made if it is not there."""
    os.makedirs(folder, exist_ok=True)
    for file in exported.files:
        _write(os.path.join(folder, file.name), file.text)
