# SPDX-License-Identifier: MIT
# Files, formats and suffixes. Read by tests/tool.sh.

# Missing, a folder, no permission: three sentences.
cp 1f1b.json plan.json
refused 'plam.json: cannot be read (No such file or directory); did you mean plan.json?' verify plam.json
mkdir -p folder && cp 1f1b.json folder/forward.json
refused 'folder/foward.json: cannot be read (No such file or directory); did you mean folder/forward.json?' verify folder/foward.json
refused 'folder: cannot be read (Is a directory)' simulate folder
refused 'deepseek-v3: cannot be read (No such file or directory); did you mean deepseek_v3?' compare --pp 2 --micro 2 --costs deepseek-v3
refused 'DeepSeek_V3: cannot be read (No such file or directory); did you mean deepseek_v3?' simulate plan.json --costs DeepSeek_V3
refused '--costs takes a file, or deepseek_v3; got ""' simulate plan.json --costs ""
refused '--output takes the name of a file, or -; got ""' generate 1f1b --pp 2 --micro 2 -o ""
refused 'convert takes the name of a file to write, or -; got ""' convert plan.json ""
refused '"": cannot be read (No such file or directory)' verify ""
refused 'dualpipe: cannot be read (No such file or directory); the family goes with --family, as in simulate --family dualpipe' simulate dualpipe --pp 8
refused 'dualpipe: cannot be read (No such file or directory); the family goes with --family, as in simulate --family dualpipe' verify dualpipe
refused 'zbv: cannot be read (No such file or directory); the family goes with --family, as in simulate --family zbv' export zbv --pp 4 --micro 8 --for jaxpp
refused 'mymodel: cannot be read (No such file or directory); by name: deepseek_v3, gemma_h1536_s4096_v256k, deepseek_h2048_s4096_v131k' \
  compare --pp 4 --micro 8 --model mymodel
chmod 755 . && cp plan.json secret.json && chmod 000 secret.json
as_nobody=()
[ "$(id -u)" -ne 0 ] || as_nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
cp "$tool" ./pipesched && chmod 755 pipesched
if "${as_nobody[@]}" true 2>/dev/null; then
  exactly "no permission to read" 2 "" "pipesched: secret.json: cannot be read (Permission denied)" "${as_nobody[@]}" ./pipesched verify secret.json
fi
exactly "a line break in a name" 2 "" "pipesched: a?b: cannot be read (No such file or directory)" "$tool" verify $'a\nb'

# The suffix chooses the format, and never holds another one.
for file in plan_of.json plan_of.csv plan_of.txt; do
  exactly "generate -o $file" 0 "" "" "$tool" generate dualpipev --pp 2 --micro 4 -o $file
done
check "generate -o x.json is JSON" grep -q '^{"format": "pipesched.schedule"' plan_of.json
check "generate -o x.csv is CSV" grep -q '^0F0,' plan_of.csv
check "generate -o x.txt is text" grep -q '^dualpipev: 2 ranks' plan_of.txt
exactly "a grid in .txt" 0 "" "" "$tool" generate dualpipev --pp 2 --micro 4 --format grid -o grid.txt
check "a grid in .txt" grep -q '^time ' grid.txt
for file in s.json s.svg s.html s.HTM s.trace.json s.txt; do
  exactly "simulate -o $file" 0 "" "" "$tool" simulate plan_of.json -o $file
done
check "simulate -o x.json is the numbers" grep -q '^ "makespan": ' s.json
check "simulate -o x.svg is SVG" grep -q '^<svg ' s.svg
check "simulate -o x.html is HTML" grep -q '^<!doctype html>' s.html
check "simulate -o x.HTM is HTML" grep -q '^<!doctype html>' s.HTM
check "simulate -o x.trace.json is a trace" grep -q '"traceEvents"' s.trace.json
check "simulate -o x.txt is text" grep -q '^critical path:' s.txt
exactly "a trace in .json, asked for" 0 "" "" "$tool" simulate plan_of.json --format trace -o t.json
check "a trace in .json, asked for" grep -q '"traceEvents"' t.json
for family_page in c.html c.json c.txt; do
  exactly "compare -o $family_page" 0 "" "" "$tool" compare --pp 2 --micro 2 --families 1f1b,zbv -o $family_page
done
check "compare -o x.html is HTML" grep -q '^<!doctype html>' c.html
check "compare -o x.json is JSON" [ "$(head -c 1 c.json)" = '[' ]
check "compare -o x.txt is text" grep -q '^schedule ' c.txt

refused 'generate writes json (.json), csv (.csv), text (.txt) or grid (.txt); got a file that ends in .svg' \
  generate 1f1b --pp 2 --micro 2 -o no.svg
refused 'simulate writes text (.txt), json (.json), svg (.svg), html (.html) or trace (.trace.json); got a file that ends in .csv' \
  simulate plan.json -o no.csv
refused 'compare writes text (.txt), json (.json) or html (.html); got a file that ends in .pdf' compare --pp 2 --micro 2 -o no.pdf
refused 'lower writes json (.json) or csv (.csv); got a file that ends in .txt' lower plan.json -o no.txt
refused 'convert writes json (.json) or csv (.csv); got a file that ends in .yaml' convert plan.json no.yaml
refused '--format csv and a file that ends in .json disagree; expected .csv' generate 1f1b --pp 2 --micro 2 --format csv -o no.json
refused '--format json and a file that ends in .svg disagree; expected .json' simulate plan.json --format json -o no.svg
refused '--format takes json, csv, text or grid; got "jsn"; did you mean json?' generate 1f1b --pp 2 --micro 2 --format jsn
refused '--format takes json or csv; got "svg"' lower plan.json --format svg
check "a refusal writes no file" bash -c '! ls no.* 2>/dev/null'
exactly "an explicit format that agrees" 0 "" "" "$tool" generate 1f1b --pp 2 --micro 2 --format csv -o agrees.csv
exactly "a name without a suffix takes the default" 0 "" "" "$tool" generate 1f1b --pp 2 --micro 2 -o ./.hidden
check "a name without a suffix takes the default" grep -q pipesched.schedule .hidden

# Schedules are read by content, from a file or a pipe, whatever the suffix.
for format in json csv; do "$tool" generate zbv --pp 2 --micro 3 --format $format >zbv.$format; done
for format in json csv; do
  cp zbv.$format zbv_$format.txt
  valid='valid: zbv, 2 ranks, 4 stages, 3 micro-batches'
  exactly "verify $format, any suffix" 0 "$valid" "" "$tool" verify zbv_$format.txt
  exactly "verify $format from a pipe" 0 "$valid" "" bash -c "'$tool' generate zbv --pp 2 --micro 3 --format $format | '$tool' verify -"
  exactly "simulate $format from a pipe" 0 "$("$tool" simulate --family zbv --pp 2 --micro 3)" "" bash -c "'$tool' simulate - <zbv_$format.txt"
  exactly "lower $format from a pipe" 0 "$("$tool" lower zbv.json)" "" bash -c "'$tool' lower - <zbv_$format.txt"
  exactly "convert $format to csv" 0 "$(cat zbv.csv)" "" "$tool" convert zbv_$format.txt - --format csv
  exactly "convert $format to json" 0 "$(cat zbv.json)" "" "$tool" convert zbv_$format.txt -
done
sed 's/"0B0"/"0B1"/' plan.json >wrong.json
exactly "convert names an invalid schedule" 0 "$("$tool" convert plan.json - --format csv | sed 's/0B0/0B1/')" \
  "pipesched: wrong.json: the schedule is not valid; pipesched verify says why" "$tool" convert wrong.json - --format csv
exactly "a converted CSV keeps its formula" 0 "$("$tool" simulate --family zb1p --pp 4 --micro 8)" "" \
  bash -c "'$tool' generate zb1p --pp 4 --micro 8 --format csv | '$tool' simulate -"
printf '0F0,0F1,0F2,0B0,0B1,0B2\r\n1F0,1B0,1F2,1B2,1F1,1B1\r\n' >own.csv
exactly "an order of no family has no family's name" 0 "valid: torch_csv, 2 ranks, 2 stages, 3 micro-batches" "" "$tool" verify own.csv
printf '"0F0","0B0"\n"1F0","1B0"\n' >in_quotes.csv
exactly "cells in quotes" 0 "valid: gpipe, 2 ranks, 2 stages, 1 micro-batch" "" "$tool" verify in_quotes.csv
printf '0F0\t,0B0\n1F0, 1B0\n' >blanks.csv
exactly "a tab beside a comma" 0 "valid: gpipe, 2 ranks, 2 stages, 1 micro-batch" "" "$tool" verify blanks.csv
exactly "an empty pipe" 2 "" 'pipesched: standard input: empty; expected a schedule as JSON, {"format": ...}, or as PyTorch'"'"'s CSV, 0F0,0F1,...' "$tool" verify -

# Messages of a CSV
"$tool" lower zbv.json -o zbv_comms.csv
actions=$(tr ',' '\n' <zbv_comms.csv | grep -cE '(SEND|RECV)_[FB]')
fsdp=$(tr ',' '\n' <zbv_comms.csv | grep -cE 'SHARD|REDUCE_GRAD')
exactly "verify looks at messages" 0 "valid: zbv, 2 ranks, 4 stages, 3 micro-batches; $actions message actions verified; $fsdp actions of FSDP not verified" "" \
  "$tool" verify zbv_comms.csv
printf '0F0,0RECV_B0,0SEND_F0,0B0\r\n1RECV_F0,1F0,1B0,1SEND_B0\r\n' >hangs.csv
expect "messages that hang" 1 'rank 0: deadlock: 0RECV_B0 \(rank 0, column 1\) waits for 1SEND_B0 .*' '' "$tool" verify hangs.csv
printf '0F0,0SEND_F0,0B0\r\n1RECV_F0,1F0,1B0,1SEND_B0\r\n' >lost.csv
expect "a message that is never received" 1 'rank [01]: missing: .*0RECV_B0.*' '' "$tool" verify lost.csv

# Layers per stage of plans: named where a format has no place for them, refused where they cannot be those of the schedule.
"$tool" divide --model gemma_h1536_s4096_v256k --family 1f1b --pp 4 --micro 8 --format json >divided_file.json
for to in layers.csv layers.json; do
  expect "convert names the layers that $to does not have" 0 '' \
    'pipesched: divided_file.json: left out the layers per stage 9,9,8,7, which a schedule does not have~' "$tool" convert divided_file.json $to
done
expect "lower names them too" 0 '\{.*' 'pipesched: divided_file.json: left out the layers per stage 9,9,8,7, .*~' "$tool" lower divided_file.json
expect "verify takes a plan" 0 'valid: 1f1b, 4 ranks, 4 stages, 8 micro-batches~' '' "$tool" verify divided_file.json
wrong_plan() {  # wrong_plan SENTENCE CHANGE: every command refuses the plan after a change in Python
  python3 -c 'import json, sys; j = json.load(open("divided_file.json")); exec(sys.argv[1]); json.dump(j, open("wrong_plan.json", "w"))' "$2"
  for command in verify convert lower "simulate --model gemma_h1536_s4096_v256k" "export --for torchtitan --model gemma_h1536_s4096_v256k"; do
    set -- "$1" "$2" $command
    local verb=$3 others=("${@:4}")
    [ "$verb" = convert ] && others=(layers.csv)
    expect "$verb refuses a plan: $1" 2 '' "pipesched: wrong_plan.json: $1~" "$tool" "$verb" wrong_plan.json "${others[@]}"
  done
}
wrong_plan 'partition has layers of 3 stages; the schedule has 4' 'j["partition"].pop()'
wrong_plan 'partition has 34 layers; the entry layers has 33' 'j["partition"][0] += 1'
wrong_plan 'partition has no layers; expected at least 1' 'j["partition"] = [0] * 4; j["layers"] = 0'
wrong_plan 'partition has 8 layers on stage 0, and layout 9 to 10' 'j["partition"][:2] = [8, 10]'
wrong_plan 'layout has 3 stages, and partition 4' 'j["layout"] = "Et*9|t*9|t*15L"'
wrong_plan 'partition is a list of layers per stage; got "5"' 'j["partition"] = 5'

# Short reports
python3 - <<'PY' 2>/dev/null || sed -E 's/"0([FB])/"1\1/g' 1f1b.json >wrong_stage.json
import re
text = open("1f1b.json").read()
open("wrong_stage.json", "w").write(re.sub(r'"0([FB])', r'"1\1', text))
PY
"$tool" verify wrong_stage.json >report; check "a wrong stage everywhere: exit code 1" [ $? -eq 1 ]
check "a wrong stage everywhere: a short report" [ "$(wc -l <report)" -le 11 ]
check "a wrong stage everywhere: the number of further violations" grep -qE '^and [0-9]+ more$' report

# Costs
printf '{"forward": 1,\n "backward": NaN}' >nan_costs.json
expect "costs that are not JSON, with line and column" 2 '' 'pipesched: nan_costs.json: [^~]*line 2, column [0-9]+[^~]*~' "$tool" simulate plan.json --costs nan_costs.json
printf '{"forward": 1,}' >comma_costs.json
expect "a comma too many" 2 '' 'pipesched: comma_costs.json: [^~]*line 1, column 1[45][^~]*~' "$tool" simulate plan.json --costs comma_costs.json
echo '{"forward": -1}' >negative_costs.json
expect "negative costs have the name of their file" 2 '' 'pipesched: negative_costs.json: [^~]*forward[^~]*negative[^~]*~' "$tool" simulate plan.json --costs negative_costs.json
expect "negative costs have the name of their file" 2 '' 'pipesched: negative_costs.json: [^~]*forward[^~]*negative[^~]*~' "$tool" compare --pp 2 --micro 2 --costs negative_costs.json
for family in $("$tool" list | cut -d' ' -f1); do  # every family whose order follows from its sizes keeps its name, or that of an equal order
  case $family in zb_greedy* | zb_h* | zbv_greedy | dualpipe | chimera) continue ;; esac
  "$tool" generate "$family" --pp 4 --micro 8 --format csv >named.csv
  exactly "a CSV of $family has its name" 0 "valid: $family" "" bash -c "'$tool' verify named.csv | cut -d, -f1"
done
