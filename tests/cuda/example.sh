#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The CUDA example as a person runs it: refusals, and, with a GPU, every family against one device. Ends with 77 if only the
# first could be tested.
#
#   tests/cuda/example.sh CUDA_MLP [refusals | on_host]      the first alone; or over the stand-in of on_host.cpp
set -uo pipefail
example=$1
how=${2-}
failures=0
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

refused() {  # code, beginning of the sentence, arguments
  local code=$1 sentence=$2
  shift 2
  "$example" "$@" >"$folder/out" 2>"$folder/err"
  if [ $? -ne "$code" ] || ! grep -q "^cuda_mlp: $sentence" "$folder/err" || [ "$(wc -l <"$folder/err")" -ne 1 ]; then
    echo "FAILED: $*: $(cat "$folder/err")"; failures=$((failures + 1))
  fi
}
"$example" --help | grep -q '3 if there is no CUDA device' || { echo "FAILED: --help"; failures=$((failures + 1)); }
refused 2 'no schedule is called "nothing"' --schedule nothing
refused 2 'dualpipe needs an even number' --pp 3
refused 2 '--mode is threads, turns or graph; got fast' --mode fast
refused 2 '--transfer is host or none; got disk' --transfer disk
refused 2 '--predict needs schedules of 8 stages, as dualpipe has; zbv has 16' --predict zbv
refused 2 '--width is from 1 to 16384; got 0' --width 0
refused 2 '--steps is from 1' --steps 0
refused 2 'Could not convert' --steps many
refused 2 '--transport is peer or nccl; got mpi' --transport mpi
refused 2 '--fail is a rank, a micro-batch and throw, kill or stall, such as 3,5,throw; got 1,2' --fail 1,2
refused 2 '--time-limit is above 0' --time-limit 0
refused 2 '--start-limit is above 0' --start-limit 0
if [ "$how" = refusals ]; then
  [ "$failures" -eq 0 ] && echo passed
  exit "$((failures > 0))"
fi

small=(--pp 4 --micro 8 --steps 2 --rows 6 --width 5 --hidden 9)
"$example" "${small[@]}" >"$folder/out" 2>"$folder/err"
if [ $? -eq 3 ]; then
  grep -q '^cuda_mlp: no CUDA device: ' "$folder/err" || { echo "FAILED: $(cat "$folder/err")"; exit 1; }
  [ "$failures" -eq 0 ] || exit 1
  echo "skipped: no CUDA device"
  exit 77
fi

passes() {
  local out
  if ! out=$("$example" --check "$@" 2>&1) || ! grep -q '^one device: losses differ by .*: passed$' <<<"$out"; then
    echo "FAILED: $*: $out"; failures=$((failures + 1))
  fi
}
# On a GPU a run takes a second or two, so there most families run in one mode only.
families=$("$example" --schedule nothing 2>&1 | sed 's/.*known: //; s/,//g')
for schedule in $families; do
  if [ "$how" != on_host ] && [[ ! $schedule =~ ^(1f1b|zbv|dualpipe|dualpipev)$ ]]; then
    passes "${small[@]}" --schedule "$schedule" --transfer host
    continue
  fi
  for mode in threads turns graph; do
    passes "${small[@]}" --schedule "$schedule" --mode "$mode" --transfer host
    passes "${small[@]}" --schedule "$schedule" --mode "$mode" --double --no-overlap
  done
done
if [ "$how" = on_host ]; then  # whichever order of the streams
  passes "${small[@]}" --ranks-per-gpu 2 --mode turns
  refused 2 '--pp 4 with --ranks-per-gpu 1 needs 4 GPUs; there are 2' "${small[@]}" --ranks-per-gpu 1
  for seed in 2 3 4 5 6 7 8 9; do
    for mode in threads turns; do ON_HOST_SEED=$seed passes "${small[@]}" --mode "$mode" --transfer host; done
  done
else
  passes
  passes --transfer host --mode graph
fi

"$example" "${small[@]}" --check --predict 1f1b,zb1p --html "$folder/page.html" --trace "$folder/trace.json" \
  --json "$folder/report.json" >"$folder/out" || { echo "FAILED: files"; failures=$((failures + 1)); }
grep -q '^zb1p: [0-9.]* ms by these costs$' "$folder/out" && grep -q '</html>' "$folder/page.html" &&
  grep -q traceEvents "$folder/trace.json" && grep -q '"gradient_error"' "$folder/report.json" ||
  { echo "FAILED: $(cat "$folder/out" "$folder/report.json")"; failures=$((failures + 1)); }
for mode in threads turns graph; do
  refused 4 'rank 2 at .*: asked to fail at 2F3$' "${small[@]}" --mode "$mode" --fail 2,3,throw
done
refused 2 '--json /nowhere/report cannot be written' "${small[@]}" --json /nowhere/report
[ "$failures" -eq 0 ] && echo passed
exit "$((failures > 0))"
