#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds what runs on a GPU, runs its tests, benches and example, and writes one JSON of results. Needs nvcc, CMake and a GPU.
#
#   tests/run_gpu.sh [HEADERS]     HEADERS: a folder with fmt/, nlohmann/, CLI/ and doctest/, where they are not installed
#   BUILD=folder RESULTS=file      default: build-gpu, and results.json in it
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
[ $? != 77 ] || { echo "built, and nothing was run"; exit 77; }

# Runs a command, where JSON stands for a file to write. Its part of the results: its name, its exit code and what it wrote.
part() {
  local name=$1 json=$build/parts/$1.json code started
  shift
  started=$(date +%s)
  timeout 300 "${@//JSON/$json}" >"$build/parts/$name.said" 2>&1
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

part tests ctest --test-dir "$build" -L gpu --output-on-failure
part overhead "$build/bench/cuda/cuda_overhead" JSON
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck synccheck initcheck; do
    part "sanitizer_$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 "$build/tests/cuda/cuda_peer" quick
  done
else
  echo "skipped: compute-sanitizer is not there"
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
