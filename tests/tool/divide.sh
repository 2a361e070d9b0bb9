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
expect "memory in GiB that is too little" 0 '.*~no partition was found that fits the memory of the ranks~.*' '' \
  "$tool" divide --model bytes.json --family 1f1b --pp 2 --micro 4 --memory 46.5GiB
expect "memory that nothing fits" 0 '.*~no partition was found that fits the memory of the ranks~.*' '' \
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
expect "model" 0 '8 layers; times in ms~~kind .*~fat  .*~lean .*~~all layers: 24 for a micro-batch, 4e\+10 bytes of weights~' '' "$tool" model bytes.json
expect "a model with pairs" 0 '.*~pair FB of moe with moe: 32.2525~.*' '' "$tool" model deepseek_v3
echo '{"layers": [{"forwrd": 1}]}' >wrong.json
expect "a model with a misspelled entry" 2 '' 'pipesched: wrong.json: model: unknown entry "layers\[0\].forwrd"; did you mean "forward"\? \(line 1, column 24\)~' \
  "$tool" model wrong.json
