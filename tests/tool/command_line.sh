# SPDX-License-Identifier: MIT
# Commands, options and help. Read by tests/tool.sh.

# exactly NAME EXIT_CODE STDOUT STDERR COMMAND...: the whole texts, without their last line break.
exactly() {
  local name=$1 code=$2 out=$3 err=$4 wrong=
  shift 4
  "$@" >out 2>err </dev/null
  local got=$?
  [ "$got" -eq "$code" ] || wrong="exit code $got instead of $code"
  [ "$(cat out)" = "$out" ] || wrong="$wrong; other output"
  [ "$(cat err)" = "$err" ] || wrong="$wrong; other errors"
  if [ -n "$wrong" ]; then
    echo "FAILED: $name: $wrong"
    head -c 2000 out err
    failures=$((failures + 1))
  fi
}

# refused SENTENCE COMMAND...: exit code 2, nothing but the sentence, on standard error.
refused() {
  local sentence=$1
  shift
  exactly "refused: $*" 2 "" "pipesched: $sentence" "$tool" "$@"
}

# check NAME COMMAND...: the command succeeds.
check() {
  local name=$1
  shift
  "$@" || { echo "FAILED: $name"; failures=$((failures + 1)); }
}

exactly "version" 0 "pipesched $(sed -n 's/^#define PIPESCHED_VERSION_\(MAJOR\|MINOR\|PATCH\) //p' \
  "$sections/../../include/pipesched/version.hpp" | paste -sd.)" "" "$tool" --version

# Commands
refused 'expected a command: generate, verify, convert, lower, simulate, compare, divide, plan, export, import-costs, model or list; see pipesched --help'
refused 'no command is called "foo"; expected generate, verify, convert, lower, simulate, compare, divide, plan, export, import-costs, model or list' foo
refused 'no command is called "generat"; did you mean generate?' generat
refused 'no command is called "sim"; did you mean simulate?' sim
refused 'no command is called "--versio"; did you mean --version?' --versio
refused 'no command is called "hlep"; did you mean help?' hlep
refused '--forward takes 0 or a number of at least 4.94066e-324; got "1e-400"' simulate --family 1f1b --pp 2 --micro 2 --forward 1e-400
refused 'no command is called "Verify"; did you mean verify?' Verify 1f1b.json
refused 'no command is called "simulat"; did you mean simulate?' help simulat
refused 'help takes one command; got "verify" as well' help list verify
refused '--version takes nothing; got "now"' --version now
refused 'verify needs FILE; see pipesched help verify' verify
refused 'convert needs FILE FILE [options]; see pipesched help convert' convert 1f1b.json
refused 'verify takes one operand; got "b" as well' verify a b
refused 'convert takes 2 operands; got "c" as well' convert a b c
refused 'list takes only options; got "x"' list x
refused 'generate needs --pp and --micro' generate 1f1b
refused 'simulate --family needs --pp and --micro' simulate --family dualpipe
refused 'compare needs --micro' compare --pp 4

# Options
refused 'generate takes no option "--foward"; did you mean --forward?' generate 1f1b --pp 2 --micro 2 --foward 1
refused 'generate takes no option "--xyz"; see pipesched help generate' generate 1f1b --xyz
refused 'generate takes no option "-pp"; did you mean --pp?' generate 1f1b -pp 2
refused 'verify takes no option "--depth"; it is an option of lower' verify 1f1b.json --depth 2
refused 'compare takes no option "--colour"; it is an option of generate, simulate and plan' compare --pp 2 --micro 2 --colour never
refused '--pp takes a value, N; got none' generate 1f1b --micro 2 --pp
refused '--pp takes a value, N; got the option --micro' generate 1f1b --pp --micro 2
refused '--pp is given twice, as "2" and "3"; expected once' generate 1f1b --pp 2 --pp=3 --micro 2
refused '--waves is given twice, as "2" and "2"; expected once' generate hanayo --pp 2 --micro 2 --wave 2 --waves 2
refused '--forward-only is given twice; expected once' generate 1f1b --pp 2 --micro 2 --forward-only --forward-only
refused '--forward-only takes no value; got "yes"' generate 1f1b --pp 2 --micro 2 --forward-only=yes
refused '--waits and --no-waits contradict each other; expected one of them' lower 1f1b.json --format csv --waits --no-waits
exactly "an option with =, a short option with its value" 0 "" "" "$tool" generate 1f1b --pp=2 --micro=2 -oshort.json
exactly "--waves, as --wave" 0 "$("$tool" generate hanayo --pp 2 --micro 3 --wave 2)" "" "$tool" generate hanayo --pp 2 --micro 3 --waves 2
exactly "a file whose name begins with a dash" 0 "" "" "$tool" generate 1f1b --pp 2 --micro 2 -o -dash.json
exactly "operands after --" 0 "valid: 1f1b, 2 ranks, 2 stages, 2 micro-batches" "" "$tool" verify -- -dash.json

# Numbers
refused '--pp takes a whole number; got ""' generate 1f1b --pp "" --micro 2
refused '--pp takes a whole number; got "2.5"' generate 1f1b --pp 2.5 --micro 2
refused '--micro takes a whole number; got "2 "' generate 1f1b --pp 2 --micro "2 "
refused '--pp takes a whole number of at most 64 bits; got "-99999999999999999999"' generate 1f1b --pp -99999999999999999999 --micro 2
refused '--forward takes a number such as 1.5; got ""' simulate 1f1b.json --forward ""
refused '--forward takes a number such as 1.5; got "1,5"' simulate 1f1b.json --forward 1,5
refused '--forward takes a number such as 1.5; got "0x10"' simulate 1f1b.json --forward 0x10
refused '--transfer takes a number such as 1.5; got " 1"' simulate 1f1b.json --transfer " 1"
refused 'costs: backward is negative; --backward takes a finite number, 0 or more; got -2, nearest 0' simulate 1f1b.json --backward -2
refused 'costs: transfer is infinite; --transfer takes a finite number, 0 or more; got 1e999' simulate 1f1b.json --transfer 1e999
refused 'costs: overlapped is not a number; --overlapped takes a finite number, 0 or more; got nan' compare --pp 2 --micro 2 --overlapped nan
for value in 0 -1 -0; do
  refused "--memory-limit takes a finite number of activations, 1 or more; got $value, nearest 1" \
    generate zb_greedy --pp 2 --micro 2 --memory-limit $value
done
for value in nan inf; do
  refused "--memory-limit takes a finite number of activations, 1 or more; got $value" \
    generate zb_greedy --pp 2 --micro 2 --memory-limit $value
done
refused '--memory-limit takes a number such as 1.5; got ""' generate zb_greedy --pp 2 --micro 2 --memory-limit ""
refused '--max-memory takes a finite number of GiB above 0; got 0, nearest 0.1' compare --pp 2 --micro 2 --max-memory 0
refused 'costs: backward of stage 0 is 1, less than its backward_input; nearest 2' simulate 1f1b.json --backward 1 --backward-input 2

# Nothing is ignored in silence.
refused '1f1b takes no chunks; got chunks = 4 (interleaved_1f1b, group_interleaved, looped_bfs and interleaved_zb take it)' \
  generate 1f1b --pp 2 --micro 2 --chunks 4
refused 'zbv takes no memory_limit; got memory_limit = 2 (zb_greedy and zbv_greedy take it)' generate zbv --pp 2 --micro 2 --memory-limit 2
refused 'the order of 1f1b does not depend on costs; expected no costs, or --format grid' generate 1f1b --pp 2 --micro 2 --costs deepseek_v3
refused '--pp goes with --family; the schedule of 1f1b.json has its own sizes' simulate 1f1b.json --pp 2
refused '--forward-only goes with --family; the schedule of 1f1b.json has its own sizes' simulate 1f1b.json --forward-only
refused '--depth goes with --format json; got --format csv' lower 1f1b.json --depth 2 --format csv
refused '--no-waits goes with --format csv; got --format json' lower 1f1b.json --no-waits
refused '--colour is for --format grid; got --format json' generate 1f1b --pp 2 --micro 2 --colour always
refused '--colour is for --format text; got --format svg' simulate 1f1b.json --colour never -o x.svg
refused '--colour takes auto, always or never; got "blue"' simulate 1f1b.json --colour blue
exactly "costs that a search does not use are named" 0 "" "pipesched: costs not used here: overlapped" \
  "$tool" generate zb_greedy --pp 2 --micro 2 --overlapped 3 -o /dev/null

# Help
width=$(for c in generate verify convert lower simulate compare divide plan model list; do "$tool" help $c; "$tool" $c --help; done | wc -L)
check "help fits 80 columns" [ "$width" -le 80 ]
check "help fits 80 columns" [ "$("$tool" --help | wc -L)" -le 80 ]
for c in generate verify convert lower simulate compare divide plan model list; do
  check "help $c: the same both ways" [ "$("$tool" help $c)" = "$("$tool" $c --help)" ]
  check "help $c ends with examples" bash -c "'$tool' help $c | tail -n 1 | grep -q '^  pipesched $c'"
  check "help $c: its options are in one column" bash -c "
    '$tool' help $c | sed -n '/^options:/,/^$/p' | grep -E '^  -' | sed -E 's/^(  [^ ]+( [^ ]+)*  +).*/\1/' | awk '{print length}' | sort -u | wc -l | grep -qE '^[01]$'"
done
check "help: every example of the tool's help works" bash -c "
  mkdir help && cd help && export PATH=\"$(dirname "$tool"):\$PATH\" && echo '{\"forward\": 2}' >costs.json
  for c in generate convert verify lower simulate compare list; do
    '$tool' help $c | sed -n '/^examples:/,\$p' | tail -n +2 | while read -r line; do bash -c \"\$line\" >/dev/null || exit 1; done || exit 1
  done"
