#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
# torch_runs.py TOOL [FAMILY...]: runs the written files in PyTorch itself. Trains one step of every family on processes with
# gloo, from the compute_only and the compute_comms form, and compares losses and gradients with those of one process. Exits
# with 77 without PyTorch.

import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings

try:
    import torch
    import torch.distributed as dist
    import torch.multiprocessing as mp
    import torch.nn as nn
    from torch.distributed.pipelining import PipelineStage
    from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime
except ImportError as e:
    print(f"skipped: no PyTorch ({e})")
    sys.exit(77)

PP, MICRO, WIDTH = 4, 8, 16
HELD_TWICE = ("dualpipe", "chimera")  # every stage on two ranks, which PyTorch does not support


def make_stage(number):
    torch.manual_seed(number)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()).double()


def make_data():
    torch.manual_seed(12345)
    return torch.randn(2 * MICRO, WIDTH).double(), torch.randn(2 * MICRO, WIDTH).double()


def loss_of(output, target):
    return ((output - target) ** 2).mean()


def run_rank(rank, stages_of, path, form, store, queue):
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=PP, init_method=f"file://{store}")
    own, count = stages_of[rank], sum(map(len, stages_of))
    modules = {number: make_stage(number) for number in own}
    stages = [PipelineStage(modules[number], number, count, torch.device("cpu")) for number in own]
    runtime = _PipelineScheduleRuntime(stages, MICRO, loss_fn=loss_of)
    runtime._load_csv(path, format=form)
    inputs, targets = make_data()
    losses = []
    runtime.step(*([inputs] if 0 in own else []), **({"target": targets, "losses": losses} if count - 1 in own else {}))
    queue.put(([l.item() for l in losses], {n: [p.grad.numpy() for p in m.parameters()] for n, m in modules.items()}))
    dist.barrier()
    dist.destroy_process_group()


def run(stages_of, path, form):
    context = mp.get_context("spawn")
    queue, parts = context.SimpleQueue(), []
    with tempfile.TemporaryDirectory() as folder:
        arguments = (stages_of, path, form, os.path.join(folder, "store"), queue)
        ranks = [context.Process(target=run_rank, args=(rank, *arguments)) for rank in range(PP)]
        for process in ranks:
            process.start()
        limit = time.monotonic() + 100
        while len(parts) < PP and time.monotonic() < limit:
            parts.append(queue.get()) if not queue.empty() else time.sleep(0.02)
        for process in ranks:
            process.join() if len(parts) == PP else process.kill()
    if len(parts) < PP:
        return f"FAILED: {PP - len(parts)} of {PP} ranks did not end"
    model = nn.Sequential(*[make_stage(number) for number in range(sum(map(len, stages_of)))])
    expected = []
    for inputs, targets in zip(*(part.chunk(MICRO) for part in make_data())):
        loss = loss_of(model(inputs), targets)
        expected.append(loss.item())
        (loss / MICRO).backward()
    losses = [loss for part, _ in parts for loss in part]
    error = max(
        (torch.as_tensor(got) - parameter.grad).abs().max().item()
        for _, gradients in parts
        for number, of_stage in gradients.items()
        for got, parameter in zip(of_stage, model[number].parameters())
    )
    good = losses == expected and error < 1e-15
    return f"{'ok' if good else 'FAILED'}: losses {'equal' if losses == expected else losses}, gradients within {error:.1e}"


def main():
    tool, families = sys.argv[1], sys.argv[2:]
    print("PyTorch", torch.__version__)
    listed = subprocess.run([tool, "list"], capture_output=True, text=True, check=True).stdout.splitlines()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        plan, compute, comms = (os.path.join(folder, name) for name in ("plan.json", "compute.csv", "comms.csv"))
        for family in families or [line.split()[0] for line in listed]:
            if family in HELD_TWICE:
                continue
            sizes = ["--pp", str(PP), "--micro", str(MICRO)]
            subprocess.run([tool, "generate", family, *sizes, "--output", plan], check=True)
            subprocess.run([tool, "convert", plan, compute], check=True)
            waits = [] if hasattr(torch.distributed.pipelining.schedules, "WAIT_SEND_F") else ["--no-waits"]
            subprocess.run([tool, "lower", plan, "--format", "csv", "--output", comms, *waits], check=True)
            with open(compute) as rows:
                stages_of = [sorted({int(n) for n in re.findall(r"(\d+)F\d", row)}) for row in rows]
            for form, path in (("compute_only", compute), ("compute_comms", comms)):
                said = run(stages_of, path, form)
                failed += said.startswith("FAILED")
                print(f"{family} {form}: {said}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
