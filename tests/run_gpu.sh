#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds the GPU programs, runs the GPU tests, benches and example, and writes one JSON of results. Needs nvcc, CMake and a GPU.
#
#   tests/run_gpu.sh [HEADERS]     HEADERS: a folder with fmt/, nlohmann/, CLI/ and doctest/, where they are not installed
#   BUILD=folder RESULTS=file      default: build-gpu, and results.json in it
#   ONLY=regex                     only the parts whose name matches, such as '^(tests|nccl)'
set -uo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build-gpu}
results=${RESULTS:-$build/results.json}
export PATH=$PATH:/usr/local/cuda/bin
mkdir -p "$build/parts" "$(dirname "$results")"
rm -f "$build"/parts/*
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)
failed=0

cmake -S . -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DPIPESCHED_GPU_ONLY=ON \
      -DPIPESCHED_CUDA_ARCHITECTURES="${ARCHITECTURES:-native}" ${1:+-DPIPESCHED_HEADERS="$(realpath "$1")"} >"$build/log" 2>&1 &&
  cmake --build "$build" --parallel >>"$build/log" 2>&1 || { tail -n 40 "$build/log"; exit 1; }

"$build/tests/cuda/cuda_peer" quick
[ $? != 77 ] || { echo "built; nothing was run, as there is no usable GPU"; exit 77; }

# Runs a command, in which JSON stands for an output file. Adds its name, its exit code and that file to the results.
part() {
  local name=$1 json=$build/parts/$1.json code started
  shift
  [[ $name =~ ${ONLY-} ]] || return 0
  started=$(date +%s)
  timeout 500 "${@//JSON/$json}" >"$build/parts/$name.said" 2>&1
  code=$?
  echo "$name: exit code $code, $(($(date +%s) - started)) s"
  tail -n 3 "$build/parts/$name.said"
  [ "$code" = 0 ] || failed=1
  {
    printf '{"part": "%s", "command": "%s", "exit": %d' "$name" "${*//$build/build-gpu}" "$code"
    [ ! -s "$json" ] || { printf ', "result": ' && cat "$json"; }
    printf '}'
  } >"$build/parts/$name.part"
}

# Runs a command in `count` processes, as a launcher does. Processes that share a GPU pose as different hosts to NCCL, which
# then connects them by sockets.
ranks() {
  local count=$1 rank pids=() code=0 port=$((15000 + RANDOM % 15000)) gpus
  shift
  gpus=$(nvidia-smi --list-gpus | wc -l)
  export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME-lo} NCCL_IB_DISABLE=${NCCL_IB_DISABLE-1}
  for ((rank = 0; rank < count; ++rank)); do
    [ "$gpus" -ge "$count" ] || export NCCL_HOSTID=host$rank
    RANK=$rank WORLD_SIZE=$count LOCAL_RANK=$rank LOCAL_WORLD_SIZE=$count MASTER_ADDR=127.0.0.1 MASTER_PORT=$port "$@" &
    pids+=($!)
  done
  for rank in "${pids[@]}"; do wait "$rank" || code=$?; done
  return "$code"
}
export -f ranks
nccl() {  # part, processes, command
  local name=$1
  shift
  part "$name" bash -c 'ranks "$@"' ranks "$@"
}

part tests ctest --test-dir "$build" -L gpu --output-on-failure
part overhead "$build/bench/cuda/cuda_overhead" JSON
mlp=$build/examples/cuda/cuda_mlp
for schedule in 1f1b zb1p dualpipe dualpipev; do
  for pp in 2 4 8; do part "check_${schedule}_$pp" "$mlp" --schedule $schedule --pp $pp --check --json JSON; done
done
for mode in threads turns graph; do
  part "mode_$mode" "$mlp" --schedule dualpipev --pp 4 --mode $mode --steps 30 --check --json JSON
done
# Compares an overlapped cell with the same ops in sequence, with and without a transfer to hide. Uses two ranks, as more
# would contend for one GPU.
for transfer in none host; do
  for overlap in "" --no-overlap; do
    part "overlap_$transfer$overlap" "$mlp" --schedule dualpipev --pp 2 --micro 20 --transfer $transfer $overlap --timed \
      --json JSON
  done
done
# Predicts the time of schedules from the measured costs of another one, then measures them. On one GPU both ranks share it.
part predict "$mlp" --schedule zbv --pp 2 --micro 20 --steps 30 --predict v_half,v_min,dualpipev,hanayo,v_1f1b --json JSON
for schedule in v_half v_min dualpipev hanayo v_1f1b; do
  part "measure_$schedule" "$mlp" --schedule $schedule --pp 2 --micro 20 --steps 30 --timed --json JSON
done
if [ -x "$build/bench/cuda/nccl_messages" ]; then
  for schedule in 1f1b zb1p dualpipe dualpipev; do
    for pp in 2 4; do
      nccl "nccl_${schedule}_$pp" "$pp" "$mlp" --transport nccl --schedule $schedule --check --time-limit 100 --json JSON
    done
  done
  nccl nccl_graph 2 "$mlp" --transport nccl --schedule dualpipev --mode graph --check --json JSON
  nccl nccl_messages 2 "$build/bench/cuda/nccl_messages" JSON
else
  echo "skipped: built without NCCL"
fi
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck synccheck initcheck; do
    part "sanitizer_$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 "$build/tests/cuda/cuda_peer" quick
  done
else
  echo "skipped: compute-sanitizer not found"
fi

{
  printf '{"date": "%s", "gpu": "%s",\n "parts": [' "$(date -u +%F)" \
    "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1)"
  first=1
  for file in "$build"/parts/*.part; do
    [ "$first" = 1 ] || printf ','
    printf '\n  ' && cat "$file"
    first=0
  done
  printf '\n ]}\n'
} >"$results"
echo "results: $results"
exit "$failed"
