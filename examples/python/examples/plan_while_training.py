#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Trains an uneven model on two CPU processes, measures three steps, plans a better order, and continues with it.

    pip install torch ./examples/python
    python examples/python/examples/plan_while_training.py

Four stages lie in a V on two ranks over gloo; the last stage has most of the work. The losses of all steps are compared with
those of one process without a pipeline. Prints, with other times:

    steps 1 to 3, zbv: 0.521 s
    planned from measured costs: 0.463 s expected, at least 0.451 s for this placement
    steps 4 to 6, the plan: 0.470 s
    losses as without a pipeline: 0.6836 in step 1, 0.5561 in step 6
"""

import os
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import pipesched
import pipesched.torch

PP, MICRO, WIDTH, ROWS = 2, 8, 256, 256
LAYERS = [1, 1, 2, 5]  # per stage


def make_stage(number):
    torch.manual_seed(number)
    layers = [layer for _ in range(LAYERS[number]) for layer in (nn.Linear(WIDTH, WIDTH), nn.Tanh())]
    return nn.Sequential(*layers).double()


def make_data():
    torch.manual_seed(1)
    return torch.randn(MICRO * ROWS, WIDTH).double(), torch.randn(MICRO * ROWS, WIDTH).double().tanh()


def loss_of(output, target):
    return ((output - target) ** 2).mean()


def train(rank, store, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=PP, init_method=f"file://{store}")
    inputs, targets = make_data()
    schedule = pipesched.make_zbv_schedule(pp=PP, micro=MICRO)
    modules = {n: make_stage(n) for n in schedule.placement.stages_of(rank)}
    runtime = pipesched.torch.make_runtime(schedule, modules, loss_of)
    optimizer = torch.optim.SGD([p for m in modules.values() for p in m.parameters()], lr=0.05)
    losses = []

    def steps(count):
        """Runs steps and returns the timeline of the median one."""
        with pipesched.torch.recording(runtime) as recorded:
            for _ in range(count):
                of_step = []
                has_first, has_last = 0 in modules, schedule.stages - 1 in modules
                runtime.step(*([inputs] if has_first else []), **({"target": targets, "losses": of_step} if has_last else {}))
                optimizer.step()
                optimizer.zero_grad()
                losses.append(sum(loss.item() for loss in of_step) / MICRO)
        return recorded.timeline()

    before = steps(3)
    problem = pipesched.plan_problem(placement=schedule.placement, micro=MICRO)
    plan = pipesched.plan(problem, pipesched.fit_costs(before))  # the same on every rank
    pipesched.torch.load(runtime, plan)
    after = steps(3)
    if rank == 0:  # which has the last stage of a V
        results.put((losses, before.makespan, plan.makespan, plan.bound.makespan, after.makespan))
    dist.destroy_process_group()


def train_alone(count):
    model = nn.Sequential(*map(make_stage, range(len(LAYERS))))
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.05), []
    for _ in range(count):
        of_step = [loss_of(model(x), y) for x, y in zip(*(part.chunk(MICRO) for part in make_data()))]
        (sum(of_step) / MICRO).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(sum(loss.item() for loss in of_step) / MICRO)
    return losses


def main():
    with tempfile.TemporaryDirectory() as folder:
        results = mp.get_context("spawn").SimpleQueue()
        mp.spawn(train, (os.path.join(folder, "store"), results), nprocs=PP)
        losses, before, planned, bound, after = results.get()
    print(f"steps 1 to 3, zbv: {before:.3f} s")
    print(f"planned from measured costs: {planned:.3f} s expected, at least {bound:.3f} s for this placement")
    print(f"steps 4 to 6, the plan: {after:.3f} s")
    error = max(abs(a - b) for a, b in zip(losses, train_alone(len(losses))))
    if error > 1e-13:
        raise SystemExit(f"the losses differ by {error} from those without a pipeline")
    print(f"losses as without a pipeline: {losses[0]:.4f} in step 1, {losses[-1]:.4f} in step {len(losses)}")


if __name__ == "__main__":
    main()
