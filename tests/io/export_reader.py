#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""export_reader.py [--refused] TRAINER FOLDER SCHEDULE.json ...: reads what `pipesched export` wrote as the trainer would, by
rules that are written anew here, and compares it with the schedule. Prints a line for each folder that the trainer refuses or
runs in another order, with --refused for each that it takes, and exits with 1 if there is one. The trainers themselves are not needed; the sources of the rules are named in include/pipesched/io/export_*.hpp."""
import json
import re
import shlex
import sys
import types
from pathlib import Path


class Refused(Exception):
    pass


def need(condition, sentence):
    if not condition:
        raise Refused(sentence)


def cells_of(row):
    """The ops of each cell of a row: [["0F0"], ["0F1", "3B0"]]."""
    return [cell.strip("()").split(";") for cell in row]


# PyTorch: torchtitan and Automodel.

def torch_action(text):
    """The ops of an action of a compute_only file, as from_str() and the check of _load_csv() take them; None for idle time."""
    text = text.strip()
    if not text:
        return None
    if text.startswith("("):
        inside, kind = text[1:].split(")", 1)
        need(kind == "OVERLAP_F_B", f"{text}: unknown computation {kind!r}")
        return [torch_action(part)[0] for part in inside.split(";")]
    found = re.match(r"(\d+)([A-Z_]+?)(\d*)$", text)
    need(found and found[2] in ("F", "I", "W", "B"), f"{text}: not a computation")
    return [text]


def stages_by_name(name, v_names, rank, pp, stages):
    need(stages % pp == 0, f"{stages} stages do not divide among {pp} ranks")
    if name.lower() in v_names:
        need(stages == 2 * pp, f"{name} has 2 stages per rank, not {stages / pp}")
        return {rank, stages - 1 - rank}
    return set(range(rank, stages, pp))


def single_stage(name):
    return name.lower() in ("1f1b", "gpipe")


def check_torch(folder, plan, name, v_names, csv, micro, pp, parts):
    known = ("1f1b", "gpipe", "interleaved1f1b", "loopedbfs", "interleavedzerobubble", "zbvzerobubble", "dualpipev")
    need(name.lower() in known, f"{name}: unknown schedule")
    need(pp > 1, "no pipeline with 1 rank")
    rows = (folder / csv).read_bytes().decode().split("\r\n")
    need(rows.pop() == "", "the last row does not end")
    need(len(rows) == pp, f"{len(rows)} rows for {pp} ranks")
    stages = len(parts) if parts else pp * (1 if single_stage(name) else 2)
    for rank, text in enumerate(rows):
        ops = [action for action in map(torch_action, text.split(",")) if action]
        own = stages_by_name(name, v_names, rank, pp, stages)
        found = {int(re.match(r"\d+", op)[0]) for action in ops for op in action}
        need(found == own, f"rank {rank} has stages {sorted(found)}, and {name} places {sorted(own)} there")
        micros = {int(re.search(r"\d+$", op)[0]) for action in ops for op in action}
        need(micros == set(range(micro)), f"rank {rank} runs micro-batches {sorted(micros)} of {micro}")
        need(ops == cells_of(plan["ranks"][rank]), f"rank {rank} runs another order")


def check_modules(parts, first, last, every, layers):
    """Each module once and in order, but those of every stage."""
    if parts is None:
        return
    names = []
    for number, part in enumerate(parts):
        need(all(name in part for name in every), f"stage {number} lacks one of {every}")
        own = [name for name in part if name not in every]
        need(own, f"stage {number} has no parameters")
        names += own
    count = len(names) - len(first) - len(last)
    need(names == first + [f"{layers}{i}" for i in range(count)] + last, f"modules {names[:3]} ... are not those of the model")


def read_torchtitan(folder, plan):
    spec = {"__file__": str(folder.resolve() / "torchtitan_pipeline.py")}
    exec((folder / "torchtitan_pipeline.py").read_text(), spec)
    parallelism = types.SimpleNamespace()
    spec["set_pipeline"](parallelism)
    fields = {"pipeline_parallel_degree", "pipeline_parallel_schedule", "pipeline_parallel_schedule_csv", "num_pp_microbatches",
              "pipeline_parallel_layers_per_stage", "module_fqns_per_model_part"}
    need(set(vars(parallelism)) == fields, f"entries {sorted(vars(parallelism))}")
    need(parallelism.pipeline_parallel_layers_per_stage is None, "layers per stage beside a list of modules")
    check_torch(folder, plan, parallelism.pipeline_parallel_schedule, ("zbvzerobubble", "dualpipev"),
                parallelism.pipeline_parallel_schedule_csv, parallelism.num_pp_microbatches, parallelism.pipeline_parallel_degree,
                parallelism.module_fqns_per_model_part)
    check_modules(parallelism.module_fqns_per_model_part, ["tok_embeddings"], ["norm", "lm_head"], [], "layers.")


def yaml_entries(text):
    """The entries of the YAML that the tool writes, by path: nested keys, scalars, and lists of lists in flow style."""
    entries, path = {}, []
    for line in text.splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).rstrip()
        if not line:
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        if line.lstrip().startswith("- "):
            entries.setdefault(".".join(path), []).append(json.loads(line.lstrip()[2:]))
            continue
        key, value = line.strip().split(":", 1)
        path = path[:depth] + [key]
        if value:
            value = value.strip()
            entries[".".join(path)] = None if value == "null" else int(value) if value.isdigit() else value
    return entries


def read_automodel(folder, plan):
    text = (folder / "pipeline.yaml").read_text()
    entries = yaml_entries(text)
    try:
        import yaml
        flat = lambda node, path=(): {k: v for key, sub in node.items() for k, v in flat(sub, path + (key,)).items()} \
            if isinstance(node, dict) else {".".join(path): node}
        need(flat(yaml.safe_load(text)) == entries, "PyYAML reads other entries")
    except ImportError:
        pass
    pipeline = {key.split(".")[-1]: value for key, value in entries.items() if key.startswith("distributed.pipeline.")}
    need(set(pipeline) == {"pp_schedule", "pp_schedule_csv", "pp_microbatch_size", "layers_per_stage", "module_fqns_per_model_part"},
         f"entries {sorted(pipeline)}")
    pp, batch = entries["distributed.pp_size"], entries["step_scheduler.local_batch_size"]
    need(batch % pipeline["pp_microbatch_size"] == 0, "the batch does not divide into micro-batches")
    micro = batch // pipeline["pp_microbatch_size"]
    need(micro >= pp, f"{micro} micro-batches for {pp} ranks")
    check_torch(folder, plan, pipeline["pp_schedule"], ("zbvzerobubble",), pipeline["pp_schedule_csv"], micro, pp,
                pipeline["module_fqns_per_model_part"])
    check_modules(pipeline["module_fqns_per_model_part"], ["model.embed_tokens"], ["model.norm", "lm_head"],
                  ["model.rotary_emb"], "model.layers.")


# Megatron-LM.

def layout_stages(layout):
    """The letters of each stage."""
    layout = layout.replace(",", "")
    layout = re.sub(r"\(([^)]+)\)\*(\d+)", lambda m: m[1] * int(m[2]), layout)
    layout = re.sub(r"(.)\*(\d+)", lambda m: m[1] * int(m[2]), layout)
    need(set(layout) <= set("EtmL|"), f"layout {layout}")
    return layout.split("|")


def check_layout(stages, pp, chunks, layers, mtp):
    flat = "".join(stages)
    need(len(stages) == pp * chunks, f"{len(stages)} stages in the layout")
    need(flat[0] == "E" and flat[-1] == "L" and flat.count("E") == flat.count("L") == 1, "one E first and one L last")
    need(flat.count("t") == layers, f"{flat.count('t')} t in the layout, and {layers} layers")
    need(flat.count("m") == mtp, f"{flat.count('m')} m in the layout, and {mtp} layers of MTP")
    need("m" not in flat or "t" not in flat[flat.index("m"):], "a t after an m")
    for stage, letters in enumerate(stages):
        need("m" not in letters or (stage // pp == chunks - 1 and letters.count("m") == mtp), f"m on stage {stage}")


def megatron_order(pp, micro, chunks, group, overlap, rank):
    """The cells that the rank runs."""
    forwards = []
    for begin in range(0, micro, group):
        for chunk in range(chunks):
            forwards += [(chunk, m) for m in range(begin, min(begin + group, micro))]
    backwards = [(chunks - 1 - chunk, m) for chunk, m in forwards]
    warm_up = pp - rank - 1 if chunks == 1 else 2 * (pp - rank - 1) + (chunks - 1) * group + overlap
    warm_up = min(warm_up, len(forwards))
    name = lambda op, letter: f"{op[0] * pp + rank}{letter}{op[1]}"
    row = [[name(op, "F")] for op in forwards[:warm_up]]
    for F, B in zip(forwards[warm_up:], backwards):
        row += [[name(F, "F"), name(B, "B")]] if overlap else [[name(F, "F")], [name(B, "B")]]
    return row + [[name(op, "B")] for op in backwards[len(forwards) - warm_up:]]


def read_megatron(folder, plan):
    text = (folder / "megatron.sh").read_text()
    words = shlex.split(re.search(r"PIPELINE_ARGS=\((.*)\n\)", text, re.S)[1])
    flags = {}
    while words:
        flag = words.pop(0)
        need(flag.startswith("--") and flag not in flags, f"{flag}")
        flags[flag] = words.pop(0) if words and not words[0].startswith("--") else True
    pp = int(flags.pop("--pipeline-model-parallel-size"))
    micro = int(re.search(r"--global-batch-size \$\(\((\d+) \*", text)[1])
    layout = flags.pop("--pipeline-model-parallel-layout", None)
    need(not layout or "--num-virtual-stages-per-pipeline-rank" not in flags, "a layout beside a number of virtual stages")
    chunks = int(flags.pop("--num-virtual-stages-per-pipeline-rank", 1))
    if layout:
        stages = layout_stages(layout)
        need(len(stages) % pp == 0, f"{len(stages)} stages for {pp} ranks")
        chunks = len(stages) // pp
        check_layout(stages, pp, chunks, int(flags.pop("--num-layers")), int(flags.pop("--mtp-num-layers", 0)))
    group = int(flags.pop("--microbatch-group-size-per-virtual-pipeline-stage", pp))
    overlap = bool(flags.pop("--overlap-moe-expert-parallel-comm", False))
    need(not flags, f"flags {sorted(flags)}")
    if chunks > 1:
        need(pp > 1, "virtual stages on one rank")
        need(pp <= group <= micro, f"groups of {group} of {micro} micro-batches on {pp} ranks")
        need(micro % group == 0 or micro % group >= pp, f"a last group of {micro % group}")
    need(not overlap or chunks > 1, "overlap without virtual stages")
    for rank in range(pp):
        need(cells_of(plan["ranks"][rank]) == megatron_order(pp, micro, chunks, group, overlap, rank), f"rank {rank} runs another order")


# jaxpp.

def jaxpp_modules():
    """Stand-ins for the names that a schedule imports."""
    import dataclasses
    import enum

    class TaskType(enum.Enum):
        FWD, BWD, BWD_I, BWD_W = 1, 2, 3, 4

    @dataclasses.dataclass(frozen=True)
    class Task:
        stage_id: int
        mubatch_idx: int
        fwd_or_bwd: TaskType

        @classmethod
        def make(cls, stage_id, mubatch_idx, fwd_or_bwd):
            return cls(stage_id, mubatch_idx, fwd_or_bwd)

    class FusedTask(tuple):
        pass

    @dataclasses.dataclass(eq=True, frozen=True)
    class BaseSchedule:
        num_stages: int
        is_partial_bwd: bool = dataclasses.field(default=False, init=False)

        def __post_init__(self):
            need(self.num_stages > 0, "no stages")

    package, schedules, kinds = types.ModuleType("jaxpp"), types.ModuleType("jaxpp.schedules"), types.ModuleType("jaxpp.types")
    schedules.Task, schedules.FusedTask, schedules.BaseSchedule, kinds.TaskType = Task, FusedTask, BaseSchedule, TaskType
    sys.modules.update({"jaxpp": package, "jaxpp.schedules": schedules, "jaxpp.types": kinds})
    return TaskType, Task, FusedTask


def jaxpp_stripped(tasks, TaskType, is_fused):
    """Stage 0 has no BWD_W of its own: the one after each BWD_I is dropped, in the row and inside of fused tasks."""
    kept, at = [], 0
    while at < len(tasks):
        task = tasks[at]
        at += 1
        if is_fused(task):
            kept.append(jaxpp_stripped(list(task), TaskType, is_fused))
            continue
        kept.append(task)
        if task.stage_id == 0 and task.fwd_or_bwd is TaskType.BWD_I:
            need(at < len(tasks) and not is_fused(tasks[at]) and tasks[at].stage_id == 0
                 and tasks[at].fwd_or_bwd is TaskType.BWD_W and tasks[at].mubatch_idx == task.mubatch_idx,
                 f"{task} without its BWD_W")
            at += 1
    return kept


def read_jaxpp(folder, plan):
    TaskType, Task, FusedTask = jaxpp_modules()
    spec = {"__name__": "jaxpp_schedule"}
    sys.modules["jaxpp_schedule"] = types.ModuleType("jaxpp_schedule")
    exec((folder / "jaxpp_schedule.py").read_text(), spec)
    schedule = spec["Schedule"]()
    need(hash(schedule) == hash(spec["Schedule"]()) and schedule == spec["Schedule"](), "schedules that are not values")
    tasks, stages, micro, partial = schedule.tasks(plan["micro"]), schedule.num_stages, plan["micro"], schedule.is_partial_bwd
    need(stages == plan["stages"] and len(tasks) == plan["pp"], "other sizes")
    try:
        schedule.tasks(micro + 1)
        raise Refused("takes any number of micro-batches")
    except ValueError:
        pass
    letters = {TaskType.FWD: "F", TaskType.BWD: "B", TaskType.BWD_I: "I", TaskType.BWD_W: "W"}
    for rank, row in enumerate(tasks):
        flat = [f"{t.stage_id}{letters[t.fwd_or_bwd]}{t.mubatch_idx}" for task in row for t in (task if isinstance(task, FusedTask) else [task])]
        expected = [op for cell in cells_of(plan["ranks"][rank]) for op in cell]
        if partial:
            expected = [half for op in expected for half in ([op.replace("B", "I"), op.replace("B", "W")] if "B" in op else [op])]
        need(flat == expected, f"rank {rank} runs another order")
        need([len(cell) > 1 or (partial and "B" in cell[0]) for cell in cells_of(plan["ranks"][rank])]
             == [isinstance(task, FusedTask) for task in row], f"rank {rank} fuses other tasks")
    # The tasks of the loop, each ready when those that it needs have run.
    rows = [jaxpp_stripped(row, TaskType, lambda task: isinstance(task, tuple)) for row in tasks]
    backward = TaskType.BWD_I if partial else TaskType.BWD
    done = set()

    def ready(task, also):
        s, m, kind = task.stage_id, task.mubatch_idx, task.fwd_or_bwd
        needed = []
        if kind is TaskType.FWD and s > 0:
            needed = [(s - 1, m, TaskType.FWD)]
        if kind is backward:
            needed = [(s, m, TaskType.FWD)] + ([(s + 1, m, backward)] if s + 1 < stages else [])
        if kind is TaskType.BWD_W:
            needed = [(s, m, TaskType.BWD_I)]
        return all(n in done or n in also for n in needed)

    at = [0] * len(rows)
    while True:
        progress = False
        for rank, row in enumerate(rows):
            while at[rank] < len(row):
                group = row[at[rank]] if isinstance(row[at[rank]], list) else [row[at[rank]]]
                also = set()
                for task in group:
                    need(schedule.get_mpmd_idx(task.stage_id) == rank, f"stage {task.stage_id} is not on rank {rank}")
                    if not ready(task, also):
                        break
                    also.add((task.stage_id, task.mubatch_idx, task.fwd_or_bwd))
                if len(also) < len(group):
                    break
                need(not done & also, f"{group[0]} runs twice")
                done |= also
                at[rank] += 1
                progress = True
        if not progress:
            break
    need(all(at[rank] == len(row) for rank, row in enumerate(rows)), "the order does not honour its dependencies")
    expected = {(s, m, kind) for s in range(stages) for m in range(micro) for kind in
                ((TaskType.FWD, TaskType.BWD_I) + ((TaskType.BWD_W,) if s > 0 else ()) if partial else (TaskType.FWD, TaskType.BWD))}
    need(done == expected, f"{len(done)} tasks, and the loop has {len(expected)}")


readers = {"torchtitan": read_torchtitan, "automodel": read_automodel, "megatron": read_megatron, "jaxpp": read_jaxpp}

if __name__ == "__main__":
    words = sys.argv[1:]
    refuses = words[:1] == ["--refused"]
    words = words[refuses:]
    wrong = []
    for trainer, folder, schedule in zip(words[::3], words[1::3], words[2::3]):
        reason = None
        try:
            readers[trainer](Path(folder), json.loads(Path(schedule).read_text()))
        except Exception as fault:  # a fault of any kind ends the trainer
            reason = fault
        if refuses and reason is None:
            wrong.append(f"{trainer} reads {folder}")
        elif not refuses and reason is not None:
            wrong.append(f"{trainer} refuses {folder}: {type(reason).__name__}: {reason}")
    sys.exit("\n".join(wrong) or None)
