#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The command-line tool as its users see it: output, exit codes, one sentence for bad input, files that stay intact. The
# sections in tests/tool/ follow at the end.
set -uo pipefail
tool=$(realpath "$1")
sections=$(realpath "$(dirname "$0")")/tool
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0

# expect NAME EXIT_CODE STDOUT_PATTERN STDERR_PATTERN COMMAND...: the patterns are extended regular expressions for the whole
# text, with ~ for a line break; an empty one stands for no output.
expect() {
  local name=$1 code=$2 out=$3 err=$4
  shift 4
  "$@" >out 2>err </dev/null
  local got=$?
  local wrong=
  [ "$got" -eq "$code" ] || wrong="exit code $got instead of $code"
  if [ -z "$out" ]; then [ -s out ] && wrong="$wrong; unexpected output"; else tr '\n' '~' <out | grep -qE "^$out$" || wrong="$wrong; other output"; fi
  if [ -z "$err" ]; then [ -s err ] && wrong="$wrong; unexpected errors"; else tr '\n' '~' <err | grep -qE "^$err$" || wrong="$wrong; other errors"; fi
  if [ -n "$wrong" ]; then
    echo "FAILED: $name: $wrong"
    head -c 400 out err
    failures=$((failures + 1))
  fi
}

expect "list" 0 'gpipe .*~1f1b .*~zb1p .*~dualpipe .*~dualpipev .*~' '' "$tool" list
expect "help" 0 '.*generate.*verify.*list.*' '' "$tool" --help
expect "json is the default" 0 '\{"format": "pipesched.schedule", .*\]\}~' '' "$tool" generate dualpipe --pp 4 --micro 8
expect "text" 0 '1f1b: 2 ranks, 2 stages \(linear\), 2 micro-batches~rank 0: 0F0 0F1 0B0 0B1~rank 1: 1F0 1B0 1F1 1B1~' '' \
  "$tool" generate 1f1b --pp 2 --micro 2 --format text
expect "forward only" 0 '.*forward only~rank 0: 0F0 0F1~rank 1: 1F0 1F1~' '' \
  "$tool" generate 1f1b --pp 2 --micro 2 --format text --forward-only
expect "grid" 0 'dualpipe: 8 ranks, 20 micro-batches; verified; makespan 66, idle 9.1 %; costs are per stage, one stage per rank~time    0 .*~rank 7 .*~F forward.*~' '' \
  "$tool" generate dualpipe --pp 8 --micro 20 --format grid
expect "grid in colour on request" 0 '.*'$'\x1b''\[38;5;16;48;5;222m.*' '' "$tool" generate 1f1b --pp 2 --micro 2 --format grid --colour always

for family in $("$tool" list | cut -d' ' -f1); do
  expect "$family to a file" 0 '' '' "$tool" generate $family --pp 6 --micro 5 --output $family.json
  expect "$family verified" 0 "valid: $family, 6 ranks, (6|12) stages, 5 micro-batches~" '' "$tool" verify $family.json
done
expect "through a pipe" 0 'valid: zb1p, .*~' '' bash -c "'$tool' generate zb1p --pp 3 --micro 7 | '$tool' verify -"

sed 's/"0F0","0F1"/"0F1","0F1"/' 1f1b.json >broken.json
expect "a broken schedule" 1 'rank 0, cell 1: duplicate: 0F1 again, first in cell 0; expected once~rank 0: missing: 0F0; expected one F~' '' \
  "$tool" verify broken.json
printf '{"format": "pipesched.schedule"}\0garbage' >nul.json
expect "bytes after a NUL" 2 '' 'pipesched: nul.json: [^~]*~' "$tool" verify nul.json
head -c 300 1f1b.json >cut.json
expect "a truncated file" 2 '' 'pipesched: cut.json: not JSON: parse error at line .*~' "$tool" verify cut.json
expect "no file" 2 '' 'pipesched: nowhere.json: cannot be read \(No such file or directory\)~' "$tool" verify nowhere.json
expect "endless zeros" 2 '' 'pipesched: /dev/zero: starts with .*~' "$tool" verify /dev/zero
expect "endless zeros as costs" 2 '' 'pipesched: /dev/zero: costs: .*~' "$tool" simulate 1f1b.json --costs /dev/zero
expect "endless zeros as a model" 2 '' 'pipesched: /dev/zero: model: .*~' "$tool" model /dev/zero
expect "a folder" 2 '' 'pipesched: \.: cannot be read \(Is a directory\)~' "$tool" verify .
expect "an empty file" 2 '' 'pipesched: /dev/null: empty; expected a schedule as JSON, \{"format": ...\}, or as PyTorch.s CSV, 0F0,0F1,...~' "$tool" verify /dev/null

expect "odd pp" 2 '' 'pipesched: dualpipe needs an even number of pipeline ranks; got pp = 7, nearest 6 or 8~' \
  "$tool" generate dualpipe --pp 7 --micro 20
expect "no micro-batch" 2 '' 'pipesched: 1f1b needs at least 1 micro-batch; got micro = 0, nearest 1~' \
  "$tool" generate 1f1b --pp 7 --micro 0
expect "negative" 2 '' 'pipesched: gpipe needs at least 1 pipeline rank; got pp = -2, nearest 1~' \
  "$tool" generate gpipe --pp -2 --micro 4
expect "too many" 2 '' 'pipesched: gpipe needs stages x micro-batches of at most 2\^28; .*, nearest micro = 67108864~' \
  "$tool" generate gpipe --pp 4 --micro 99999999999
expect "beyond 64 bits" 2 '' 'pipesched: [^~]*99999999999999999999[^~]*~' "$tool" generate gpipe --pp 4 --micro 99999999999999999999
expect "a leading zero is no octal" 0 '1f1b: 10 ranks,.*' '' "$tool" generate 1f1b --pp 010 --micro 2 --format text
expect "no number" 2 '' 'pipesched: [^~]*--pp[^~]*~' "$tool" generate gpipe --pp four --micro 4
expect "unknown family" 2 '' 'pipesched: no schedule is called "dualpip"; did you mean dualpipe\?~' "$tool" generate dualpip --pp 4 --micro 4
expect "unknown format" 2 '' 'pipesched: [^~]*xml[^~]*~' "$tool" generate gpipe --pp 4 --micro 4 --format xml
expect "nothing asked" 2 '' 'pipesched: expected a command: generate, verify, convert, lower, simulate, compare, divide, plan, export, import-costs, model or list; see pipesched --help~' "$tool"
expect "a forgotten option" 2 '' 'pipesched: [^~]*--micro[^~]*~' "$tool" generate gpipe --pp 4

# PyTorch's CSV
expect "generate csv" 0 '0F0,0F1,0B0,0B1'$'\r''~1F0,1B0,1F1,1B1'$'\r''~' '' "$tool" generate 1f1b --pp 2 --micro 2 --format csv
expect "convert to csv" 0 '' '' "$tool" convert dualpipev.json v.csv
expect "and back" 0 '' '' "$tool" convert v.csv v.json
expect "verify the result" 0 'valid: dualpipev, 6 ranks, 12 stages, 5 micro-batches~' '' "$tool" verify v.json
expect "verify a csv" 0 'valid: dualpipev, 6 ranks, .*' '' "$tool" verify v.csv
printf '0F0,0SEND_F0,0RECV_B0,0B0\r\n1RECV_F0,1F0,1B0,1SEND_B0\r\n' >comms.csv
expect "messages are verified" 0 'valid: gpipe, 2 ranks, 2 stages, 1 micro-batch; 4 message actions verified~' '' "$tool" verify comms.csv
expect "messages are left out and counted" 0 '' 'pipesched: comms.csv: left out 1 SEND_F, 1 RECV_F, 1 SEND_B, 1 RECV_B~' "$tool" convert comms.csv without.json
expect "dualpipe has no csv" 2 '' "pipesched: PyTorch's CSV has each stage on one rank, and dualpipe .* dualpipev .*~" "$tool" convert dualpipe.json x.csv
[ ! -e x.csv ] || { echo "FAILED: a refused conversion left a file"; failures=$((failures + 1)); }
printf '0F0,0F1junk\r\n' >junk.csv
expect "junk in a csv" 2 '' 'pipesched: junk.csv: row 0, column 1: .*~' "$tool" verify junk.csv
expect "chunks and groups" 0 'interleaved_1f1b: 2 ranks, 6 stages \(looped\), .*' '' "$tool" generate interleaved_1f1b --pp 2 --micro 5 --chunks 3 --group-size 2 --format text
expect "waves" 0 'hanayo: 3 ranks, 12 stages \(wave\), .*' '' "$tool" generate hanayo --pp 3 --micro 5 --wave 2 --format text
expect "bad waves" 2 '' 'pipesched: hanayo needs 1 to 128 waves; got waves = 0, nearest 1~' "$tool" generate hanayo --pp 4 --micro 4 --wave 0
expect "a group too small" 2 '' 'pipesched: group_interleaved needs groups of pp/2 = 2 to pp = 4 micro-batches; got group_size = 1, nearest 2~' "$tool" generate group_interleaved --pp 4 --micro 4 --group-size 1
expect "chimera has no csv" 2 '' "pipesched: PyTorch's CSV has each stage on one rank, and chimera .* hanayo .*~" "$tool" generate chimera --pp 4 --micro 4 --format csv
expect "odd chimera" 2 '' 'pipesched: chimera needs an even number of pipeline ranks; got pp = 3, nearest 2 or 4~' "$tool" generate chimera --pp 3 --micro 4
expect "a limit of the greedy V" 2 '' 'pipesched: zbv_greedy needs a memory limit of at least 1 .*; got 0.5, nearest 1~' "$tool" generate zbv_greedy --pp 3 --micro 4 --memory-limit 0.5
expect "bad chunks" 2 '' 'pipesched: interleaved_1f1b needs 1 to 256 chunks per rank; got chunks = 0, nearest 1~' "$tool" generate interleaved_1f1b --pp 2 --micro 4 --chunks 0

# lower
expect "lower" 0 '\{"format":"pipesched.program","version":1,"name":"1f1b",.*"ranks": \[~ \[~  \{"receive":"1B0","channel":[0-9]+,"buffer":[0-9]+\},.*\{"compute":"0F0","slots":\[\{"activation":0,"output":0\}\]\},~  \{"send":"0F0",.*\]\}~' '' "$tool" lower 1f1b.json
expect "lower as csv" 0 '0F0,0SEND_F0,.*0RECV_B0,.*0B0,.*0WAIT_SEND_F0,.*0REDUCE_GRAD,0WAIT_REDUCE_GRAD.*' '' "$tool" lower 1f1b.json --format csv
expect "lower as csv without waits" 0 '0F0,0SEND_F0,([^W]|0B0,0RECV)*' '' "$tool" lower 1f1b.json --format csv --no-waits
expect "lower dualpipe" 0 '.*"weights 3".*\{"reduce":0,"with":0,"channel":[0-9]+,"buffer":[0-9]+\}.*' '' "$tool" lower dualpipe.json
expect "no dualpipe in csv" 2 '' "pipesched: PyTorch's CSV has each stage on one rank, .*~" "$tool" lower dualpipe.json --format csv
expect "no depth" 2 '' 'pipesched: --depth takes 1 to 65536 buffers; got 0, nearest 1~' "$tool" lower 1f1b.json --depth 0
expect "lower what is broken" 1 'rank 0, cell 1: duplicate: 0F1 again, first in cell 0; expected once~rank 0: missing: 0F0; expected one F~' '' "$tool" lower broken.json

# simulate and compare
expect "simulate a family" 0 'dualpipe: 8 ranks, 20 micro-batches; makespan 66, at least 63, gap 4.8 %; idle 9.1 %; costs are per stage, one stage per rank~.*bubble by formula \(PP/2-1\)\(F&B\+B-3W\) = 6; simulated 6 .*rank 7 .*critical path: 0F0 1F0 .* 0W9~' '' \
  "$tool" simulate --family dualpipe --pp 8 --micro 20
expect "simulate a file" 0 '1f1b: 6 ranks, 5 micro-batches; makespan 30, at least 30, gap 0.0 %.*' '' "$tool" simulate 1f1b.json
expect "simulate with costs" 0 '.*makespan 60, .*' '' "$tool" simulate 1f1b.json --forward 2 --backward-input 2 --backward-weight 2
expect "simulate with the costs of DeepSeek-V3" 0 '.*makespan 4088.3, .*assumes .*: not so here.*' '' \
  "$tool" simulate --family dualpipe --pp 8 --micro 20 --costs deepseek_v3
echo '{"forward": [1, 1, 1, 1, 1, 2], "transfer": 0.5}' >costs.json
expect "simulate with a file of costs" 0 '1f1b: .*' '' "$tool" simulate 1f1b.json --costs costs.json
expect "simulate as json" 0 '\{~ "name": "1f1b",.* "makespan": 30.0,~ "bubble_ratio": 0.5,.* "lower_bound": 30.0,.* "ranks": \[.*"peak_activations": 5,.* "critical_path": \[~  "0F0",.*' '' \
  "$tool" simulate 1f1b.json --format json
expect "simulate as svg" 0 '<svg .*</svg>~' '' "$tool" simulate 1f1b.json --format svg
expect "simulate as html" 0 '<!doctype html>.*</html>~' '' "$tool" simulate 1f1b.json --format html
expect "simulate as trace" 0 '.*"traceEvents".*\}~' '' "$tool" simulate 1f1b.json --format trace
expect "simulate a broken schedule" 1 'rank 0, cell 1: duplicate: .*' '' "$tool" simulate broken.json
expect "compare all" 0 '8 ranks, 20 micro-batches; .*zbv +63.5 +60 .*zbv_greedy +63.5 .*dualpipe +66 +66 .*zb1p +67 .*dualpipev +67 .*v_half +68.5 .*interleaved_1f1b +70.5 .*v_min .*v_1f1b .*gpipe +81 .*1f1b +81 .*chimera .*hanayo .*' '' "$tool" compare --pp 8 --micro 20
expect "greedy, with a limit and costs" 0 'zb_greedy: 4 ranks, .*' '' "$tool" generate zb_greedy --pp 4 --micro 8 --memory-limit 5.5 --costs deepseek_v3 --format text
expect "a limit below one" 2 '' 'pipesched: zb_greedy needs a memory limit of at least 1 .*~' "$tool" generate zb_greedy --pp 4 --micro 8 --memory-limit 0.5
expect "compare some" 0 '[^~]*~schedule [^~]*~zb1p [^~]*~1f1b [^~]*~makespan:.*' '' "$tool" compare --pp 8 --micro 20 --families 1f1b,zb1p
expect "compare at odd pp leaves dualpipe out and says so" 0 '.*left out: dualpipe needs an even number .*chimera needs an even .*' '' "$tool" compare --pp 7 --micro 20
expect "compare as json" 0 '\[~ \{~  "name": .*"name": "dualpipe",.*\]~' '' "$tool" compare --pp 4 --micro 8 --format json
expect "costs of the wrong length" 2 '' 'pipesched: costs.json: costs: forward has 6 numbers; expected 1 or 4, one per stage~' \
  "$tool" simulate --family 1f1b --pp 4 --micro 4 --costs costs.json
expect "negative costs" 2 '' 'pipesched: costs: forward is negative; .*~' "$tool" simulate 1f1b.json --forward -1
expect "costs that are no number" 2 '' 'pipesched: costs: forward is not a number; .*~' "$tool" simulate 1f1b.json --forward nan
expect "infinite costs" 2 '' 'pipesched: costs: transfer is infinite; .*~' "$tool" simulate 1f1b.json --transfer inf
expect "costs that overflow" 2 '' 'pipesched: costs: the times add up .*~' "$tool" simulate 1f1b.json --forward 1e308
expect "no costs file" 2 '' 'pipesched: nowhere: cannot be read \(No such file or directory\); by name: deepseek_v3~' "$tool" simulate 1f1b.json --costs nowhere
expect "a file and a family" 2 '' 'pipesched: simulate takes a file, or --family with --pp and --micro~' "$tool" simulate 1f1b.json --family 1f1b
expect "a family that compare does not know" 2 '' 'pipesched: no schedule is called "x"; .*~' "$tool" compare --pp 4 --micro 4 --families 1f1b,x
expect "compare with negative costs" 2 '' 'pipesched: costs: forward is negative; .*~' "$tool" compare --pp 4 --micro 4 --forward -1

echo keep >kept.json
expect "bad parameters leave the file alone" 2 '' 'pipesched: .*~' "$tool" generate gpipe --pp 0 --micro 4 --output kept.json
[ "$(cat kept.json)" = keep ] || { echo "FAILED: kept.json was lost"; failures=$((failures + 1)); }
expect "a folder that is not there" 2 '' 'pipesched: nowhere/x.json: cannot be written \(No such file or directory\)~' "$tool" generate gpipe --pp 2 --micro 4 --output nowhere/x.json
expect "a device as output" 0 '' '' "$tool" generate gpipe --pp 2 --micro 4 --output /dev/null
expect "a full device" 2 '' 'pipesched: /dev/full: cannot be written.*~' "$tool" generate gpipe --pp 2 --micro 4 --output /dev/full
expect "full standard output" 2 '' 'pipesched: standard output could not be written~' bash -c "'$tool' generate gpipe --pp 2 --micro 4 >/dev/full"
[ -c /dev/null ] || { echo "FAILED: /dev/null is no device any more"; failures=$((failures + 1)); }
ls ./*.??????  2>/dev/null | grep -qE '\.json\.[A-Za-z0-9]{6}$' && { echo "FAILED: a scratch file is left"; failures=$((failures + 1)); }
expect "the verdict that cannot be written" 2 '' 'pipesched: standard output could not be written~' bash -c "'$tool' verify 1f1b.json >/dev/full"
echo real >target.json; ln -s target.json link.json; chmod 600 target.json
expect "a link" 0 '' '' "$tool" generate gpipe --pp 2 --micro 4 --output link.json
[ -L link.json ] && grep -q gpipe target.json || { echo "FAILED: the link was replaced"; failures=$((failures + 1)); }
expect "a file of mode 600" 0 '' '' "$tool" generate gpipe --pp 2 --micro 4 --output target.json
[ "$(stat -c %a target.json)" = 600 ] || { echo "FAILED: the mode was changed"; failures=$((failures + 1)); }
bash -c "'$tool' generate gpipe --pp 2 --micro 4 --output /dev/stdout >captured.json"
expect "/dev/stdout is a way to write" 0 'valid: gpipe.*' '' "$tool" verify captured.json
expect "a very long grid is coarser" 0 'gpipe: 1 rank, 400000 .*' '' "$tool" generate gpipe --pp 1 --micro 400000 --format grid

for section in "$sections"/*.sh; do
  . "$section"
done

[ "$failures" -eq 0 ] && echo "all as expected"
exit "$((failures > 0))"
