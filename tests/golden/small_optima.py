#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes small_optima.json: small random steps with the makespan of their shortest schedules, by OR-tools CP-SAT.

    pip install ortools==9.15.6755
    nice tests/golden/small_optima.py tests/golden/small_optima.json [--counts 280 215 115]

Three kinds, each from its own seeds:
 * forward_backward: cells of one op, of F with B, and of F with I;
 * any_pair: cells of any two ops;
 * lengths: micro-batches of several lengths in any order, on ranks and links that may differ.
All times are whole numbers. `costs` is read by read_costs(); the rest is the placement, the cells that may be used, and the
limits of memory. `rows` is a schedule that is as short as possible.

Where all micro-batches have one length, a stage takes them in order: renaming them in the order of their starts changes no
time and no memory. With several lengths nothing is assumed.
A second solve with another seed and without presolve must find nothing shorter: this release has once called a longer
schedule the shortest. Instances that take too long, or do not fit into their memory, are left out.
"""

import argparse
import json
import multiprocessing
import random
import sys

from ortools.sat.python import cp_model

PASSES = "FBIW"
COUNTS = {"forward_backward": 280, "any_pair": 215, "lengths": 115}
SECONDS = 4  # of CP-SAT's own deterministic time, and twice as many of real time


def rank_tables(kind, ranks, stages):
    """The rank of every stage, per replica."""
    if kind == "linear":
        return [list(range(ranks))]
    if kind == "bidirectional":
        return [list(range(ranks)), list(reversed(range(ranks)))]
    if kind == "looped":
        return [[s % ranks for s in range(stages)]]
    up_and_down = list(range(ranks)) + list(reversed(range(ranks)))  # vee and wave
    return [up_and_down * (stages // (2 * ranks))]


class Instance:
    """The numbers of an instance, and what cells and transfers take."""

    def __init__(self, data):
        self.data, self.costs = data, data["costs"]
        self.ranks, self.stages, self.micro = data["ranks"], data["stages"], data["micro"]
        self.tables = rank_tables(data["placement"], self.ranks, self.stages)
        self.has = data.get("backward", ["none" if data.get("forward_only") else "full"] * self.stages)
        self.first_trained = next((s for s in range(self.stages) if self.has[s] != "none"), self.stages)
        self.allowed = set(data["pairs"])

    def replica_of(self, m):
        return 0 if len(self.tables) == 1 or m < (self.micro + 1) // 2 else 1

    def rank_of(self, s, m):
        return self.tables[self.replica_of(m)][s]

    def length(self, m):
        return self.costs["micro_batches"][m] if "micro_batches" in self.costs else 1

    def slowness(self, rank):
        return int(1 / self.costs["rank_speeds"][rank]) if "rank_speeds" in self.costs else 1

    def by_stage(self, name, s):
        value = self.costs
        for part in name.split("."):
            value = value.get(part, {})
        return 0 if value == {} else value[s] if isinstance(value, list) else value

    def unit(self, op):
        name = {"F": "forward", "B": "backward", "I": "backward_input", "W": "backward_weight"}[op[0]]
        return self.by_stage(name, op[1])

    def communication(self, op):
        parts = {"F": ["forward"], "I": ["backward_input"], "W": ["backward_weight"]}
        parts["B"] = parts["I"] + parts["W"]
        return sum(self.by_stage("communication." + p, op[1]) for p in parts[op[0]])

    def unit_of_pair(self, a, b):
        """For micro-batches of length 1, on a rank of speed 1. The op whose pass comes first stands first."""
        general = None
        for p in self.costs.get("pairs", []):
            for x, y in ((a, b), (b, a)):
                if p["ops"] != x[0] + y[0]:
                    continue
                if p.get("stages") == [x[1], y[1]]:
                    return p["time"]
                if "stages" not in p:
                    general = p["time"]
        if general is not None:
            return general
        total = self.unit(a) + self.unit(b)
        if "overlapped" in self.costs and a[0] + b[0] in ("FB", "FI"):
            return self.by_stage("overlapped", a[1])
        if "overlap_efficiency" not in self.costs:  # which is 1
            return total
        sent = self.communication(a) + self.communication(b)
        return max(total - sent, sent) if sent > 0 else max(self.unit(a), self.unit(b))

    def duration(self, cell):
        slowness = self.slowness(self.rank_of(*cell[0][1:]))
        if len(cell) == 1:
            return self.unit(cell[0]) * self.length(cell[0][2]) * slowness
        a, b = cell
        x, y = self.length(a[2]), self.length(b[2])
        return (min(x, y) * self.unit_of_pair(a, b) + abs(x - y) * self.unit(a if x > y else b)) * slowness

    def release(self, cell, k):
        """Time from the start of a cell to the output of its k-th op."""
        name = "release.forward" if cell[k][0] == "F" else "release.backward"
        end = self.duration(cell)
        if len(cell) == 1 or "release" not in self.costs:
            return end
        own = self.by_stage(name, cell[k][1]) * self.length(cell[k][2]) * self.slowness(self.rank_of(*cell[k][1:]))
        return min(own, end)

    def link(self, start, end):
        found = [l for l in self.costs.get("links", []) if (l["from"], l["to"]) == (start, end)]
        return found[0] if found else None

    def receiver(self, op):
        """The stage that takes the output of an op, if one does."""
        p, s, _ = op
        if p == "F":
            return s + 1 if s + 1 < self.stages else None
        return s - 1 if p in "BI" and s > self.first_trained else None

    def transfer(self, op):
        """Time that the output of an op takes, and the ranks that it keeps busy."""
        to = self.receiver(op)
        if to is None or self.rank_of(to, op[2]) == self.rank_of(*op[1:]):
            return 0, "none"
        link = self.link(self.rank_of(*op[1:]), self.rank_of(to, op[2]))
        if link:
            return link["latency"], link.get("busy", "none")
        sent = self.by_stage("message_bytes", min(to, op[1])) * self.length(op[2]) if "bandwidth" in self.costs else 0
        return self.by_stage("transfer", min(to, op[1])) + sent, self.costs.get("transfers_busy", "none")

    def time_to_send(self, cell):
        return sum(t for t, busy in map(self.transfer, cell) if busy != "none")

    def time_to_receive(self, cell):
        time = 0
        for p, s, m in cell:
            before = s - 1 if p == "F" else s + 1 if p in "BI" else -1
            if 0 <= before < self.stages:
                t, busy = self.transfer(("F" if p == "F" else "I", before, m))
                time += t if busy == "both" else 0
        return time

    def arrival(self, cell, k):
        """Time from the start of a cell until the output of its k-th op is where it is needed."""
        time, busy = self.transfer(cell[k])
        made = self.release(cell, k) + time
        if busy == "none":
            return made
        return max(made, self.duration(cell) + self.time_to_send(cell[: k + 1]))

    def depends(self, a, b):
        """True if op a needs op b."""
        if a[2] != b[2] or b[0] == "W":
            return False
        if a[0] == "W" and a[1] == b[1] and b[0] != "F":
            return b[0] == "I"
        place = lambda o: o[1] if o[0] == "F" else 2 * self.stages - 1 - o[1]
        return place(b) < place(a)

    def cells(self, ops):
        """The cells that may be made of the ops of a rank."""
        for i, a in enumerate(ops):
            yield (a,)
            for b in ops[i + 1:]:
                first, second = sorted((a, b), key=lambda o: PASSES.index(o[0]))
                apart = a[1:] != b[1:] and not self.depends(a, b) and not self.depends(b, a)
                if apart and first[0] + second[0] in self.allowed:
                    yield (first, second)


class Model:
    """Start and end of every F, backward (B or I) and W, by the cell that it is in."""

    def __init__(self, inst):
        self.inst, self.m = inst, cp_model.CpModel()
        self.cells, self.of_op = [], {}  # (literal, ops, start, rank); [op]: (literal, cell, place in it)
        self.make_ops()
        for rank in range(inst.ranks):
            self.make_cells(rank)
        self.make_lengths()
        self.make_dependencies()
        for rank in range(inst.ranks):
            self.make_memory(rank)
        self.make_order()

    def var(self, name=""):
        return self.m.NewIntVar(0, self.horizon, name)

    def make_ops(self):
        inst, m = self.inst, self.m
        every = [(p, s, micro) for s in range(inst.stages) for micro in range(inst.micro) for p in "FIBW"]
        self.horizon = sum(inst.duration([o]) + 2 * inst.transfer(o)[0] for o in every)
        self.makespan = self.var("T")
        self.start, self.end, self.present = {}, {}, {}
        for s in range(inst.stages):
            for micro in range(inst.micro):
                self.add_op("F", s, micro, True)
                if inst.has[s] == "none":
                    continue
                split = True if inst.has[s] == "input" else False if not inst.data["split"] else m.NewBoolVar("i")
                self.add_op("I", s, micro, split)
                if inst.has[s] == "full":
                    whole = m.NewBoolVar("b") if isinstance(split, bool) else split.Not()
                    if isinstance(split, bool):
                        m.Add(whole == (not split))
                    self.start["B", s, micro], self.end["B", s, micro] = self.start["I", s, micro], self.end["I", s, micro]
                    self.present["B", s, micro] = whole
                    self.add_op("W", s, micro, split)

    def add_op(self, p, s, micro, present):
        o = (p, s, micro)
        self.start[o], self.end[o] = self.var(f"start {o}"), self.var(f"end {o}")
        if isinstance(present, bool):
            value, present = present, self.m.NewBoolVar(f"present {o}")
            self.m.Add(present == value)
        self.present[o] = present
        last = self.m.Add(self.makespan >= self.end[o])
        if p == "W":  # the end of an I is also that of a B
            last.OnlyEnforceIf(present)

    def make_cells(self, rank):
        inst, m, intervals = self.inst, self.m, []
        for cell in inst.cells([o for o in self.present if inst.rank_of(*o[1:]) == rank]):
            lit, start = m.NewBoolVar("c"), self.start[cell[0]]
            before, after = inst.time_to_receive(cell), inst.time_to_send(cell)
            size = before + inst.duration(cell) + after
            intervals.append(m.NewOptionalFixedSizeIntervalVar(start - before, size, lit, ""))
            m.Add(start >= before).OnlyEnforceIf(lit)
            if len(cell) > 1:
                m.Add(start == self.start[cell[1]]).OnlyEnforceIf(lit)
            for k, o in enumerate(cell):
                self.of_op.setdefault(o, []).append((lit, cell, k))
            self.cells.append((lit, cell, start, rank))
        m.AddNoOverlap(intervals)

    def make_lengths(self):
        for o, present in self.present.items():
            self.m.Add(sum(lit for lit, _, _ in self.of_op[o]) == present)
        for o in self.present:
            if o[0] != "B":
                self.m.Add(self.end[o] == self.start[o] + self.sum_over_cells(o, lambda c, k: self.inst.duration(c)))

    def sum_over_cells(self, o, time):
        """The time of the cell that an op is in; of I, that of B or I. 0 if it is absent."""
        forms = [o, ("B",) + o[1:]] if o[0] == "I" else [o]
        return sum(time(cell, k) * lit for f in forms for lit, cell, k in self.of_op.get(f, []))

    def make_dependencies(self):
        inst, m = self.inst, self.m
        for o in self.present:
            p, s, micro = o
            if p == "B":
                continue
            if p == "W":
                own = ("I", s, micro)
                m.Add(self.start[o] >= self.end[own]).OnlyEnforceIf(self.present[o])
                continue
            if p == "I":
                m.Add(self.start[o] >= self.end["F", s, micro])
            if inst.receiver(o) is not None:
                arrives = self.start[o] + self.sum_over_cells(o, inst.arrival)
                m.Add(self.start[p, inst.receiver(o), micro] >= arrives)
        m.Minimize(self.makespan)

    def make_memory(self, rank):
        inst, m, data = self.inst, self.m, self.inst.data
        live, used = [], []
        for s in range(inst.stages):
            for micro in range(inst.micro):
                if inst.rank_of(s, micro) == rank:
                    self.add_activation(s, micro, live, used)
        if "activations" in data:
            share = inst.tables[0].count(rank)
            m.AddCumulative(live, [1] * len(live), int(data["activations"] * share))
        if "bytes" in data:
            m.AddCumulative([i for i, _ in used], [b for _, b in used], data["bytes"][rank])

    def add_activation(self, s, micro, live, used):
        inst, m = self.inst, self.m
        length, F, I, W = inst.length(micro), ("F", s, micro), ("I", s, micro), ("W", s, micro)
        until = self.end[I] if I in self.present else self.end[F]
        last = self.var()
        m.Add(last >= until)
        if W in self.present:
            m.Add(last >= self.end[W]).OnlyEnforceIf(self.present[W])
        live.append(m.NewIntervalVar(self.start[F], self.var(), last, ""))
        if "bytes" not in inst.data:
            return
        kept, context = inst.by_stage("memory.kept_by_forward", s), inst.by_stage("memory.context", s)
        used.append((m.NewIntervalVar(self.start[F], self.var(), until, ""), kept * length))
        if W in self.present and context > 0:
            used.append((m.NewOptionalIntervalVar(until, self.var(), self.end[W], self.present[W], ""), context * length))
        for o in ((p, s, micro) for p in PASSES):
            if need := inst.by_stage("transient." + o[0], s):
                if o in self.present:
                    used.append((m.NewOptionalIntervalVar(self.start[o], self.var(), self.end[o], self.present[o], ""),
                                 need * length))

    def make_order(self):
        inst = self.inst
        alike = "micro_batches" not in inst.costs
        pairs = lambda *kinds: any(k in inst.allowed for k in kinds)
        strict = {"F": not pairs("FF"), "I": not pairs("BB", "BI", "II"), "W": not pairs("WW")}
        for o in self.present:
            p, s, micro = o
            later = [m for m in range(micro + 1, inst.micro)
                     if inst.replica_of(m) == inst.replica_of(micro) and inst.length(m) == inst.length(micro)]
            if p == "B" or (not alike and (p != "F" or s > 0)):
                continue  # micro-batches of one length may be renamed, but with all their ops
            for after in later if p == "W" else later[:1]:
                order = self.m.Add(self.start[p, s, after] >= (self.end if strict[p] else self.start)[o])
                if p == "W":
                    order.OnlyEnforceIf([self.present[o], self.present["W", s, after]])

    def solve(self):
        found = self.search(seed=1, presolve=True)
        if not found:
            return None
        self.m.Add(self.makespan <= found["makespan"] - 1)
        return found if self.search(seed=7, presolve=False) is False else None

    def search(self, seed, presolve):
        """The shortest schedule, False if there is none, None if there was not time enough."""
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.max_deterministic_time = SECONDS
        solver.parameters.max_time_in_seconds = 2 * SECONDS
        solver.parameters.random_seed = seed
        solver.parameters.cp_model_presolve = presolve
        status = solver.Solve(self.m)
        if status == cp_model.INFEASIBLE:
            return False
        return self.solution(solver) if status == cp_model.OPTIMAL else None

    def solution(self, solver):
        rows = [[] for _ in range(self.inst.ranks)]
        for lit, cell, start, rank in self.cells:
            if solver.Value(lit):
                text = ";".join(f"{s}{p}{micro}" for p, s, micro in cell)
                rows[rank].append((solver.Value(start), text if len(cell) == 1 else f"({text})"))
        return {"makespan": solver.Value(self.makespan),
                "rows": [" ".join(text for _, text in sorted(row, key=lambda cell: cell[0])) for row in rows]}


class Maker:
    """Random instances of a kind."""

    def __init__(self, kind, index):
        self.kind, self.rng = kind, random.Random(f"{kind} {index}")

    def make(self):
        rng = self.rng
        shape = rng.choice(3 * ["linear", "bidirectional"] + 2 * ["vee", "looped"] + ["wave"])
        self.ranks = rng.choice({"linear": [2, 3, 3, 4, 4, 5, 6], "bidirectional": [2, 2, 3, 4, 4, 6],
                                 "wave": [2]}.get(shape, [2, 2, 3]))
        self.stages = self.ranks * {"linear": 1, "bidirectional": 1, "wave": 4}.get(shape, 2)
        most = {"forward_backward": 16, "any_pair": 8, "lengths": 10}[self.kind] // self.stages
        self.micro = rng.randint(2, max(2, min(6, most)))
        self.unit = rng.random() < 0.2
        self.uneven = not self.unit and rng.random() < 0.5
        self.d = {"kind": self.kind, "placement": shape, "ranks": self.ranks, "stages": self.stages, "micro": self.micro}
        self.d["costs"] = self.costs = {}
        self.add_times()
        self.add_pairs()
        self.add_classes()
        self.add_machine()
        self.add_memory()
        return self.d

    def numbers(self, low, high):
        if self.uneven:
            return [self.rng.randint(low, high) for _ in range(self.stages)]
        return self.rng.randint(low, high)

    def value(self, name, s=0):
        value = self.costs[name]
        return value[s] if isinstance(value, list) else value

    def add_times(self):
        rng, c = self.rng, self.costs
        if self.unit:
            c.update(forward=1, backward_input=1, backward_weight=1, backward=2)
            return
        c["forward"], c["backward_input"], c["backward_weight"] = self.numbers(2, 7), self.numbers(2, 7), self.numbers(1, 6)
        more = rng.choice([0, 0, 0, 1, -1])  # a whole backward may take another time than its halves
        whole = [max(self.value("backward_input", s) + self.value("backward_weight", s) + more,
                     self.value("backward_input", s), self.value("backward_weight", s)) for s in range(self.stages)]
        c["backward"] = whole if self.uneven else whole[0]

    def add_pairs(self):
        rng, c = self.rng, self.costs
        usual = ["FB", "FI"]
        kinds = ["FF", "FB", "FI", "FW", "BB", "BI", "BW", "II", "IW", "WW"] if self.kind == "any_pair" else usual
        if self.kind == "any_pair":
            kinds = [k for k in kinds if rng.random() < 0.7] or ["FF"]
        elif rng.random() < 0.15:
            kinds = []
        self.d["pairs"] = kinds
        names = {"F": "forward", "B": "backward", "I": "backward_input", "W": "backward_weight"}
        means = {p: sum(self.value(n, s) for s in range(self.stages)) // self.stages for p, n in names.items()}
        price = lambda k: max(1, rng.randint(max(means[k[0]], means[k[1]]) * 9 // 10, means[k[0]] + means[k[1]]))
        how = rng.random()
        if how < 0.1 or not kinds:
            return  # as long as the two
        if how < 0.25:
            c["overlap_efficiency"] = 1
            if rng.random() < 0.7:
                lows = {n: min(self.value(n, s) for s in range(self.stages)) for n in names.values()}
                c["communication"] = {n: rng.randint(0, lows[n]) for n in ("forward", "backward_input", "backward_weight")}
        elif how < 0.35 and self.kind != "any_pair":
            c["overlapped"] = price("FB")
        else:
            c["pairs"] = [{"ops": k, "time": price(k)} for k in kinds if rng.random() < 0.9]
            if self.uneven:
                for k in kinds[:2]:
                    stages = [rng.randrange(self.stages) for _ in k]
                    if k[0] != k[1] or stages[0] <= stages[1]:
                        c["pairs"].append({"ops": k, "stages": stages, "time": price(k)})
        if rng.random() < 0.15:
            c["release"] = {"forward": rng.randint(1, 8), "backward": rng.randint(1, 12)}

    def add_classes(self):
        rng = self.rng
        self.d["split"] = rng.random() < 0.85
        if rng.random() < 0.05:
            self.d["forward_only"] = True
        elif rng.random() < 0.08:
            none = rng.randint(0, self.stages - 1)
            self.d["backward"] = ["none"] * none + [rng.choice(["input", "full"]) for _ in range(self.stages - none)]

    def add_machine(self):
        rng, c = self.rng, self.costs
        odd = 0.4 if self.kind == "lengths" else 0.15
        c["transfer"] = [rng.randint(0, 2) for _ in range(self.stages - 1)] if rng.random() < odd else rng.choice([0, 0, 1, 2])
        if rng.random() < odd:
            c["rank_speeds"] = [rng.choice([1, 0.5]) for _ in range(self.ranks)]
        if rng.random() < odd:
            ends = rng.sample(range(self.ranks), 2)
            c["links"] = [{"from": ends[0], "to": ends[1], "latency": rng.randint(1, 4)},
                          {"from": ends[1], "to": ends[0], "latency": rng.randint(0, 3)}]
        if self.kind != "any_pair" and rng.random() < odd / 2:  # else the order of two alike ops in a cell matters
            c["transfers_busy"] = rng.choice(["sender", "both"])
        if self.kind != "lengths":
            return
        lengths = [rng.choice([1, 1, 2, 3]) for _ in range(self.micro)]
        if len(set(lengths)) == 1:
            lengths[rng.randrange(self.micro)] += 1
        c["micro_batches"] = lengths
        if rng.random() < 0.3:
            c["message_bytes"], c["bandwidth"] = 1, 1

    def add_memory(self):
        rng, c, per_rank = self.rng, self.costs, self.stages // self.ranks
        how = rng.random()
        if how < 0.5:
            self.d["activations"] = (per_rank + rng.choice([0, 0, 1, 1, 2, 3, 4])) / per_rank
        elif how < 0.7:
            kept = self.numbers(2, 6)
            c["memory"] = {"kept_by_forward": kept, "context": self.numbers(0, 3) if rng.random() < 0.7 else self.numbers(1, 7)}
            c["transient"] = {p: rng.choice([0, 0, 1, 2]) for p in PASSES}
            longest = max(c.get("micro_batches", [1]))
            least = per_rank * (max(kept) if isinstance(kept, list) else kept) * longest + 2
            self.d["bytes"] = [rng.randint(least, 3 * least) for _ in range(self.ranks)]


def solved(task):
    data = Maker(*task).make()
    found = Model(Instance(data)).solve()
    return {**data, **found} if found else None


def write(path, instances):
    source = f"OR-tools CP-SAT {__import__('ortools').__version__}, tests/golden/small_optima.py"
    lines = ",\n".join("  " + json.dumps(i, separators=(",", ":")) for i in instances)
    with open(path, "w") as out:
        out.write('{\n "source": ' + json.dumps(source) + ',\n "instances": [\n' + lines + "\n ]\n}\n")


def tasks(counts):
    """Kinds and indices, each kind as often as its share."""
    for i in range(20 * max(counts)):
        for kind, count in zip(COUNTS, counts):
            if i % max(counts) < count:
                yield kind, i


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    parser.add_argument("--counts", type=int, nargs=3, default=list(COUNTS.values()))
    args = parser.parse_args()
    wanted, found = dict(zip(COUNTS, args.counts)), {kind: [] for kind in COUNTS}
    with multiprocessing.Pool(2) as pool:
        for (kind, index), one in zip(tasks(args.counts), pool.imap(solved, tasks(args.counts))):
            if one and len(found[kind]) < wanted[kind]:
                found[kind].append(one)
                print({k: len(f) for k, f in found.items()}, index, file=sys.stderr, flush=True)
                write(args.output, sum(found.values(), []))
            if all(len(f) == wanted[k] for k, f in found.items()):
                pool.terminate()
                break


if __name__ == "__main__":
    main()
