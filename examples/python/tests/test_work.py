# SPDX-License-Identifier: MIT
"""Transforms, searches and pictures; long work lets other threads run, reports, and stops."""

import contextlib
import io
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import unittest
import xml.etree.ElementTree as xml

import pipesched as ps

LONG = ps.plan_limits(evaluations=10**9)
PROBLEM = ps.plan_problem(placement=ps.placement.vee(4), micro=16)


class Searches(unittest.TestCase):
    def test_a_plan_is_the_same_whoever_watches(self):
        problem = ps.plan_problem(placement=ps.placement.linear(4), micro=8)
        limits = ps.plan_limits(evaluations=300, memory=ps.memory_caps(activations=4))
        seen = []
        plan = ps.plan(problem, ps.stage_costs(forward=[1, 2, 2, 1]), limits, progress=seen.append)
        self.assertEqual(plan.schedule, ps.plan(problem, ps.stage_costs(forward=[1, 2, 2, 1]), limits).schedule)
        self.assertTrue(seen and isinstance(seen[-1], ps.plan_progress))
        self.assertTrue(ps.verify(plan.schedule))
        self.assertLessEqual(plan.makespan, plan.published_makespan)

    def test_progress_stops_a_plan(self):
        plan = ps.plan(PROBLEM, limits=LONG, progress=lambda p: False)
        self.assertTrue(ps.verify(plan.schedule))

    def test_an_error_in_progress_reaches_the_caller(self):
        def fail(progress):
            raise KeyError("mine")

        with self.assertRaisesRegex(KeyError, "mine"):
            ps.plan(PROBLEM, limits=LONG, progress=fail)

    def test_other_threads_run_meanwhile(self):
        ended, turns = threading.Event(), []

        def count():
            while not ended.wait(0.001):
                turns.append(1)

        thread = threading.Thread(target=count)
        thread.start()
        try:
            end = time.monotonic() + 0.5
            ps.plan(PROBLEM, limits=LONG, progress=lambda p: time.monotonic() < end)
        finally:
            ended.set()
            thread.join()
        self.assertGreater(len(turns), 10)

    def test_ctrl_c_stops_long_work_and_keeps_nothing_running(self):
        problem, forever = "ps.plan_problem(placement=ps.placement.vee(4), micro=16)", "limits=ps.plan_limits(evaluations=10**9, threads=2)"
        for work, kept in (
            (f"ps.plan({problem}, {forever})", "bool(ps.verify(kept.schedule)) and kept.makespan <= kept.published_makespan"),
            (f"ps.plan({problem}, {forever}, progress=lambda p: True)", "bool(ps.verify(kept.schedule))"),
            (f"ps.pareto({problem}, None, [3, 4, 8], {forever})", "type(kept) is ps.front and all(ps.verify(p.plan.schedule) for p in kept)"),
            ("ps.plan(model, ps.model_problem(placement=ps.placement.linear(4), micro=16), ps.plan_limits(evaluations=10**9))", "bool(ps.verify(kept.plan.schedule))"),
            ("ps.divide(model, '1f1b', pp=8, micro=64, limits=ps.divide_limits(evaluations=10**9))", "kept.makespan <= kept.uniform_makespan"),
            ("ps.divide(model, 'zb_greedy', pp=8, micro=64, limits=ps.divide_limits(evaluations=10**9))", "kept.makespan <= kept.uniform_makespan"),
            ("ps.simulate_noise(ps.make_1f1b_schedule(pp=8, micro=64), None, ps.noise_options(draws=10**7))", "len(kept.draws) > 0"),
            ("[ps.compare(pp=8, micro=64, model=model, families=['1f1b', 'zbv']) for _ in range(10**4)]", "len(kept) + len(kept.left_out) == 2"),
        ):
            with self.subTest(work=work):
                self.assertEqual(self.stopped(work, kept), "1 True")

    def test_an_interruption_is_a_keyboard_interrupt_that_pickles(self):
        self.assertTrue(issubclass(ps.Interrupted, KeyboardInterrupt))
        interrupted = pickle.loads(pickle.dumps(ps.Interrupted(ps.cell("0F1"))))
        self.assertEqual((interrupted.result, str(interrupted)), (ps.cell("0F1"), "interrupted; the attribute `result` has the best so far"))

    def test_another_error_of_a_signal_stays_itself(self):
        def fail(*_):
            raise KeyError("mine")

        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, fail))
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with self.assertRaisesRegex(KeyError, "mine"):
            ps.plan(PROBLEM, limits=LONG)

    def stopped(self, work, kept):
        """The number of threads that are left after Ctrl-C, and whether a condition holds for what the error carries."""
        script = (
            "import os, signal, pipesched as ps\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs of a script ignore it\n"
            "model = ps.find_model('deepseek_v3')\n"
            "print('ready', flush=True)\n"
            "try:\n"
            f"  {work}\n"
            "except ps.Interrupted as interrupted:\n"
            "  kept = interrupted.result\n"
            f"  print(len(os.listdir('/proc/self/task')), {kept}, flush=True)\n"
        )
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
            self.assertEqual(child.stdout.readline(), "ready\n")
            time.sleep(0.3)
            child.send_signal(signal.SIGINT)
            try:
                out, _ = child.communicate(timeout=60)
            finally:
                child.kill()
        return out.strip()

    def test_progress_stops_a_division_and_noise(self):
        model = ps.find_model("deepseek_v3")
        limits = ps.divide_limits(evaluations=10**9)
        for family in ("1f1b", "zb_greedy"):
            seen = []
            division = ps.divide(model, family, pp=4, micro=8, limits=limits, progress=lambda p: seen.append(p) or len(seen) < 3)
            self.assertIsInstance(seen[0], ps.divide_progress)
            self.assertLessEqual(division.makespan, division.uniform_makespan)
            self.assertEqual(sum(division.partition.layers), ps.layer_count(model))
            with self.assertRaisesRegex(KeyError, "mine"):
                ps.divide(model, family, pp=4, micro=8, limits=limits, progress=lambda p: {}["mine"])
        schedule, seen = ps.make_1f1b_schedule(pp=4, micro=8), []
        noisy = ps.simulate_noise(schedule, None, ps.noise_options(draws=10**7), lambda draws: seen.append(draws) or len(seen) < 2)
        whole = ps.simulate_noise(schedule, None, ps.noise_options(draws=len(noisy.draws)))
        self.assertEqual((noisy.draws, noisy.median, noisy.options), (whole.draws, whole.median, whole.options))

    def test_divide_takes_schedules_families_and_makers(self):
        model = ps.find_model("deepseek_v3")
        limits = ps.divide_limits(evaluations=50)
        by_name = ps.divide(model, "1f1b", pp=4, micro=8, limits=limits)
        by_schedule = ps.divide(model, ps.make_1f1b_schedule(pp=4, micro=8), limits=limits)
        self.assertEqual(by_name, by_schedule)
        made = ps.divide(model, ps.placement.linear(4), lambda costs: ps.make_1f1b_schedule(pp=4, micro=8), limits)
        self.assertEqual(sum(made.partition.layers), ps.layer_count(model))
        with self.assertRaisesRegex(ZeroDivisionError, "division"):
            ps.divide(model, ps.placement.linear(4), lambda costs: 1 / 0, limits)

    def test_models_have_names(self):
        model, limits = ps.find_model("deepseek_v3"), ps.divide_limits(evaluations=50)
        self.assertEqual(ps.divide("deepseek_v3", "1f1b", pp=4, micro=8, limits=limits), ps.divide(model, "1f1b", pp=4, micro=8, limits=limits))
        self.assertEqual(ps.compare(pp=2, micro=4, model="deepseek_v3", families=["1f1b"]).unit, "ms")
        with self.assertRaisesRegex(ps.ScheduleError, 'no model is called "deepseek"'):
            ps.divide("deepseek", "1f1b", pp=4, micro=8)
        for call in (lambda: ps.divide(3, "1f1b", pp=4, micro=8), lambda: ps.compare(pp=4, micro=8, model=3)):
            with self.assertRaisesRegex(TypeError, r"^(divide: m|compare: model) takes model \| str( \| None)?; got 3$"):
                call()
        with self.assertRaisesRegex(TypeError, r"^compare: costs takes stage_costs \| None; got {'forward': 1}$"):
            ps.compare(pp=4, micro=8, costs={"forward": 1})

    def test_a_front_shows_itself(self):
        front = ps.pareto(ps.plan_problem(ps.placement.vee(4), 8), None, [2, 3, 4], ps.plan_limits(evaluations=300))
        self.assertEqual(len(front), 3)
        self.assertTrue(all(a.plan.makespan >= b.plan.makespan for a, b in zip(front, front[1:])))
        xml.fromstring(front._repr_svg_())

    def test_a_front_over_placements_counts_bytes(self):
        given = ps.stage_costs(forward=2, backward=4, kept_by_forward=4, weight_bytes=20, message_bytes=0.25)
        steps = [
            ps.placed_step(ps.plan_problem(where, 8), ps.split_stage_costs(given, where)) for where in ps.placements_for(4, 8, 2)
        ]
        front = ps.pareto(steps, caps=[36, 60], limits=ps.plan_limits(evaluations=2000), unit="bytes")
        self.assertEqual(front.unit, ps.memory_unit.bytes)
        for point in front:
            step = steps[point.step]
            self.assertTrue(ps.fits(point.plan.schedule, step.costs, [point.cap]))
            self.assertTrue(point.lower_bound <= point.plan.bound.makespan <= point.plan.makespan)
            self.assertEqual(point.plan.schedule.placement, step.problem.placement)
        self.assertIn("memory per rank, bytes", front._repr_svg_())
        self.assertIn('"memoryTitle":"memory per rank, bytes"', front.to_html())
        alone = ps.plan_in_memory(steps[0].problem, steps[0].costs, [36], ps.plan_limits(evaluations=200))
        self.assertTrue(ps.fits(alone.schedule, steps[0].costs, [36]))
        with self.assertRaisesRegex(TypeError, "placed_steps have their own"):
            ps.pareto(steps, given, [36])
        with self.assertRaisesRegex(ps.NoFitError, "rank 0 has 10 bytes, and its weights take 20") as caught:
            ps.plan_in_memory(steps[0].problem, steps[0].costs, [10])
        self.assertEqual(caught.exception.evaluations, 0)
        with self.assertRaises(ps.NoFitError) as caught:
            ps.plan_in_memory(steps[0].problem, steps[0].costs, [20.5], ps.plan_limits(evaluations=200))
        self.assertGreater(caught.exception.evaluations, 0)
        with self.assertRaisesRegex(TypeError, "activations or bytes as the unit; got 'GB'"):
            ps.pareto(steps, caps=[36], unit="GB")

    def test_a_front_of_a_model(self):
        model = ps.model(layers=[ps.layer(count=8, forward=1, backward=2, kept=2, weights=5)])
        problems = [ps.model_problem(placement=where, micro=6) for where in ps.placements_for(2, 6, 2)]
        front = ps.pareto(model, problems, [40, 80], ps.plan_limits(evaluations=1500))
        for point in front:
            self.assertEqual(sum(point.plan.partition.layers), 8)
            self.assertTrue(point.lower_bound <= point.plan.lower_bound <= point.plan.plan.makespan)
        self.assertIn("planned, ", front.to_html())


class Functions(unittest.TestCase):
    def test_transforms_keep_schedules_valid(self):
        schedule = ps.make_1f1b_schedule(pp=4, micro=8)
        for changed in (
            ps.split_backward(schedule),
            ps.delay_weights(ps.split_backward(schedule), 2),
            ps.refill(schedule, caps=ps.memory_caps(activations=5)),
            ps.recompute(schedule, ps.recompute_choice(of_every=2)),
            ps.place_recompute(ps.recompute(schedule)),
            ps.freeze(schedule, [0, 1]),
            ps.overlap_neighbours(schedule, ps.overlap_policy.where_ready),
            ps.keep_forwards(schedule),
            ps.concatenate(schedule, schedule),
            ps.reorder_micro_batches(schedule, ps.stage_costs(micro_batches=[1, 2, 3, 4, 5, 6, 7, 8])),
        ):
            self.assertTrue(ps.verify(changed))

    def test_a_program_is_proven(self):
        program = ps.lower(ps.make_dualpipe_schedule(pp=4, micro=8), ps.lower_options(depth=2))
        self.assertTrue(ps.verify(program))
        self.assertEqual([a.kind for a in program[0]].count(ps.action_kind.compute), len(program.schedule[0]))
        self.assertTrue(ps.fits(program, ps.stage_costs(kept_by_forward=3), [100.0]))
        self.assertFalse(ps.fits(program, ps.stage_costs(kept_by_forward=3), [1.0]))

    def test_a_comparison_is_that_of_the_families(self):
        comparison = ps.compare(pp=4, micro=8, costs=ps.stage_costs(forward=1, backward=2))
        self.assertEqual(len(comparison), len(ps.families))
        self.assertEqual(comparison["1f1b"].makespan, 33)
        self.assertEqual(comparison["1f1b"].formula.bubble, 9)
        self.assertIn("zbv", str(comparison))
        self.assertEqual(ps.compare(pp=5, micro=8).left_out["dualpipe"][:20], "dualpipe needs an ev")
        with self.assertRaisesRegex(ps.ScheduleError, "no compared family takes waves"):
            ps.compare(pp=4, micro=8, families=["1f1b"], waves=2)

    def test_a_comparison_shows_its_progress_and_stops(self):
        seen = []
        names = ["gpipe", "dualpipe", "zbv"]
        comparison = ps.compare(pp=3, micro=6, families=names, progress=seen.append)
        self.assertEqual([(p.done, p.all) for p in seen], [(1, 3), (2, 3), (3, 3)])
        self.assertEqual([p.makespan for p in seen], [comparison["gpipe"].makespan] * 2 + [comparison.best.makespan])
        stopped = ps.compare(pp=3, micro=6, families=names, progress=lambda p: False)
        self.assertEqual([s.name for s in stopped], ["gpipe"])
        self.assertEqual(stopped.left_out, {"dualpipe": "dualpipe was not reached", "zbv": "zbv was not reached"})
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))  # shells ignore it in the background
        with self.assertRaises(ps.Interrupted) as caught:
            ps.compare(pp=3, micro=6, families=names, progress=lambda p: os.kill(os.getpid(), signal.SIGINT))
        self.assertEqual(caught.exception.result, stopped)
        with contextlib.redirect_stderr(io.StringIO()) as shown:
            ps.compare(pp=2, micro=4, families=names, progress=True)
        self.assertRegex(shown.getvalue(), "3/3 .*families|^$")

    def test_a_comparison_of_no_families_is_refused(self):
        for families, text in [([], "at least 1 family; got none"), (["zbv", "zbv"], "zbv twice; expected once"), (["1f1"], "1f1b")]:
            with self.assertRaisesRegex(ps.ScheduleError, text):
                ps.compare(pp=2, micro=4, families=families)
        with self.assertRaisesRegex(TypeError, r"^compare: families takes Iterable\[str \| family\] \| None; got 'zbv'$"):
            ps.compare(pp=2, micro=4, families="zbv")
        with self.assertRaisesRegex(ps.ScheduleError, r"^no family can be compared: gpipe needs [^;]*; got pp = 0, nearest 1 \(and \d+ more\)$"):
            ps.compare(pp=0, micro=4)
        self.assertEqual(ps.compare(pp=1, micro=1).title, "1 rank, 1 micro-batch")
        empty = ps.compare(pp=3, micro=4, families=["dualpipe", "zbv"], progress=lambda p: False)
        self.assertIn("zbv was not reached", empty._repr_html_())
        with self.assertRaisesRegex(ps.ScheduleError, "without studies has no best"):
            empty.best

    def test_pictures_are_well_formed(self):
        schedule = ps.make_zbv_schedule(pp=2, micro=4)
        timeline = ps.simulate(schedule)
        xml.fromstring(ps.render_svg(timeline, ps.svg_style(title="mine")))
        self.assertIn("mine", ps.render_svg(timeline, ps.svg_style(title="mine")))
        self.assertEqual(ps.render_text(schedule), ps.render_text(timeline))
        self.assertIn("<!doctype html>", ps.render_html(ps.make_panel(timeline)))
        self.assertTrue(ps.render_chrome_trace(timeline).startswith("{"))
        xml.fromstring(schedule._repr_svg_())
        self.assertIn("valid", ps.schedule(ps.placement.linear(1), 1, [["0B0", "0F0"]])._repr_html_() + "valid")
        self.assertIsNone(ps.make_1f1b_schedule(pp=64, micro=512)._repr_svg_())


class Tool(unittest.TestCase):
    def run_tool(self, *words):
        if not os.access(os.path.join(os.path.dirname(ps.__file__), "bin", "pipesched"), os.X_OK):
            self.skipTest("skipped: the tool was not installed beside the module")
        return subprocess.run([sys.executable, "-m", "pipesched", *words], capture_output=True, text=True)

    def test_python_m_pipesched_is_the_tool(self):
        self.assertEqual(self.run_tool("--version").stdout, f"pipesched {ps.__version__}\n")
        made = self.run_tool("generate", "zbv", "--pp", "4", "--micro", "8").stdout
        self.assertEqual(ps.schedule.from_json(made), ps.make_zbv_schedule(pp=4, micro=8))

    def test_errors_have_exit_code_2(self):
        failed = self.run_tool("generate", "dualpipe", "--pp", "7", "--micro", "8")
        self.assertEqual(failed.returncode, 2)
        self.assertIn("nearest 6 or 8", failed.stderr)


if __name__ == "__main__":
    unittest.main()
