# SPDX-License-Identifier: MIT
# Recomputation, frozen and tied stages, memory. Read by tests/tool.sh.

expect "recompute all" 0 '.*~rank 0: 0F0 0F1 0R0 0B0 0F2 0R1 0B1 0R2 0B2~rank 1: 1F0 1R0 1B0 1F1 1R1 1B1 1F2 1R2 1B2~' '' \
  "$tool" generate 1f1b --pp 2 --micro 3 --recompute all --format text
expect "recompute inside of the backward" 0 '.*~rank 0: 0F0 0F1 0RB0 0F2 0RB1 0RB2~rank 1: 1F0 1B0 1F1 1B1 1F2 1B2~' '' \
  "$tool" generate 1f1b --pp 2 --micro 3 --recompute 0 --recompute-inside --format text
expect "recompute some" 0 '.*~rank 0: 0F0 0B0 0F1 0B1 0F2 0B2 0F3 0R3 0B3~' '' \
  "$tool" generate 1f1b --pp 1 --micro 4 --recompute 1/2 --first-whole 3 --format text
expect "freeze" 0 '\{"format": "pipesched.schedule", "version": 2, .*, "backward": \["none","full","input"\],~.*\["2F0","2I0","2F1","2I1"\]~ \]\}~' '' \
  "$tool" generate 1f1b --pp 3 --micro 2 --freeze 0,2
"$tool" generate zbv --pp 2 --micro 4 --freeze 0 --recompute 1,3 --place-recompute -o variant.json
expect "a variant is verified" 0 'valid: zbv, 2 ranks, 4 stages, 4 micro-batches~' '' "$tool" verify variant.json
expect "a variant is converted" 0 '\{"format": "pipesched.schedule", "version": 2, .*' '' "$tool" convert variant.json -
expect "a variant is lowered" 0 '.*"kept_inputs":[1-9].*"kept_input":0.*' '' "$tool" lower variant.json
"$tool" generate 1f1b --pp 2 --micro 4 --recompute all -o recompute.json
expect "PyTorch has no R" 2 '' 'pipesched: PyTorch has no action that recomputes, the module does so itself; got 0R0 on rank 0; keep_activations\(\) drops it~' \
  "$tool" convert recompute.json plan.csv
"$tool" generate 1f1b --pp 2 --micro 4 --freeze 0 -o frozen.json
expect "PyTorch freezes nothing" 2 '' "pipesched: PyTorch's CSV has a whole backward for every stage; here some are frozen~" \
  "$tool" convert frozen.json plan.csv
echo '{"backward": 2, "memory": {"kept_by_forward": 10, "kept_input": 1, "weights": 100}, "message_bytes": 3}' >kept.json
some="--family 1f1b --pp 4 --micro 8 --costs kept.json --recompute 2/4"
expect "simulate with recomputation" 0 '.*    0           28            9           37      3        0.0 %          100           31           24          155~.*~critical path: .*' '' \
  "$tool" simulate $some
expect "memory that is enough" 0 '.*~every rank fits into its memory~.*' '' "$tool" simulate $some --memory 178
expect "memory that is not" 0 '.*~rank 1 has 177 bytes: 1F2, its cell 2, needs 1 more \(weights 100, activations 30, buffers 48\)~.*' '' \
  "$tool" simulate $some --memory 177B
expect "memory as json" 0 '.*"memory": \{~    "weights": 100.0,~    "activations": 31.0,~    "buffers": 24.0,~    "total": 155.0,~    "limit": 178.0,~    "fits": true~.*' '' \
  "$tool" simulate $some --memory 178 --format json
expect "tied stages" 0 '.*\{"send":"weights 2","channel":.*\{"reduce":2,"with":0,"channel":.*' '' \
  "$tool" lower zbv4.json --tied 0,1,2/3,7
for bad in x 0/1/2/3 0,,1 ''; do
  expect "recompute $bad" 2 '' 'pipesched: --recompute takes .*~' "$tool" generate 1f1b --pp 2 --micro 4 "--recompute=$bad"
done
expect "recompute a stage that is not there" 2 '' 'pipesched: recompute\(\) takes stages 0 to 1; got 2, nearest 1~' \
  "$tool" generate 1f1b --pp 2 --micro 4 --recompute 2
expect "recompute 3 of 2" 2 '' 'pipesched: recompute\(\) takes a count of 0 to 2, of_every; got 3, nearest 2~' \
  "$tool" generate 1f1b --pp 2 --micro 4 --recompute 3/2
expect "recompute 0 of 4" 2 '' 'pipesched: --recompute takes 1 to 4 of every 4 micro-batches; got 0, nearest 1/4~' \
  "$tool" generate 1f1b --pp 2 --micro 4 --recompute 0/4
expect "recompute nothing, as all are whole" 2 '' 'pipesched: --recompute all changes nothing: --first-whole 4 keeps all 4 micro-batches whole, nearest 3~' \
  "$tool" generate 1f1b --pp 2 --micro 4 --recompute all --first-whole 4
expect "recompute nothing of a few" 2 '' 'pipesched: --recompute 1/8 changes nothing: of every 8 micro-batches the first 7 are kept whole, and there are 4~' \
  "$tool" simulate --family 1f1b --pp 2 --micro 4 --recompute 1/8
expect "recompute nothing without backwards" 2 '' 'pipesched: --recompute all changes nothing: the step is forward only~' \
  "$tool" simulate --family 1f1b --pp 2 --micro 4 --forward-only --recompute all
expect "recompute nothing of a frozen stage" 2 '' 'pipesched: --recompute 0 changes nothing: these stages and micro-batches have no backward, or recompute already~' \
  "$tool" simulate --family 1f1b --pp 2 --micro 4 --freeze 0 --recompute 0
expect "recompute twice" 2 '' 'pipesched: --recompute all changes nothing: .*, or recompute already~' "$tool" simulate recompute.json --recompute all
expect "compare leaves out what recomputes nothing" 2 '' 'pipesched: --recompute all changes nothing: the step is forward only~' \
  "$tool" compare --pp 2 --micro 4 --families 1f1b --forward-only --recompute all
expect "a stage named twice" 2 '' 'pipesched: --recompute names stage 1 twice; expected once~' "$tool" generate 1f1b --pp 2 --micro 4 --recompute 1,0,1
expect "a stage frozen twice" 2 '' 'pipesched: --freeze names stage 0 twice; expected once~' "$tool" generate 1f1b --pp 2 --micro 4 --freeze 0,0
expect "a stage that is frozen" 2 '' 'pipesched: --freeze 0 changes nothing: these stages are frozen~' "$tool" simulate frozen.json --freeze 0
echo '{"recompute": 2, "transient": {"R": 3}, "memory": {"kept_by_forward": 2, "kept_input": 1}, "links": [{"from": 0, "to": 3, "latency": 1}, {"from": 0, "to": 1, "latency": 1}], "pairs": [{"ops": "FB", "time": 1}]}' >unused.json
expect "costs of recomputation without a use" 0 '1f1b: .*; not used here: recompute, memory.kept_input, transient.R, pairs\[0\] and links\[0\]~.*' '' \
  "$tool" simulate --family 1f1b --pp 4 --micro 4 --costs unused.json
expect "their use" 0 '1f1b: .*; not used here: pairs\[0\] and links\[0\]~.*' '' "$tool" simulate --family 1f1b --pp 4 --micro 4 --costs unused.json --recompute all
expect "a speed of nothing" 2 '' 'pipesched: slow.json: costs: rank_speeds\[1\] is 0; expected more than 0 \(line 1, column 21\)~' \
  bash -c "echo '{\"rank_speeds\": [1, 0]}' >slow.json; '$tool' simulate --family 1f1b --pp 2 --micro 4 --costs slow.json"
expect "first-whole alone" 2 '' 'pipesched: --first-whole goes with --recompute~' "$tool" generate 1f1b --pp 2 --micro 4 --first-whole 2
expect "two places for a recomputation" 2 '' 'pipesched: --place-recompute moves ops that --recompute-inside does not make; .*' \
  "$tool" generate 1f1b --pp 2 --micro 4 --recompute all --place-recompute --recompute-inside
expect "freeze all" 2 '' 'pipesched: freeze\(\) leaves at least one stage to train; .*' "$tool" generate 1f1b --pp 2 --micro 4 --freeze 0,1
for bad in '' 0, ,3 0,1/; do
  expect "tied \"$bad\"" 2 '' 'pipesched: --tied takes whole numbers such as 0,3; got ".*"~' "$tool" lower zbv4.json "--tied=$bad"
done
"$tool" generate zbv --pp 4 --micro 8 --forward-only -o evaluation.json
expect "tied without gradients" 2 '' 'pipesched: --tied 0,3 changes nothing: the step is forward only, without gradients~' "$tool" lower evaluation.json --tied 0,3
expect "tied to itself" 2 '' 'pipesched: a stage is in at most one group of tied stages, once; got stage 1 again~' "$tool" lower zbv4.json --tied 1,1
expect "tied with csv" 2 '' 'pipesched: --tied goes with --format json; got --format csv~' "$tool" lower zbv4.json --tied 0,1 --format csv
expect "a memory of nothing" 2 '' 'pipesched: --memory takes bytes above 0, .*' "$tool" simulate $some --memory 0
