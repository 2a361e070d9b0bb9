# SPDX-License-Identifier: MIT
"""The module has every public name of the headers, but for those listed in parity.py with a reason."""

import unittest

import parity
import pipesched


class Parity(unittest.TestCase):
    def test_every_public_name_of_the_headers_is_there(self):
        self.assertGreater(len(parity.all_public_names()), 300)
        self.assertEqual(parity.missing_from(pipesched), [])

    def test_functions_take_the_parameters_of_the_headers(self):
        self.assertGreater(sum(map(len, parity.public_parameters().values())), 150)
        self.assertEqual(parity.parameters_missing_from(pipesched), [])

    def test_methods_and_constructors_take_the_parameters_of_the_headers(self):
        self.assertGreater(len(parity.public_method_parameters()), 40)
        self.assertEqual(parity.method_parameters_missing_from(pipesched), [])

    def test_values_have_the_operators_of_the_headers(self):
        self.assertGreater(len(parity.public_operators()), 40)
        self.assertEqual(parity.operators_missing_from(pipesched), [])

    def test_a_parameter_an_operator_and_a_method_that_lack_are_found(self):
        class report:
            def names(self):
                """Without the parameter that C++ has."""

        class placement(pipesched.placement):
            def rank_of(self, stage, m):
                """With another name for a parameter."""

        class module:
            def __getattr__(self, name):
                return {"report": report, "placement": placement}.get(name) or getattr(pipesched, name)

        self.assertEqual(parity.method_parameters_missing_from(module()), ["placement.rank_of(micro)"])
        self.assertEqual(parity.operators_missing_from(module()), ["report bool", "report =="])

    def test_enumerators_are_those_of_the_headers(self):
        self.assertEqual(parity.enums_that_differ(pipesched), [])

    def test_every_reason_is_for_a_name_that_exists(self):
        self.assertEqual(parity.stale_reasons(), [])

    def test_every_family_has_its_makers(self):
        for family in pipesched.families:
            make = getattr(pipesched, f"make_{family.name}_schedule")
            row = getattr(pipesched, f"make_{family.name}_row")
            schedule = make(pp=4, micro=8)
            self.assertEqual(schedule, pipesched.make_schedule(family.name, pp=4, micro=8))
            self.assertEqual(schedule[1], row(1, pp=4, micro=8))

    def test_everything_has_a_docstring(self):
        plain = {"ModelError", "ScheduleError"}
        lacking = [n for n in pipesched.__all__ if n not in plain and callable(getattr(pipesched, n)) and not getattr(pipesched, n).__doc__]
        self.assertEqual(lacking, [])


if __name__ == "__main__":
    unittest.main()
