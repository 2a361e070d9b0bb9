# dualpipev: 2 ranks, 4 stages, 4 micro-batches; written by pipesched, for jaxpp.
#   from jaxpp_schedule import Schedule
#   jaxpp.treduce(..., schedule=Schedule())
import re
from dataclasses import dataclass

from jaxpp.schedules import BaseSchedule, FusedTask, Task
from jaxpp.types import TaskType

MICRO_BATCHES = 4
PARTIAL = True  # every backward is made of BWD_I and BWD_W
KINDS = {
    "F": (TaskType.FWD,),
    "I": (TaskType.BWD_I,),
    "W": (TaskType.BWD_W,),
    "B": (TaskType.BWD_I, TaskType.BWD_W),
}
ROWS = (
    "0F0 0F1 0F2 3F0 3I0 3W0 3F1 (0F3;3B1) (3F2;0B0) 3B2 (3F3;0B1) 3B3 0I2 0W2 0I3 0W3",
    "1F0 2F0 1F1 2F1 1F2 2B0 (2F2;1B0) (1F3;2B1) (2F3;1B1) 2B2 1B2 2I3 1I3 2W3 1W3",
)
RANK_OF_STAGE = (0, 1, 1, 0)


def _tasks_of(cell):
    tasks = [
        Task.make(int(stage), int(micro), kind)
        for stage, letter, micro in re.findall(r"(\d+)([FBIW])(\d+)", cell)
        for kind in KINDS[letter]
    ]
    return tasks[0] if len(tasks) == 1 else FusedTask(tasks)


@dataclass(eq=True, frozen=True)
class Schedule(BaseSchedule):
    num_stages: int = len(RANK_OF_STAGE)

    def __post_init__(self):
        super().__post_init__()
        if self.num_stages != len(RANK_OF_STAGE):
            raise ValueError(f"this schedule has {len(RANK_OF_STAGE)} stages, not {self.num_stages}")
        object.__setattr__(self, "is_partial_bwd", PARTIAL)

    def get_mpmd_idx(self, stage_id):
        return RANK_OF_STAGE[stage_id]

    def tasks(self, n_mubatches):
        if n_mubatches != MICRO_BATCHES:
            raise ValueError(f"this schedule has {MICRO_BATCHES} micro-batches, not {n_mubatches}")
        return [[_tasks_of(cell) for cell in row.split()] for row in ROWS]
