# SPDX-License-Identifier: MIT
# Costs, and the numbers of simulate and compare. Read by tests/tool.sh.

# makespans ARGUMENTS...: "1f1b 330 zb1p 270", as compare's JSON has them, in its order, with six digits.
makespans() {
  "$tool" compare "$@" --format json | sed -nE 's/^  "name": "(.*)",$/\1/p; s/^  "makespan": (.*),$/\1/p' |
    awk '/^[0-9.e+-]+$/ { $0 = sprintf("%.6g", $0) } { printf "%s%s", (NR > 1 ? " " : ""), $0 }'
}
# number KEY ARGUMENTS...: a number of simulate's JSON, of the whole schedule, with six digits.
number() {
  local key=$1
  shift
  "$tool" simulate "$@" --format json | sed -nE "s/^ \"$key\": (.*[^,]),?$/\1/p" | head -n 1 |
    awk '{ printf "%.6g", $0 }'
}
equal() {
  [ "$2" = "$3" ] || { echo "FAILED: $1: got $2, expected $3"; failures=$((failures + 1)); }
}

# B alone means I = W = B/2.
equal "B alone, one rank" "$(makespans --pp 1 --micro 1 --backward 4 --families 1f1b,zb1p)" "1f1b 5 zb1p 5"
equal "B alone, four ranks" "$(makespans --pp 4 --micro 8 --forward 10 --backward 20 --families 1f1b,zb1p,zbv,dualpipev)" \
  "zbv 255 zb1p 270 dualpipev 270 1f1b 330"
echo '{"forward": 10, "backward": 20}' >whole.json
equal "B alone, in a file" "$(makespans --pp 4 --micro 8 --costs whole.json --families 1f1b,zb1p,zbv,dualpipev)" \
  "zbv 255 zb1p 270 dualpipev 270 1f1b 330"
equal "B alone, for a search" "$("$tool" generate zb_greedy --pp 4 --micro 8 --forward 10 --backward 20 2>/dev/null)" \
  "$("$tool" generate zb_greedy --pp 4 --micro 8 --forward 10 --backward-input 10 --backward-weight 10)"
equal "B with I: W is the rest" "$(number makespan --family zb1p --pp 3 --micro 5 --backward 3 --backward-input 1)" \
  "$(number makespan --family zb1p --pp 3 --micro 5 --backward-input 1 --backward-weight 2)"
equal "--backward replaces B, I and W of a file" "$(number makespan --family zb1p --pp 3 --micro 5 --costs deepseek_v3 --backward 100)" \
  "$(number makespan --family zb1p --pp 3 --micro 5 --costs deepseek_v3 --backward-input 50 --backward-weight 50)"
expect "B alone is said by simulate" 0 '[^~]*; I = W = B/2, as only B is given~.*' '' "$tool" simulate --family zb1p --pp 2 --micro 2 --backward 4
expect "B alone is said by a grid" 0 '[^~]*; I = W = B/2, as only B is given~.*' '' "$tool" generate zb1p --pp 2 --micro 2 --backward 4 --format grid
expect "B alone is said by generate" 0 'zb_greedy: .*' 'pipesched: costs: I = W = B/2, as only B is given~' "$tool" generate zb_greedy --pp 2 --micro 2 --backward 4 --format text
expect "B alone is said by compare" 0 '[^~]*~I = W = B/2, as only B is given~.*' '' "$tool" compare --pp 2 --micro 2 --backward 4
expect "B with I is not B alone" 0 '[^~]*one stage per rank~bound:.*' '' "$tool" simulate --family zb1p --pp 2 --micro 2 --backward 4 --backward-input 1

# One convention for numbers.
equal "one number is of a rank's share: compare" "$(makespans --families zbv --pp 4 --micro 8)" "zbv 25.5"
equal "one number is of a rank's share: simulate" "$(number makespan --family zbv --pp 4 --micro 8)" 25.5
expect "one number is of a rank's share: a grid" 0 'zbv: 4 ranks, 8 micro-batches; verified; makespan 25.5, [^~]*; costs are of a rank.s share, divided among its 2 stages~.*' '' \
  "$tool" generate zbv --pp 4 --micro 8 --format grid
echo '{"forward": [1, 3], "backward_input": [1, 3], "backward_weight": [1, 3]}' >ranks.json
equal "as many numbers as ranks are of shares: compare" "$(makespans --families zbv --pp 2 --micro 8 --costs ranks.json)" "zbv 72.5"
equal "as many numbers as ranks are of shares: simulate" "$(number makespan --family zbv --pp 2 --micro 8 --costs ranks.json)" 72.5
echo '{"forward": [0.5, 1.5, 1.5, 0.5], "backward_input": [0.5, 1.5, 1.5, 0.5], "backward_weight": [0.5, 1.5, 1.5, 0.5]}' >stages.json
equal "as many numbers as stages are per stage" "$(number makespan --family zbv --pp 2 --micro 8 --costs stages.json)" 72.5
expect "simulate says which" 0 '[^~]*; costs are per stage~.*' '' "$tool" simulate --family zbv --pp 2 --micro 8 --costs stages.json
expect "compare says which" 0 '2 ranks, 8 micro-batches; costs are of a rank.s share, split among its stages;~  per stage: forward, backward_input, backward_weight~schedule.*' '' \
  "$tool" compare --pp 2 --micro 8 --costs stages.json --families zbv
equal "a search sees divided costs, smaller" "$(makespans --families zbv_greedy --pp 2 --micro 3 --backward-input 1.2 --backward-weight 0.8 --transfer 0.4)" "zbv_greedy 11.3"
equal "a search sees divided costs, larger" "$(makespans --families zbv_greedy --pp 4 --micro 7 --backward-input 0.6 --backward-weight 1.4 --transfer 0.4)" "zbv_greedy 26.4"
equal "peaks are of whole shares: dualpipe" "$(number peak_activations --family dualpipe --pp 8 --micro 20)" 9
equal "peaks are of whole shares: dualpipev" "$(number peak_activations --family dualpipev --pp 8 --micro 20)" 8.5
equal "limits are of whole shares" "$(number peak_activations --family zbv_greedy --pp 8 --micro 20 --memory-limit 3.5)" 3.5
cat >vgg16.json <<'JSON'
{"forward": [40.279, 58.897, 73.949, 78.749], "backward": [24.613, 129.773, 147.911, 136.336],
 "message_bytes": [1644167168, 411041792, 411041792], "bandwidth": 1e7}
JSON
equal "a tensor's transfer is that of its cut" "$(number makespan --family 1f1b --pp 4 --micro 8 --costs vgg16.json)" 3253.98

# Published formulas
expect "a formula beside transfers" 0 '.*\(PP-1\)\(F\+B\) = 3 \(assumes [^)]*transfers[^)]*: not so here\); simulated 5 .*' '' \
  "$tool" simulate --family 1f1b --pp 2 --micro 2 --transfer 1
expect "a formula beside transfers, as JSON" 0 '.*"holds": false,~[^}]*"fails": "[^"]*transfers[^"]*"~ +\}.*' '' \
  "$tool" simulate --family 1f1b --pp 2 --micro 2 --transfer 1 --format json
expect "a formula beside transfers, compared" 0 '.*~1f1b [^~]*[0-9]\* [^~]*~.*\* an assumption of the formula fails here.*' '' \
  "$tool" compare --families 1f1b --pp 2 --micro 2 --transfer 1
echo '{"backward": [2, 8]}' >unequal.json
expect "a formula beside unequal stages: the longest rank's bubble, and the mean" 0 \
  '.*: not so here\); simulated 15 on the rank that idles longest, 9 on average~.*' '' "$tool" simulate --family 1f1b --pp 2 --micro 2 --costs unequal.json
expect "a formula that holds" 0 '.*"holds": true,~[^}"]*"assumes": "[^"]*",~[^}"]*"source": "[^"]*"~ +\}.*' '' "$tool" simulate --family 1f1b --pp 2 --micro 2 --format json
expect "a gap is a part of the bound" 0 '.*"lower_bound": 63.0,.*"gap": 0.047619[0-9]*,.*' '' "$tool" simulate --family dualpipe --pp 8 --micro 20 --format json

# The unit of times
echo '{"time_unit": "us", "forward": 1, "backward": 2}' >unit.json
expect "simulate says the unit" 0 '[^~]*; times in us; I = W = B/2, .*' '' "$tool" simulate --family 1f1b --pp 2 --micro 2 --costs unit.json
expect "compare says the unit" 0 '2 ranks, .*;~  times in us~.*' '' "$tool" compare --families 1f1b --pp 2 --micro 2 --costs unit.json
expect "a page has the unit" 0 '.*F 1 us, B 2 us.*' '' "$tool" simulate --family 1f1b --pp 2 --micro 2 --costs unit.json --format html
expect "plan says the unit" 0 '[^~]*; times in us~.*' '' "$tool" plan --pp 2 --micro 2 --costs unit.json --evaluations 100

# Costs that nothing costs, and costs that nothing uses
exactly "all costs zero" 0 "1f1b: 2 ranks, 2 micro-batches; makespan 0, at least 0, gap 0.0 %; idle 0.0 %; costs are per stage, one stage per rank; I = W = B/2, as only B is given
bound: ops alone take no time" "" bash -c "'$tool' simulate --family 1f1b --pp 2 --micro 2 --forward 0 --backward 0 | head -n 2"
expect "an overlapped pair that no cell holds is named" 0 '[^~]*; not used here: overlapped~.*' '' "$tool" simulate --family 1f1b --pp 2 --micro 2 --overlapped 3
expect "a transfer on one rank is named" 0 '[^~]*; not used here: transfer~.*' '' "$tool" simulate --family zbv --pp 1 --micro 2 --transfer 3
expect "halves beside a whole backward are named" 0 '[^~]*; not used here: backward_input~.*' '' \
  "$tool" simulate --family 1f1b --pp 2 --micro 2 --backward 3 --backward-input 1
echo '{"pairs": [{"ops": "FB", "time": 2.5}, {"ops": "FF", "time": 2}], "allowed_pairs": ["FB"]}' >pairs.json
expect "pairs that no cell holds are named" 0 '[^~]*; not used here: pairs\[1\] and allowed_pairs~.*' '' "$tool" simulate --family dualpipe --pp 2 --micro 4 --costs pairs.json
echo '{"pairs": [{"ops": "FB", "time": 2.5}], "overlap_efficiency": 0.9}' >covered.json
expect "an efficiency that pairs leave no cell for is named" 0 '[^~]*; not used here: overlap_efficiency~.*' '' "$tool" simulate --family dualpipe --pp 4 --micro 8 --costs covered.json
echo '{"bandwidth": 5}' >bandwidth.json
expect "a bandwidth without bytes is named" 0 '[^~]*; not used here: bandwidth~.*' '' "$tool" simulate --family 1f1b --pp 4 --micro 8 --costs bandwidth.json
echo '{"transfer": [1, 3, 2, 9]}' >cuts.json
expect "a transfer after the last stage is named" 0 '[^~]*; not used here: transfer\[3\]~.*' '' "$tool" simulate --family 1f1b --pp 4 --micro 8 --costs cuts.json
echo '{"memory": {"kept_by_forward": 4, "freed_by_input": 2}}' >freed.json
expect "freed bytes that no op frees are named" 0 '[^~]*; not used here: memory.freed_by_input~.*' '' "$tool" simulate --family 1f1b --pp 4 --micro 8 --forward-only --costs freed.json
echo '{"backward": 1, "backward_input": 2}' >short.json
expect "numbers are refused as they were given" 2 '' 'pipesched: short.json: costs: backward of stage 0 is 1, less than its backward_input; nearest 2~' "$tool" simulate --family zbv --pp 2 --micro 2 --costs short.json
expect "compare names what no family uses" 0 '[^~]*~not used here: overlapped~schedule.*' '' "$tool" compare --families 1f1b,zbv --pp 2 --micro 4 --overlapped 3
expect "compare names nothing that one family uses" 0 '[^~]*~schedule.*' '' "$tool" compare --families 1f1b,dualpipe --pp 2 --micro 4 --overlapped 3
