# SPDX-License-Identifier: MIT
"""Random calls of every function, with arguments of the right types and of wrong ones: each returns or raises one of the module's
errors, and none brings the interpreter down. The sanitizers make this a test of memory: PIPESCHED_SANITIZE=1 tests/run.sh.

PIPESCHED_RANDOM_CALLS  how many; default 1000
PIPESCHED_RANDOM_SEED   default 1
"""

import os
import random
import re
import unittest

import pipesched as ps

CALLS = int(os.environ.get("PIPESCHED_RANDOM_CALLS", "1000"))
ERRORS = (ps.ScheduleError, TypeError, ValueError, IndexError, KeyError, OverflowError)

# The words of nanobind and of the standard library; ours are one sentence.
RAW = r"incompatible function arguments|std::|bad_cast|Invoked with|\n.*\n"

# Searches take their default limits of minutes from no one: they get small ones.
LIMITED = {
    "plan": {"limits": ps.plan_limits(evaluations=20), "progress": None},
    "pareto": {"limits": ps.plan_limits(evaluations=20), "progress": None},
    "divide": {"limits": ps.divide_limits(evaluations=20), "progress": None},
    "simulate_noise": {"options": ps.noise_options(draws=5), "progress": None},
}
NOT_CALLED = {"study", "comparison", "front"}  # classes of Python


def values(rng):
    """Some values of every type, by the name that signatures have for it; "" for any."""
    family = rng.choice(ps.families)
    schedule = family.make(pp=rng.choice([2, 4]), micro=rng.choice([4, 6, 9]))
    row = rng.randrange(len(schedule))
    broken = schedule.edit(row, lambda cells: rng.choice([cells[1:], cells[::-1], cells + cells[:1], []]))
    timeline = ps.simulate(schedule)
    program = ps.lower(schedule)
    n = schedule.stages
    costs = [ps.stage_costs(), ps.stage_costs(forward=list(range(n))), ps.stage_costs(forward=[1, 2, 3]), ps.deepseek_v3_costs(),
             ps.stage_costs(kept_by_forward=3, micro_batches=[1] * schedule.micro), ps.stage_costs(backward=-1),
             ps.stage_costs(pairs=[ps.pair_time("FB", (0, 9), 3)], rank_speeds=[1, 2])]
    model = ps.model(layers=[ps.layer(count=rng.choice([1, 8]), kept=3, weights=1)])
    some = {
        "schedule": [schedule, schedule, broken],
        "timeline": [timeline, ps.scaled(timeline, 1e9)],
        "program": [program],
        "placement": [schedule.placement, ps.placement(), ps.placement.custom(2, 4, [[0, 1, 0]])],
        "stage_costs": costs + [None],
        "model": [model, ps.gemma_model(), ps.model()],
        "partition": [ps.partition([1, 2]), ps.uniform_partition(ps.gemma_model(), n), ps.partition()],
        "cell": [schedule[0][0], ps.cell("(0F7;7B13)"), ps.cell("65535W4294967295")],
        "cell_row": [schedule[-1], broken[row]],
        "op": [schedule[0][0][0], ps.op(), ps.op(ps.pass_.backward, 255, 65535, 2**32 - 1)],
        "int": [0, 1, 2, 3, 4, 7, -1, 2**16, 10**12],
        "float": [0, 1, 2.5, -1, 1e300, float("inf"), float("nan")],
        "str": ["", "dualpipe", "1f1b", "0F0", "FB", "rank 0: 0F0", "E|t*3|L", "head", "\0\xff"],
        "bool": [True, False],
    }
    for name in ps.__all__:
        value = getattr(ps, name)
        if isinstance(value, type) and hasattr(value, "replace") and name not in some:
            some[name] = [value()]
        elif isinstance(value, type) and hasattr(value, "__members__"):
            some[name] = list(value)
    some["pareto_point"] = list(ps.pareto(ps.plan_problem(schedule.placement, 4), None, [9], ps.plan_limits(evaluations=1)))
    return some


def parameters_of(function):
    """The type texts of the parameters of one overload."""
    lines = re.findall(r"\w+\((.*)\) -> ", function.__doc__ or "") or [""]
    return [[p.rpartition(": ")[2].split(" = ")[0] for p in re.split(r", (?=[\w*]+(?::|,|$))", line) if ":" in p] for line in lines]


def argument(rng, text, some):
    if rng.random() < 0.1:
        text = rng.choice(list(some))
    if "Sequence" in text or "list" in text:
        return [argument(rng, re.sub(r".*\[|\].*", "", text), some) for _ in range(rng.randrange(5))]
    known = [name for name in re.findall(r"\w+", text) if name in some]
    return rng.choice(some[rng.choice(known)]) if known else rng.choice([None, 1, "x", lambda *a: None])


class Random(unittest.TestCase):
    def test_calls_return_or_raise_the_errors_of_the_module(self):
        rng = random.Random(int(os.environ.get("PIPESCHED_RANDOM_SEED", "1")))
        names = [n for n in ps.__all__ if callable(getattr(ps, n)) and n not in NOT_CALLED and not n.endswith(("Error", "Interrupted"))]
        returned = 0
        for number in range(CALLS):
            if number % 50 == 0:
                some = values(rng)
            name = rng.choice(names)
            function = getattr(ps, name)
            limits = LIMITED.get(name, {})
            wanted = rng.choice(parameters_of(function.__init__ if isinstance(function, type) else function))
            wanted = wanted[: len(wanted) - len(limits)]
            if name.startswith("make_") and rng.random() < 0.8:
                wanted = wanted[: 2 + name.endswith("_row")]
            arguments = [argument(rng, text, some) for text in wanted]
            if name in ("compare",):
                arguments, limits = [2, 4], {"families": ["1f1b", "zbv"]}
            with self.subTest(number=number, name=name, arguments=repr(arguments)[:300]):
                try:
                    value = function(*arguments, **limits)
                except ERRORS as error:
                    self.assertNotRegex(str(error), RAW)
                    continue
                returned += 1
                repr(value), str(value), value == value
                for member in dir(value):
                    if not member.startswith("_"):
                        getattr(value, member)
        self.assertGreater(returned, CALLS // 5)


if __name__ == "__main__":
    unittest.main()
