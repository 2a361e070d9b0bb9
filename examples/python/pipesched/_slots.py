# SPDX-License-Identifier: MIT
"""Slots by op, for trainers that allocate their buffers once."""

import functools
from collections.abc import Mapping

from . import _pipesched as _c
from ._calls import checked, plural


class slot_table(Mapping):
    """The slots of one rank of a program, by op: table["3F12"].activation; table.sizes has the number of slots by pool.

    An op holds its activation from F to B or W, its context from I to W; input and output are the buffers of its tensors. Two
    ops that need a slot at the same time have different ones, so a trainer allocates each pool once. Weight gradients that
    travel are actions of the program, not ops; their pools are in `sizes`.
    """

    @functools.partial(checked, called="slot_table")
    def __init__(self, program: "program", rank: "int"):
        if rank >= len(program.schedule):
            raise _c.ScheduleError(f"the program has ranks 0 to {len(program.schedule) - 1}; got rank {rank}")
        self.sizes = dict(zip((name.replace(" ", "_") for name in _c.pool_names), program.pools[rank].sizes))
        self._slots = {
            str(op): slots
            for cell, pair in zip(program.schedule[rank], program.slots[rank])
            for op, slots in zip(cell, pair)
        }

    def __getitem__(self, op):
        return self._slots[str(op)]

    def __iter__(self):
        return iter(self._slots)

    def __len__(self):
        return len(self._slots)

    def __repr__(self):
        sizes = ", ".join(f"{size} of {name}" for name, size in self.sizes.items() if size)
        return f"<slots of {plural(len(self), 'op')}: {sizes}>"
