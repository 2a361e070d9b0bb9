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
expect "first-whole alone" 2 '' 'pipesched: --first-whole goes with --recompute~' "$tool" generate 1f1b --pp 2 --micro 4 --first-whole 2
expect "two places for a recomputation" 2 '' 'pipesched: --place-recompute moves ops that --recompute-inside does not make; .*' \
  "$tool" generate 1f1b --pp 2 --micro 4 --recompute all --place-recompute --recompute-inside
expect "freeze all" 2 '' 'pipesched: freeze\(\) leaves at least one stage to train; .*' "$tool" generate 1f1b --pp 2 --micro 4 --freeze 0,1
expect "tied to itself" 2 '' 'pipesched: a stage is in at most one group of tied stages, once; got stage 1 again~' "$tool" lower zbv4.json --tied 1,1
expect "tied with csv" 2 '' 'pipesched: --tied goes with --format json; got --format csv~' "$tool" lower zbv4.json --tied 0,1 --format csv
expect "a memory of nothing" 2 '' 'pipesched: --memory takes bytes above 0, .*' "$tool" simulate $some --memory 0
