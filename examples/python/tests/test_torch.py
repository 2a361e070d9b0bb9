# SPDX-License-Identifier: MIT
"""pipesched.torch with PyTorch itself, over gloo; skipped where PyTorch is not installed."""

import sys
import time
import types
import unittest
import unittest.mock

import pipesched as ps

try:
    import torch

    import pipesched.torch as pt
    import torch_ranks as tr
    from torch.distributed import pipelining
    from torch.distributed.pipelining import schedules as runtimes
except ImportError as error:
    torch, MISSING = None, f"no PyTorch with torch.distributed.pipelining ({error})"
    print(f"skipped: the tests of pipesched.torch: {MISSING}", file=sys.stderr)

PP, MICRO = 4, 8
LATER = 0.02  # seconds that a fused cell takes longer than its stages
REORDERED = ps.make_gpipe_schedule(pp=PP, micro=MICRO).edit(3, lambda row: row[1::-1] + row[2:])


def in_both_forms():
    for family in ps.families:
        schedule = family.make(pp=PP, micro=MICRO)
        if schedule.placement.replicas == 1:
            yield from ((family.name, schedule, form) for form in ("compute_only", "compute_comms"))


def train_and_reload(first, second):
    """Three steps: the first schedule, a plan for its measured costs, the second schedule."""
    modules = tr.modules_of(first)
    runtime = pt.make_runtime(first, modules, tr.loss_of)
    optimizer = torch.optim.SGD([p for m in modules.values() for p in m.parameters()], lr=0.1)
    losses = []
    for what in (first, None, second):
        if what is None:
            problem = ps.plan_problem(placement=first.placement, micro=first.micro)
            what = ps.plan(problem, ps.fit_costs(steps.timeline()), ps.plan_limits(evaluations=200))
        pt.load(runtime, what)
        with pt.recording(runtime) as steps:
            losses += tr.step(runtime, *tr.data_of(first.micro))
        optimizer.step()
        optimizer.zero_grad()
    return losses


def train_three_steps_alone(stages, micro):
    model, losses = torch.nn.Sequential(*map(tr.module_of, range(stages))), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        for inputs, targets in zip(*(part.chunk(micro) for part in tr.data_of(micro))):
            loss = tr.loss_of(model(inputs), targets)
            losses.append(loss.item())
            (loss / micro).backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses


class Neighbour:
    """A stage as PyTorch 2.10 has it, on rank 1, whose first messages go to ranks 0, 1 and 2."""

    device, group_rank = "cpu", 1

    def _get_init_p2p_neighbors_ops(self):
        return [types.SimpleNamespace(group_peer=peer) for peer in (0, 1, 2, 1)]


def refusal(call):
    try:
        call()
    except (ps.ScheduleError, TypeError) as error:
        return str(error)
    return "accepted"


def refusals(schedule):
    """What load() says of schedules that do not fit, on this rank."""
    modules = tr.modules_of(schedule)
    runtime = pt.make_runtime(schedule, modules, tr.loss_of)
    tr.step(runtime, *tr.data_of(schedule.micro))
    moved = ps.make_interleaved_1f1b_schedule(pp=PP, micro=MICRO)
    single = runtimes.ScheduleGPipe(runtime._stages[0], MICRO, loss_fn=tr.loss_of)
    said = {
        "micro": refusal(lambda: pt.load(runtime, ps.make_1f1b_schedule(pp=PP, micro=MICRO + 1))),
        "stages": refusal(lambda: pt.load(runtime, moved)),
        "ranks": refusal(lambda: pt.load(runtime, ps.make_1f1b_schedule(pp=2, micro=MICRO))),
        "twice": refusal(lambda: pt.load(runtime, ps.make_dualpipe_schedule(pp=PP, micro=MICRO))),
        "forward": refusal(lambda: pt.load(runtime, ps.keep_forwards(schedule))),
        "losses": refusal(lambda: pt.load(runtime, REORDERED)),
        "invalid": refusal(lambda: pt.load(runtime, schedule.edit(0, lambda row: row.reverse()))),
        "form": refusal(lambda: pt.load(runtime, schedule, "csv")),
        "runtime": refusal(lambda: pt.load(single, schedule)),
        "type": refusal(lambda: pt.load(runtime, 3)),
    }
    tr.step(runtime, *tr.data_of(schedule.micro))  # still works
    return said


def refusal_of_other_ranks():
    """A runtime that has run keeps its placement, also where its own stages stay."""
    def runtime_of(ranks):
        placement = ps.placement.custom(PP, MICRO, [ranks])
        schedule = ps.plan(ps.plan_problem(placement=placement, micro=MICRO), limits=ps.plan_limits(evaluations=50)).schedule
        return schedule, pt.make_runtime(schedule, tr.modules_of(schedule), tr.loss_of)

    first, runtime = runtime_of([0, 1, 2, 3])
    tr.step(runtime, *tr.data_of(MICRO))
    other, _ = runtime_of([0, 1, 3, 2])
    return refusal(lambda: pt.load(runtime, other))


def record(schedule):
    """Timelines of two steps, and of none: an evaluation, and a step after the block."""
    runtime = pt.make_runtime(schedule, tr.modules_of(schedule), tr.loss_of)
    inputs, targets = tr.data_of(schedule.micro)
    with pt.recording(runtime) as steps:
        tr.step(runtime, inputs, targets)
        tr.step(runtime, inputs, targets)
        first = [inputs] if any(s.is_first for s in runtime._stages) else []
        last = {"target": targets} if any(s.is_last for s in runtime._stages) else {}
        if schedule.stages == PP:  # PyTorch 2.15 cannot evaluate where neighbours share a rank
            runtime.eval(*first, **last)
    wrapped = [name for s in runtime._stages for name in vars(s) if name.endswith("_one_chunk")]
    wrapped += ["a wait"] * (runtimes._wait_batch_p2p.__module__ != runtimes.__name__)
    tr.step(runtime, inputs, targets)
    return len(steps), wrapped, steps.timelines(), steps.timeline()


def record_two():
    """Steps of two recordings, the first left first; whether their hook is gone; the refusal of a second one of a runtime."""
    schedule = ps.make_1f1b_schedule(pp=PP, micro=MICRO)
    first, second = (pt.make_runtime(schedule, tr.modules_of(schedule), tr.loss_of) for _ in range(2))
    a, b = pt.recording(first), pt.recording(second)
    a.__enter__()
    said = refusal(lambda: pt.recording(first).__enter__())
    tr.step(first, *tr.data_of(MICRO))
    b.__enter__()
    tr.step(first, *tr.data_of(MICRO))
    tr.step(second, *tr.data_of(MICRO))
    a.__exit__()
    tr.step(second, *tr.data_of(MICRO))
    waited = all(step.waits for steps in (a, b) for step in steps._steps)
    b.__exit__()
    return len(a), len(b), waited and runtimes._wait_batch_p2p.__module__ == runtimes.__name__, said


def run_overlapped(action, context):
    """A function for OVERLAP_F_B that does what the runtime does without one."""
    runtime = context.schedule_ref
    stages = {s.stage_index: s for s in runtime._stages}
    for op in action.sub_actions:
        stage, micro = stages[op.stage_index], op.microbatch_index
        before, after = stages.get(op.stage_index - 1), stages.get(op.stage_index + 1)
        forward = op.computation_type == runtimes.FORWARD
        source, received = (before, runtime.fwd_recv_ops) if forward else (after, runtime.bwd_recv_ops)
        if source is None and not (stage.is_first if forward else stage.is_last):
            runtimes._wait_batch_p2p(received.pop((op.stage_index, micro)))
        if forward:
            output = stage.forward_one_chunk(micro, context.arg_mbs[micro], context.kwarg_mbs[micro])
            runtime._maybe_compute_loss(stage, output, context.target_mbs, micro)
            if after:
                after.set_local_fwd_input(output, micro)
            continue
        full = op.computation_type == runtimes.FULL_BACKWARD
        runtime.backward_counter[op.stage_index] += full
        stage.backward_one_chunk(micro, loss=runtime._maybe_get_loss(stage, micro), full_backward=full)
        if before:
            before.set_local_bwd_input(stage.get_local_bwd_output(micro), micro)
    time.sleep(LATER)


def record_overlapped(schedule):
    """Losses and the timeline of a step whose overlapped cells run in one registered function."""
    runtime = pt.make_runtime(schedule, tr.modules_of(schedule), tr.loss_of)
    runtime.register_custom_function(runtimes.OVERLAP_F_B, run_overlapped)
    with pt.recording(runtime) as steps:
        losses = tr.step(runtime, *tr.data_of(schedule.micro))
    return losses, steps.timeline(), runtime._comp_type_to_function_map == {runtimes.OVERLAP_F_B: run_overlapped}


def record_own(name):
    """The schedule of one of PyTorch's own classes, as recorded."""
    stages = [n for n in range(2 * PP) if n % PP == torch.distributed.get_rank()]
    pipeline = [pipelining.PipelineStage(tr.module_of(n), n, 2 * PP, torch.device("cpu")) for n in stages]
    runtime = getattr(runtimes, name)(pipeline, MICRO, loss_fn=tr.loss_of)
    with pt.recording(runtime) as steps:
        tr.step(runtime, *tr.data_of(MICRO))
    return steps.timeline()


def slots_of(schedule):
    """Slots of PyTorch's analysis and of the table, on this rank."""
    runtime = pt.make_runtime(schedule, tr.modules_of(schedule), tr.loss_of, form="compute_only")
    own = runtimes.analyze_pipeline_activation_liveness(
        runtime,
        pp_rank=runtime.rank,
        stage_indices=[s.stage_index for s in runtime._stages],
        granularity="stage_microbatch",
    )
    return own.num_slots, pt.slot_table(ps.lower(schedule), runtime.rank).sizes["activation"]


@unittest.skipUnless(torch, "needs PyTorch")
class Torch(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.ranks = tr.ranks(PP)
        cls.addClassCleanup(cls.ranks.close)

    def test_every_family_trains_a_step_from_both_forms(self):
        for name, schedule, form in in_both_forms():
            with self.subTest(family=name, form=form):
                expected, of_stage = tr.train_alone(schedule.stages, MICRO)
                parts = self.ranks.run(tr.train, schedule, form)
                self.assertEqual([loss for losses, _ in parts for loss in losses], expected)
                for _, gradients in parts:
                    for stage, got in gradients.items():
                        for a, b in zip(got, of_stage[stage]):
                            self.assertLessEqual((torch.tensor(a) - torch.tensor(b)).abs().max().item(), 1e-15)

    def test_no_rank_sends_itself_a_message(self):
        stage = Neighbour()
        for _ in range(2):  # a runtime is loaded again
            pt._drop_messages_to_itself(stage)
            self.assertEqual([op.group_peer for op in stage._get_init_p2p_neighbors_ops()], [0, 2])

    def test_a_plan_for_measured_costs_is_loaded_between_steps(self):
        first, second = ps.make_zbv_schedule(pp=PP, micro=MICRO), ps.make_dualpipev_schedule(pp=PP, micro=MICRO)
        losses = [loss for part in self.ranks.run(train_and_reload, first, second) for loss in part]
        expected = train_three_steps_alone(first.stages, MICRO)
        self.assertEqual(losses[:MICRO], expected[:MICRO])
        for got, alone in zip(losses, expected):
            self.assertAlmostEqual(got, alone, delta=1e-14)

    def test_a_schedule_that_no_fit_error_is_refused(self):
        said = self.ranks.run(refusals, ps.make_1f1b_schedule(pp=PP, micro=MICRO))[0]
        self.assertEqual(said["micro"], "the runtime was made for 8 micro-batches; the schedule has 9")
        self.assertEqual(said["stages"], "the runtime was made for 4 stages; the schedule has 8")
        self.assertEqual(said["ranks"], "the runtime was made for 4 ranks; the schedule has 2")
        self.assertIn("holds every stage twice", said["twice"])
        self.assertIn("call eval()", said["forward"])
        self.assertEqual(
            said["losses"], "PyTorch numbers losses in the order of the last stage's forwards; expected 3F0 there, got 3F1"
        )
        self.assertIn("rank 0", said["invalid"])
        self.assertIn('got "csv"', said["form"])
        self.assertIn("got ScheduleGPipe, whose order is fixed", said["runtime"])
        self.assertIn("got int", said["type"])

    def test_a_runtime_that_has_run_keeps_its_placement(self):
        said = self.ranks.run(refusal_of_other_ranks)
        self.assertIn("has run with stage 2 on rank 2; the schedule has it on rank 3", said[0])

    def test_a_recording_gives_the_timeline_of_every_step(self):
        for make in (ps.make_1f1b_schedule, ps.make_zbv_schedule, ps.make_dualpipev_schedule):
            schedule = make(pp=PP, micro=MICRO)
            of_rank = self.ranks.run(record, schedule)
            for steps, wrapped, timelines, median in of_rank:
                self.assertEqual((steps, wrapped, len(timelines)), (2, [], 2))
                self.assertEqual(timelines, of_rank[0][2])
                self.assertIn(median, timelines)
            timeline = of_rank[0][3]
            self.assertEqual(timeline.schedule, schedule)
            self.assertEqual(min(timeline.start), 0)
            for row in timeline.intervals:
                ends = list(row.end)
                self.assertTrue(all(start < end for start, end in zip(row.start, row.end)))
                self.assertTrue(all(end <= start for end, start in zip(ends, list(row.start)[1:])))
            self.assert_inputs_come_first(timeline)
            self.assertTrue(all(time > 0 for time in ps.fit_costs(timeline).forward))

    def assert_inputs_come_first(self, timeline):
        ends = {str(op): i.end for row, cells in zip(timeline.intervals, timeline.schedule) for i, c in zip(row, cells) for op in c}
        for row, cells in zip(timeline.intervals, timeline.schedule):
            for times, cell in zip(row, cells):
                for op in cell:
                    if not cell.overlapped and op.pass_ == ps.pass_.forward and op.stage > 0:
                        self.assertLess(ends[f"{op.stage - 1}F{op.micro}"], times.end)

    def test_a_cell_is_what_a_rank_does_without_waiting(self):
        calls = {"0F0": (2, 4), "0F1": (5, 6), "0B0": (10, 13)}
        alone, pair = [["0F0"], ["0F1"], ["0B0"]], [["0F0"], ["0F1", "0B0"]]

        def times(row, waits, fused=None):
            step = pt._step(types.SimpleNamespace(seconds=float), True)
            step.ops, step.fused, step.waits = calls, fused or {}, waits
            return [(start, end) for start, end, _ in step.times_of(row)]

        self.assertEqual(times(alone, None), [(2, 4), (5, 6), (10, 13)])  # waits are unknown
        self.assertEqual(times(pair, None), [(2, 4), (9, 13)])
        self.assertEqual(times(alone, []), [(2, 4), (4, 6), (6, 13)])  # the runtime's own work between the calls counts
        self.assertEqual(times(alone, [(0, 1), (4.5, 4.75), (7, 8), (8.25, 9)]), [(1, 4), (4.25, 6), (7.75, 13)])
        self.assertEqual(times(pair, [(4, 4.5), (7, 9)]), [(2, 4), (6.5, 13)])
        self.assertEqual(times(pair, [(6, 9)], {("0B0", "0F1"): (5, 13)}), [(2, 4), (4, 13)])  # one function, with its waits

    def test_a_wait_for_a_message_that_was_there_is_work(self):
        schedule = ps.make_1f1b_schedule(pp=2, micro=1)  # 0F0 0B0, 1F0 1B0

        def starts(wait_on_1, end_on_1):
            rows = [[(0, 2, {}), (10, 14, {"0B0": (8, 10)})], [(4, 5, {"1F0": (wait_on_1, 4)}), (5, end_on_1, {})]]
            return [[start for start, _, _ in row] for row in pt._with_receipts(schedule, rows)]

        self.assertEqual(starts(3, 9), [[0, 10], [3, 5]])  # 0F0 ended before the wait for it began
        self.assertEqual(starts(1, 9), [[0, 10], [4, 5]])
        self.assertEqual(starts(1, 7), [[0, 8], [4, 5]])  # 1B0, too
        v = ps.make_zbv_schedule(pp=1, micro=1)
        row = [(3 * n + 1, 3 * n + 2, {str(cell[0]): (3 * n, 3 * n + 1)}) for n, cell in enumerate(v[0])]
        self.assertEqual(pt._with_receipts(v, [row]), [row])  # no message comes from another rank

    def test_each_op_of_a_pair_has_its_own_wait(self):
        schedule = ps.make_interleaved_1f1b_schedule(pp=2, micro=4, overlap=True)
        pair = next(cell for cell in schedule[0] if cell.overlapped and cell[0].stage > 0 and cell[1].stage < 3)
        forward, backward = pair
        ends = {f"{forward.stage - 1}F{forward.micro}": 8.5, f"{backward.stage + 1}B{backward.micro}": 8}
        waits = {str(forward): (4, 9), str(backward): (10, 16)}  # only the second message was there
        rows = [[(20, max(ends.get(str(op), 1) for op in cell), waits if cell == pair else {}) for cell in row] for row in schedule]
        starts = [[start for start, _, _ in row] for row in pt._with_receipts(schedule, rows)]
        self.assertEqual({start for row in starts for start in row}, {14, 20})
        self.assertEqual(starts[0][list(schedule[0]).index(pair)], 14)

    def test_recordings_may_be_left_in_any_order(self):
        self.assertEqual(self.ranks.run(record_two)[0], (2, 2, True, "this runtime is in a recording already; leave that one first"))

    def test_schedules_of_pytorch_are_recorded(self):
        timeline = self.ranks.run(record_own, "ScheduleInterleaved1F1B")[0]
        self.assertEqual(ps.recognize_family(timeline.schedule), "interleaved_1f1b")

    def test_a_fused_cell_is_timed_as_a_whole(self):
        if not hasattr(runtimes._PipelineScheduleRuntime, "register_custom_function"):
            self.skipTest("this PyTorch has no custom functions")
        schedule = ps.make_dualpipev_schedule(pp=PP, micro=MICRO)
        of_rank = self.ranks.run(record_overlapped, schedule)
        self.assertTrue(all(restored for _, _, restored in of_rank))
        self.assertEqual([loss for losses, _, _ in of_rank for loss in losses], tr.train_alone(schedule.stages, MICRO)[0])
        for row, times in zip(schedule, of_rank[0][1].intervals):
            for cell, interval in zip(row, times):
                if cell.overlapped:
                    self.assertGreaterEqual(interval.end - interval.start, LATER)

    def test_slots_are_as_many_as_pytorch_counts(self):
        if not hasattr(runtimes, "analyze_pipeline_activation_liveness"):
            self.skipTest("this PyTorch does not count slots")
        for make in (ps.make_1f1b_schedule, ps.make_zbv_schedule, ps.make_hanayo_schedule):
            for counted, of_table in self.ranks.run(slots_of, make(pp=PP, micro=MICRO)):
                self.assertEqual(counted, of_table)

    def test_older_versions_that_cannot_read_a_schedule_are_refused(self):
        plain, overlapped = ps.make_1f1b_schedule(pp=PP, micro=MICRO), ps.make_dualpipev_schedule(pp=PP, micro=MICRO)
        with unittest.mock.patch.multiple(pt, _runtimes=types.SimpleNamespace(), _overlap=None):
            self.assertEqual(pt._text_of(plain, "compute_only"), plain.to_torch_csv())
            with self.assertRaisesRegex(ps.ScheduleError, 'does not read REDUCE_GRAD.*form="compute_only"$'):
                pt._text_of(plain, "compute_comms")
            with self.assertRaisesRegex(ps.ScheduleError, "does not run overlapped cells, as dualpipev has$"):
                pt._text_of(overlapped, "compute_only")

    def test_one_step_measures_all_passes(self):
        for name, schedule, _ in in_both_forms():
            mixed = pt.with_all_passes(schedule)
            self.assertTrue(ps.verify(mixed), name)
            self.assertEqual({str(op).strip("0123456789") for row in mixed for cell in row for op in cell}, set("FBIW"), name)


if __name__ == "__main__":
    unittest.main()
