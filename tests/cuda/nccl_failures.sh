#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Failures of processes over the stand-in for NCCL, at random places of random programs, started by hand and by mpirun, srun and
# torchrun where they are:
#
#   tests/cuda/nccl_failures.sh NCCL_FAILURES [ROUNDS [LAUNCHER ...]]     ROUNDS of each sort under each launcher
#
# ROUNDS is by default PIPESCHED_FAILURES, or else 5.
#
# Every rank ends within the limit, with the first cause; one that a launcher ends itself may be without a report.
set -uo pipefail
program=$(realpath "$1")
rounds=${2:-${PIPESCHED_FAILURES:-5}}
launchers=("${@:3}")
[ "${#launchers[@]}" -gt 0 ] || launchers=(by_hand mpirun srun torchrun)
limit=5  # seconds from the failure: 1 for a stall, 4 x 0.5 for aborts and callbacks, and what a busy machine takes
work=$(mktemp -d)
trap 'case $BASHPID in $$) rm -rf "$work" ;; esac' EXIT
export TMPDIR=$work OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 MASTER_ADDR=127.0.0.1
failures=0
ports=$((10000 + RANDOM % 20000))  # two per job: an agent of torchrun listens, too

by_hand() {  # ranks, program and arguments
  local ranks=$1 rank pids=() code=0
  shift
  for ((rank = 0; rank < ranks; ++rank)); do
    RANK=$rank WORLD_SIZE=$ranks LOCAL_RANK=$rank LOCAL_WORLD_SIZE=$ranks timeout --kill-after=1 60 "$@" &
    pids+=($!)
  done
  for rank in "${pids[@]}"; do wait "$rank" || code=$?; done
  return "$code"
}
by_mpirun() { timeout --kill-after=5 60 mpirun --oversubscribe -n "$@"; }
by_srun() { timeout --kill-after=5 60 srun --overcommit -n "$@"; }
by_torchrun() {  # with -r and -t, without which PyTorch 1.13 fails under Python 3.11
  timeout --kill-after=5 60 torchrun --no_python -r 1 -t 1 --master_addr 127.0.0.1 --master_port "$MASTER_PORT" --nproc_per_node "$@"
}
there() {
  case $1 in
    by_hand) ;;
    srun) command -v srun >/dev/null && timeout 10 sinfo -h >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

declare -A cause=([throws]='rank [0-9]* at .*: not a number' [abort_hangs]='rank [0-9]* at .*: not a number'
  [dies]='process [0-9]* is gone' [stalls]='rank [0-9]* at .*: nothing moved within the time limit'
  [kernel_hangs]='rank [0-9]* at .*: nothing moved within the time limit')
one() {  # launcher, sort, seed: leaves the files good.* or bad.*
  local name="$1.$2.$3" ranks=$((2 + 2 * ($3 % 2))) code file reports=0 why=""
  local run=by_${1#by_} said="$work/said.$name"
  MASTER_PORT=$((ports + 2 * $3)) TMPDIR=$(mktemp -d "$work/XXXXXX") \
    "$run" "$ranks" "$program" "$2" "$3" "$said" >"$work/log.$name" 2>&1
  code=$?
  [ "$code" -ne 0 ] && [ "$code" -ne 124 ] && [ "$code" -ne 137 ] || [ "$2.$code" = dies.137 ] || why="status $code"
  [ -s "$said.failed" ] || why="nothing has failed"
  for file in "$said".[0-9]*; do
    [ -s "$file" ] || continue
    reports=$((reports + 1))
    grep -q "${cause[$2]}" "$file" || why="${file##*.} has another cause"
    awk -v limit="$limit" 'NR == 1 { exit !($2 < limit) }' "$file" || why="${file##*.} took too long"
  done
  [ "$1" != by_hand ] || [ "$reports" -eq $((ranks - ($(test "$2" = dies; echo $?) == 0))) ] || why="$reports reports"
  if [ -z "$why" ]; then
    cat "$said".[0-9]* 2>/dev/null | awk '/^took/ { print $2 }' >"$work/good.$name"
  else
    { echo "FAILED: $name, $ranks ranks: $why"; tail -n 5 "$work/log.$name" "$said".* 2>/dev/null; } >"$work/bad.$name"
  fi
}

for launcher in "${launchers[@]}"; do
  there "$launcher" || { echo "skipped: failures under $launcher"; continue; }
  for sort in throws dies stalls kernel_hangs abort_hangs; do
    running=0
    for seed in $(seq "$rounds"); do
      [ "$running" -lt 4 ] || { wait -n; running=$((running - 1)); }
      one "$launcher" "$sort" "$seed" &
      running=$((running + 1))
    done
    wait
    good=$(find "$work" -name "good.$launcher.$sort.*" | wc -l)
    if [ "$good" = "$rounds" ]; then
      longest=$(find "$work" -name "good.$launcher.$sort.*" -exec cat {} + | sort -g | tail -n 1)
      ranks=$(find "$work" -name "good.$launcher.$sort.*" -exec cat {} + | wc -l)
      echo "ok: $launcher, $sort: $rounds jobs ended; $ranks ranks with a report, at most $longest s after the failure (limit $limit s)"
    else
      failures=$((failures + 1))
      find "$work" -name "bad.$launcher.$sort.*" -exec cat {} +
    fi
  done
done
exit "$((failures > 0))"
