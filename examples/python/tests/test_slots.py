# SPDX-License-Identifier: MIT
"""Slots by op."""

import unittest

import pipesched as ps


class Slots(unittest.TestCase):
    def test_activations_alive_at_the_same_time_have_different_slots(self):
        for family in ("1f1b", "zbv", "dualpipe", "hanayo"):
            program = ps.lower(ps.make_schedule(family, pp=4, micro=8))
            for rank, row in enumerate(program.schedule):
                table, alive = ps.slot_table(program, rank), {}
                for cell in row:
                    for op in cell:
                        slot = table[op].activation
                        if op.pass_ == ps.pass_.forward:
                            self.assertNotIn(slot, alive)
                            self.assertLess(slot, table.sizes["activation"])
                            alive[slot] = (op.stage, op.micro)
                    for op in cell:
                        if op.pass_ in (ps.pass_.backward, ps.pass_.backward_weight):
                            self.assertEqual(alive.pop(table[op].activation), (op.stage, op.micro))
                self.assertFalse(alive)

    def test_a_table_is_a_mapping_by_op_or_text(self):
        program = ps.lower(ps.make_zbv_schedule(pp=2, micro=2))
        table = ps.slot_table(program, 0)
        self.assertEqual(len(table), 12)
        self.assertEqual(table["3F1"], table[program.schedule[0][5][0]])
        self.assertEqual(table["0F0"].output, program.slots[0][0][0].output)
        self.assertNotIn("1F0", table)
        self.assertEqual(repr(table), "<slots of 12 ops: 3 of activation, 1 of context, 8 of tensor>")

    def test_ranks_that_do_not_exist_are_refused(self):
        with self.assertRaisesRegex(ps.ScheduleError, "ranks 0 to 1; got rank 2"):
            ps.slot_table(ps.lower(ps.make_zbv_schedule(pp=2, micro=2)), 2)


if __name__ == "__main__":
    unittest.main()
