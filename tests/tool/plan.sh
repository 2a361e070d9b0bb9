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
refused 'plan takes --memory-limit or --pareto; got both' plan --pp 2 --micro 4 --memory-limit 2 --pareto
refused '--pairs takes pairs of F, B and I with commas between them, any or none; got "FW"' plan --pp 2 --micro 4 --pairs FW
refused 'plan needs --micro' plan --pp 2
refused '--placement takes linear, looped, vee, wave or bidirectional; got "zigzag"' plan --pp 2 --micro 4 --placement zigzag
