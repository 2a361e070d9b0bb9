#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs what is missing, builds everything, and runs every test: g++; clang 19 under sanitizers; headers and the tool with
# clang 14 and with libc++.
# A failing part does not stop the others. The main suite runs last; the exit status covers all parts.
#
#   tests/run.sh          everything: about an hour on two cores
#   tests/run.sh --fast   g++ alone, without CUDA, sanitizers and the tests with the label slow
set -uom pipefail  # m: every part is a group of processes, which ends with the script
case ${1-} in
  "" | --fast) ;;
  *) echo "usage: tests/run.sh [--fast]" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/.."
. cmake/packages.sh
log=$(mktemp)
job=
trap '[ -z "$job" ] || kill -- "-$job" 2>/dev/null; rm -f "$log"' EXIT
trap 'exit 130' INT TERM
failed=()

clock() { printf '%d min %02d s' $((SECONDS / 60)) $((SECONDS % 60)); }

# Progress of the command that writes the log: "[12/101]" of ninja, "12/259" of ctest.
progress() { tr '\r' '\n' <"$log" | grep -oE '^ *(\[[0-9]+/[0-9]+\]|[0-9]+/[0-9]+ Test)' | tail -n 1 | tr -d ' Test'; }

# Waits for the job. Prints its progress once a minute, unless the log has been shown meanwhile.
follow() {  # name, shown or hidden
  local seconds=0 size=0 new_size
  while kill -0 "$job" 2>/dev/null; do
    sleep 1
    ((++seconds % 60 == 0)) || continue
    new_size=$(stat -c %s "$log")
    [ "$2" = shown ] && [ "$new_size" != "$size" ] || echo "$(clock): still $1 $(progress)"
    size=$new_size
  done
  wait "$job"
  local code=$?
  job=
  return "$code"
}

# part NAME COMMAND ...: prints the command's output only if it fails, and the summary of tests always.
part() {
  local name=$1
  shift
  echo "$(clock): $name"
  "$@" >"$log" 2>&1 </dev/null &
  job=$!
  if follow "$name" hidden; then
    grep -E '^[0-9]+% tests passed' "$log"
    return 0
  fi
  grep -vE '^\[[0-9]+/[0-9]+\] [A-Z]|^ +Start +[0-9]+:|Test +#[0-9]+: .* Passed ' "$log" | tail -n 400
  echo "FAILED: $name"
  failed+=("$name")
  return 1
}

build() { cmake --preset "$1" && cmake --build --preset "$1" -- -k 0; }  # as much as can be built

# Runs the main suite, with CTest's output as it is written and its summary last, and returns the status of all parts.
finish() {  # preset
  [ ${#failed[@]} -eq 0 ] || printf 'FAILED: %s\n' "${failed[@]}"
  echo "$(clock): testing with g++"
  : >"$log"
  ctest --preset "$1" > >(tee "$log") 2>&1 </dev/null &
  job=$!
  follow "testing with g++" shown || failed+=("testing with g++")
  sleep 0.2  # tee
  exit $((${#failed[@]} > 0))
}

need_writable "$PWD/build" || exit 1
compilers=(g++ cmake ninja-build libfmt-dev nlohmann-json3-dev libcli11-dev libasio-dev doctest-dev)
if [ "${1-}" = --fast ]; then
  need "${compilers[@]}" libbenchmark-dev || exit 1
  part "building with g++" build dev
  finish dev
fi

# A browser, MPI, HIP and Python's headers are large: CI installs them; elsewhere they are used if installed.
[ -z "${CI:-}" ] || need chromium chromium-driver python3-selenium python3-venv python3-dev openmpi-bin libopenmpi-dev libamdhip64-dev || failed+=("packages for CI")
[ -z "${CI:-}" ] || need_conan build/conan || failed+=("Conan for CI")
echo "skipped: the tests of pipesched.torch (large: by hand, in a virtual environment with PyTorch; see examples/python/README.md)"
has libamdhip64-dev || echo "skipped: the compilation for HIP (no libamdhip64-dev)"
has openmpi-bin || echo "skipped: the tests over MPI (no openmpi-bin, libopenmpi-dev)"
command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ] || echo "skipped: all that needs CUDA (no nvcc on PATH or under /usr/local/cuda)"
[ -e /dev/nvidia0 ] || echo "skipped: the tests with the label gpu, and tests/run_gpu.sh (no GPU: no /dev/nvidia0)"
has conan || [ -x build/conan/bin/conan ] || echo "skipped: the test of the Conan package (no conan; with CI=true it is installed from PyPI)"
has chromium-driver || echo "skipped: the test of the HTML page (no chromium-driver)"
need "${compilers[@]}" libbenchmark-dev libvalijson-dev || exit 1
need clang-14 clang-19 clang-tidy-19 libclang-rt-19-dev libc++-19-dev libc++abi-19-dev || failed+=("packages of clang")

part "building with g++" build ci
if has clang-19; then
  part "building with clang under sanitizers" build asan && part "testing under sanitizers" ctest --preset asan
  part "building the tests with threads" build tsan && part "testing threads under the thread sanitizer" ctest --preset tsan
  part "building headers and tool with libc++" build libcxx && part "testing the tool with libc++" tests/tool.sh build-libcxx/examples/pipesched
fi
if has clang-14; then
  part "building headers and tool with clang 14" build clang && part "testing the tool of clang 14" tests/tool.sh build-clang/examples/pipesched
fi
finish ci
