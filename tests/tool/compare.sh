# SPDX-License-Identifier: MIT
# The command compare. Read by tests/tool.sh.

exactly "the whole text" 0 "8 ranks, 20 micro-batches; costs are of a rank's share, split among its stages
schedule  makespan span idle bubble formula bound gap peak copies
zbv           63.5   60  5.5    5.5          63.5 0.0    8      1
dualpipe        66   66  9.1    9.1    9.1     63 4.8    9      2
zb1p            67   67 10.4   10.4   10.4     67 0.0    8      1
dualpipev       67   67 10.4   10.4   10.4   63.5 5.5  8.5      1
makespan: last end from 0; span: longest from first start to last end of a rank
idle: mean over the ranks; idle, bubble and formula in % of the makespan
bubble: idle time of the rank that idles longest; formula: as published
bound: no order of such cells is shorter; gap: (makespan - bound) / bound in %
peak: activations; 1 is one micro-batch through a rank's whole share
copies: of the parameters of a rank's share, held by one rank" "" "$tool" compare --pp 8 --micro 20 --families zb1p,dualpipe,zbv,dualpipev

# A row has simulate's numbers: the entries of both JSON texts are the same.
echo '{"forward": 1.3, "backward_input": 1.1, "backward_weight": 0.6, "transfer": 0.07, "memory": {"kept_by_forward": 5e9, "weights": 3e9}}' >row.json
for costs in "" "--costs deepseek_v3" "--forward 3 --backward 5 --overlapped 7" "--costs row.json"; do
  "$tool" compare --pp 4 --micro 9 $costs --format json >all.json
  for family in $("$tool" list | cut -d' ' -f1); do
    "$tool" simulate --family $family --pp 4 --micro 9 $costs --format json | sed -E '1d; /^ "ranks": \[/,$d; s/^/ /; s/,$//' >one
    sed -nE "/^  \"name\": \"$family\",/,/^ \}/p" all.json | sed -E '$d; s/,$//' >row
    check "$family $costs: compare's row is simulate's" cmp -s one row
    check "$family $costs: compare's row is there" [ -s row ]
  done
done

# Text: 80 columns, no empty column.
echo '{"forward": 1.23456e12, "transfer": 12345.678, "memory": {"kept_by_forward": 1234567890, "weights": 12e9}}' >long.json
while read -r options; do
  width=$("$tool" compare $options 2>/dev/null | wc -L)
  check "compare $options: $width columns" [ "$width" -le 80 ]
done <<'LIST'
--pp 8 --micro 20
--pp 7 --micro 20
--pp 8 --micro 20 --costs deepseek_v3
--pp 8 --micro 20 --costs row.json --chunks 3 --memory-limit 5.25 --waves 2
--pp 8 --micro 20 --costs long.json
--pp 64 --micro 20 --forward 1.234567e100 --backward-input 1.123456e-100
--pp 2 --micro 2 --forward 0.333333333 --transfer 0.333333333
--pp 1024 --micro 200000 --families zbv,gpipe,1f1b,zb1p,v_min,zbv_greedy,dualpipe
LIST
expect "no memory, no columns for it" 0 '[^~]*~schedule makespan span idle bubble formula bound gap peak~.*' '' "$tool" compare --pp 2 --micro 4 --families 1f1b
echo '{"memory": {"kept_by_forward": 2.5e9, "weights": 12e9}}' >memory.json
expect "memory has columns" 0 '[^~]*~schedule makespan span bubble formula bound gap peak bytes weights~1f1b [^~]* 2    5G     12G~.*' '' \
  "$tool" compare --pp 2 --micro 4 --families 1f1b --costs memory.json

# Families that are left out are named in every format, and do not end the command.
odd="dualpipe needs an even number of pipeline ranks; got pp = 3, nearest 2 or 4"
expect "left out, text" 0 '.*~zbv .*~left out: dualpipe needs an even number of pipeline ranks; got pp = 3, nearest 2~  or 4~' '' \
  "$tool" compare --pp 3 --micro 4 --families dualpipe,zbv
exactly "left out, JSON" 0 " {
  \"name\": \"dualpipe\",
  \"left_out\": \"$odd\"
 }
]" "" bash -c "'$tool' compare --pp 3 --micro 4 --families dualpipe,zbv --format json | tail -n 5"
expect "left out, HTML" 0 ".*<li>left out: $odd</li>.*" '' "$tool" compare --pp 3 --micro 4 --families dualpipe,zbv --format html
refused "$odd" compare --pp 3 --micro 4 --families dualpipe
refused "no family can be compared: $odd (and 1 more)" compare --pp 3 --micro 4 --families dualpipe,chimera
echo '{"forward": [1, 2]}' >two.json
expect "left out for its costs" 0 '.*left out: zb_greedy: two.json: costs: forward has 2 numbers; expected 1, for 1~  stage~' '' \
  "$tool" compare --pp 1 --micro 2 --costs two.json --families zbv,zb_greedy
refused '--families names zbv twice; expected once' compare --pp 2 --micro 2 --families zbv,1f1b,zbv
refused '--families takes names with commas between them; got ""' compare --pp 2 --micro 2 --families ""
refused '--families takes names with commas between them; got "zbv,"' compare --pp 2 --micro 2 --families zbv,
refused 'no schedule is called "zb-v"; did you mean zbv?' compare --pp 2 --micro 2 --families zb-v

# Parameters that only some families take
expect "the families that took a parameter, text" 0 '[^~]*~--chunks 3: for interleaved_1f1b~--waves 2: for hanayo~schedule.*' '' \
  "$tool" compare --pp 2 --micro 4 --families 1f1b,hanayo,interleaved_1f1b --chunks 3 --waves 2
expect "the families that took a parameter, JSON" 0 '.*"name": "interleaved_1f1b",~[^{]*"stages": 6,.*"parameters": \{~ +"chunks": 3~ +\}~ \}~\]~' '' \
  "$tool" compare --pp 2 --micro 4 --families interleaved_1f1b --chunks 3 --format json
expect "the families that took a parameter, HTML" 0 '.*<li>--chunks 3: for interleaved_1f1b</li>.*' '' \
  "$tool" compare --pp 2 --micro 4 --families interleaved_1f1b,1f1b --chunks 3 --format html
refused 'no compared family takes --chunks; expected interleaved_1f1b, group_interleaved, looped_bfs or interleaved_zb in --families' \
  compare --pp 2 --micro 4 --families 1f1b --chunks 3
refused 'no compared family takes --overlap; expected interleaved_1f1b in --families' compare --pp 2 --micro 4 --families 1f1b --overlap

# Memory
expect "too large: every family with its estimate, or its limit" 2 \
  '1024 ranks, 200000 micro-batches; [^~]*~[^~]*~left out: gpipe needs about [0-9.]+ GiB of memory for 1024 stages and 200000~  micro-batches; the limit is 2 GiB \(--max-memory\)~.*left out: hanayo needs stages x micro-batches of at most 2\^28;.*' \
  'pipesched: no family can be compared: gpipe needs about [0-9.]+ GiB [^~]* \(and 20 more\)~' "$tool" compare --pp 1024 --micro 200000
expect "too large, as JSON" 2 '\[~ \{~  "name": "gpipe",~  "left_out": "gpipe needs about [^"]*"~ \},.*\]~' 'pipesched: [^~]*~' \
  "$tool" compare --pp 1024 --micro 200000 --format json
expect "a family that is too large leaves the others" 0 '.*~gpipe .*~left out: zbv needs about 66.8 MiB of memory for 500 stages and 1000~  micro-batches; the limit is 51.2 MiB \(--max-memory\)~' '' \
  "$tool" compare --pp 250 --micro 1000 --families gpipe,zbv --max-memory 0.05
expect "generate, too large" 2 '' 'pipesched: gpipe needs about 27.5 GiB of memory for 65536 stages and 4096 micro-batches; the limit is 1 GiB \(--max-memory\)~' \
  "$tool" generate gpipe --pp 65536 --micro 4096 --max-memory 1
expect "simulate, too large" 2 '' 'pipesched: zbv needs about [0-9.]+ GiB of memory for 4096 stages and 4096 micro-batches; the limit is 1 GiB \(--max-memory\)~' \
  "$tool" simulate --family zbv --pp 2048 --micro 4096 --max-memory 1
if ! bash -c "ulimit -v 500000 && '$tool' --version" >/dev/null 2>&1; then
  echo "skipped: the limit of a shell (this build of the tool cannot start under one: address sanitizer)"
else
  expect "the limit of a shell counts" 2 '' 'pipesched: gpipe needs about [0-9.]+ GiB [^~]*the limit is [0-9.]+ MiB \(--max-memory\)~' \
    bash -c "ulimit -v 500000 && '$tool' generate gpipe --pp 1024 --micro 20000 -o /dev/null"
fi

# The family in progress, where standard error is a terminal
if script -qec true /dev/null </dev/null >/dev/null 2>&1; then
  script -qec "'$tool' compare --pp 2 --micro 2 --families 1f1b,zbv >/dev/null" /dev/null </dev/null >shown 2>&1
  check "the family in progress" grep -q $'\r\x1b\\[Kzbv (2 of 2)\r\x1b\\[K' shown
else
  echo "skipped: the family in progress (no pseudo terminal: script, /dev/pts)"
fi
