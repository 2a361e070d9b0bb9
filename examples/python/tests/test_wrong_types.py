# SPDX-License-Identifier: MIT
"""Every function, record and method refuses an argument of a wrong type with one sentence, which names it and its parameter."""

import inspect
import random
import re
import unittest

import pipesched as ps
import pipesched._calls as calls
from test_random import values


class Wrong:
    """A value that nothing takes, but as `object`."""

    def __repr__(self):
        return "<wrong>"


#: They take any object, or are no functions of values.
LEFT_OUT = {"to_string", "Interrupted", "ScheduleError", "ModelError", "NoFitError", "study", "compare_progress", "watch"}


def signatures_of(function):
    """[(name, type, whether it has a default), ...] of each overload; none if they are not known."""
    signatures = getattr(function, "__nb_signature__", None)
    if signatures:
        return [calls._parameters(signature) for signature, *_ in signatures]
    if inspect.isfunction(function):
        return [[(p.name, p.annotation, p.default is not p.empty) for p in inspect.signature(function).parameters.values() if p.kind != p.VAR_KEYWORD]]
    return []


def functions():
    """(name, call, parameters) of all functions, records and methods."""
    some = values(random.Random(1))
    for name in ps.__all__:
        value = getattr(ps, name)
        if name in LEFT_OUT or not callable(value):
            continue
        if not isinstance(value, type):
            yield from ((name, value, parameters) for parameters in signatures_of(value))
            continue
        for member, method in vars(value).items():
            if member in ("__init__", "__new__") and ("comparison" in name or name in ("front", "slot_table") or hasattr(value, "replace")):
                yield from ((name, value, parameters[1:]) for parameters in signatures_of(method))
            elif not member.startswith("_") and isinstance(method, staticmethod):
                yield from ((f"{name}.{member}", getattr(value, member), parameters) for parameters in signatures_of(method.__func__))
            elif not member.startswith("_") and callable(method) and name in some:
                yield from ((f"{name}.{member}", getattr(some[name][0], member), parameters[1:]) for parameters in signatures_of(method))


class WrongTypes(unittest.TestCase):
    def test_every_parameter_refuses_a_wrong_type_with_one_sentence(self):
        reached = set()
        some = values(random.Random(1))
        for name, call, parameters in functions():
            for i, (parameter, kind, _) in enumerate(parameters):
                if parameter.startswith("*") or kind in ("object", "typing.Any", inspect.Parameter.empty):
                    continue
                right = {}
                for other, of_kind, has_default in parameters[:i]:
                    known = [k for k in re.findall(r"\w+", str(of_kind)) if some.get(k)]
                    if not has_default and known:
                        right[other] = [] if re.search("Sequence|Iterable|list", of_kind) else some[known[0]][0]
                if any(not has_default and other not in right for other, _, has_default in parameters[:i]):
                    continue  # a parameter before it has a type of which there is no value here
                for wrong in (Wrong(), [Wrong()], {"x": 1}):
                    with self.subTest(name=name, parameter=parameter, wrong=wrong):
                        with self.assertRaises((TypeError, ValueError)) as caught:
                            call(**right, **{parameter: wrong})
                        said = str(caught.exception)
                        self.assertTrue(said.startswith(name), said)
                        self.assertNotIn("\n", said)
                        self.assertRegex(said, rf"\b{parameter}\b|argument {i + 1}")
                        reached.add((name, parameter))
        self.assertGreater(len(reached), 500)


if __name__ == "__main__":
    unittest.main()
