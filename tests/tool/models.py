# SPDX-License-Identifier: MIT
"""A slow twin of the way from a model to makespan and peaks, which shares no code with the library.

    models.py TOOL CASES SEED    random models and schedules: ends with 0 if `simulate` says the same of all of them
"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile

UNITS = {"none": 1, "s": 1, "ms": 1e3, "us": 1e6}  # in a second


def ops_of(text):
    found = [re.fullmatch(r"(\d+)(RB|RI|[FBIWR])(\d+)", one).groups() for one in text.strip("()").split(";")]
    return [(letter, int(stage), int(micro)) for stage, letter, micro in found]


def time_of(layer, letter):
    forward, whole = layer.get("forward", 1), layer.get("backward")
    inputs, weights = layer.get("backward_input"), layer.get("backward_weight")
    if whole is None:
        inputs, weights = 1 if inputs is None else inputs, 1 if weights is None else weights
        whole = inputs + weights
    elif inputs is None:
        inputs = whole / 2 if weights is None else whole - weights
        weights = whole - inputs
    elif weights is None:
        weights = whole - inputs
    again = layer.get("recompute", forward)
    return {"F": forward, "B": whole, "I": inputs, "W": weights, "R": again, "RB": again + whole, "RI": again + inputs}[letter]


def transient_of(layer, letter):
    of = layer.get("transient", {})
    return {"F": of.get("F", 0), "B": of.get("B", 0), "I": of.get("I", of.get("B", 0)), "W": of.get("W", of.get("B", 0)),
            "R": of.get("R", of.get("F", 0))}[letter]


class Twin:
    def __init__(self, model, partition, schedule):
        self.model, self.schedule = model, schedule
        self.micro, self.rank_of_stage = schedule["micro"], schedule["placement"]["rank_of_stage"]
        layers = [layer for layer in model["layers"] for _ in range(layer.get("count", 1))]
        ends = [sum(partition[:s + 1]) for s in range(len(partition))]
        self.stages = [layers[end - n:end] for end, n in zip(ends, partition)]
        self.backward = schedule.get("backward") or ["full"] * len(partition)
        self.trained = next(s for s, has in enumerate(self.backward) if has != "none")
        self.rows = [[ops_of(cell) for cell in row] for row in schedule["ranks"]]
        self.prices = {}
        for pair in model.get("pairs", []):
            letters = [one.strip("()") for one in re.findall(r"\(R[BI]\)|[FBIWR]", pair["ops"])]
            self.prices[frozenset(enumerate_pair(letters, pair["kinds"]))] = pair["time"]

    def rank(self, stage, micro):
        return self.rank_of_stage[0 if micro < (self.micro + 1) // 2 else -1][stage]

    def length(self, micro):
        return self.model.get("micro_batches", [1] * self.micro)[micro]

    def entry_of_rank(self, rank):
        ranks = self.model.get("ranks", [{}])
        return ranks[0 if len(ranks) == 1 else rank]

    def sum_of(self, stage, value):
        return sum(value(layer) for layer in self.stages[stage])

    # A pair of stages for micro-batches of length 1, and whether any of its layers has a price.
    def pair(self, a, b):
        rows = [self.stages[stage] if letter in "FR" else self.stages[stage][::-1] for letter, stage, _ in (a, b)]
        time, priced = 0, False
        for i in range(max(map(len, rows))):
            here = [(letter, row[i]) for (letter, _, _), row in zip((a, b), rows) if i < len(row)]
            price = None
            if len(here) == 2:
                price = self.prices.get(frozenset(enumerate_pair([x[0] for x in here], [x[1]["kind"] for x in here])))
            priced = priced or price is not None
            if price is None and len(here) == 2 and any(len(letter) == 2 for letter, _ in here):  # else without R, and R on top
                plain = enumerate_pair([x[0][-1] for x in here], [x[1]["kind"] for x in here])
                price = self.prices.get(frozenset(plain))
                if price is not None:
                    price += sum(time_of(layer, "R") for letter, layer in here if len(letter) == 2)
            time += sum(time_of(layer, letter) for letter, layer in here) if price is None else price
        return time, priced

    def duration(self, cell, rank):
        speed = self.entry_of_rank(rank).get("speed", 1)
        alone = [self.sum_of(stage, lambda layer: time_of(layer, letter)) for letter, stage, _ in cell]
        lengths = [self.length(micro) for _, _, micro in cell]
        if len(cell) == 1:
            return lengths[0] * alone[0] / speed
        together, priced = self.pair(*cell)
        if not priced:  # R inside a backward is on top of the price without it
            plain = [(letter if len(letter) == 1 else letter[1], stage, micro) for letter, stage, micro in cell]
            together = self.pair(*plain)[0] + sum(
                self.sum_of(stage, lambda layer: time_of(layer, "R")) for letter, stage, _ in cell if len(letter) == 2)
        longer = alone[lengths.index(max(lengths))]
        return (min(lengths) * together + (max(lengths) - min(lengths)) * longer) / speed

    # The tensors that an op makes and needs: its kind, the stage that makes it, the micro-batch; the first with its receiver.
    def output(self, op):
        letter, stage, micro = op
        if letter == "F" and stage + 1 < len(self.stages):
            return ("activation", stage, micro), self.rank(stage + 1, micro)
        if letter in ("B", "I", "RB", "RI") and stage > self.trained:
            return ("gradient", stage, micro), self.rank(stage - 1, micro)
        return None

    def input(self, op):
        letter, stage, micro = op
        if letter == "F" and stage > 0:
            return ("activation", stage - 1, micro)
        if letter in ("B", "I", "RB", "RI") and stage + 1 < len(self.stages):
            return ("gradient", stage + 1, micro)
        return None

    def link(self, sender, receiver):
        links = self.model.get("links", [])
        own = [one for one in links if (one.get("from"), one.get("to")) == (sender, receiver)]
        return (own + [one for one in links if "from" not in one] + [{}])[0]

    def transfer(self, sender, receiver, tensor):
        kind, stage, micro = tensor
        cut = stage if kind == "activation" else stage - 1
        made = [layers[-1].get("message", 0) for layers in self.stages[:cut + 1] if layers]
        link = self.link(sender, receiver)
        size = (made[-1] if made else 0) * self.length(micro)
        per_time = link.get("bandwidth", float("inf")) / UNITS[self.model.get("time_unit", "none")]
        return link.get("latency", 0) + size / per_time

    def makespan(self):
        arrival, place, free, last = {}, [0] * len(self.rows), [0.0] * len(self.rows), 0
        for _ in range(sum(map(len, self.rows)) + 1):
            for rank, row in enumerate(self.rows):
                while place[rank] < len(row):
                    cell = row[place[rank]]
                    needs = [need for need in map(self.input, cell) if need]
                    if any(need not in arrival for need in needs):
                        break
                    senders = [(self.rank(need[1], need[2]), need) for need in needs]
                    free[rank] += sum(self.transfer(sender, rank, need) for sender, need in senders
                                      if sender != rank and self.link(sender, rank).get("busy") == "both")
                    end = max([free[rank]] + [arrival[need] for need in needs]) + self.duration(cell, rank)
                    last, free[rank] = max(last, end), end
                    for made in filter(None, map(self.output, cell)):
                        tensor, receiver = made
                        time = self.transfer(rank, receiver, tensor) if receiver != rank else 0
                        if receiver != rank and self.link(rank, receiver).get("busy", "none") != "none":
                            free[rank] += time
                            arrival[tensor] = free[rank]
                        else:
                            arrival[tensor] = end + time
                    place[rank] += 1
        assert place == list(map(len, self.rows))
        return last

    # Bytes of activations and running ops; what an I adds is there before its partner's bytes go.
    def peak(self, row):
        held, most = {}, 0
        again = {op[1:] for cell in row for op in cell if "R" in op[0]}

        def bytes_of(op, name):
            letter, stage, micro = op
            if name == "context":
                return self.length(micro) * self.sum_of(stage, lambda layer: layer.get("context", layer.get("kept", 0)))
            return self.length(micro) * self.sum_of(stage, lambda layer: layer.get(name, 0))

        def after(op):
            letter, stage, _ = op
            if letter == "F":
                if self.schedule.get("forward_only") or self.backward[stage] == "none":
                    return 0
                return bytes_of(op, "kept_input" if op[1:] in again else "kept")
            if letter == "R":
                return bytes_of(op, "kept")
            return bytes_of(op, "context") if letter in ("I", "RI") and self.backward[stage] == "full" else 0

        for cell in row:
            running = 0
            for op in cell:
                letter, stage, micro = op
                if "R" in letter or letter == "F":
                    held[op[1:]] = bytes_of(op, "kept")
                largest = [max([transient_of(layer, one) for layer in self.stages[stage]], default=0) for one in letter]
                running += self.length(micro) * max(largest)
            most = max(most, sum(held.values()) + running)
            for op in sorted(cell, key=lambda op: after(op) < held[op[1:]]):
                held[op[1:]] = after(op)
                most = max(most, sum(held.values()))
        return most


def enumerate_pair(letters, kinds):
    """The two of a pair, whose order does not matter; counted, as both may be the same."""
    both = sorted(zip(letters, kinds))
    return [(one, both.count(one)) for one in both]


def random_case(rng, families, generate):
    number = lambda most=9: rng.randint(0, 2 * most) / 2
    maybe = lambda: rng.random() < 0.5
    pp, micro = rng.randint(1, 4), rng.randint(1, 8)
    options = ["--pp", str(pp), "--micro", str(micro)]
    if rng.random() < 0.15:
        options.append("--forward-only")
    else:
        if maybe():
            options += ["--recompute", rng.choice(["all", "0", "1/2", "2/3"])] + (["--recompute-inside"] if maybe() else [])
        if maybe():
            options += ["--freeze", rng.choice(["0", "1", "0,1"])]
    text = generate(rng.choice(families), options)
    if text is None:
        return random_case(rng, families, generate)
    schedule = json.loads(text)
    unit = rng.choice(list(UNITS))
    model = {"time_unit": unit, "layers": [], "pairs": [], "links": []}
    for _ in range(rng.randint(1, 4)):
        layer = {"kind": rng.choice("ab"), "count": rng.randint(1, 3), "forward": number()}
        layer.update(rng.choice([{}, {"backward": number()}, {"backward": 9 + number(), "backward_input": number()},
                                 {"backward_input": number(), "backward_weight": number()}]))
        kept = number(50)
        entries = {"recompute": number(), "kept": kept, "context": number(60), "message": number(30),
                   "transient": {letter: number(20) for letter in "FBIWR" if maybe()}}
        layer.update({name: value for name, value in entries.items() if maybe()})
        if "kept" in layer and maybe():
            layer["kept_input"] = kept / 4
        model["layers"].append(layer)
    kinds = sorted({layer["kind"] for layer in model["layers"]})
    priced = set()
    for _ in range(rng.randint(0, 5)):
        letters, of = rng.choices(["F", "B", "I", "W", "R", "RB", "RI"], k=2), rng.choices(kinds, k=2)
        if (key := tuple(sorted(zip(letters, of)))) in priced:
            continue
        priced.add(key)
        ops = "".join(letter if len(letter) == 1 else f"({letter})" for letter in letters)
        model["pairs"].append({"kinds": of, "ops": ops, "time": number()})
    if maybe():
        model["ranks"] = [{"speed": rng.choice([0.5, 1, 2])} for _ in range(rng.choice([1, pp]))]
    if maybe():
        model["links"].append({"latency": number(3), "bandwidth": UNITS[unit] * rng.choice([1, 4]),
                               "busy": rng.choice(["none", "sender", "both"])})
    model["links"] += [{"from": a, "to": b, "latency": number(3), "busy": rng.choice(["none", "sender", "both"])}
                       for a in range(pp) for b in range(pp) if a != b and rng.random() < 0.3]
    if maybe():
        model["micro_batches"] = rng.choices([0.5, 1, 2, 3], k=micro)
    layers = sum(layer["count"] for layer in model["layers"])
    cuts = [0] + sorted(rng.randint(0, layers) for _ in range(schedule["stages"] - 1)) + [layers]
    return model, [end - begin for begin, end in zip(cuts, cuts[1:])], schedule


def main():
    tool, cases, rng = os.path.abspath(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))

    def generate(family, options):
        made = subprocess.run([tool, "generate", family, *options], capture_output=True, text=True)
        return made.stdout if made.returncode == 0 else None

    listed = subprocess.run([tool, "list"], capture_output=True, text=True, check=True).stdout
    families = [line.split()[0] for line in listed.splitlines()]
    for case in range(cases):
        model, partition, schedule = random_case(rng, families, generate)
        for name, value in (("twin_model.json", model), ("twin_schedule.json", schedule)):
            with open(name, "w") as file:
                json.dump(value, file)
        command = ["simulate", "twin_schedule.json", "--model", "twin_model.json", "--partition",
                   ",".join(map(str, partition)), "--format", "json"]
        got = json.loads(subprocess.run([tool, *command], capture_output=True, text=True, check=True).stdout)
        twin = Twin(model, partition, schedule)
        expected = [twin.makespan()] + [twin.peak(row) for row in twin.rows]
        found = [got["makespan"]] + [rank["peak_bytes"] for rank in got["ranks"]]
        if any(abs(a - b) > 1e-9 * max(1, a) for a, b in zip(expected, found)):
            sys.exit(f"case {case}, {' '.join(command)}: makespan and peaks are {found}; expected {expected}")
        if got["lower_bound"] > expected[0] * (1 + 1e-12):
            sys.exit(f"case {case}, {' '.join(command)}: the bound {got['lower_bound']} is above {expected[0]}")


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    main()
