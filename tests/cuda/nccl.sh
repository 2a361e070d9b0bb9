#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The CUDA example over NCCL as launchers run it, one process per rank: schedules beside one device, graphs, measured
# timelines, and the errors of all ranks when one throws, is killed or stalls. Ends with 77 without a GPU.
#
#   tests/cuda/nccl.sh CUDA_MLP [on_host]      the latter: over the stand-in of nccl_on_host.cpp
set -uo pipefail
example=$1
how=${2-}
failures=0
folder=$(mktemp -d)
# A subshell that is killed before it has reset its traps runs this one, too, and any `[` there fails.
trap 'case $BASHPID in $$) rm -rf "$folder" ;; esac' EXIT
export TMPDIR=$folder

# Several ranks on one GPU: NCCL takes them for ranks of different hosts, with sockets between them.
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)
export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME-lo} NCCL_IB_DISABLE=${NCCL_IB_DISABLE-1}
export NCCL_NET=${NCCL_NET-Socket} NCCL_NET_PLUGIN=${NCCL_NET_PLUGIN-none}
# NCCL's own warnings, printed with a failure.
export NCCL_DEBUG=${NCCL_DEBUG-WARN} NCCL_DEBUG_FILE=${NCCL_DEBUG_FILE-$folder/nccl.%h.%p}

# launch RANKS ARGUMENTS: as torchrun does. The output of rank r is in out.r and err.r, its exit code in codes. Ranks that have
# not ended after 100 s are killed. Four processes that share one GPU have 60 s to start and connect.
codes=()
launch() {
  local ranks=$1 rank pids=() port=$((15000 + RANDOM % 15000))
  shift
  rm -f "$folder"/out.* "$folder"/err.* "$folder"/nccl.*
  for ((rank = 0; rank < ranks; ++rank)); do
    if [ "$gpus" -ge "$ranks" ]; then unset NCCL_HOSTID; else export NCCL_HOSTID=host$rank; fi
    RANK=$rank WORLD_SIZE=$ranks LOCAL_RANK=$rank LOCAL_WORLD_SIZE=$ranks MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
      "$example" --transport nccl --start-limit "${start_limit-60}" "$@" >"$folder/out.$rank" 2>"$folder/err.$rank" &
    pids+=($!)
  done
  (
    sleep 100 &
    trap 'kill '$! TERM
    wait $! && kill -9 "${pids[@]}"
  ) >/dev/null 2>&1 &
  local bound=$!
  if [ -n "${killed_later-}" ]; then
    for _ in $(seq 600); do grep -q '^replaying a graph$' "$folder/out.0" && break; sleep 0.1; done
    sleep 0.2
    kill -9 "${pids[killed_later]}"
  fi
  codes=()
  for ((rank = 0; rank < ranks; ++rank)); do
    if [ "${stalled-}" = "$rank" ]; then codes+=(stalled); continue; fi
    wait "${pids[rank]}" 2>/dev/null
    codes+=($?)
  done
  if [ -n "${stalled-}" ]; then kill -9 "${pids[stalled]}" && wait "${pids[stalled]}" 2>/dev/null; fi
  kill "$bound" 2>/dev/null
  wait "$bound" 2>/dev/null
}
failed() {
  echo "FAILED: $*: exit codes ${codes[*]}"
  tail -n 20 "$folder"/out.* "$folder"/err.*
  find "$folder" -name 'nccl.*' -size +0 -exec tail -n 20 {} +
  failures=$((failures + 1))
}
passes() {  # ranks, arguments
  launch "$@" --check
  local code
  for code in "${codes[@]}"; do [ "$code" = 0 ] || { failed "$@"; return; }; done
  grep -q '^one device: losses differ by .*: passed$' "$folder/out.0" || failed "$@"
}
# ends RANK CODES SENTENCE ARGUMENTS: with 4 ranks, all but one print the sentence.
ends() {
  local rank=$1 expected=$2 sentence=$3 r
  shift 3
  launch 4 "${small[@]}" --schedule dualpipev "$@"
  [ "${codes[*]}" = "$expected" ] || { failed "$@"; return; }
  for r in 0 1 2 3; do
    [ "$r" = "$rank" ] || grep -q "$sentence" "$folder/err.$r" || { failed "$@"; return; }
  done
}

small=(--micro 8 --rows 6 --width 5 --hidden 9)
launch 2 "${small[@]}"
if [ "${codes[0]}" -eq 3 ]; then
  grep -q '^cuda_mlp: no CUDA device: ' "$folder/err.0" || { failed; exit 1; }
  echo "skipped: no CUDA device"
  exit 77
fi

schedules=(1f1b zb1p dualpipe dualpipev)
if [ "$how" = on_host ]; then
  mapfile -t schedules < <("$example" --schedule nothing 2>&1 | sed 's/.*known: //; s/, /\n/g')
fi
for schedule in "${schedules[@]}"; do
  for ranks in 2 4; do passes "$ranks" "${small[@]}" --schedule "$schedule" --transfer host; done
done
for schedule in 1f1b dualpipev; do passes 2 "${small[@]}" --schedule "$schedule" --mode graph; done
[ "$how" = on_host ] || passes 2
if [ "$how" = on_host ]; then
  for seed in 2 3 4; do ON_HOST_SEED=$seed passes 4 "${small[@]}" --schedule dualpipe; done
fi

passes 4 "${small[@]}" --schedule zbv --predict dualpipev --html "$folder/page.html" --trace "$folder/trace.json" \
  --json "$folder/report.json"
grep -q '^dualpipev: [0-9.]* ms by these costs$' "$folder/out.0" && grep -q '</html>' "$folder/page.html" &&
  grep -q traceEvents "$folder/trace.json" && grep -q '"gradient_error"' "$folder/report.json" || failed "files"

ends 1 "4 4 4 4" 'aborted: rank 1 at .*: asked to fail at ' --fail 1,3,throw
grep -q '^cuda_mlp: rank 1 at 1F3: asked to fail at 1F3$' "$folder/err.1" || failed "rank 1 has another text"
ends 2 "4 4 137 4" 'aborted: process 2 is gone' --fail 2,3,kill
ends 0 "137 4 4 4" 'aborted: process 0 is gone' --fail 0,5,kill
killed_later=1  # while a graph is replayed
ends 1 "4 137 4 4" 'aborted: process 1 is gone, last seen as rank 1 at ' --mode graph --steps 1000000
unset killed_later
stalled=3
limit=25  # for four processes on one GPU, each of which waits for its time slice
[ "$how" != on_host ] || limit=8
ends 3 "4 4 4 stalled" 'aborted: rank .*nothing moved within the time limit' --fail 3,2,stall --time-limit $limit
grep -q '^rank . at .*, which waits for [a-z]* [0-9]*[FB][0-9]* \(from\|to\) rank ' "$folder/err.0" ||
  failed "no rank says what it waits for"
unset stalled

# At the start: a process that no other joins, and a rank that is killed or stalls while the first messages connect.
RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$((15000 + RANDOM % 15000)) \
  "$example" --transport nccl "${small[@]}" --start-limit 2 >"$folder/out.0" 2>"$folder/err.0"
codes=($?)
[ "${codes[0]}" = 4 ] && grep -q '^not there yet: process 1$' "$folder/err.0" || failed "a process alone"
if [ "$how" = on_host ]; then
  ON_HOST_KILLED=2 ends 2 "4 4 137 4" 'aborted: process 2 is gone'
  start_limit=4
  ON_HOST_STALLED=1 ends none "4 4 4 4" 'aborted: rank . at .*: the first messages have not moved within the time limit'
  unset start_limit
fi

# Streams that share a queue: process 0 prints one note.
CUDA_DEVICE_MAX_CONNECTIONS=1 passes 2 "${small[@]}" --timed
said='^pipesched: CUDA_DEVICE_MAX_CONNECTIONS is 1: [0-9]* streams share 1 queue of the device, '
[ "$(grep -c "$said" "$folder/err.0")" = 1 ] && ! grep -q CUDA_DEVICE "$folder/err.1" || failed "the note about queues"
passes 2 "${small[@]}"
! grep -q CUDA_DEVICE "$folder"/err.* || failed "a note about queues that are not shared"

refused() {
  launch 2 "${@:2}"
  [ "${codes[*]}" = "2 2" ] && grep -q "^cuda_mlp: $1" "$folder/err.1" || failed "${@:2}"
}
refused '--pp 3 needs as many processes; the launcher (torchrun) has started 2' --pp 3 --schedule 1f1b
refused '--mode is threads or graph with --transport nccl; got turns' --mode turns
refused '--ranks-per-gpu is for --transport peer' --ranks-per-gpu 2
NCCL_COMM_BLOCKING=0 refused 'NCCL_COMM_BLOCKING is set, which keeps channels from connecting; unset it' "${small[@]}"

# The same binary under the launchers that are there.
by_launcher() {
  local said
  command -v "$1" >/dev/null || return 0
  said=$("$@" "$example" --transport nccl --check "${small[@]}" 2>&1) && grep -q ': passed$' <<<"$said" ||
    { echo "FAILED: $1: $said"; failures=$((failures + 1)); }
}
if [ "$how" = on_host ]; then
  by_launcher mpirun --allow-run-as-root --oversubscribe -n 2
  by_launcher torchrun --no_python -r 1 -t 1 --nproc_per_node 2  # without -r and -t PyTorch 1.13 fails under Python 3.11
  ! sinfo >/dev/null 2>&1 || by_launcher srun -n 2
fi
[ "$failures" -eq 0 ] && echo passed
exit "$((failures > 0))"
