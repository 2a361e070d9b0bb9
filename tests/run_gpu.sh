#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds what runs on a GPU, runs it part by part, and collects the results. Needs nvcc, CMake, NCCL and a GPU.
#
#   tests/run_gpu.sh [PART...]    the parts named, or all of them; --list prints them with their commands and time limits
#
# A part takes at most PART_SECONDS (300); each of its commands has a limit of its own, after which it is killed. A call keeps
# the results of earlier ones, by command: those below BUILD, and those in the file EARLIER. Environment:
#
#   OUT=folder        for results.json and logs.tar.gz, which has what every command and NCCL printed; default BUILD/out
#   BUILD=folder      default build-gpu
#   EARLIER=file      results.json of a call on another machine or in another folder
#   HEADERS=folder    with fmt/, nlohmann/, CLI/ and doctest/, where they are not installed
#   NCCL_ROOT=folder  with include/nccl.h and lib/libnccl.so or libnccl.so.2, where NCCL is in no usual place
#   WITHOUT_NCCL=1    leaves out what needs NCCL; otherwise a missing NCCL is an error
#
# Ends with 0; 1 if something failed; 2 on bad input or without NCCL; 77 without a GPU.
set -uo pipefail
for folder in OUT BUILD EARLIER HEADERS NCCL_ROOT; do
  [ -z "${!folder-}" ] || printf -v "$folder" %s "$(realpath -m "${!folder}")"
done
cd "$(dirname "$0")/.." || exit 2
build=${BUILD:-build-gpu}
out=${OUT:-$build/out}
part_seconds=${PART_SECONDS:-300}
runs=$build/runs logs=$build/logs
mlp=$build/examples/cuda/cuda_mlp
all_parts=(smoke peer example check bench nccl nccl_failures messages sanitizers)
export PATH=$PATH:/usr/local/cuda/bin
failed=0 part='' deadline=0 lists=''

fail() {
  echo "run_gpu.sh: $1" >&2
  exit "${2:-2}"
}
# Of NCCL as a package of Python, which has libnccl.so.2 alone.
nccl_of_python() {
  python3 -c 'import nvidia.nccl as n; print(list(n.__path__)[0])' 2>/dev/null
}
gpu_count() {
  nvidia-smi --list-gpus 2>/dev/null | wc -l
}
export -f gpu_count

# run NAME SECONDS COMMAND...: one command, in which JSON stands for a file to write. Its result is one line of JSON.
run() {
  local name=$1 limit=$2 json=$runs/$1.json code=124 started left shown
  shift 2
  shown=${*//$build/build-gpu}
  shown=${shown#'bash -c ranks "$@" '}
  if [ -n "$lists" ]; then
    printf '  %-24s %4d s  %s\n' "$name" "$limit" "$shown"
    return
  fi
  rm -f "$json" "$logs/$name".*
  started=$(date +%s)
  left=$((deadline - started - 10))  # a command that does not end by itself is killed 10 s after its limit
  [ "$limit" -le "$left" ] || limit=$left
  if [ "$limit" -gt 0 ]; then
    NCCL_DEBUG_FILE=$logs/$name.nccl.%h.%p timeout -k 10 "$limit" "${@//JSON/$json}" >"$runs/output" 2>&1
    code=$?
    tail -c 1000000 "$runs/output" >"$logs/$name.log"
  else
    echo "not run: the $part_seconds s of the part $part are over" >"$logs/$name.log"
  fi
  find "$logs" -name "$name.nccl.*" -size +0 -exec head -c 300000 {} \; >"$logs/$name.nccl"
  find "$logs" \( -name "$name.nccl.*" -o -name "$name.nccl" -size 0 \) -delete
  echo "$part, $name: exit code $code, $(($(date +%s) - started)) s"
  tail -n 3 "$logs/$name.log"
  if [ "$code" != 0 ]; then
    failed=1
    [ ! -e "$logs/$name.nccl" ] || tail -n 5 "$logs/$name.nccl"
  fi
  {
    printf '{"part": "%s", "run": "%s", "date": "%s", "gpu": "%s", "command": "%s", "seconds": %d, "exit": %d' \
      "$part" "$name" "$(date -u +%FT%TZ)" "$gpu" "${shown//\"/\\\"}" $(($(date +%s) - started)) "$code"
    [ ! -s "$json" ] || { printf ', "result": ' && tr -d '\n' <"$json"; }
    printf '}\n'
  } >"$runs/$name.run"
  collect  # after every command: if this call is ended in the middle, what was measured so far is there
}

# A command in so many processes, as a launcher starts them. Processes that share a GPU are those of different hosts for NCCL,
# with sockets between them.
ranks() {
  local count=$1 rank pids=() code=0 port=$((15000 + RANDOM % 15000)) gpus
  shift
  gpus=$(gpu_count)
  export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME-lo} NCCL_IB_DISABLE=${NCCL_IB_DISABLE-1}
  export NCCL_NET=${NCCL_NET-Socket} NCCL_NET_PLUGIN=${NCCL_NET_PLUGIN-none}
  for ((rank = 0; rank < count; ++rank)); do
    [ "$gpus" -ge "$count" ] || export NCCL_HOSTID=host$rank
    RANK=$rank WORLD_SIZE=$count LOCAL_RANK=$rank LOCAL_WORLD_SIZE=$count MASTER_ADDR=127.0.0.1 MASTER_PORT=$port "$@" &
    pids+=($!)
  done
  for rank in "${pids[@]}"; do wait "$rank" || code=$?; done
  return "$code"
}
export -f ranks
run_ranks() {  # name, seconds, processes, command
  local name=$1 limit=$2
  shift 2
  run "$name" "$limit" bash -c 'ranks "$@"' ranks "$@"
}

run_quick() {  # before the parts of every call
  run quick 60 "$build/tests/cuda/cuda_peer" quick
}
part_smoke() {
  run nvidia_smi 20 nvidia-smi
  [ -n "${WITHOUT_NCCL-}" ] ||
    NCCL_DEBUG=INFO run_ranks nccl_first 120 2 "$mlp" --transport nccl --schedule 1f1b --check --start-limit 80 --time-limit 30 --json JSON
}
part_peer() {
  run cuda_peer 200 "$build/tests/cuda/cuda_peer"
  run mlp_ops 60 "$build/tests/cuda/cuda_mlp_ops"
  [ -n "${WITHOUT_NCCL-}" ] || run nccl_library 60 "$build/tests/cuda/cuda_nccl_library"
}
part_example() {
  run example 280 tests/cuda/example.sh "$mlp"
}
part_check() {
  local schedule pp mode
  for schedule in 1f1b zb1p dualpipe dualpipev; do
    for pp in 2 4 8; do run "check_${schedule}_$pp" 60 "$mlp" --schedule $schedule --pp $pp --check --json JSON; done
  done
  for mode in threads turns graph; do
    run "mode_$mode" 60 "$mlp" --schedule dualpipev --pp 4 --mode $mode --steps 30 --check --json JSON
  done
}
part_bench() {
  local transfer overlap schedule
  run overhead 100 "$build/bench/cuda/cuda_overhead" JSON
  # An overlapped cell beside its ops one after the other, with a transfer in each to hide and without. Two ranks: more
  # would contend for one GPU.
  for transfer in none host; do
    for overlap in "" --no-overlap; do
      run "overlap_$transfer$overlap" 60 "$mlp" --schedule dualpipev --pp 2 --micro 20 --transfer $transfer $overlap --timed \
        --json JSON
    done
  done
  # Costs of one schedule, the time of others: predicted, then measured. Both ranks share a GPU where there is one.
  run predict 60 "$mlp" --schedule zbv --pp 2 --micro 20 --steps 30 --predict v_half,v_min,dualpipev,hanayo,v_1f1b --json JSON
  for schedule in v_half v_min dualpipev hanayo v_1f1b; do
    run "measure_$schedule" 60 "$mlp" --schedule $schedule --pp 2 --micro 20 --steps 30 --timed --json JSON
  done
}
part_nccl() {
  local schedule pp limits='--start-limit 60 --time-limit 25'
  for schedule in 1f1b zb1p dualpipe dualpipev; do
    for pp in 2 4; do
      run_ranks "nccl_${schedule}_$pp" 100 "$pp" "$mlp" --transport nccl --schedule $schedule --check $limits --json JSON
    done
  done
  run_ranks nccl_graph 100 2 "$mlp" --transport nccl --schedule dualpipev --mode graph --check $limits --json JSON
}
part_nccl_failures() {
  run nccl_failures 290 tests/cuda/nccl.sh "$mlp"
}
part_messages() {
  run_ranks nccl_messages 290 2 "$build/bench/cuda/nccl_messages" JSON
}
part_sanitizers() {
  local tool
  if [ -z "$lists" ] && ! command -v compute-sanitizer >/dev/null; then
    echo "skipped: compute-sanitizer is not there"
    return
  fi
  for tool in memcheck synccheck initcheck; do
    run "sanitizer_$tool" 100 compute-sanitizer --tool "$tool" --error-exitcode 1 "$build/tests/cuda/cuda_peer" quick
  done
}
needs_nccl() { [[ $1 == nccl* || $1 == messages ]]; }

# Results of all calls, a line each, the last one of each command.
collect() {
  local -A line_of=()
  local names=() line name first=1
  while IFS= read -r line; do
    line=${line#"${line%%[![:space:]]*}"}
    [[ ${line%,} =~ ^\{\"part\":\ \"[^\"]*\",\ \"run\":\ \"([^\"]*)\".*\}$ ]] || continue
    name=${BASH_REMATCH[1]}
    [ -n "${line_of[$name]-}" ] || names+=("$name")
    line_of[$name]=${line%,}
  done < <(cat ${EARLIER:+"$EARLIER"} "$runs"/*.run 2>/dev/null)
  {
    printf '{"format": "pipesched.gpu_results", "runs": ['
    for name in "${names[@]}"; do
      [ "$first" = 1 ] || printf ','
      printf '\n  %s' "${line_of[$name]}"
      first=0
    done
    printf '\n]}\n'
  } >"$out/results.json"
  tar -czf "$out/logs.tar.gz" -C "$build" logs
}

chosen=()
for name in "$@"; do
  [ "$name" = --list ] && lists=1 && continue
  [[ " ${all_parts[*]} " == *" $name "* ]] || fail "no part is called \"$name\"; there are ${all_parts[*]}"
  chosen+=("$name")
done
[ ${#chosen[@]} -gt 0 ] || chosen=("${all_parts[@]}")
if [ -n "${WITHOUT_NCCL-}" ]; then
  kept=()
  for part in "${chosen[@]}"; do if needs_nccl "$part"; then echo "left out, without NCCL: $part"; else kept+=("$part"); fi; done
  chosen=("${kept[@]}")
  [ ${#chosen[@]} -gt 0 ] || fail "without NCCL none of these parts can run"
fi
if [ -n "$lists" ]; then
  for part in "${chosen[@]}"; do echo "$part" && "part_$part"; done
  exit 0
fi
[[ $part_seconds =~ ^[1-9][0-9]*$ ]] || fail "PART_SECONDS is a number of seconds above 0; got \"$part_seconds\""
[ -z "${EARLIER-}" ] || [ -r "$EARLIER" ] || fail "EARLIER=$EARLIER cannot be read"
mkdir -p "$runs" "$logs" "$out" || fail "$build and $out must be folders that can be written"

export NCCL_DEBUG=${NCCL_DEBUG-WARN}
gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1)
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)
configure() {  # [NCCL_ROOT]
  timeout -k 10 100 cmake -S . -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DPIPESCHED_GPU_ONLY=ON \
    -DPIPESCHED_CUDA_ARCHITECTURES="${ARCHITECTURES:-native}" -DNCCL_ROOT="${1-}" \
    ${HEADERS:+-DPIPESCHED_HEADERS="$HEADERS"} >"$logs/build.log" 2>&1 ||
    { tail -n 40 "$logs/build.log"; collect; fail "cmake has failed" 1; }
}
has_nccl() {
  grep -q '^NCCL_LIBRARY:FILEPATH=/' "$build/CMakeCache.txt" && grep -q '^NCCL_INCLUDE_DIR:PATH=/' "$build/CMakeCache.txt"
}
started=$(date +%s)
configure "${NCCL_ROOT-}"
if [ -z "${WITHOUT_NCCL-}" ] && ! has_nccl; then
  [ -n "${NCCL_ROOT-}" ] || configure "$(nccl_of_python)"
  has_nccl ||
    fail "NCCL was not found; give NCCL_ROOT=folder, with include/nccl.h and lib/libnccl.so or libnccl.so.2, or WITHOUT_NCCL=1"
fi
timeout -k 10 290 cmake --build "$build" --parallel >>"$logs/build.log" 2>&1 ||
  { tail -n 40 "$logs/build.log"; collect; fail "the build has failed, or took more than 290 s" 1; }
echo "built in $(($(date +%s) - started)) s"

part=quick
deadline=$(($(date +%s) + part_seconds))
run_quick
if [ "$failed" = 1 ]; then
  ! grep -q '"exit": 77' "$runs/quick.run" || { rm "$runs/quick.run" && collect && echo "built, and nothing was run" && exit 77; }
  fail "the first program on the GPU has failed: nothing else was run" 1
fi
for part in "${chosen[@]}"; do
  deadline=$(($(date +%s) + part_seconds))
  "part_$part"
done
echo "results: $out/results.json ($(grep -c '"run": ' "$out/results.json") commands), $out/logs.tar.gz"
exit "$failed"
