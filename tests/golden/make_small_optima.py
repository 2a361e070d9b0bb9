#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes small_optima.json: shortest schedules of small random instances, found by OR-tools CP-SAT.

    pip install ortools==9.15.6755
    tests/golden/make_small_optima.py [--seconds 60] [--only forward_backward] > tests/golden/small_optima.json

The instances come from fixed seeds. Three lists:
 * forward_backward: cells of one op, of F with B, and of F with I;
 * any_pair: cells of any two ops;
 * lengths: the first kind, with micro-batches of several lengths in any order.
A stage takes micro-batches of one length in order: some shortest schedule does. With several lengths nothing is assumed.
All times are whole numbers. `optimal` is false where the time was not enough; the schedule is valid all the same. A second
solve, without presolve, must find nothing shorter: this release has once called a longer schedule the shortest.
"""

import argparse
import json
import random
import sys

from ortools.sat.python import cp_model

PASSES = "FBIW"


def placements(kind, pp, chunks):
    """The rank of every stage, per replica."""
    if kind == "linear":
        return [list(range(pp))]
    if kind == "vee":
        return [list(range(pp)) + list(reversed(range(pp)))]
    if kind == "looped":
        return [[s % pp for s in range(pp * chunks)]]
    return [list(range(pp)), list(reversed(range(pp)))]  # bidirectional


class Instance:
    """Numbers of an instance as they stand in the file, and the durations that follow from them."""

    def __init__(self, data):
        self.data = data
        self.ranks_of = placements(data["placement"], data["pp"], data.get("chunks", 1))
        self.stages = len(self.ranks_of[0])
        self.micro = data["micro"]
        self.pairs = {}
        for p in data["pairs"]:
            self.pairs[tuple(sorted(p["passes"], key=PASSES.index))] = p

    def replica_of(self, m):
        return 0 if len(self.ranks_of) == 1 or m < (self.micro + 1) // 2 else 1

    def rank_of(self, s, m):
        return self.ranks_of[self.replica_of(m)][s]

    def has(self, s):
        """none, input or full."""
        return self.data.get("backward", ["full"] * self.stages)[s]

    def length(self, m):
        return self.data.get("lengths", [1] * self.micro)[m]

    def slowness(self, rank):
        return self.data.get("slowness", [1] * self.data["pp"])[rank]

    def alone(self, op):
        p, s, m = op
        return self.data[p][s] * self.length(m) * self.slowness(self.rank_of(s, m))

    def pair(self, a, b):
        """Duration of a cell; None if the class has no such cell."""
        if PASSES.index(a[0]) > PASSES.index(b[0]):
            a, b = b, a
        price = self.pairs.get((a[0], b[0]))
        if price is None:
            return None
        x, y = self.length(a[2]), self.length(b[2])
        unit = price["time"]
        if unit is None:
            unit = self.data[a[0]][a[1]] + self.data[b[0]][b[1]]
        longer = a if x > y else b
        rest = abs(x - y) * self.data[longer[0]][longer[1]]
        return (min(x, y) * unit + rest) * self.slowness(self.rank_of(a[1], a[2]))

    def release(self, op, duration):
        """Time from the start of an overlapped cell to the output of its op."""
        given = self.data.get("release_forward" if op[0] == "F" else "release_backward")
        if given is None:
            return duration
        return min(given * self.length(op[2]) * self.slowness(self.rank_of(op[1], op[2])), duration)


def depends(a, b, stages):
    """True if op a needs op b."""
    if a[2] != b[2] or b[0] == "W":
        return False
    if a[0] == "W" and a[1] == b[1] and b[0] != "F":
        return b[0] == "I"
    place = lambda o: o[1] if o[0] == "F" else 2 * stages - 1 - o[1]
    return place(b) < place(a)


class Model:
    """Start, end and output of every op by the cell that it is in."""

    def __init__(self, inst):
        self.inst, self.m = inst, cp_model.CpModel()
        self.ops, self.cells = {}, []  # cells: (literal, ops, start, end, duration)
        self.make_ops()
        self.make_cells()
        self.make_dependencies()
        self.make_memory()
        self.make_order()

    def make_ops(self):
        inst, m = self.inst, self.m
        self.horizon = 0
        for s in range(inst.stages):
            for micro in range(inst.micro):
                for p in PASSES:
                    self.horizon += inst.alone((p, s, micro)) + 2 * inst.data["transfer"]
        for price in inst.data["pairs"]:
            self.horizon += (price["time"] or 0) * inst.stages * inst.micro
        var = lambda name: m.NewIntVar(0, self.horizon, name)
        for s in range(inst.stages):
            for micro in range(inst.micro):
                at = f"{s}_{micro}"
                ops = self.ops[s, micro] = {"F": {"start": var("fs" + at), "end": var("fe" + at), "present": True}}
                has = inst.has(s)
                if inst.data.get("forward_only") or has == "none":
                    continue
                start, end = var("gs" + at), var("ge" + at)
                split = m.NewBoolVar("i" + at)
                if has == "input" or not inst.data["split"]:
                    m.Add(split == (1 if has == "input" else 0))
                if has == "full":
                    ops["B"] = {"start": start, "end": end, "present": split.Not()}
                ops["I"] = {"start": start, "end": end, "present": split}
                if has == "full":
                    ops["W"] = {"start": var("ws" + at), "end": var("we" + at), "present": split}

    def make_cells(self):
        inst, m = self.inst, self.m
        by_rank = {}
        for (s, micro), ops in self.ops.items():
            for p in ops:
                by_rank.setdefault(inst.rank_of(s, micro), []).append((p, s, micro))
        self.of_op = {}
        for rank, ops in by_rank.items():
            intervals = []

            def add(members, duration):
                first = self.op(members[0])
                lit = m.NewBoolVar("c")
                intervals.append(m.NewOptionalIntervalVar(first["start"], duration, first["end"], lit, "n"))
                for o in members:
                    self.of_op.setdefault(o, []).append((lit, duration, len(members) > 1))
                if len(members) > 1:
                    m.Add(first["start"] == self.op(members[1])["start"]).OnlyEnforceIf(lit)
                self.cells.append((lit, members, first["start"], rank))

            for i, a in enumerate(ops):
                add([a], inst.alone(a))
                for b in ops[i + 1:]:
                    if a[1:] == b[1:] or depends(a, b, inst.stages) or depends(b, a, inst.stages):
                        continue
                    duration = inst.pair(a, b)
                    if duration is not None:
                        add([a, b], duration)
            m.AddNoOverlap(intervals)
        for (s, micro), ops in self.ops.items():
            for p, o in ops.items():
                cells = self.of_op[p, s, micro]
                total = sum(lit for lit, _, _ in cells)
                m.Add(total == (1 if o["present"] is True else o["present"]))
            # B and I have one start and end; of an absent W nothing matters.
            for group in (["F"], ["B", "I"], ["W"]):
                found = [p for p in group if p in ops]
                if not found:
                    continue
                length = sum(d * lit for p in found for lit, d, _ in self.of_op[p, s, micro])
                o = ops[found[0]]
                m.Add(o["end"] == o["start"] + length)

    def op(self, o):
        return self.ops[o[1], o[2]][o[0]]

    def output(self, s, micro, group):
        """Time at which the output of F, or of B or I, leaves its cell."""
        ops = self.ops[s, micro]
        found = [p for p in group if p in ops]
        after = 0
        for p in found:
            for lit, d, overlapped in self.of_op[p, s, micro]:
                after += (self.inst.release((p, s, micro), d) if overlapped else d) * lit
        return ops[found[0]]["start"] + after

    def make_dependencies(self):
        inst, m = self.inst, self.m
        forward = inst.data.get("forward_only")
        first = next((s for s in range(inst.stages) if inst.has(s) != "none"), inst.stages)
        self.makespan = m.NewIntVar(0, self.horizon, "T")
        for (s, micro), ops in self.ops.items():
            crosses = s + 1 < inst.stages and inst.rank_of(s, micro) != inst.rank_of(s + 1, micro)
            way = inst.data["transfer"] if crosses else 0
            m.Add(self.makespan >= ops["F"]["end"])
            if s + 1 < inst.stages:
                after = self.ops[s + 1, micro]
                m.Add(after["F"]["start"] >= self.output(s, micro, ["F"]) + way)
                if not forward and s >= first:
                    m.Add(ops["I"]["start"] >= self.output(s + 1, micro, ["B", "I"]) + way)
            if "I" not in ops:
                continue
            m.Add(ops["I"]["start"] >= ops["F"]["end"])
            m.Add(self.makespan >= ops["I"]["end"])
            if "W" in ops:
                m.Add(ops["W"]["start"] >= ops["I"]["end"]).OnlyEnforceIf(ops["W"]["present"])
                m.Add(self.makespan >= ops["W"]["end"]).OnlyEnforceIf(ops["W"]["present"])
        m.Minimize(self.makespan)

    def make_memory(self):
        inst, m, data = self.inst, self.m, self.inst.data
        var = lambda: m.NewIntVar(0, self.horizon, "")
        for rank in range(data["pp"]):
            live, bytes_of = [], []  # (interval, demand)
            stages = max(sum(r == rank for r in ranks) for ranks in inst.ranks_of)
            for (s, micro), ops in self.ops.items():
                if inst.rank_of(s, micro) != rank:
                    continue
                start, length = ops["F"]["start"], inst.length(micro)
                last = ops["I"]["end"] if "I" in ops else ops["F"]["end"]
                kept_until = var()
                m.Add(kept_until >= last)
                if "W" in ops:
                    m.Add(kept_until >= ops["W"]["end"]).OnlyEnforceIf(ops["W"]["present"])
                live.append(m.NewIntervalVar(start, var(), kept_until, ""))
                if "limits" not in data:
                    continue
                bytes_of.append((m.NewIntervalVar(start, var(), last, ""), data["kept"][s] * length))
                if "W" in ops and data["context"][s] > 0:
                    bytes_of.append((m.NewOptionalIntervalVar(last, var(), ops["W"]["end"], ops["W"]["present"], ""),
                                     data["context"][s] * length))
                for p, o in ops.items():
                    need = data["transient"][p] * length
                    if need > 0:
                        bytes_of.append((m.NewIntervalVar(o["start"], var(), o["end"], "") if o["present"] is True else
                                         m.NewOptionalIntervalVar(o["start"], var(), o["end"], o["present"], ""), need))
            if "cap_in_stages" in data:
                m.AddCumulative(live, [1] * len(live), data["cap_in_stages"] * stages // self.max_stages())
            if "limits" in data:
                m.AddCumulative([i for i, _ in bytes_of], [d for _, d in bytes_of], data["limits"][rank])

    def max_stages(self):
        ranks = self.inst.ranks_of
        return max(sum(r == rank for r in ranks[0]) for rank in range(self.inst.data["pp"]))

    def make_order(self):
        if "lengths" in self.inst.data:
            return
        for (s, micro), ops in self.ops.items():
            before = self.ops.get((s, micro - 1))
            if micro == 0 or self.inst.replica_of(micro) != self.inst.replica_of(micro - 1):
                continue
            self.m.Add(ops["F"]["start"] >= before["F"]["start"])
            if "I" in ops:
                self.m.Add(ops["I"]["start"] >= before["I"]["start"])

    def solve(self, seconds):
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.max_time_in_seconds = seconds
        solver.parameters.random_seed = 1
        status = solver.Solve(self.m)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None
        return self.confirm(self.solution(solver), status == cp_model.OPTIMAL, seconds)

    def confirm(self, found, optimal, seconds):
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.max_time_in_seconds = seconds
        solver.parameters.random_seed = 7
        solver.parameters.cp_model_presolve = False
        self.m.Add(self.makespan <= found["makespan"] - 1)
        status = solver.Solve(self.m)
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            found, optimal = self.solution(solver), status == cp_model.OPTIMAL
        elif status != cp_model.INFEASIBLE:
            optimal = False
        return {**found, "optimal": optimal}

    def solution(self, solver):
        rows = [[] for _ in range(self.inst.data["pp"])]
        for lit, members, start, rank in self.cells:
            if solver.Value(lit):
                text = [f"{s}{p}{micro}" for p, s, micro in sorted(members, key=lambda o: PASSES.index(o[0]))]
                rows[rank].append((solver.Value(start), text[0] if len(text) == 1 else "(" + ";".join(text) + ")"))
        return {"makespan": solver.Value(self.makespan),
                "rows": [" ".join(text for _, text in sorted(row, key=lambda cell: cell[0])) for row in rows]}


def random_instance(rng, kind_of_pairs):
    lengths = kind_of_pairs == "lengths"
    shape = rng.choice(["linear", "linear", "vee", "looped", "bidirectional", "bidirectional"])
    pp = rng.choice([2, 4]) if shape == "bidirectional" else rng.choice([2, 3, 4] if shape == "linear" else [2, 3])
    stages = pp if shape in ("linear", "bidirectional") else 2 * pp
    most = {"forward_backward": 24, "any_pair": 16, "lengths": 16}[kind_of_pairs]
    micro = rng.randint(2, max(2, min(6, most // stages)))
    d = {"placement": shape, "pp": pp, "micro": micro, "transfer": rng.choice([0, 0, 1, 2])}
    if shape == "looped":
        d["chunks"] = 2
    uneven = rng.random() < 0.5
    whole = rng.random() < 0.8  # B = I + W
    numbers = lambda low, high: ([rng.randint(low, high) for _ in range(stages)] if uneven else
                                 [rng.randint(low, high)] * stages)
    d["F"], d["I"], d["W"] = numbers(2, 8), numbers(2, 8), numbers(1, 6)
    d["B"] = [i + w if whole else max(i, w) + rng.randint(0, 4) for i, w in zip(d["I"], d["W"])]
    d["split"] = rng.random() < 0.85

    typical = {p: sum(d[p]) // stages for p in PASSES}
    kinds = ["FB", "FI"] if kind_of_pairs != "any_pair" else ["FF", "FB", "FI", "FW", "BB", "BI", "BW", "II", "IW", "WW"]
    d["pairs"] = []
    for k in kinds:
        if kind_of_pairs == "any_pair" and rng.random() < 0.3:
            continue
        a, b = typical[k[0]], typical[k[1]]
        time = rng.randint((max(a, b) * 9) // 10, a + b + 1) if rng.random() < 0.9 else None
        d["pairs"].append({"passes": k, "time": max(1, time) if time is not None else None})
    if kind_of_pairs != "any_pair" and rng.random() < 0.15:
        d["pairs"] = []
    if rng.random() < 0.2:
        d["slowness"] = [rng.choice([1, 2]) for _ in range(pp)]
    if rng.random() < 0.15 and d["pairs"]:
        d["release_forward"], d["release_backward"] = rng.randint(1, 8), rng.randint(1, 12)
    if rng.random() < 0.1:
        none = rng.randint(0, stages - 1)
        d["backward"] = ["none"] * none + [rng.choice(["input", "full"]) for _ in range(stages - none)]
    per_rank = stages // pp
    if rng.random() < 0.6:
        d["cap_in_stages"] = rng.randint(per_rank, 8)
    if rng.random() < 0.3:
        d["kept"] = numbers(3, 8)
        d["context"] = [rng.randint(0, k) for k in d["kept"]] if rng.random() < 0.8 else numbers(1, 9)
        d["transient"] = {p: rng.choice([0, 0, 1, 2]) for p in PASSES}
        d["limits"] = [rng.randint(8, 36) for _ in range(pp)]
    if lengths:
        d["lengths"] = [rng.choice([1, 1, 2, 3]) for _ in range(micro)]
        if len(set(d["lengths"])) == 1:
            d["lengths"][0] += 1
    return d


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only")
    parser.add_argument("--count", type=int)
    args = parser.parse_args()
    counts = {"forward_backward": 300, "any_pair": 220, "lengths": 120}
    found = {"source": "OR-tools CP-SAT 9.15, tests/golden/make_small_optima.py", "instances": []}
    for seed, (kind, count) in enumerate(counts.items()):
        rng = random.Random(2026 + seed)
        if args.only and args.only != kind:
            continue
        made = 0
        while made < (args.count or count):
            d = random_instance(rng, kind)
            solution = Model(Instance(d)).solve(args.seconds)
            if solution is None:
                continue  # not within the memory
            found["instances"].append({"kind": kind, **d, **solution})
            made += 1
            print(f"{kind} {made}: {solution['makespan']} {solution['optimal']}", file=sys.stderr, flush=True)
    lines = ",\n".join("  " + json.dumps(i, separators=(",", ":")) for i in found["instances"])
    print('{\n "source": ' + json.dumps(found["source"]) + ',\n "instances": [\n' + lines + "\n ]\n}")


if __name__ == "__main__":
    main()
