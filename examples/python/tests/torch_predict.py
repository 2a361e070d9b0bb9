#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How well measured costs predict other schedules; by hand.

    python torch_predict.py compute [ROUNDS]    stages that compute: needs two processors that nothing else uses
    python torch_predict.py sleep [ROUNDS]      stages that sleep: on any machine

Two processes over gloo. Per placement one schedule is measured with all passes; its costs predict the steps of others, which
then run. All take turns, two steps a round, after two to warm up; compared is the median makespan. Beside each prediction stands
the one by the costs of the schedule's own steps: where that one holds, the passes took other times than in the first schedule, and
the order is simulated rightly. Exits with 1 if a prediction is off by more than 5 %.
"""

import statistics
import sys
import time

import torch
from torch import nn

import pipesched as ps
import pipesched.torch as pt
import torch_ranks as tr

PP, MICRO, WIDTH, ROWS = 2, 8, 512, 512
LINEAR = [ps.make_1f1b_schedule, ps.make_gpipe_schedule, ps.make_zb1p_schedule, ps.make_zb_h1_schedule]
VEE = [ps.make_zbv_schedule, ps.make_v_half_schedule, ps.make_dualpipev_schedule, ps.make_hanayo_schedule]
runtimes = {}  # of this rank, by schedule


class Sleep(torch.autograd.Function):
    """The identity, which sleeps in both directions."""

    @staticmethod
    def forward(context, value, forward, backward):
        context.backward_time = backward
        time.sleep(forward)
        return value.clone()

    @staticmethod
    def backward(context, gradient):
        time.sleep(context.backward_time)
        return gradient, None, None


class Sleeper(nn.Module):
    """A layer of fixed times: F, I and W."""

    def __init__(self, forward, backward_input, backward_weight):
        super().__init__()
        self.times = forward, backward_input, backward_weight
        self.weight = nn.Parameter(torch.eye(WIDTH))

    def forward(self, x):
        forward, backward_input, backward_weight = self.times
        weight = Sleep.apply(self.weight, 0, backward_weight)
        return nn.functional.linear(Sleep.apply(x, forward, backward_input), weight)


def uneven(stage, stages, how):
    """The first stage is short, the last one long."""
    torch.manual_seed(stage)
    length = 2 + stage * 4 // stages
    if how == "sleep":
        return Sleeper(0.01 * length, 0.009 * length, 0.012 * length)
    return nn.Sequential(*[part for _ in range(2 * length) for part in (nn.Linear(WIDTH, WIDTH), nn.Tanh())])


def data():
    torch.manual_seed(7)
    return torch.randn(MICRO * ROWS, WIDTH)


def prepare(schedule, how):
    rows = data()
    modules = {n: uneven(n, schedule.stages, how) for n in schedule.placement.stages_of(torch.distributed.get_rank())}
    runtimes[schedule] = pt.make_runtime(schedule, modules, tr.loss_of)
    for _ in range(2):
        tr.step(runtimes[schedule], rows, rows)


def measured(schedule):
    """The timelines of two steps."""
    with pt.recording(runtimes[schedule]) as steps:
        for _ in range(2):
            tr.step(runtimes[schedule], data(), data())
    return steps.timelines()


def compare(ranks, schedules, how, rounds):
    """The largest error of a prediction by the costs of the first schedule."""
    timelines = {schedule: [] for schedule in schedules}
    for schedule in schedules:
        ranks.run(prepare, schedule, how)
    for _ in range(rounds):
        for schedule, all_steps in timelines.items():
            all_steps += ranks.run(measured, schedule)[0]
    costs, worst = ps.fit_costs(timelines[schedules[0]]), 0
    for schedule, all_steps in timelines.items():
        predicted, makespans = ps.simulate(schedule, costs).makespan, [t.makespan for t in all_steps]
        real = statistics.median(makespans)
        by_own = ps.simulate(schedule, ps.fit_costs(all_steps)).makespan
        worst = max(worst, abs(predicted / real - 1))
        print(
            f"{schedule.name:10} predicted {predicted:.3f} s, measured {real:.3f} s ({min(makespans):.3f} to "
            f"{max(makespans):.3f}): {100 * (predicted / real - 1):+.1f} %, by its own costs {100 * (by_own / real - 1):+.1f} %",
            flush=True,
        )
    return worst


def main():
    how, rounds, worst = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3, 0
    ranks = tr.ranks(PP)
    print("PyTorch", torch.__version__)
    for family in (LINEAR, VEE):
        made = [make(pp=PP, micro=MICRO) for make in family]
        print(f"measured: {made[0].name} with all passes")
        worst = max(worst, compare(ranks, [pt.with_all_passes(made[0]), *made], how, rounds))
    ranks.close()
    sys.exit(worst > 0.05)


if __name__ == "__main__":
    main()
