# SPDX-License-Identifier: MIT
"""Files for trainers, measured times, and pages."""

import contextlib
import html
import importlib.util
import io
import json
import pickle
import re
import sys
import tempfile
import types
import unittest
import unittest.mock
import xml.etree.ElementTree as xml
from pathlib import Path

import pipesched as ps


def text_of(exported, name):
    return {file.name: file.text for file in exported.files}[name]


class FusedTask(list):
    pass


class BaseSchedule:
    def __post_init__(self):
        pass


@contextlib.contextmanager
def jaxpp():
    """What the class needs of jaxpp."""
    schedules, kinds = types.ModuleType("jaxpp.schedules"), types.ModuleType("jaxpp.types")
    schedules.BaseSchedule, schedules.FusedTask = BaseSchedule, FusedTask
    schedules.Task = types.SimpleNamespace(make=lambda stage, micro, kind: (stage, micro, kind))
    kinds.TaskType = types.SimpleNamespace(FWD="FWD", BWD="BWD", BWD_I="BWD_I", BWD_W="BWD_W")
    with unittest.mock.patch.dict(sys.modules, {"jaxpp": types.ModuleType("jaxpp"), "jaxpp.schedules": schedules, "jaxpp.types": kinds}):
        yield


def flat(tasks):
    return [one for task in tasks for one in (task if isinstance(task, FusedTask) else [task])]


class Exports(unittest.TestCase):
    def setUp(self):
        self.zbv = ps.make_zbv_schedule(pp=2, micro=4)
        self.model = ps.model(layers=[ps.layer(kind="embedding"), ps.layer(count=8), ps.layer(kind="head")])
        self.divided = ps.divided_model(self.model, ps.partition([3, 2, 2, 3]))

    def test_the_csv_is_that_of_the_schedule(self):
        for export in (ps.export_torchtitan, ps.export_automodel):
            csv = text_of(export(self.zbv), "schedule.csv")
            self.assertEqual(ps.torch_csv.from_text(csv).schedule.to_torch_csv(), self.zbv.to_torch_csv())
            with_modules = "".join(file.text for file in export(self.zbv, self.divided).files)
            self.assertEqual(sorted(set(re.findall(r"\blayers\.\d", with_modules))), [f"layers.{n}" for n in range(8)])

    def test_megatron_has_its_flags(self):
        schedule = ps.make_interleaved_1f1b_schedule(pp=2, micro=4, chunks=2)
        self.assertEqual(ps.megatron_order_of(schedule), ps.megatron_order(pp=2, micro=4, chunks=2, group=2))
        self.assertIn("--num-virtual-stages-per-pipeline-rank 2", text_of(ps.export_megatron(schedule), "megatron.sh"))
        layout = text_of(ps.export_megatron(schedule, self.divided), "megatron.sh")
        self.assertIn("--num-layers 8", layout)
        self.assertIn('--pipeline-model-parallel-layout "Ett|tt|tt|ttL"', layout)
        overlapped = ps.overlap_neighbours(ps.make_1f1b_schedule(pp=2, micro=4))
        with self.assertRaises(ps.ScheduleError):
            ps.export_megatron(overlapped)
        with self.assertRaisesRegex(ps.ScheduleError, "Megatron-LM places stages in a loop; got a vee placement"):
            ps.megatron_order_of(self.zbv)

    def test_jaxpp_gets_the_layers_of_its_stages(self):
        schedule = ps.make_1f1b_schedule(pp=2, micro=4)
        text = ps.export_jaxpp(schedule, layers=ps.partition(layers=[3, 2])).files[0].text
        self.assertIn("LAYERS_OF_STAGE = (3, 2)", text)
        self.assertNotIn("LAYERS_OF_STAGE", ps.export_jaxpp(schedule).files[0].text)
        with self.assertRaisesRegex(ps.ScheduleError, "layers of 1 stage; the schedule has 2 stages"):
            ps.export_jaxpp(schedule, ps.partition(layers=[5]))

    def test_jaxpp_gets_a_class_of_the_same_order(self):
        schedule = ps.make_dualpipev_schedule(pp=2, micro=4)
        with tempfile.TemporaryDirectory() as folder, jaxpp():
            ps.write_exported(Path(folder) / "new", ps.export_jaxpp(schedule))
            spec = importlib.util.spec_from_file_location("jaxpp_schedule", Path(folder) / "new" / "jaxpp_schedule.py")
            module = importlib.util.module_from_spec(spec)
            sys.modules["jaxpp_schedule"] = module  # for its dataclass
            spec.loader.exec_module(module)
            made = module.Schedule()
            del sys.modules["jaxpp_schedule"]
        self.assertEqual([made.get_mpmd_idx(stage) for stage in range(4)], [0, 1, 1, 0])
        forwards = [[f"{stage}F{micro}" for stage, micro, kind in flat(tasks) if kind == "FWD"] for tasks in made.tasks(4)]
        self.assertEqual(forwards, [[str(op) for cell in row for op in cell if op.pass_ == ps.pass_.forward] for row in schedule])

    def test_a_schedule_that_is_not_valid_or_no_fit_error_is_refused(self):
        broken = self.zbv.edit(0, lambda row: row.reverse())
        for export in (ps.export_torchtitan, ps.export_automodel, ps.export_megatron, ps.export_jaxpp, ps.megatron_order_of):
            with self.assertRaisesRegex(ps.ScheduleError, "the schedule is not valid"):
                export(broken)
        with self.assertRaises(ps.ScheduleError):
            ps.export_torchtitan(self.zbv, ps.divided_model(ps.model(), ps.partition([0, 0, 0, 0])))
        with self.assertRaisesRegex(ps.ScheduleError, "twice"):
            ps.export_torchtitan(ps.make_dualpipe_schedule(pp=2, micro=4))


def events_of(timeline, times=1000.0):
    """The events of a hook, in another unit."""
    return [
        {"rank": rank, "action": str(cell), "start": times * time.start, "end": times * time.end}
        for rank, row in enumerate(timeline.schedule)
        for cell, time in zip(row, timeline[rank])
    ]


def primus_step(timeline, rank):
    """The lists of a rank in Primus' files."""
    step = {}
    for kind, passes in (("fwd", "F"), ("bwd", "BI"), ("wgrad", "W")):
        times = [t for c, t in zip(timeline.schedule[rank], timeline[rank]) for o in c if str(o).strip("0123456789") in passes]
        step |= {f"{kind}_start": [t.start for t in times], f"{kind}_end": [t.end for t in times]}
    return step


class MeasuredTimes(unittest.TestCase):
    def setUp(self):
        self.costs = ps.stage_costs(forward=[1, 2], backward_input=[2, 3], backward_weight=[1, 2], transfer_time=0.5)
        self.schedule = ps.make_zb_h1_schedule(pp=2, micro=4)
        self.timeline = ps.simulate(self.schedule, self.costs)

    def test_events_of_a_hook_become_steps_and_costs(self):
        text = json.dumps({"time_unit": "ms", "events": events_of(self.timeline)})
        times = ps.read_times(io.StringIO(text))
        self.assertEqual((times.unit, len(times.cells)), (ps.time_unit.ms, sum(map(len, self.schedule))))
        self.assertEqual(times.cells[0], ps.measured_cell(0, ps.cell("0F0"), ps.interval(0, 1000)))
        self.assertEqual(pickle.loads(pickle.dumps(times)), times)
        measured = ps.steps_of(times.cells)
        self.assertEqual((measured.clocks, measured.notes, len(measured.steps)), (ps.rank_clocks.common, (), 1))
        self.assertEqual(list(measured.steps[0].schedule), list(self.schedule))
        costs = ps.fit_costs(measured.steps, measured.clocks)
        self.assertEqual((costs.forward, costs.backward_weight), ((1000, 2000), (1000, 2000)))
        self.assertEqual(costs.transfer_time[0], 500)
        self.assertEqual(ps.fit_costs(measured.steps, ps.rank_clocks.own).transfer_time, (0, 0))
        self.assertEqual(ps.estimates_of(measured.steps), [])
        whole = ps.simulate(ps.make_1f1b_schedule(pp=2, micro=4), self.costs)
        self.assertIn("I = W = B/2 of all stages, as neither ran", ps.estimates_of([whole]))

    def test_a_trace_comes_back(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json"
            file.write_text(ps.render_chrome_trace(self.timeline))
            for files in (file, [str(file)]):
                steps = ps.steps_of(ps.read_traces(files).cells).steps
                self.assertEqual([list(row) for row in steps[0].schedule], [list(row) for row in self.schedule])
        with self.assertRaisesRegex(ps.ScheduleError, "no event is named after an action"):
            ps.read_traces(io.StringIO("[]"))
        self.assertEqual(ps.cell_of_action("PP:(0F3;1B2)OVERLAP_F_B"), ps.cell("(0F3;1B2)"))
        self.assertIsNone(ps.cell_of_action("PP:0SEND_F1"))

    def test_files_of_primus_are_steps_without_a_common_clock(self):
        with tempfile.TemporaryDirectory() as folder:
            for rank in range(2):
                steps = {"1": primus_step(self.timeline, rank), "2": primus_step(self.timeline, rank)}
                (Path(folder) / f"pp_rank_{rank}.json").write_text(json.dumps(steps))
            measured = ps.read_primus(self.schedule, folder)
            files = [Path(folder) / f"pp_rank_{rank}.json" for rank in range(2)]
            self.assertEqual(ps.read_primus(self.schedule, files), measured)
            with self.assertRaisesRegex(ps.ScheduleError, "1 file of ranks; zb_h1 has 2 ranks"):
                ps.read_primus(self.schedule, files[:1])
        self.assertEqual(measured.clocks, ps.rank_clocks.own)
        self.assertEqual([list(t.start) for t in measured.steps], 2 * [list(self.timeline.start)])
        self.assertEqual(ps.fit_costs(measured.steps, measured.clocks).backward_input, (2, 3))

    def test_cells_that_cannot_be_are_refused(self):
        cell = ps.cell("0F0")
        for measured, refusal in (
            (ps.measured_cell(2**32 - 1, cell, ps.interval(0, 1)), "ranks are 0 to 65535; got 4294967295"),
            (ps.measured_cell(0, cell, ps.interval(0, float("nan"))), "the times of 0F0 on rank 0 are not finite"),
        ):
            with self.assertRaisesRegex(ps.ScheduleError, refusal):
                ps.steps_of([measured])
        with self.assertRaisesRegex(ps.ScheduleError, "no op was measured"):
            ps.steps_of([])
        for fit in (ps.fit_costs, ps.estimates_of):
            with self.assertRaisesRegex(ps.ScheduleError, "at least 1 timeline"):
                fit([])


def data_of(page):
    """The data of a page, as its script begins with."""
    return json.loads(re.search(r"const PAGE = (\{.*?\});\nconst ", page, re.S)[1])


class Pages(unittest.TestCase):
    def setUp(self):
        self.costs = ps.stage_costs(forward=[1, 2, 2, 1], backward=[2, 4, 4, 2])
        self.problem = ps.plan_problem(ps.placement.linear(4), 6)
        self.limits = ps.plan_limits(evaluations=200)

    def test_panels_say_what_they_are_told(self):
        timeline = ps.simulate(ps.make_1f1b_schedule(pp=2, micro=4), ps.stage_costs(kept_by_forward=3))
        panel = ps.make_panel(timeline, ps.stage_costs(kept_by_forward=3))
        self.assertEqual((len(panel.bytes), panel.bytes[0][0], panel.lengths), (2, 3, []))
        self.assertEqual(panel.measured, ps.measure(timeline, ps.stage_costs(kept_by_forward=3)))
        panel.name, panel.planned, panel.lower_bound, panel.limits = "mine", True, 9, [7, 8]
        page = data_of(ps.render_html([panel], ps.html_style(subject="Mine", unit="ms", notes=["a note"])))
        self.assertIn("Mine, 2 ranks, 4 micro-batches: mine ", page["headline"])
        shown = page["panels"][0]
        self.assertEqual((shown["name"], shown["planned"], shown["bound"], shown["limits"]), ("mine", True, 9, [7, 8]))
        panel.lower_bound = float("inf")
        with self.assertRaisesRegex(ps.ScheduleError, "a page shows finite bounds; got inf"):
            ps.render_html(panel)
        panel.limits, panel.lower_bound = [1], 0
        with self.assertRaisesRegex(ps.ScheduleError, "a panel has no limits, or 2, one per rank; got 1"):
            ps.render_html(panel)

    def test_a_plan_stands_beside_what_is_published(self):
        plan = ps.plan(self.problem, self.costs, self.limits)
        self.assertEqual(ps.measure(ps.simulate(plan.published_schedule, self.costs)).makespan, plan.published_makespan)
        panels = data_of(ps.page_of_plan(plan, self.costs))["panels"]
        self.assertEqual([(p["name"], p["makespan"]) for p in panels], [("planned", plan.makespan), (f"{plan.published}, best parameters", plan.published_makespan)])
        comparison = ps.compare(pp=4, micro=6, costs=self.costs, families=["gpipe", plan.published])
        names = [p["name"] for p in data_of(ps.page_of_plan(plan, self.costs, comparison))["panels"]]
        self.assertEqual(names, ["planned", plan.published, "gpipe"])

    def test_a_plan_of_a_model_has_its_own_costs_and_memory(self):
        model = ps.model(layers=[ps.layer(count=6, forward=1, backward=2, kept=1, weights=1)], ranks=[ps.model_rank(memory=100)])
        plan = ps.plan(model, ps.model_problem(placement=ps.placement.linear(2), micro=4), self.limits)
        page = data_of(ps.page_of_plan(plan))
        self.assertEqual(page["panels"][0]["makespan"], plan.plan.makespan)
        self.assertTrue(all(0 < limit < 100 for limit in page["panels"][0]["limits"]))
        self.assertEqual(plan._repr_svg_(), ps.simulate(plan.plan.schedule, plan.costs)._repr_svg_())
        self.assertIn(f"makespan {plan.plan.makespan:.6g}", plan._repr_html_())
        with self.assertRaisesRegex(TypeError, "has costs of its own"):
            ps.page_of_plan(plan, self.costs)

    def test_a_comparison_is_a_picture(self):
        comparison = ps.compare(pp=4, micro=6, families=["1f1b", "dualpipe", "zbv"])
        root = xml.fromstring(comparison._repr_svg_())
        texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
        self.assertEqual([t for t in texts if t in ("1f1b", "dualpipe", "zbv")], ["zbv", "dualpipe", "1f1b"])
        self.assertIn(f"{comparison['zbv'].makespan:.4g}", texts)
        bars = [float(r.get("width")) for r in root.iter("{http://www.w3.org/2000/svg}rect")][1:]
        self.assertAlmostEqual(bars[0] / bars[-2], comparison["zbv"].makespan / comparison["1f1b"].makespan, places=4)
        self.assertAlmostEqual(bars[1] / bars[0], 1 - comparison["zbv"].metrics.bubble_ratio, places=4)
        page = data_of(comparison.to_html(ps.html_style(subject="Größe \"<b>\"", notes=["a note"])))
        self.assertTrue(page["headline"].startswith('Größe "<b>", 4 ranks, 6 micro-batches: zbv '))
        self.assertIsNone(ps.comparison([], {}, "none")._repr_svg_())

    def test_pages_have_the_unit_of_the_costs(self):
        costs = ps.deepseek_v3_costs()
        plan = ps.plan(self.problem, costs, self.limits)
        comparison = ps.compare(pp=4, micro=6, costs=costs, families=["1f1b", "zbv"])
        pages = comparison.to_html(), ps.pareto(self.problem, costs, [4], self.limits).to_html(), ps.page_of_plan(plan, costs)
        self.assertEqual([data_of(page)["unit"] for page in pages], ["ms"] * 3)
        self.assertEqual(data_of(ps.page_of_plan(plan, costs, style=ps.html_style(unit="s")))["unit"], "s")
        self.assertIn("makespan, ms", comparison._repr_svg_())

    def test_a_trace_has_the_unit_of_the_costs(self):
        schedule = ps.make_1f1b_schedule(pp=2, micro=2)
        for unit, microseconds in (("none", 1000), ("s", 1e6), ("ms", 1000), ("us", 1)):
            costs = ps.stage_costs(forward=3, backward=6, time_unit=unit)
            timeline = ps.simulate(schedule, costs)
            first = [e for e in json.loads(ps.render_chrome_trace(timeline, costs))["traceEvents"] if e["ph"] == "X"][0]
            self.assertEqual((first["name"], first["dur"]), ("0F0", 3 * microseconds))
            self.assertEqual(ps.trace_style_of(getattr(ps.time_unit, unit)).microseconds, microseconds)
            given = ps.render_chrome_trace(timeline, costs, ps.trace_style(microseconds=7))
            self.assertEqual([e for e in json.loads(given)["traceEvents"] if e["ph"] == "X"][0]["dur"], 21)
        self.assertEqual(ps.render_chrome_trace(timeline), ps.render_chrome_trace(timeline, style=ps.trace_style()))

    def test_every_error_of_reading_names_its_file(self):
        schedule = ps.make_1f1b_schedule(pp=2, micro=2)
        reads = (ps.read_json, ps.read_schedule, ps.read_torch_csv, ps.read_costs, ps.read_model, ps.read_times, ps.read_traces, lambda f: ps.read_primus(schedule, [f, f]))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "mine.json"
            for text in (b"[", b"[]", b"", b"3", b'{"x": 1}', b"\xff\xfe", b'[{"ph": "X", "name": "0F0"}]', b'{"layers": [{"forward": -1}]}'):
                file.write_bytes(text)
                for read in reads:
                    with self.subTest(text=text, read=read), self.assertRaisesRegex(ps.ScheduleError, f"^{file}: "):
                        read(file)
                    with open(file, "rb") as opened, self.subTest(text=text, read=read), self.assertRaisesRegex(ps.ScheduleError, f"^{file}: "):
                        read(opened)
            for read in reads:
                with self.assertRaisesRegex(OSError, "nowhere.json"):
                    read(Path(folder) / "nowhere.json")
        with self.assertRaisesRegex(ps.ScheduleError, "^costs: "):
            ps.read_costs(io.StringIO("[]"))

    def test_a_file_without_a_name_is_named_by_its_number(self):
        with self.assertRaisesRegex(ps.ScheduleError, "^file 1: no event is named after an action"):
            ps.read_traces([io.StringIO(ps.render_chrome_trace(ps.simulate(ps.make_dualpipe_schedule(pp=2, micro=4)))), io.StringIO("[]")])

    def test_a_front_opens_its_plans(self):
        front = ps.pareto(self.problem, self.costs, [1, 2, 4], self.limits)
        page = data_of(front.to_html(ps.html_style(subject="Mine")))
        self.assertEqual([p["memory"] for p in page["front"]], [1, 2, 4])
        for point, of in zip(page["front"], front):
            self.assertEqual(page["panels"][point["plan"]]["makespan"], of.plan.makespan)
            self.assertEqual(point["published"] >= 0, bool(of.plan.published))
            if of.plan.published:
                self.assertEqual(page["panels"][point["published"]]["makespan"], of.plan.published_makespan)
        self.assertEqual(pickle.loads(pickle.dumps(front)).to_html(), front.to_html())

    def test_a_notebook_shows_pages_in_frames(self):
        front = ps.pareto(self.problem, self.costs, [2, 4], self.limits)
        comparison = ps.compare(pp=4, micro=6, families=["1f1b", "dualpipe", "zbv"])
        large = ps.make_1f1b_schedule(pp=16, micro=128)
        for value, page in ((front, front.to_html()), (comparison, comparison.to_html()), (large, None)):
            shown = value._repr_html_()
            self.assertTrue(shown.startswith("<iframe srcdoc="))
            inside = html.unescape(re.search(r'srcdoc="([^"]*)"', shown)[1])
            self.assertEqual(inside, page or ps.render_html(ps.make_panel(ps.simulate(large))))
        self.assertIn("33.3", comparison._repr_html_().split("</iframe>")[1])
        shortest = data_of(comparison.to_html())["panels"][0]
        self.assertEqual((shortest["name"], shortest["makespan"], shortest["bound"]), ("zbv", comparison["zbv"].makespan, comparison["zbv"].bound.makespan))
        small = ps.make_1f1b_schedule(pp=2, micro=4)
        self.assertIn("max-width:none", xml.fromstring(small._repr_html_())[0].get("style"))
        plan = ps.plan(self.problem, self.costs, self.limits)
        self.assertIn(f"planned {plan.makespan:.6g}, at least", plan._repr_html_())


if __name__ == "__main__":
    unittest.main()
