# SPDX-License-Identifier: MIT
# --noise of simulate and compare. Read by tests/tool.sh.

noise="--noise 0.05 --draws 1000 --seed 1"
expect "simulate says the noise and the makespans" 0 \
  'dualpipe: [^~]*makespan 4088\.3,[^~]*~bound: [^~]*~bubble by formula [^~]*~noise: each cell up to 5 % longer, 1000 draws, seed 1: makespan 4215\.47 on average \(\+3\.11 %\), standard deviation 7\.6, median 4215\.45, 5 % of the draws at most 4202\.66, 95 % at most 4228~~.*' '' \
  "$tool" simulate --family dualpipe --pp 8 --micro 20 --costs deepseek_v3 $noise
expect "the seed is 1" 0 '.*, 1 draw, seed 1: makespan 4214\.2 .*' '' \
  "$tool" simulate --family dualpipe --pp 8 --micro 20 --costs deepseek_v3 --noise 0.05 --draws 1
expect "no noise, no line for it" 0 '[^~]*~bound[^~]*~bubble by formula [^~]*~~.*' '' "$tool" simulate --family 1f1b --pp 2 --micro 4
expect "a share of 0" 0 '.*makespan 36 on average \(\+0\.00 %\), standard deviation 0, median 36, 5 % of the draws at most 36, 95 % at most 36~.*' '' \
  "$tool" simulate --family 1f1b --pp 4 --micro 9 --noise 0 --draws 7
expect "json" 0 '.*~ "noise": \{~  "noise": 0\.25,~  "draws": 50,~  "seed": 9,~  "mean": [0-9.]+,~  "standard_deviation": [0-9.]+,~  "percentile_5": [0-9.]+,~  "median": [0-9.]+,~  "percentile_95": [0-9.]+~ \},~ "ranks".*' '' \
  "$tool" simulate --family zbv --pp 2 --micro 4 --noise 0.25 --draws 50 --seed 9 --format json
"$tool" generate zbv --pp 2 --micro 4 -o zbv_noise.json
"$tool" simulate zbv_noise.json --noise 0.25 --draws 50 --seed 9 --format json | sed -n '/"noise"/,/}/p' >from_file
"$tool" simulate --family zbv --pp 2 --micro 4 --noise 0.25 --draws 50 --seed 9 --format json | sed -n '/"noise"/,/}/p' >from_family
check "a file and its family have the same draws" cmp -s from_file from_family
check "and there are some" [ -s from_file ]
"$tool" simulate zbv_noise.json --noise 0.25 --draws 50 --seed 10 --format json | sed -n '/"mean"/p' >other_seed
check "another seed has others" [ "$(cat other_seed)" != "$(sed -n '/"mean"/p' from_file)" ]

exactly "compare has two columns for it" 0 "8 ranks, 20 micro-batches; costs are of a rank's share, split among its stages;
  times in ms
schedule makespan    mean    95 % idle   bound gap peak copies
dualpipe   4088.3 4215.47    4228 12.2 3913.49 4.5    9      2
zbv        5269.5 5413.56 5424.92 11.7 4995.06 5.5    8      1
1f1b      6283.17 6484.56 6499.52 25.9 6283.17 0.0    8      1
makespan: last end from 0
mean, 95 %: average makespan, and the one that 95 % of the draws do not exceed;
  each cell up to 5 % longer, 1000 draws, seed 1
idle: mean over the ranks, in % of the makespan
bound: no order of such cells is shorter; gap: (makespan - bound) / bound in %
peak: activations; 1 is one micro-batch through a rank's whole share
copies: of the parameters of a rank's share, held by one rank" "" \
  "$tool" compare --pp 8 --micro 20 --costs deepseek_v3 --families dualpipe,zbv,1f1b $noise
for options in "--pp 8 --micro 20 --costs deepseek_v3" "--pp 7 --micro 15 --model gemma_h1536_s4096_v256k --families 1f1b,zbv" \
  "--pp 8 --micro 20 --forward 0.3333333 --transfer 1.234567"; do
  width=$("$tool" compare $options --noise 0.05 --draws 3 | wc -L)
  check "compare $options with noise: $width columns" [ "$width" -le 80 ]
done
"$tool" compare --pp 4 --micro 8 --families zb1p $noise --format json | sed -n '/"noise": {/,/}/p' | sed 's/^ //' >row
"$tool" simulate --family zb1p --pp 4 --micro 8 $noise --format json | sed -n '/"noise": {/,/}/p' | sed 's/,$//' >one
sed -i 's/,$//' row
check "compare's noise is simulate's" cmp -s row one

run="$tool simulate --family 1f1b --pp 2 --micro 4"
expect "negative noise" 2 '' 'pipesched: --noise takes a finite share, 0 or more, such as 0\.05; got -1, nearest 0~' $run --noise -1 --draws 5
expect "noise that is no number" 2 '' 'pipesched: --noise takes a finite share, 0 or more, such as 0\.05; got nan~' $run --noise nan --draws 5
expect "infinite noise" 2 '' 'pipesched: --noise takes a finite share, 0 or more, such as 0\.05; got inf~' $run --noise inf --draws 5
expect "noise in words" 2 '' 'pipesched: --noise takes a number such as 1\.5; got "5%"~' $run --noise 5% --draws 5
expect "noise without draws" 2 '' 'pipesched: --noise goes with --draws, a number of random steps such as 1000~' $run --noise 0.1
expect "draws without noise" 2 '' 'pipesched: --draws goes with --noise~' $run --draws 5
expect "a seed without noise" 2 '' 'pipesched: --seed goes with --noise~' $run --seed 5
expect "no draw" 2 '' 'pipesched: --draws takes 1 to 10000000; got 0, nearest 1~' $run --noise 0.1 --draws 0
expect "negative draws" 2 '' 'pipesched: --draws takes 1 to 10000000; got -3, nearest 1~' $run --noise 0.1 --draws -3
expect "too many draws" 2 '' 'pipesched: --draws takes 1 to 10000000; got 10000001, nearest 10000000~' $run --noise 0.1 --draws 10000001
expect "half a draw" 2 '' 'pipesched: --draws takes a whole number; got "1\.5"~' $run --noise 0.1 --draws 1.5
expect "a negative seed" 2 '' 'pipesched: --seed takes 0 or more; got -1, nearest 0~' $run --noise 0.1 --draws 5 --seed -1
for format in svg html trace; do
  expect "no noise in $format" 2 '' "pipesched: --noise is for --format text and json; got --format $format~" $run --noise 0.1 --draws 5 --format $format
done
expect "compare refuses the same" 2 '' 'pipesched: --noise goes with --draws, [^~]*~' "$tool" compare --pp 2 --micro 4 --noise 0.1
expect "and html" 2 '' 'pipesched: --noise is for --format text and json; got --format html~' "$tool" compare --pp 2 --micro 4 --noise 0.1 --draws 5 --format html
expect "divide has another seed and no noise" 2 '' 'pipesched: divide takes no option "--noise"; it is an option of simulate and compare~' \
  "$tool" divide --model deepseek_v3 --family 1f1b --pp 2 --micro 4 --noise 0.1
