# SPDX-License-Identifier: MIT
# The command import-costs. Read by tests/tool.sh.

echo '{"forward": [2, 3, 4, 5], "backward_input": [2, 2, 3, 3], "backward_weight": [1, 1, 2, 2], "transfer": 0.25}' >true_costs.json
"$tool" simulate --family zbv --pp 2 --micro 6 --costs true_costs.json -o zbv.trace.json
"$tool" import-costs zbv.trace.json -o imported.json 2>import_notes
check "import-costs: notes" diff import_notes - <<<'pipesched: 1 step of 2 ranks, 4 stages, 6 micro-batches
pipesched: times in ms'
check "import-costs: the costs of a trace predict the makespans" python3 - "$tool" <<<'
import json, subprocess, sys
def makespan(family, costs):
    run = subprocess.run([sys.argv[1], "simulate", "--family", family, "--pp", "2", "--micro", "6", "--costs", costs, "--format", "json"], capture_output=True)
    return json.loads(run.stdout)["makespan"]
for family in "zbv", "v_half", "dualpipev":
    assert abs(makespan(family, "imported.json") - makespan(family, "true_costs.json")) < 1e-6, family'

# Events of a hook: three steps, of which the first is slow.
hook_events() {
  python3 - "$@" <<<'
import json, sys
trace = json.load(open(sys.argv[1]))["traceEvents"]
cells = [e for e in trace if e["ph"] == "X" and e.get("tid") == 0]
length = max(e["ts"] + e["dur"] for e in cells)
events = [{"rank": e["pid"], "action": e["name"], "start": (step * 9 * length + e["ts"] * slow) / 1000, "end": (step * 9 * length + (e["ts"] + e["dur"]) * slow) / 1000}
          for step, slow in enumerate((5, 1, 1)) for e in cells]
json.dump({"time_unit": "ms", "events": events}, open(sys.argv[2], "w"))'
}
hook_events zbv.trace.json events.json
"$tool" import-costs events.json --skip 1 -o from_events.json 2>import_notes
check "import-costs: no note on a step that is left out" bash -c '! grep -q "times as long" import_notes'
expect "import-costs: a slow first step is seen" 0 '.*' '.*~pipesched: step 0 took 5 times as long as the steps after it; --skip 1 leaves it out~.*' \
  "$tool" import-costs events.json
check "import-costs: steps are counted" grep -q '^pipesched: 2 steps of 2 ranks, 4 stages, 6 micro-batches$' import_notes
check "import-costs: events of a hook, without the slow step" python3 - <<<'
import json
a, b = json.load(open("imported.json")), json.load(open("from_events.json"))
assert a.keys() == b.keys() and a.pop("time_unit") == b.pop("time_unit") == "ms" and all(abs(x - y) < 1e-6 for k in a for x, y in zip(a[k], b[k])), (a, b)'
echo '{"time_unit": "us", "layers": [{"kind": "embedding", "forward": 0, "backward": 0}, {"kind": "block", "count": 4, "forward": 1, "backward": 2}, {"kind": "head", "forward": 3, "backward": 3}]}' >measured_model.json
"$tool" simulate --family 1f1b --pp 2 --micro 4 --forward 2 --backward 4 -o 1f1b.trace.json
"$tool" import-costs 1f1b.trace.json --model measured_model.json --partition 3,3 -o fitted.json 2>import_notes
check "import-costs: kinds that cannot be distinguished" grep -q 'embedding, block and head cannot be distinguished: the sum of their times is right' import_notes
check "import-costs: a fitted model keeps its unit" python3 - <<<'
import json
m = json.load(open("fitted.json"))
assert m["time_unit"] == "us"
F = {l["kind"]: l["forward"] for l in m["layers"]}
assert abs(F["embedding"] + 2 * F["block"] - 2000) < 1 and abs(F["head"] + 2 * F["block"] - 2000) < 1, F'

# Files of Primus.
mkdir -p pp_data
python3 - <<<'
import json
trace = json.load(open("1f1b.trace.json"))["traceEvents"]
for rank in 0, 1:
    cells = [e for e in trace if e["ph"] == "X" and e.get("tid") == 0 and e["pid"] == rank]
    step = {kind + side: [(e["ts"] + (e["dur"] if side == "_end" else 0)) / 1000 for e in cells if e["name"][1] == letter]
            for kind, letter in (("fwd", "F"), ("bwd", "B"), ("wgrad", "W")) for side in ("_start", "_end")}
    json.dump({"1": step, "2": step}, open(f"pp_data/pp_rank_{rank}.json", "w"))
json.dump({"pp_size": 2}, open("pp_data/config.json", "w"))'
exactly "import-costs: Primus" 0 '{"backward":[4.0,4.0],"backward_input":[2.0,2.0],"backward_weight":[2.0,2.0],"forward":[2.0,2.0],"time_unit":"ms","transfer":[0.0,0.0]}' '' \
  bash -c "'$tool' import-costs pp_data --family 1f1b --pp 2 --micro 4 2>/dev/null | tr -d ' \n'"
expect "import-costs: Primus has no transfers" 0 '.*' 'pipesched: 2 steps of 2 ranks.*~pipesched: transfers are unknown: every rank has its own clock~pipesched: I = W = B/2 of all stages, as neither ran~pipesched: times in ms~' \
  "$tool" import-costs pp_data/pp_rank_1.json pp_data/pp_rank_0.json --family 1f1b --pp 2 --micro 4
refused "Primus' files need the schedule that ran: --schedule with a file, or --family with --pp and --micro" import-costs pp_data
refused 'pp_data/pp_rank_0.json: step 1: 4 starts of fwd; rank 0 of 1f1b has 5' import-costs pp_data --family 1f1b --pp 2 --micro 5
refused '1 file of ranks; 1f1b has 2 ranks' import-costs pp_data/pp_rank_0.json --family 1f1b --pp 2 --micro 4
refused 'pp_data/pp_rank_1.json: expected files of ranks 0 to 0, one each' import-costs pp_data/pp_rank_1.json --family 1f1b --pp 1 --micro 4
refused "pp_data/config.json: files of Primus are called pp_rank_0.json and on" \
  import-costs pp_data/pp_rank_0.json pp_data/config.json --family 1f1b --pp 2 --micro 4

refused '--skip takes 0 to 2; got 3, nearest 2' import-costs events.json --skip 3
refused "--family goes with Primus' files; events name their ops" import-costs events.json --family zbv
refused '--pp goes with --family' import-costs events.json --pp 2
refused 'import-costs --model needs --partition, the layers per stage that ran: uniform, 5,4,4,3 or a layout' \
  import-costs events.json --model measured_model.json
refused 'a partition of 2 stages; expected 4' import-costs events.json --model measured_model.json --partition 3,3
refused '--partition goes with --model' import-costs events.json --partition 3,3
mkdir -p nothing_measured
refused 'nothing_measured: a folder without files such as pp_rank_0.json' import-costs nothing_measured
refused 'events of a hook come in one file; got 2' import-costs events.json events.json
sed 's/"0F0"/"0F"/' events.json >broken_events.json
expect "import-costs: an action that is none" 2 '' 'pipesched: broken_events.json: times: events\[0\].action is not a cell; expected one such as 0F3 or \(0F7;7B13\) \(line 1, column [0-9]*\)~' \
  "$tool" import-costs broken_events.json
refused 'nowhere.json: cannot be read (No such file or directory)' import-costs nowhere.json

echo '{"traceEvents": []}' >empty_trace.json
refused 'empty_trace.json: no event is named after an action, such as 0F3, (0F7;7B13) or PP:0F3' import-costs empty_trace.json
for family in dualpipe chimera; do # every stage on two ranks
  "$tool" simulate --family "$family" --pp 4 --micro 8 --backward 3 --transfer 0.5 -o "$family.trace.json"
  check "import-costs: a trace of $family" grep -qx '{"backward":\[3.0,3.0,3.0,3.0\],.*"forward":\[1.0,1.0,1.0,1.0\],.*' \
    <("$tool" import-costs "$family.trace.json" 2>/dev/null | tr -d ' \n'; echo)
done

# A trace is in microseconds, whatever the unit of the costs is.
for unit_and_forward in s:3000 ms:3 us:0.003; do
  echo "{\"forward\": 3, \"backward\": 6, \"time_unit\": \"${unit_and_forward%:*}\"}" >unit_costs.json
  "$tool" simulate --family 1f1b --pp 2 --micro 4 --costs unit_costs.json -o unit.trace.json
  check "import-costs: a trace of costs in ${unit_and_forward%:*}" python3 -c '
import json, subprocess, sys
costs = json.loads(subprocess.run([sys.argv[1], "import-costs", "unit.trace.json"], capture_output=True, check=True).stdout)
assert costs["time_unit"] == "ms" and all(abs(f / float(sys.argv[2]) - 1) < 1e-6 for f in costs["forward"]), costs
' "$tool" "${unit_and_forward#*:}"
done

# Every fault of a text names its file.
echo '[]' >no_events.json
refused 'no_events.json: times: no events; expected one such as {"rank": 0, "action": "0F3", "start": 1, "end": 2}' import-costs no_events.json
echo '{"traceEvents": [}' >broken_trace.json
expect "import-costs: a trace that is not JSON" 2 '' 'pipesched: broken_trace.json: not JSON: parse error at line 1, column 18: .*~' \
  "$tool" import-costs zbv.trace.json broken_trace.json
for rank in 0 1; do
  python3 - "$rank" >"part$rank.json" <<<'
import json, sys
events = json.load(open("1f1b.trace.json"))["traceEvents"]
print(json.dumps({"traceEvents": [e for e in events if e["pid"] == int(sys.argv[1]) and e.get("name") != "0B3"]}))'
done
refused 'part0.json and 1 more: step 0 is not whole: rank 0: missing: 0B3; expected one B, or one I and one W' import-costs part0.json part1.json
