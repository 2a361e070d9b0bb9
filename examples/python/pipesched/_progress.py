# SPDX-License-Identifier: MIT
"""A progress bar for progress=True: tqdm's if it is installed, else a line on a terminal. The error of Ctrl-C."""

import sys

INFINITE = float("inf")  # the makespan before a first result


def _done(progress):
    """Of a plan_progress, a divide_progress, a compare_progress, or a number of draws."""
    return getattr(progress, "evaluations", getattr(progress, "done", progress))


def _facts(progress):
    facts = [f"makespan {progress.makespan:.6g}"] if getattr(progress, "makespan", INFINITE) < INFINITE else []
    return facts + ([f"at least {progress.lower_bound:.6g}"] if hasattr(progress, "lower_bound") else [])


class _tqdm_bar:
    def __init__(self, tqdm, total, unit):
        self._bar = tqdm(total=total, unit=unit, unit_scale=unit == "sim")

    def __call__(self, progress):
        self._bar.update(_done(progress) - self._bar.n)
        self._bar.set_postfix_str(", ".join(_facts(progress)))

    def close(self):
        self._bar.close()


class _line:
    def __init__(self, total):
        self._total = total
        self._shows = sys.stderr.isatty()

    def __call__(self, progress):
        if self._shows:
            share = f"{100 * _done(progress) / self._total:.0f} %"
            sys.stderr.write("\r\x1b[K" + ", ".join([share, *_facts(progress)]))
            sys.stderr.flush()

    def close(self):
        if self._shows:
            sys.stderr.write("\r\x1b[K")


def bar(total, unit="sim"):
    """A progress function with a close(); its unit is simulations or another one."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _line(total)
    return _tqdm_bar(tqdm, total, unit)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during long work, which has ended: `result` is the best that it has found until then, as the call would return it.

    It is a KeyboardInterrupt, so that it ends a program that does not catch it. In a notebook sys.last_value is the error.
    """

    def __init__(self, result):
        super().__init__("interrupted; the attribute `result` has the best so far")
        self.result = result

    def __reduce__(self):
        return Interrupted, (self.result,)
