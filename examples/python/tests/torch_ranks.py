# SPDX-License-Identifier: MIT
"""Processes that run PyTorch's pipelines over gloo, for the tests: ranks(4).run(train, schedule) calls train() on each."""

import logging
import os
import queue
import tempfile
import traceback
import warnings

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import pipesched as ps
import pipesched.torch

WIDTH = 16


def module_of(stage):
    """The stages of the test's model, in float64."""
    torch.manual_seed(stage)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()).double()


def data_of(micro):
    torch.manual_seed(12345)
    return torch.randn(2 * micro, WIDTH).double(), torch.randn(2 * micro, WIDTH).double()


def loss_of(output, target):
    return ((output - target) ** 2).mean()


def step(runtime, inputs, targets):
    """One step of a runtime: the losses, if this rank has the last stage."""
    stages, losses = runtime._stages, []
    first = [inputs] if any(s.is_first for s in stages) else []
    last = {"target": targets, "losses": losses} if any(s.is_last for s in stages) else {}
    runtime.step(*first, **last)
    return [loss.item() for loss in losses]


def modules_of(schedule):
    return {n: module_of(n) for n in schedule.placement.stages_of(dist.get_rank())}


def train(schedule, form):
    """Losses of a step and gradients by stage, on this rank."""
    modules = modules_of(schedule)
    runtime = pipesched.torch.make_runtime(schedule, modules, loss_of, form=form)
    losses = step(runtime, *data_of(schedule.micro))
    return losses, {n: [p.grad.tolist() for p in m.parameters()] for n, m in modules.items()}


def train_alone(stages, micro):
    """The same of all stages, without a pipeline."""
    model, losses = nn.Sequential(*map(module_of, range(stages))), []
    for inputs, targets in zip(*(part.chunk(micro) for part in data_of(micro))):
        loss = loss_of(model(inputs), targets)
        losses.append(loss.item())
        (loss / micro).backward()
    return losses, {n: [p.grad.tolist() for p in m.parameters()] for n, m in enumerate(model)}


def _serve(rank, pp, store, calls, results):
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=pp, init_method=f"file://{store}")
    for function, arguments in iter(calls.get, None):
        try:
            results.put((rank, function(*arguments), None))
        except Exception:
            results.put((rank, None, traceback.format_exc()))
    dist.destroy_process_group()


class ranks:
    """`pp` processes in one group, until close(). They are started again after an error, when the others may wait for ever."""

    def __init__(self, pp):
        self._pp, self._processes = pp, []

    def _start(self):
        context = mp.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        self._results, self._calls = context.Queue(), [context.Queue() for _ in range(self._pp)]
        store = os.path.join(self._folder.name, "store")
        for rank, calls in enumerate(self._calls):
            arguments = (rank, self._pp, store, calls, self._results)
            self._processes.append(context.Process(target=_serve, args=arguments, daemon=True))
            self._processes[-1].start()

    def close(self, seconds=10):
        if not self._processes:
            return
        for calls in self._calls:
            calls.put(None)
        for process in self._processes:
            process.join(seconds)
            process.kill()
            process.join()
            process.close()
        self._processes.clear()
        self._folder.cleanup()

    def run(self, function, *arguments, seconds=120):
        """The results of a function on all ranks; an error if one fails or they do not end in time."""
        if not self._processes:
            self._start()
        for calls in self._calls:
            calls.put((function, arguments))
        of_rank = {}
        try:
            while len(of_rank) < self._pp:
                rank, result, error = self._results.get(timeout=seconds)
                if error:
                    raise RuntimeError(f"rank {rank}: {error}")
                of_rank[rank] = result
        except queue.Empty:
            missing = sorted(set(range(self._pp)) - set(of_rank))
            self.close(0)
            raise TimeoutError(f"{function.__name__} did not end on ranks {missing}") from None
        except RuntimeError:
            self.close(0)
            raise
        return [of_rank[rank] for rank in range(self._pp)]
