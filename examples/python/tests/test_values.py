# SPDX-License-Identifier: MIT
"""Schedules, timelines and records as Python values."""

import copy
import inspect
import io
import os
import pickle
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Mapping, Sequence
from pathlib import Path

import pipesched as ps


def value_of_every_class():
    """A value of every class of the package, by its name; errors and functions aside."""
    schedule = ps.make_dualpipe_schedule(pp=4, micro=8)
    timeline, program = ps.simulate(schedule, ps.stage_costs(kept_by_forward=2)), ps.lower(schedule)
    comparison = ps.compare(pp=2, micro=4, families=["1f1b", "dualpipe"])
    made = {
        "action_row": program[0], "cell": schedule[0][7], "cell_row": schedule[0], "compare_progress": ps.compare_progress(1, 2, 3.0),
        "comparison": comparison, "family": ps.families[0], "html_panel": ps.make_panel(timeline, ps.stage_costs(kept_by_forward=2)),
        "front": ps.pareto(ps.plan_problem(schedule.placement, 8), None, [9], ps.plan_limits(evaluations=1)), "interval_row": timeline[1],
        "placement": schedule.placement, "program": program, "schedule": schedule, "slot_table": ps.slot_table(program, 0),
        "slots_row": program.slots[0], "study": comparison[0], "timeline": timeline,
    }
    for name in ps.__all__:
        of = getattr(ps, name)
        if isinstance(of, type) and not issubclass(of, BaseException) and name not in made:
            made[name] = list(of)[0] if hasattr(of, "__members__") else of()
    return made


MUTABLE = {"html_panel", "slot_table"}  # or without a hash, as a dict


class EveryClass(unittest.TestCase):
    def test_values_compare_hash_pickle_copy_and_print(self):
        values = value_of_every_class()
        self.assertGreater(len(values), 90)
        for name, value in values.items():
            with self.subTest(name=name):
                self.assertEqual(type(value).__name__, name)
                for again in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
                    self.assertIs(type(again), type(value))
                    self.assertEqual(again, value)
                    if name not in MUTABLE:
                        self.assertEqual(hash(again), hash(value))
                self.assertNotEqual(value, object())
                self.assertNotEqual(value, None)
                self.assertNotIn(" object at 0x", repr(value))
                self.assertNotIn(" object at 0x", str(value))

    def test_other_values_differ(self):
        a, b = ps.make_1f1b_schedule(pp=2, micro=4), ps.make_1f1b_schedule(pp=2, micro=6)
        pairs = [
            (a.placement, ps.placement.linear(3)), (ps.simulate(a), ps.simulate(b)), (ps.lower(a), ps.lower(b)),
            (a[0], a[1]), (ps.lower(a)[0], ps.lower(a)[1]), (ps.lower(a).slots[0], ps.lower(b).slots[0]), (ps.simulate(a)[0], ps.simulate(a)[1]),
            (a.chain(), ps.freeze(a, [0]).chain()), (ps.make_panel(ps.simulate(a)), ps.make_panel(ps.simulate(b))),
            (ps.compare(pp=2, micro=4, families=["1f1b"]), ps.compare(pp=2, micro=4, families=["gpipe"])),
        ]
        for one, other in pairs:
            self.assertNotEqual(one, other)
        panel = ps.make_panel(ps.simulate(a))
        other = copy.deepcopy(panel)
        other.title = "mine"
        self.assertNotEqual(panel, other)

    def test_sequences_are_sequences(self):
        values = value_of_every_class()
        sequences = {name: v for name, v in values.items() if hasattr(v, "__getitem__") and hasattr(v, "__len__") and not isinstance(v, (tuple, Mapping))}
        self.assertEqual(set(sequences), {"schedule", "timeline", "program", "cell", "cell_row", "interval_row", "action_row", "slots_row", "comparison"})
        for name, sequence in sequences.items():
            with self.subTest(name=name):
                self.assertIsInstance(sequence, Sequence)
                all_of = list(sequence)
                self.assertEqual([sequence[i] for i in range(len(sequence))], all_of)
                self.assertEqual(list(reversed(sequence)), all_of[::-1])
                self.assertEqual(sequence[-1], all_of[-1])
                for which in (slice(1), slice(None, None, -1), slice(-2, None), slice(1, 9, 2), slice(5, 1)):
                    self.assertEqual(list(sequence[which]), all_of[which])
                self.assertIn(all_of[0], sequence)
                self.assertNotIn(3, sequence)
                self.assertNotIn(None, sequence)
                self.assertEqual([sequence.count(v) for v in all_of], [all_of.count(v) for v in all_of])
                self.assertEqual([sequence.index(v) for v in all_of], [all_of.index(v) for v in all_of])
                self.assertEqual(sequence.index(all_of[1], 1), 1)
                self.assertEqual(sequence.index(all_of[-1], -1), len(sequence) - 1)
                with self.assertRaises(ValueError):
                    sequence.index(all_of[0], 1, 1)
                with self.assertRaises(ValueError):
                    sequence.index("nothing")
                for index in (len(sequence), -len(sequence) - 1, 10**30):
                    with self.assertRaises(IndexError):
                        sequence[index]
                with self.assertRaises(TypeError):
                    sequence[1.5]

    def test_rows_are_values_of_their_own(self):
        schedule = ps.make_1f1b_schedule(pp=2, micro=3)
        row = pickle.loads(pickle.dumps(schedule[1]))
        self.assertEqual((row, tuple(row), list(row)), (schedule[1], schedule[1], schedule[1]))
        self.assertEqual(hash(row), hash(tuple(row)))
        self.assertEqual({row: 1}[schedule[1]], 1)
        self.assertNotEqual(row, schedule[0])
        self.assertNotEqual(row, "1F0")
        self.assertEqual(schedule.index(row), 1)
        self.assertEqual(schedule[1:], [row])
        with self.assertRaisesRegex(TypeError, r"^schedule\[\.\.\.\] takes an int or a slice; got 'x'$"):
            schedule["x"]
        times = pickle.loads(pickle.dumps(ps.simulate(schedule)[1]))
        self.assertEqual(times.start.tolist(), ps.simulate(schedule)[1].start.tolist())
        self.assertIn("zbv", ps.compare(pp=2, micro=4, families=["zbv"]))


class Schedules(unittest.TestCase):
    def setUp(self):
        self.schedule = ps.make_dualpipe_schedule(pp=4, micro=8)

    def test_is_a_sequence_of_rows_of_cells(self):
        row = self.schedule[0]
        self.assertIsInstance(row, Sequence)
        self.assertEqual((len(self.schedule), self.schedule.ranks, self.schedule.pp), (4, 4, 4))
        self.assertEqual([str(c) for c in row[:3]], ["0F0", "0F1", "0F2"])
        self.assertEqual(row[-1], self.schedule[-4][len(row) - 1])
        self.assertEqual(list(row), row)
        self.assertEqual(row.index(ps.cell("0F1")), 1)
        self.assertTrue(row[7].overlapped)
        self.assertEqual([str(o) for o in row[7]], ["0F3", "3B5"])
        with self.assertRaisesRegex(IndexError, "rank 4 of 4; expected -4 to 3"):
            self.schedule[4]

    def test_a_row_outlives_its_schedule(self):
        row = ps.make_1f1b_schedule(pp=4, micro=8)[3]
        self.assertEqual(str(row[0]), "3F0")

    def test_compares_prints_and_pickles(self):
        for family in ps.families:
            schedule = family.make(pp=4, micro=8)
            for again in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule), ps.schedule.from_json(schedule.to_json())):
                self.assertEqual(schedule, again)
                self.assertEqual(hash(schedule), hash(again))
            self.assertEqual(ps.parse_schedule(str(schedule), schedule.placement, schedule.name), schedule)
            again = ps.parse_schedule(str(schedule), name=schedule.name)
            self.assertEqual(str(again), str(schedule).replace("(wave)", "(vee)"))  # the simplest placement with these stages
        self.assertEqual(repr(self.schedule), "<schedule dualpipe: 4 ranks, 4 stages (bidirectional), 8 micro-batches>")
        self.assertNotEqual(self.schedule, ps.make_dualpipe_schedule(pp=4, micro=10))

    def test_is_made_of_texts_and_edited_into_another(self):
        where = ps.placement.linear(2)
        schedule = ps.schedule(where, 1, [["0F0", "0B0"], ["1F0", ps.cell("1B0")]])
        self.assertTrue(ps.verify(schedule))
        wrong = schedule.edit(0, lambda row: row.reverse())
        report = ps.verify(wrong)
        self.assertFalse(report)
        self.assertTrue(report.names(ps.rule.order))
        self.assertIn("0B0 before 0F0", str(report))
        self.assertTrue(ps.verify(wrong.edit(0, reversed)))
        with self.assertRaisesRegex(ps.ScheduleError, "the schedule is not valid: rank 0, cell 0: order: 0B0 before 0F0"):
            ps.simulate(wrong)

    def test_reads_and_writes_files(self):
        zbv = ps.make_zbv_schedule(pp=4, micro=8)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "zbv.json"
            ps.write_json(file, zbv)
            self.assertEqual(ps.read_json(file), zbv)
            csv = Path(folder) / "zbv.csv"
            ps.write_torch_csv(csv, zbv)
            self.assertEqual(ps.read_torch_csv(csv).schedule[0], zbv[0])
            ps.write_torch_comms_csv(csv, zbv)
            with_messages = ps.read_schedule(csv)
            self.assertEqual(with_messages.format, ps.schedule_format.torch_csv)
            self.assertGreater(len(with_messages.actions), 100)
            self.assertTrue(ps.verify(ps.read_torch_csv(csv)))
        stream = io.StringIO()
        ps.write_json(stream, ps.lower(zbv))
        self.assertTrue(stream.getvalue().startswith('{"format":"pipesched.program"'))
        with self.assertRaisesRegex(ps.ScheduleError, "not JSON: parse error at line 1, column 2"):
            ps.schedule.from_json("no")


class Timelines(unittest.TestCase):
    def test_gives_arrays_without_numpy(self):
        timeline = ps.simulate(ps.make_1f1b_schedule(pp=2, micro=2))
        self.assertEqual(timeline[1].start.tolist(), [1.0, 2.0, 4.0, 5.0])
        self.assertEqual(timeline.start.tolist()[timeline.offsets[1]:], timeline[1].start.tolist())
        self.assertEqual((timeline.start.format, timeline.start.readonly), ("d", True))
        self.assertEqual(timeline[0][0], ps.interval(0, 1))
        self.assertEqual(pickle.loads(pickle.dumps(timeline)), timeline)

    def test_numpy_copies_nothing(self):
        try:
            import numpy
        except ImportError:
            self.skipTest("skipped: numpy is not installed")
        timeline = ps.simulate(ps.make_zbv_schedule(pp=4, micro=8))
        start, end = numpy.asarray(timeline.start), numpy.asarray(timeline.end)
        self.assertFalse(start.flags.owndata)
        self.assertEqual(end.max(), ps.measure(timeline).makespan)
        del timeline
        self.assertEqual(start[0], 0)

    def test_is_made_of_measured_times(self):
        schedule = ps.make_1f1b_schedule(pp=2, micro=2)
        simulated = ps.simulate(schedule, ps.stage_costs(forward=[1, 2], backward=[2, 4]))
        times = [[(i.start + 5, i.end + 5) for i in row] for row in simulated]
        measured = ps.starting_at_zero(ps.timeline(schedule, times))
        self.assertEqual(measured, simulated)
        self.assertEqual(ps.fit_costs(measured).forward, (1.0, 2.0))
        with self.assertRaisesRegex(ps.ScheduleError, "one of intervals per rank; got 2 and 1 for 2 ranks"):
            ps.timeline(schedule, times[:1])


class Records(unittest.TestCase):
    def test_are_made_by_keyword_and_do_not_change(self):
        costs = ps.stage_costs(forward=[1, 2], pairs=[ps.pair_time("FB", time=3)], transfers_busy=ps.link_busy.sender)
        self.assertEqual(costs.forward, (1.0, 2.0))
        self.assertEqual(costs.pairs[0].passes, "FB")
        self.assertEqual(eval(repr(costs), {**vars(ps)}), costs)
        self.assertEqual(pickle.loads(pickle.dumps(costs)), costs)
        self.assertEqual(costs.replace(forward=1).forward, 1.0)
        with self.assertRaises(AttributeError):
            costs.forward = 3
        self.assertEqual(len({costs, costs.replace()}), 1)

    def test_refuse_what_no_fit_error_with_a_sentence(self):
        for make, error, text in (
            (lambda: ps.stage_costs(foward=1), TypeError, 'stage_costs takes no "foward"; did you mean forward\\?'),
            (lambda: ps.stage_costs(forward="x"), TypeError, "stage_costs: forward takes .*Sequence.float.; got 'x'"),
            (lambda: ps.plan_problem(micro=-1), ValueError, "plan_problem: micro takes an int from 0 to 4294967295; got -1"),
            (lambda: ps.pair_time("FX"), TypeError, "pair_time: passes takes two of F, B, I"),
            (lambda: ps.make_1f1b_schedule(pp=4), TypeError, "make_1f1b_schedule needs micro"),
            (lambda: ps.cell("0X1"), ps.ScheduleError, '"0X1" is not a cell'),
            (lambda: ps.op("3X4"), ps.ScheduleError, '^"3X4" is not an op; expected <stage><pass><micro>, such as 3F12$'),
            (lambda: ps.op(pass_="X"), TypeError, "^op: pass_ takes none, forward, backward, .* or recompute_backward_input; got 'X'$"),
            (lambda: ps.stage_costs(time_unit="min"), TypeError, "^stage_costs: time_unit takes none, s, ms or us; got 'min'$"),
            (lambda: ps.plan(ps.plan_problem(ps.placement.linear(2), 2**31)), ps.ScheduleError,
             r"^plan\(\) needs stages x micro-batches of at most 2\^28; got 2 stages x micro = 2147483648, nearest micro = 134217728$"),
            (lambda: ps.plan(ps.gemma_model(), ps.model_problem(ps.placement.linear(2), 2**31)), ps.ScheduleError, "^plan.* nearest micro = 134217728$"),
            (lambda: ps.lower_bound(ps.placement.linear(4), 2**31), ps.ScheduleError, r"^lower_bound\(\) needs .* nearest micro = 67108864$"),
            (lambda: ps.deepseek_v3_order(2**31), ps.ScheduleError, "at most 1048576 layers; got 2147483648, nearest 1048576$"),
            (lambda: ps.render_text(ps.make_1f1b_schedule(2, 2), ps.text_style(column=2**31)), ps.ScheduleError, "at most 100 characters per column; got 2147483648"),
        ):
            with self.assertRaisesRegex(error, text):
                make()

    def test_texts_stand_for_ops_and_for_values_of_enumerations(self):
        self.assertEqual(ps.op("3F12"), ps.op(ps.pass_.forward, stage=3, micro=12))
        self.assertEqual(ps.op("forward", stage=3, micro=12), ps.op("3F12"))
        self.assertEqual(ps.stage_costs(time_unit="us").time_unit, ps.time_unit.us)
        self.assertEqual(ps.cell("0F7", "7B13"), ps.cell("(0F7;7B13)"))
        self.assertEqual(ps.cell(ps.op("3F1")), ps.cell("3F1"))

    def test_wrong_arguments_are_one_sentence(self):
        schedule, linear = ps.make_1f1b_schedule(pp=2, micro=4), ps.placement.linear(2)
        for call, sentence in (
            (lambda: ps.plan(3), "plan: argument 1 takes plan_problem | model; got 3"),
            (lambda: ps.plan(ps.plan_problem(linear, 4), 3), "plan: costs takes stage_costs | None; got 3"),
            (lambda: ps.plan(ps.plan_problem(linear, 4), limit=3), 'plan takes no "limit"; did you mean limits?'),
            (lambda: ps.plan(), "plan needs problem"),
            (lambda: ps.simulate(), "simulate needs plan"),
            (lambda: ps.simulate(schedule, None, 3), "simulate takes at most 2 values; got 3"),
            (lambda: ps.simulate(schedule, plan=schedule), "simulate got two values for plan"),
            (lambda: ps.verify("x"), "verify: argument 1 takes schedule | program | torch_csv; got 'x'"),
            (lambda: ps.verify(schedule, -1), "verify: max_violations takes an int from 0 to 4294967295; got -1"),
            (lambda: ps.placement.linear("4"), "placement.linear: ranks takes int; got '4'"),
            (lambda: ps.placement.custom(2, 4, [["x"]]), "placement.custom: rank_of_stage takes Sequence[Sequence[int]]; got [['x']]"),
            (lambda: schedule.edit("x", list), "schedule.edit: rank takes int; got 'x'"),
            (lambda: schedule.edit(0, 3), "schedule.edit: change takes Callable[[list[cell]], Iterable[cell | op | str] | None]; got 3"),
            (lambda: schedule.edit(0, lambda row: 3), "a row is a sequence of cells; got 3"),
            (lambda: ps.schedule(linear, 1), "schedule needs cells"),
            (lambda: ps.schedule(linear, "x", []), "schedule: micro takes an int; got 'x'"),
            (lambda: ps.schedule(linear, -1, []), "schedule: micro takes an int from 0 to 4294967295; got -1"),
            (lambda: ps.make_1f1b_schedule(2, 4.0), "make_1f1b_schedule: micro takes an int; got 4.0"),
            (lambda: ps.make_1f1b_schedule(pp=2, mikro=4), 'make_1f1b_schedule takes no "mikro"; did you mean micro?'),
            (lambda: ps.page_of_plan(3), "page_of_plan: plan takes plan_result | model_plan; got 3"),
            (lambda: ps.page_of_front(3), "page_of_front: front takes Iterable[pareto_point | model_pareto_point]; got 3"),
            (lambda: ps.page_of_front([], costs=3), "page_of_front: costs takes stage_costs | Iterable[placed_step] | None; got 3"),
            (lambda: ps.compare(pp="4", micro=4), "compare: pp takes int; got '4'"),
            (lambda: ps.compare(pp=4, micro=-1), "compare: micro takes an int from 0 to 4294967295; got -1"),
            (lambda: ps.compare(pp=4, micro=8, chunks="4"), "compare: chunks takes an int; got '4'"),
            (lambda: ps.compare(4, 8, None, None), "compare takes at most 3 values without a name; got 4"),
            (lambda: ps.compare(pp=4), "compare needs micro"),
            (lambda: ps.compare(pp=4, micro=8, progress=3), "compare: progress takes Callable | bool | None; got 3"),
            (lambda: ps.divide("deepseek_v3", "1f1b", pp="4", micro=8), "divide: pp takes an int; got '4'"),
            (lambda: ps.plan(ps.plan_problem(linear, 4), progress=3), "plan: progress takes Callable | bool | None; got 3"),
            (lambda: ps.pareto(ps.plan_problem(linear, 4), ps.model_problem(), [4]), "pareto() of a plan_problem takes stage_costs; model_problems go with a model"),
            (lambda: ps.html_style(notes={"a": 1}), "html_style: notes takes Sequence[str]; got {'a': 1}"),
            (lambda: ps.slot_table(3, 0), "slot_table: program takes program; got 3"),
            (lambda: ps.write_json(3, "x.json"), "write_json: file takes str | os.PathLike | IO; got 3"),
            (lambda: ps.write_torch_csv("x.csv", 3), "write_torch_csv: schedule takes schedule; got 3"),
            (lambda: ps.read_traces(3), "read_traces: files takes str | os.PathLike | IO | Iterable[str | os.PathLike | IO]; got 3"),
            (lambda: ps.compare(pp=2, micro=4, families=["1f1b"]).to_html({}), "comparison.to_html: style takes html_style; got {}"),
            (lambda: setattr(ps.make_panel(ps.simulate(schedule)), "title", 3), "html_panel: title takes str; got 3"),
            (lambda: ps.cell_row(), "rows come from schedules, timelines and programs: schedule[rank]"),
            (lambda: ps.program(3), "programs come from lower(schedule)"),
            (lambda: ps.html_panel(), "panels come from make_panel(timeline, costs)"),
            (lambda: ps.family("zbv"), "families are those of the library: find_family(name)"),
            (lambda: ps.schedule(linear, 1, 3), "schedule: cells takes a sequence of rows of cells, one row per rank; got 3"),
            (lambda: ps.timeline(schedule, 3), "timeline: intervals takes a sequence of rows of intervals, one row per rank; got 3"),
            (lambda: ps.timeline(schedule, [3, 4]), "a row is a sequence of intervals; got 3"),
            (lambda: ps.cell(), "cell needs first"),
            (lambda: ps.cell(3), "a cell, an op or a text such as 3F12; got 3"),
            (lambda: ps.cell("0F1", "1B0", "2F3"), "cell takes at most 2 values; got 3"),
            (lambda: ps.render_text(schedule, style=3), "render_text: style takes text_style; got 3"),
            (lambda: ps.fits(schedule, memory="x"), "fits: memory takes Sequence[float]; got 'x'"),
            (lambda: ps.pareto(ps.plan_problem(linear, 4), None, ["x"]), "pareto: caps takes Sequence[float]; got ['x']"),
            (lambda: ps.divide("deepseek_v3", linear, lambda costs: 3), "divide: make(costs) returns a schedule; got 3"),
            (lambda: ps.layout_letter(list(range(99))), f"layout_letter: kind takes str; got {list(range(99))}"[:132] + "..."),
        ):
            with self.subTest(sentence=sentence), self.assertRaises((TypeError, ValueError)) as caught:
                call()
            self.assertEqual(str(caught.exception), sentence)

    def test_pytorch_that_is_not_there_is_a_sentence(self):
        script = (
            "import sys\nsys.modules['torch'] = None\n"
            "try: import pipesched.torch\n"
            "except ModuleNotFoundError as error: print(error)\n"
        )
        said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        self.assertRegex(said.stdout, "^pipesched.torch needs PyTorch .*: pip install torch", said.stderr)

    @unittest.skipIf("libasan" in os.environ.get("LD_PRELOAD", ""), "a sanitizer does not start where memory is limited")
    def test_memory_that_is_not_there_is_a_sentence(self):
        script = (
            "import resource, pipesched as ps\n"
            "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
            "try: ps.make_1f1b_schedule(pp=2, micro=2**27)\n"
            "except MemoryError as error: print(error)\n"
        )
        said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        self.assertEqual(said.stdout, "there is not enough memory; fewer ranks, stages or micro-batches take less\n", said.stderr)

    def test_costs_and_models_come_from_json(self):
        costs = ps.stage_costs.from_json('{"forward": [1, 2], "backward": 4}')
        self.assertEqual((costs.forward, costs.backward), ((1.0, 2.0), 4.0))
        self.assertEqual(ps.stage_costs.from_json(costs.to_json()), costs)
        self.assertEqual(ps.stage_costs.from_json('{"format": "pipesched.costs", "version": 1, "forward": [1, 2], "backward": 4}'), costs)
        with self.assertRaisesRegex(ps.ScheduleError, "version is not 1"):
            ps.stage_costs.from_json('{"version": 2}')
        model = ps.find_model("deepseek_v3")
        self.assertEqual(ps.model.from_json(model.to_json()), model)
        with self.assertRaisesRegex(ps.ScheduleError, 'no model is called "deepseek_v4"; did you mean deepseek_v3\\?'):
            ps.find_model("deepseek_v4")
        with self.assertRaisesRegex(ps.ScheduleError, 'no model is called "none such"; known: deepseek_v3, gemma'):
            ps.find_model("none such")
        with self.assertRaisesRegex(ps.ScheduleError, "did you mean"):
            ps.stage_costs.from_json('{"foward": 1}')

    def test_errors_are_value_errors_with_the_sentence_of_the_library(self):
        with self.assertRaises(ValueError) as caught:
            ps.make_dualpipe_schedule(pp=7, micro=20)
        self.assertIs(type(caught.exception), ps.ScheduleError)
        self.assertEqual(str(caught.exception), "dualpipe needs an even number of pipeline ranks; got pp = 7, nearest 6 or 8")

    def test_signatures_are_in_the_docstrings(self):
        self.assertIn("waves: int | None = None", ps.make_hanayo_schedule.__doc__)
        self.assertNotIn("waves", ps.make_zbv_schedule.__doc__)
        with self.assertRaisesRegex(TypeError, r"stage_costs: forward takes float \| Sequence\[float\]; got '2'"):
            ps.stage_costs(forward="2")
        self.assertIn("1 rank, 1 stage (linear), 1 micro-batch>", repr(ps.make_gpipe_schedule(pp=1, micro=1)))
        self.assertIn("forward: float | Sequence[float]", ps.stage_costs.__init__.__doc__)
        self.assertTrue(inspect.getdoc(ps))


if __name__ == "__main__":
    unittest.main()
