# SPDX-License-Identifier: MIT
# The command plan.

plan=("$tool" plan --family dualpipe --pp 4 --micro 8 --costs deepseek_v3 --memory-limit 5 --evaluations 2000)
"${plan[@]}" --format json >plan.json
check "plan: json has its numbers" grep -q '"lower_bound"' plan.json
python3 -c 'import json; json.dump(json.load(open("plan.json"))["schedule"], open("planned.json", "w"))'
check "plan: its schedule is valid" grep -q "^valid: planned" <("$tool" verify planned.json)
check "plan: its makespan is that of simulate" python3 - <<<'
import json, subprocess
plan = json.load(open("plan.json"))
run = subprocess.run(["'"$tool"'", "simulate", "planned.json", "--costs", "deepseek_v3", "--format", "json"], capture_output=True)
assert json.loads(run.stdout)["makespan"] == plan["makespan"]
assert plan["lower_bound"] <= plan["makespan"] <= plan["published"]["makespan"] and plan["peak_activations"] <= 5'
"${plan[@]}" --threads 3 --format json >threads.json
check "plan: threads make no difference" cmp plan.json threads.json
refused '--pairs takes pairs of F, B and I with commas between them, any or none; got "FW"' plan --pp 2 --micro 4 --pairs FW
refused 'plan needs --micro' plan --pp 2
refused '--chunks takes 1 to 256; got 4611686018427387905, nearest 256' plan --pp 4 --micro 4 --placement looped --chunks 4611686018427387905
refused 'hanayo has two stages per rank and wave; got --chunks 3, nearest 4' plan --pp 4 --micro 4 --family hanayo --chunks 3
for bad in zigzag 'linear 2' 'looped x' 'looped 2 3' 'wave ' ''; do
  refused "--placement takes linear, looped, vee, wave or bidirectional, and stages per rank after looped and wave, as in looped 3; got \"$bad\"" \
    plan --pp 2 --micro 4 --placement "$bad"
done
refused '--placement takes a kind, and zbv is a family; its placement: --family zbv' plan --pp 2 --micro 4 --placement zbv
refused '--family takes a family, and vee is a placement: --placement vee' plan --pp 2 --micro 4 --family vee
refused 'wave has an even number of 2 to 256 stages per rank; got wave 3, nearest wave 4' plan --pp 2 --micro 4 --placement 'wave 3'
refused 'wave has an even number of 2 to 256 stages per rank; got wave 9223372036854775807, nearest wave 256' \
  plan --pp 2 --micro 4 --placement 'wave 9223372036854775807'
refused 'looped has 1 to 256 stages per rank; got looped 0, nearest looped 1' plan --pp 2 --micro 4 --placement 'looped 0'
expect "plan --family custom: a kind of placement without a hint" 2 '' 'pipesched: no schedule is called "custom"; known: gpipe, .*~' \
  "$tool" plan --pp 2 --micro 4 --family custom
refused 'looped has 1 to 256 stages per rank; got looped 0, nearest looped 1' plan --pp 2 --micro 4 --placement 'looped 0'
refused '--chunks 2 and looped 3 differ; expected one of them' plan --pp 2 --micro 4 --placement 'looped 3' --chunks 2
expect "plan: a wave of two waves" 0 'wave placement, 2 ranks, 8 stages, 4 micro-batches; .*~[0-9]+ evaluations; bound: .*' '' \
  "$tool" plan --pp 2 --micro 4 --placement 'wave 4' --evaluations 1
expect "plan --pareto: placements with their stages per rank" 0 '2 ranks, 4 micro-batches; placements: linear, looped 3, wave 4; .*' '' \
  "$tool" plan --pp 2 --micro 4 --placement 'linear, looped 3,wave 4' --pareto --memory-limit 6 --evaluations 50

model=("$tool" plan --model gemma_h1536_s4096_v256k --pp 4 --micro 8 --placement vee --pairs none --evaluations 5000)
"${model[@]}" --format json >model_plan.json
check "plan --model: partition, layers, bounds and families in order" python3 - <<<'
import json
plan = json.load(open("model_plan.json"))
assert sum(plan["partition"]) == 33 and len(plan["partition"]) == 8 and len(plan["ranks"]) == 4
assert plan["lower_bound"] <= plan["makespan"] <= plan["divided"]["makespan"] <= plan["uniform"]["makespan"]
json.dump(plan["schedule"], open("model_planned.json", "w"))
open("model_partition", "w").write(",".join(map(str, plan["partition"])))'
check "plan --model: its makespan is that of simulate" python3 - <<<'
import json, subprocess
run = subprocess.run(["'"$tool"'", "simulate", "model_planned.json", "--model", "gemma_h1536_s4096_v256k",
                      "--partition", open("model_partition").read(), "--format", "json"], capture_output=True)
assert json.loads(run.stdout)["makespan"] == json.load(open("model_plan.json"))["makespan"]'
"${model[@]}" --threads 3 --format json >threads.json
check "plan --model: threads make no difference" cmp model_plan.json threads.json
check "plan --model: the text has all makespans" grep -q "^best for a family  *[0-9]" <("${model[@]}")
check "plan --pareto: a picture of the front" grep -q "no schedule is shorter (proved)" \
  <("$tool" plan --pp 2 --micro 4 --pareto --evaluations 500 --format svg)
check "plan --format html: the plan before the families" grep -q \
  "<title>DeepSeek-V3, 4 ranks, 8 micro-batches: planned [0-9.]* s, dualpipe [0-9.]* s, 1f1b [0-9.]* s</title>" \
  <("${plan[@]}" --format html)
check "plan --format html: families above the limit are named" grep -q \
  "<li>left out: gpipe keeps 8 activations, more than the limit of 5</li>" <("${plan[@]}" --format html)
check "plan --pareto --format html: points with their panels" grep -q '"front":.{"plan":0,"published":1,' \
  <("$tool" plan --pp 2 --micro 4 --pareto --evaluations 500 --format html)
"$tool" plan --model gemma_h1536_s4096_v256k --pp 2 --micro 4 --placement vee --pairs none --evaluations 500 -o model_plan.html
check "plan --model --format html: its notes have the partition" grep -q "<li>layers per stage: " model_plan.html
check "plan --model --format html: families have the makespans of compare" python3 - <<<'
import json, re, subprocess
def makespans(page):
    return dict(re.findall(r"\"name\":\"(\w+)\".*?\"makespan\":([0-9.]+)", page))
page = makespans(open("model_plan.html").read())
run = subprocess.run(["'"$tool"'", "compare", "--model", "gemma_h1536_s4096_v256k", "--pp", "2", "--micro", "4", "--format", "html"],
                     capture_output=True, text=True)
beside = makespans(run.stdout)
assert len(beside) > 15 and beside.items() <= page.items() and "planned" in page'
refused 'plan --pareto writes text, json, svg or html; got --format csv' plan --pp 2 --micro 4 --pareto --format csv
refused '--pareto with --model limits bytes, and the layers of "deepseek_v3" take none; expected kept, weights or others of them' plan --pp 2 --micro 4 --model deepseek_v3 --pareto
refused 'plan takes --memory or --memory-limit; got both' plan --pp 2 --micro 4 --memory 3 --memory-limit 3
refused '--memory-limit takes a finite number of live activations above 0; got "inf"' plan --pp 2 --micro 4 --memory-limit inf
refused '--memory-limit takes a finite number of live activations above 0; got "0", nearest 1' plan --pp 2 --micro 4 --pareto --memory-limit 2,0
refused '--memory-limit takes a number such as 1.5; got "2,3"' plan --pp 2 --micro 4 --memory-limit 2,3
refused 'plan takes several placements with --pareto only; got --placement "linear,vee"' plan --pp 2 --micro 4 --placement linear,vee
refused '--forward-only has no backwards; got --pairs FB, nearest FF' plan --pp 2 --micro 4 --forward-only --pairs FB
refused 'plan takes --may-recompute with --model only' plan --pp 2 --micro 4 --may-recompute

# Costs without a use.
echo '{"forward": 1, "backward_input": 1, "backward_weight": 1, "recompute": 3, "memory": {"context": 1, "kept_by_forward": 2}, "pairs": [{"ops": "FF", "time": 2}, {"ops": "FB", "time": 2}], "allowed_pairs": ["FB"], "links": [{"from": 1, "to": 0}, {"from": 0, "to": 1}, {"from": 0, "to": 2}]}' >unused.json
expect "plan names costs without a use" 0 'linear placement, .*; not used here: recompute, links\[2\] and pairs\[0\]~.*' '' \
  "$tool" plan --pp 3 --micro 4 --costs unused.json --evaluations 100
expect "plan with pairs of its own names more" 0 'linear placement, .*; not used here: recompute, links\[2\], pairs\[0\], pairs\[1\] and allowed_pairs~.*' '' \
  "$tool" plan --pp 3 --micro 4 --costs unused.json --evaluations 100 --pairs none
expect "plan as json says so beside it" 0 '\{~.*' 'pipesched: costs not used here: recompute, .*~' \
  "$tool" plan --pp 3 --micro 4 --costs unused.json --evaluations 100 --format json

# Entries whose numbers bind others have a use, on placements with several stages per rank, too.
echo '{"forward": 10, "backward_input": 10, "backward_weight": 5, "communication": {"forward": 6}}' >bound_costs.json
expect "plan: costs whose communication takes most of the op" 0 'vee placement, 4 ranks, .*' '' \
  "$tool" plan --costs bound_costs.json --placement vee --pp 4 --micro 8 --evaluations 100
expect "simulate: the same" 0 'zbv: 4 ranks, [^~]*not used here: communication.forward~.*' '' \
  "$tool" simulate --family zbv --costs bound_costs.json --pp 4 --micro 8
echo '{"forward": 1, "backward": 3, "backward_weight": 2, "memory": {"kept_by_forward": 2, "freed_by_input": 2, "kept_input": 2}}' >bound_bytes.json
expect "simulate: bytes that bind each other" 0 'zbv: 4 ranks, .*' '' \
  "$tool" simulate --family zbv --costs bound_bytes.json --pp 4 --micro 8

# Ctrl-C: the best plan so far.
"$tool" plan --costs deepseek_v3 --placement bidirectional --pp 8 --micro 20 --evaluations 1000000000 --format json -o interrupted.json 2>interrupted.err &
interrupted=$!
sleep 1
kill -INT $interrupted
wait $interrupted
expect "plan: interrupted, it writes what it has" 0 'pipesched: interrupted after [0-9]* evaluations; the best so far~' '' cat interrupted.err
check "plan: the JSON of an interrupted search says so" python3 - <<<'
import json
assert json.load(open("interrupted.json"))["interrupted"] is True'
"$tool" plan --costs deepseek_v3 --placement bidirectional --pp 4 --micro 8 --pareto --memory-limit 3,4,5 --evaluations 1000000000 >interrupted.txt 2>interrupted.err &
interrupted=$!
sleep 2
kill -INT $interrupted
wait $interrupted
check "plan --pareto: interrupted, it has a plan for each limit, and says so" python3 - <<<'
text = open("interrupted.txt").read()
times = [float(line.split()[5]) for line in text.splitlines() if "copies" in line]
assert len(times) == 3 and times[0] > times[1] > times[2], text
assert "\ninterrupted: the best so far\n" in text'

# Fronts over placements.
front=("$tool" plan --pp 4 --micro 8 --pareto --evaluations 500)
"${front[@]}" --costs deepseek_v3 --memory-limit 2,3,5 --format json >front.json
check "plan --pareto: points over placements in order, with bounds" python3 - <<<'
import json
front = json.load(open("front.json"))
points = front["points"]
assert front["memory_unit"] == "activations" and [p["memory_limit"] for p in points] == [2, 3, 5]
for p in points:
    assert p["lower_bound_for_any_placement"] <= p["lower_bound"] <= p["makespan"] <= p["published"]["makespan"]
    assert p["peak_activations"] <= p["memory_limit"]
    assert p["copies_of_weights"] == (2 if p["placement"] == "bidirectional" else 1)
    assert p["placement"].split()[0] == p["schedule"]["placement"]["kind"]
assert all(a["makespan"] >= b["makespan"] for a, b in zip(points, points[1:]))'
expect "plan --pareto: one placement has no column for others" 0 \
  'vee placements?.*|4 ranks, 8 micro-batches; placements: vee; costs are .*~ *limit placement *weights *peak.*' '' \
  "${front[@]}" --placement vee
echo '{"forward": 10, "backward": 20, "memory": {"kept_by_forward": 3e9, "weights": 2e10}}' >byte_costs.json
expect "plan --pareto: bytes where the costs know them" 0 \
  '4 ranks, .*placements: linear, looped 2, looped 3, looped 4, vee, wave 4, bidirectional; .*~ *memory placement .* GB .*' '' \
  "${front[@]}" --costs byte_costs.json
echo '{"forward": [1, 1, 1, 2, 1, 1, 1, 2]}' >eight_stages.json
expect "plan --pareto: placements that do not take the costs are left out with a reason" 0 \
  '.*placements: looped 2, vee; .*left out: linear: costs: .*left out: bidirectional: costs: .*' '' \
  "${front[@]}" --costs eight_stages.json
"${front[@]}" --costs byte_costs.json --memory 30GB,60GB --placement vee,bidirectional -o front.svg
check "plan --pareto: the picture has bytes and placements" grep -q "memory per rank, GB" front.svg
check "plan --pareto: the picture names placements" grep -q " bidirectional</text>" front.svg
cat >byte_model.json <<'END'
{"format": "pipesched.model", "version": 1, "layers": [
  {"count": 12, "forward": 1, "backward": 2, "kept": 5e8, "weights": 1e9, "message": 1e7}]}
END
"${front[@]}" --placement linear,vee --model byte_model.json --memory 8GB,12GB,30GB --format json >model_front.json
check "plan --pareto --model: points with partitions within the bytes" python3 - <<<'
import json
points = json.load(open("model_front.json"))["points"]
assert [p["memory_limit"] for p in points] == [8e9, 12e9, 30e9]
for p in points:
    assert sum(p["partition"]) == 12 and all(r["bytes"] <= p["memory_limit"] for r in p["ranks"])
    assert p["lower_bound_for_any_placement"] <= p["lower_bound"] <= p["makespan"]'
expect "plan --pareto --model: the page has its front" 0 '.*GB per rank.*"memoryTitle":"memory per rank, GB".*' '' \
  "${front[@]}" --placement linear,vee --model byte_model.json --format html
expect "plan --memory: costs with bytes" 0 'linear placement, 4 ranks, .*~ rank +weights +activations +buffers +bytes +limit~ +0 +[0-9.e+]+ .* 3e\+10~.*evaluations; bound: .*' '' \
  "$tool" plan --pp 4 --micro 8 --costs byte_costs.json --memory 30GB --evaluations 300
"$tool" plan --pp 4 --micro 8 --costs byte_costs.json --memory 30GB --evaluations 300 --format json >byte_plan.json
"$tool" plan --pp 4 --micro 8 --costs byte_costs.json --memory 30GB,60GB --placement linear --pareto --evaluations 300 --format json >byte_front.json
check "plan --memory: bytes by rank as json" python3 - <<<'
import json
plans = [json.load(open("byte_plan.json")), *json.load(open("byte_front.json"))["points"]]
assert all(len(p["ranks"]) == 4 and all(0 < r["bytes"] <= p.get("memory_limit", 30e9) for r in p["ranks"]) for p in plans)'
"$tool" plan --pp 4 --micro 8 --costs deepseek_v3 --memory-limit 4,5 --placement linear --pareto --evaluations 100 -o timed_front.svg
check "plan --pareto: the picture has the unit of time" grep -q ">makespan, ms</text>" timed_front.svg
"$tool" plan --pp 4 --micro 8 --costs deepseek_v3 --memory-limit 4,5 --placement linear --pareto --evaluations 100 --format json >timed_front.json
check "plan --pareto: the json has the unit of time" grep -q '"time_unit": "ms"' timed_front.json
expect "plan --memory: too few bytes for the weights" 2 '' \
  'pipesched: plan_in_memory\(\) finds nothing that fits: rank 0 has 1e\+10 bytes, and its weights take 2e\+10~' \
  "$tool" plan --pp 4 --micro 8 --costs byte_costs.json --memory 10GB

# The JSON of a plan in place of its schedule.
check "simulate: the JSON of a plan has its makespan" python3 - <<<'
import json, subprocess
def makespan(*args):
    run = subprocess.run(["'"$tool"'", "simulate", *args, "--format", "json"], capture_output=True, text=True)
    return json.loads(run.stdout)["makespan"], run.stderr
assert makespan("plan.json", "--costs", "deepseek_v3") == (json.load(open("plan.json"))["makespan"], "")
assert makespan("model_plan.json", "--model", "gemma_h1536_s4096_v256k") == (json.load(open("model_plan.json"))["makespan"], "")'
expect "verify: the JSON of a plan" 0 'valid: planned, 4 ranks, .*~' '' "$tool" verify plan.json
refused 'model_plan.json has layers per stage; expected --model with the model that they are of' simulate model_plan.json
refused 'model_plan.json has layers per stage, and --partition names others; expected one of them' \
  simulate model_plan.json --model gemma_h1536_s4096_v256k --partition uniform
refused 'front.json: a front of 3 plans; expected one, of a single limit' simulate front.json
"$tool" plan --pp 2 --micro 4 --pareto --memory-limit 2 --evaluations 100 --format json -o point.json
expect "verify: the JSON of a front with one point" 0 'valid: planned, 2 ranks, .*~|valid: .*~' '' "$tool" verify point.json
expect "plan --pareto: limits without a plan are named" 0 '.*left out: 0.5: no plan is found that fits~.*' '' \
  "${front[@]}" --memory-limit 0.5,4
refused 'eight_stages.json: costs: forward has 8 numbers; expected 1 or 4, one per stage' plan --pp 4 --micro 8 --pareto --costs eight_stages.json --placement vee,linear
