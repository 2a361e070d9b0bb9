# SPDX-License-Identifier: MIT
"""Schedules, timelines and records as Python values."""

import copy
import inspect
import io
import pickle
import tempfile
import unittest
from collections.abc import Sequence
from pathlib import Path

import pipesched as ps


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

    def test_refuse_what_does_not_fit_with_a_sentence(self):
        for make, error, text in (
            (lambda: ps.stage_costs(foward=1), TypeError, 'stage_costs takes no "foward"; did you mean forward\\?'),
            (lambda: ps.stage_costs(forward="x"), TypeError, "stage_costs: forward takes .*Sequence.float.; got 'x'"),
            (lambda: ps.plan_problem(micro=-1), ValueError, "plan_problem: micro takes an int from 0 to 4294967295; got -1"),
            (lambda: ps.pair_time("FX"), TypeError, "pair_time: passes takes two of F, B, I"),
            (lambda: ps.make_1f1b_schedule(pp=4), TypeError, "make_1f1b_schedule needs micro"),
            (lambda: ps.cell("0X1"), ps.ScheduleError, '"0X1" is not a cell'),
        ):
            with self.assertRaisesRegex(error, text):
                make()

    def test_costs_and_models_come_from_json(self):
        costs = ps.stage_costs.from_json('{"forward": [1, 2], "backward": 4}')
        self.assertEqual((costs.forward, costs.backward), ((1.0, 2.0), 4.0))
        self.assertEqual(ps.stage_costs.from_json(costs.to_json()), costs)
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
