# SPDX-License-Identifier: MIT
# divide and model. Read by tests/tool.sh.

expect "divide" 0 '1f1b: 33 layers on 8 stages, 8 ranks, 32 micro-batches~layers per stage: 5 5 4 4 4 4 4 3~layout: .*~makespan 528.75, uniform 688.04: 1.301 times as fast~at least 487.9 for any partition, gap 8.4 %; .*~    7        3 .*~' '' \
  "$tool" divide --model gemma_h1536_s4096_v256k --family 1f1b --pp 8 --micro 32
expect "divide on a V has no layout" 0 'zbv: 33 layers on 16 stages, .*~layers per stage: [0-9 ]*~makespan 486.78, .*' '' \
  "$tool" divide --model gemma_h1536_s4096_v256k --family zbv --pp 8 --micro 32
expect "divide as json" 0 '\{~  "partition": \[~.*"makespan": [0-9.]*,~  "uniform_makespan": [0-9.]*,~  "lower_bound": .*"partition_bound": .*"fits": true,.*"ranks": \[~    \{~      "busy": .*"bytes": 0.0~.*"schedule": \{~.*\}~\}~' '' \
  "$tool" divide --model deepseek_h2048_s4096_v131k --family 1f1b --pp 4 --micro 4 --evaluations 100 --format json
"$tool" model deepseek_h2048_s4096_v131k --format json -o named.json
expect "a file is what its name is" 0 'Et\*10\|t\*8\|t\*8\|t\*6L~' '' \
  "$tool" divide --model named.json --family zb1p --pp 4 --micro 16 --format layout
echo '{"time_unit": "ms", "layers": [{"kind": "fat", "count": 2, "backward": 2, "kept": 10e9, "weights": 5e9}, {"kind": "lean", "count": 6, "backward": 2, "kept": 1e9, "weights": 5e9}]}' >bytes.json
expect "memory of the ranks" 0 '.*layers per stage: 2 6~.*' '' "$tool" divide --model bytes.json --family 1f1b --pp 2 --micro 4 --memory 50GB
expect "memory in GiB" 0 '.*gap 0.0 %~~ rank .*' '' "$tool" divide --model bytes.json --family 1f1b --pp 2 --micro 4 --memory 46.57GiB
expect "memory in GiB that is too little" 0 '.*~no partition was found that fits the memory of the ranks: rank 0 has 4.9929e\+10 bytes: 0F1, its cell 1, needs 7.10052e\+07 more \(weights 1e\+10, activations 4e\+10, buffers 0\)~.*' '' \
  "$tool" divide --model bytes.json --family 1f1b --pp 2 --micro 4 --memory 46.5GiB
expect "memory that nothing fits" 0 '.*~no partition was found that fits the memory of the ranks: rank 1 has 1e\+09 bytes: .*~.*' '' \
  "$tool" divide --model bytes.json --family 1f1b --pp 2 --micro 4 --memory 1e9
for bad in 80G 0 -1 80GBx 1e999 '' .; do
  expect "memory as $bad" 2 '' 'pipesched: --memory takes bytes above 0, such as 80e9, 80GB or 74GiB; got ".*"~' \
    "$tool" divide --model bytes.json --family 1f1b --pp 2 --micro 4 "--memory=$bad"
done
expect "divide without a model" 2 '' 'pipesched: divide needs --model and --family~' "$tool" divide --family 1f1b --pp 2 --micro 4
expect "a model that is not there" 2 '' 'pipesched: gema_h1536_s4096_v256k: cannot be read \(No such file or directory\); did you mean gemma_h1536_s4096_v256k\?~' \
  "$tool" divide --model gema_h1536_s4096_v256k --family 1f1b --pp 2 --micro 4
expect "too few evaluations" 2 '' 'pipesched: --evaluations takes 1 to 1099511627776; got 0, nearest 1~' \
  "$tool" divide --model bytes.json --family 1f1b --pp 2 --micro 4 --evaluations 0
expect "a parameter that the family does not take" 2 '' 'pipesched: zbv takes no waves; got waves = 2~' \
  "$tool" divide --model bytes.json --family zbv --pp 2 --micro 4 --waves 2
expect "a layout of a V" 2 '' 'pipesched: a layout places stages .*; got a vee one~' \
  "$tool" divide --model bytes.json --family zbv --pp 2 --micro 4 --format layout
echo '{"layers": [{"kind": "embedding", "forward": 0, "backward": 0}, {"count": 4}, {"kind": "mtp", "count": 2, "forward": 2, "backward": 4}, {"kind": "head", "forward": 0, "backward": 0}]}' >mtp.json
mtp="divide --model mtp.json --family 1f1b --pp 4 --micro 8"
expect "no layout of a partition that divides the MTP layers" 0 '.*~layers per stage: 3 2 1 2~no layout: layer 6 is an m on stage 3; Megatron-LM takes all m on one stage, and stage 2 has one~makespan .*' '' "$tool" $mtp
expect "the same as json" 0 '\{~  "partition": \[~    3,~    2,~    1,~    2~  \],~  "layers": 8,~  "makespan": .*' '' "$tool" $mtp --format json
expect "the same as a layout" 2 '' 'pipesched: layout: layer 6 is an m on stage 3; Megatron-LM takes all m on one stage, and stage 2 has one~' "$tool" $mtp --format layout
expect "a layout with too few stages" 2 '' 'pipesched: layout: column 7 ends the layout after 2 stages; expected 4~' \
  "$tool" simulate --family 1f1b --pp 4 --micro 8 --model mtp.json --partition 'Et*4|L'

expect "model" 0 '8 layers; times in ms~~kind .*~fat  .*~lean .*~~all layers: 24 for a micro-batch, 4e\+10 bytes of weights~' '' "$tool" model bytes.json
expect "a model with pairs" 0 '.*~pair FB of moe with moe: 32.2525~.*' '' "$tool" model deepseek_v3
echo '{"layers": [{"forwrd": 1}]}' >wrong.json
expect "a model with a misspelled entry" 2 '' 'pipesched: wrong.json: model: unknown entry "layers\[0\].forwrd"; did you mean "forward"\? \(line 1, column 24\)~' \
  "$tool" model wrong.json

# simulate and compare with a model
gemma="--pp 4 --micro 8 --model gemma_h1536_s4096_v256k"
expect "simulate with a model" 0 '1f1b: 4 ranks, 8 micro-batches; makespan 312.64, .*; layers per stage: 8 8 8 9~.*' '' \
  "$tool" simulate --family 1f1b $gemma
expect "simulate with the best partition" 0 '1f1b: .*; makespan 276.19, .*; layers per stage: 9 9 8 7~.*' '' \
  "$tool" simulate --family 1f1b $gemma --partition best
for same in 9,9,8,7 'Et*9|t*9|t*8|t*6L' '(t*9|)*2t*8|t*6L'; do
  expect "simulate with the partition $same" 0 '1f1b: .*; makespan 276.19, .*; layers per stage: 9 9 8 7~.*' '' \
    "$tool" simulate --family 1f1b $gemma --partition "$same"
done
expect "simulate a family that searches on costs" 0 'zb_greedy: .*; makespan 264.91, .*; layers per stage: 9 9 8 7~.*' '' \
  "$tool" simulate --family zb_greedy $gemma --partition best
"$tool" generate zbv --pp 4 --micro 8 -o zbv4.json
expect "simulate a file with a model" 0 'zbv: .*; layers per stage: 8 8 7 7 7 7 7 7; times in ms; not used here: pairs\[0\] and pairs\[1\]~.*' '' "$tool" simulate zbv4.json --model deepseek_v3
for bad in 9,x 9,,9 '' foo 99999999999 BEST best,uniform unifrom; do
  expect "the partition $bad" 2 '' 'pipesched: --partition takes uniform, best, numbers of layers such as 5,4,4,3, or a layout; got ".*"~' \
    "$tool" simulate --family 1f1b $gemma "--partition=$bad"
done
expect "too few stages" 2 '' 'pipesched: a partition of 2 stages; expected 4~' "$tool" simulate --family 1f1b $gemma --partition 17,16
expect "too many layers" 2 '' 'pipesched: a partition of 34 layers; the model has 33~' "$tool" simulate --family 1f1b $gemma --partition 9,9,8,8
expect "a partition without a model" 2 '' 'pipesched: --partition goes with --model~' "$tool" simulate --family 1f1b --pp 4 --micro 8 --partition best
expect "a model and costs" 2 '' 'pipesched: --model takes the place of costs; expected one of them~' "$tool" simulate --family 1f1b $gemma --forward 2
expect "compare with a model" 0 '4 ranks, 8 micro-batches; 33 layers, each family with the best partition found~schedule +makespan +uniform .*~zbv .*~1f1b +276[.0-9]* +31[0-9.]* .*~uniform: makespan with as many layers on every stage~.*' '' \
  "$tool" compare $gemma --families 1f1b,zbv
expect "compare with a model as json" 0 '\[~.*"uniform_makespan": 31[0-9.]*,~  "partition": \[~   9,~   9,~   8,~   7~  \],~  "partitions_lower_bound": .*' '' \
  "$tool" compare $gemma --families 1f1b --format json

# The partition is the best one for what runs: recomputed, frozen, in the memory that there is.
echo '{"time_unit": "ms", "layers": [{"kind": "fat", "count": 2, "backward": 2, "kept": 10e9, "kept_input": 1e9, "weights": 5e9}, {"kind": "lean", "count": 6, "backward": 2, "kept": 1e9, "kept_input": 1e8, "weights": 5e9}]}' >again.json
echo '{"memory": {"kept_by_forward": 10, "weights": 80}}' >kept10.json
again="--pp 2 --micro 4 --model again.json"
expect "the best partition in a memory" 0 '1f1b: .*; layers per stage: 2 6; .*~every rank fits into its memory~.*' '' \
  "$tool" simulate --family 1f1b $again --partition best --memory 50GB
expect "the best partition in a memory, recomputed" 0 '1f1b: .*; layers per stage: 4 4; .*~every rank fits into its memory~.*' '' \
  "$tool" simulate --family 1f1b $again --partition best --memory 50GB --recompute all
# Frozen layers stay on frozen stages: 4 of 8 there, as in the uniform partition.
expect "the best partition of frozen stages" 0 '1f1b: .*makespan 52, .*; layers per stage: 4 4; .*' '' \
  "$tool" simulate --family 1f1b $again --partition best --freeze 0
expect "the best partition with R in stalls" 0 '1f1b: .*makespan 76, .*; layers per stage: 4 4; .*' '' \
  "$tool" simulate --family 1f1b $again --partition best --recompute all --place-recompute
"$tool" generate 1f1b --pp 2 --micro 4 -o again_order.json
expect "the same for a file" 0 '1f1b: .*makespan 52, .*; layers per stage: 4 4; .*' '' \
  "$tool" simulate again_order.json --model again.json --partition best --freeze 0
expect "divide what is recomputed" 0 '.*~layers per stage: 4 4~.*~makespan 76 ms, uniform 76 ms: 1.000 times as fast~at least 76 for any partition, gap 0.0 %; .*' '' \
  "$tool" divide --family 1f1b $again --memory 45GB --recompute all
expect "divide where uniform does not fit" 0 '.*~makespan 78 ms; the uniform partition does not fit the memory of the ranks, and would take 60 ms~.*' '' \
  "$tool" divide --family 1f1b $again --memory 50GB
expect "no layout of a partition that does not fit" 2 '' 'pipesched: no partition was found that fits the memory of the ranks: rank 0 has 4.5e\+10 bytes: 0F1, its cell 1, needs 5e\+09 more .*~' \
  "$tool" divide --family 1f1b $again --memory 45GB --format layout
expect "one stage of two" 2 '' 'pipesched: a partition of 1 stage; expected 2~' "$tool" simulate --family 1f1b $again --partition 8
expect "the same as json" 0 '.*"fits": true,~  "uniform_fits": false,~.*' '' "$tool" divide --family 1f1b $again --memory 50GB --format json
expect "compare in a memory" 0 '.*~1f1b +69 +no fit .*~no fit: that partition does not fit the memory of the ranks~.*~left out: gpipe: no partition was found that fits: rank 0 has 6e\+10 bytes: 0F2,~  its cell 2, needs 1e\+10 more .*' '' \
  "$tool" compare $again --memory 60GB --families 1f1b,gpipe
expect "compare frozen stages" 0 '.*~1f1b +52 +52 .*' '' "$tool" compare $again --freeze 0 --families 1f1b
echo '{"layers": [{"kind": "embedding", "forward": 3, "backward": 0}, {"count": 7, "backward": 2}, {"count": 8, "backward": 2}]}' >front.json
expect "frozen layers are divided among frozen stages" 0 '.*~layers per stage: 3 6 4 3~.*' '' \
  "$tool" divide --family 1f1b --pp 4 --micro 8 --model front.json --freeze 0,1
expect "compare uniform partitions" 0 '2 ranks, 4 micro-batches; 8 layers, partition: uniform; times in ms~.*~1f1b +76 .*' '' \
  "$tool" compare $again --recompute all --partition uniform --families 1f1b
expect "compare a partition without a model" 2 '' 'pipesched: --partition goes with --model~' "$tool" compare --pp 4 --micro 8 --partition best
expect "compare with costs and a memory" 0 '.*~left out: gpipe: does not fit: rank 0 has 110 bytes: .*' '' \
  "$tool" compare --pp 2 --micro 4 --costs kept10.json --memory 110 --families 1f1b,gpipe

echo '{"layers": [{"count": 3, "forward": 0, "backward": 0}]}' >no_time.json
expect "divide layers that take no time" 0 '.*~makespan 0, uniform 0: no time in both~at least 0 for any partition, gap 0.0 %; at least 0 for this one, gap 0.0 %~.*~    0        3            0   0.0 % .*' '' \
  "$tool" divide --family 1f1b --pp 1 --micro 2 --model no_time.json

# Options and entries without an effect are refused, or named.
for command in "divide --family 1f1b" "simulate --family 1f1b" "compare --families 1f1b" plan; do
  expect "$command: memory without bytes" 2 '' 'pipesched: --memory limits bytes, and the layers of "gemma_h1536_s4096_v256k" take none; expected kept, weights or others of them~' \
    "$tool" $command $gemma --memory 80GB
done
for command in "simulate --family 1f1b" "compare --families 1f1b"; do
  expect "$command: memory without bytes in the costs" 2 '' 'pipesched: --memory limits bytes, and the costs have none; expected memory, transient or message_bytes in --costs~' \
    "$tool" $command --pp 2 --micro 4 --memory 80GB
done
echo '{"layers": [{"count": 4, "recompute": 1, "kept_input": 1, "kept": 2, "transient": {"R": 1}}], "pairs": [{"kinds": ["layer", "layer"], "ops": "FB", "time": 1}], "allowed_pairs": ["FB"],
 "links": [{"latency": 1}, {"from": 0, "to": 1}, {"from": 1, "to": 0}, {"from": 0, "to": 3}, {"from": 1, "to": 2}, {"from": 2, "to": 1}, {"from": 3, "to": 2}, {"from": 2, "to": 3}]}' >full.json
expect "entries of a model without a use" 0 '1f1b: .*; not used here: recompute, kept_input, transient.R, pairs\[0\], allowed_pairs, links\[0\] and links\[3\]~.*' '' \
  "$tool" simulate --family 1f1b --pp 4 --micro 8 --model full.json
echo '{"layers": [{"kind": "a", "count": 4}, {"kind": "b"}], "pairs": [{"kinds": ["b", "a"], "ops": "FB", "time": 1}, {"kinds": ["b", "b"], "ops": "FB", "time": 1}]}' >never.json
expect "a price of layers that never meet" 0 'dualpipe: .*; not used here: pairs\[1\]~.*' '' "$tool" simulate --family dualpipe --pp 2 --micro 4 --model never.json
expect "compare names them, too" 0 '.*~not used here: recompute, kept_input, transient.R, .*' '' "$tool" compare --pp 4 --micro 8 --model full.json --families 1f1b,zb1p
expect "a link of a rank that is not there" 2 '' 'pipesched: model: links\[3\] names rank 3; expected 0 to 1, nearest 1~' \
  "$tool" simulate --family 1f1b --pp 2 --micro 8 --model full.json
expect "a bandwidth of nothing" 2 '' 'pipesched: zero.json: model: links\[0\].bandwidth is 0; expected more than 0 \(line 1, column 42\)~' \
  bash -c "echo '{\"layers\": [{}], \"links\": [{\"bandwidth\": 0}]}' >zero.json; '$tool' model zero.json"
expect "divide names entries without a use" 0 '.*~layout: .*~not used here: recompute, kept_input, transient.R, pairs\[0\], allowed_pairs, links\[0\] and links\[3\]~makespan .*' '' \
  "$tool" divide --family 1f1b --pp 4 --micro 8 --model full.json
expect "divide names them beside a layout, too" 0 'Et\|t\|t\|tL~' 'pipesched: not used here: recompute, .*~' \
  "$tool" divide --family 1f1b --pp 4 --micro 8 --model full.json --format layout
expect "and in json" 0 '.*"evaluations": [0-9]*,~  "not_used": \[~    "recompute",~.*' '' "$tool" divide --family 1f1b --pp 4 --micro 8 --model full.json --format json
echo '{"layers": [{"count": 4, "forward": 1, "backward_input": 1, "backward_weight": 1, "kept": 5, "context": 3, "transient": {"B": 1, "I": 2, "W": 2}, "message": 8}]}' >halves.json
expect "halves of a backward that no cell has" 0 '1f1b: .*; not used here: context, transient.I and transient.W~.*' '' \
  "$tool" simulate --family 1f1b --pp 2 --micro 4 --model halves.json
expect "whole backwards that no cell has" 0 'gpipe: .*; not used here: context, transient.I, transient.W and message~.*' '' \
  "$tool" simulate --family gpipe --pp 1 --micro 4 --model halves.json
expect "a step without backwards" 0 '1f1b: .*; not used here: backward_input, backward_weight, context, transient.B, transient.I and transient.W~.*' '' \
  "$tool" simulate --family 1f1b --pp 2 --micro 4 --forward-only --model halves.json
plan="plan --pp 4 --micro 8 --model full.json --evaluations 200"
expect "plan names entries without a use" 0 'linear placement, .*; 4 layers; not used here: recompute, kept_input, transient.R, links\[0\] and links\[3\]~.*' '' "$tool" $plan
expect "plan with pairs of its own" 0 'linear placement, .*; not used here: .*, links\[0\], links\[3\], pairs\[0\] and allowed_pairs~.*' '' "$tool" $plan --pairs none
expect "plan that may recompute" 0 'linear placement, .*; not used here: links\[0\] and links\[3\]~.*' '' "$tool" $plan --may-recompute
expect "plan as json names them, too" 0 '.*"not_used": \[~    "recompute",~.*' '' "$tool" $plan --format json
expect "plan as svg" 0 '<svg .*' 'pipesched: not used here: recompute, .*~' "$tool" $plan --format svg
expect "plan as a page" 0 '.*not used here: recompute, .*' '' "$tool" $plan --format html
expect "plan without backwards" 0 'linear placement, .*forward only; 4 layers; not used here: backward_input, backward_weight, context, transient.B, transient.I and transient.W~.*' '' \
  "$tool" plan --pp 2 --micro 4 --forward-only --model halves.json --evaluations 200
expect "a model is shown with all that it gives" 0 '.*~layer: R 1, kept_input 1, transient R 1~allowed pairs: FB~other links: latency 1, bandwidth infinite, busy none~link 0 to 1: .*' '' "$tool" model full.json
echo '{"layers": [{}], "ranks": [{"memory": 8e10}, {"speed": 0.5}], "micro_batches": [1, 0.5]}' >machine.json
expect "and with its machine" 0 '.*~rank 0: speed 1, 8e\+10 bytes~rank 1: speed 0.5, no limit of memory~lengths of 2 micro-batches: 0.5 to 1~' '' "$tool" model machine.json
echo '{"layers": [{}], "micro_batches": [1, 0.5]}' >lengths.json
for command in divide simulate "compare --partition uniform --families 1f1b" "simulate --partition best"; do
  [[ $command == compare* ]] && family= || family="--family 1f1b"
  expect "$command: lengths of other micro-batches" 2 '' 'pipesched: model: micro_batches has 2 numbers; expected 3, one per micro-batch~' \
    "$tool" $command $family --pp 2 --micro 3 --model lengths.json
done
expect "compare with a model and costs" 2 '' 'pipesched: --model takes the place of costs; expected one of them~' "$tool" compare $gemma --costs deepseek_v3

check "random models: makespan, peaks and bound as by a slow twin" python3 "$sections/models.py" "$tool" 80 15
