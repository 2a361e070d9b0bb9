# SPDX-License-Identifier: MIT
# divide and model. Read by tests/tool.sh.

expect "divide" 0 '1f1b: 33 layers on 8 stages, 8 ranks, 32 micro-batches~layers per stage: 5 5 4 4 4 4 4 3~layout: .*~makespan 528.75, uniform 688.04: 1.301 times as fast~at least 487.9 for any partition, gap 8.4 %; .*~    7        3 .*~' '' \
  "$tool" divide --model gemma_h1536_s4096_v256k --family 1f1b --pp 8 --micro 32
expect "divide on a V has no layout" 0 'zbv: 33 layers on 16 stages, .*~layers per stage: [0-9 ]*~makespan 486.78, .*' '' \
  "$tool" divide --model gemma_h1536_s4096_v256k --family zbv --pp 8 --micro 32
expect "divide as json" 0 '\{~  "partition": \[~.*"makespan": [0-9.]*,~  "uniform_makespan": [0-9.]*,~  "lower_bound": .*"partition_bound": .*"fits": true,.*"ranks": \[~    \{~      "busy": .*"bytes": 0.0~.*\]~\}~' '' \
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
expect "too few evaluations" 2 '' 'pipesched: --evaluations takes 1 or more; got 0, nearest 1~' \
  "$tool" divide --model bytes.json --family 1f1b --pp 2 --micro 4 --evaluations 0
expect "a parameter that the family does not take" 2 '' 'pipesched: zbv takes no waves; got waves = 2~' \
  "$tool" divide --model bytes.json --family zbv --pp 2 --micro 4 --waves 2
expect "a layout of a V" 2 '' 'pipesched: a layout places stages .*; got a vee one~' \
  "$tool" divide --model bytes.json --family zbv --pp 2 --micro 4 --format layout
echo '{"layers": [{"kind": "embedding", "forward": 0, "backward": 0}, {"count": 4}, {"kind": "mtp", "count": 2, "forward": 2, "backward": 4}, {"kind": "head", "forward": 0, "backward": 0}]}' >mtp.json
mtp="divide --model mtp.json --family 1f1b --pp 4 --micro 8"
expect "no layout of a partition that divides the MTP layers" 0 '.*~layers per stage: 3 2 1 2~no layout: layer 6 is an m on stage 3; Megatron-LM takes all m on one stage, and stage 2 has one~makespan .*' '' "$tool" $mtp
expect "the same as json" 0 '\{~  "partition": \[~    3,~    2,~    1,~    2~  \],~  "makespan": .*' '' "$tool" $mtp --format json
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
expect "simulate a file with a model" 0 'zbv: .*; layers per stage: 8 8 7 7 7 7 7 7; ms~.*' '' "$tool" simulate zbv4.json --model deepseek_v3
for bad in 9,x 9,,9 '' foo 99999999999; do
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
expect "compare with a model and costs" 2 '' 'pipesched: --model takes the place of costs; expected one of them~' "$tool" compare $gemma --costs deepseek_v3
