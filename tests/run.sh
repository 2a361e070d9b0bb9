#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs what is missing, builds everything with g++ and, under sanitizers, with clang, and runs every test.
set -euo pipefail
cd "$(dirname "$0")/.."
. cmake/packages.sh
log=$(mktemp)
trap 'rm -f "$log"' EXIT

quietly() {  # shows what a command prints only if it fails
  "$@" >"$log" 2>&1 || { cat "$log"; return 1; }
}

# A browser is large: it is installed for CI, used where it is there, and not forced on anybody else.
[ -z "${CI:-}" ] || need chromium chromium-driver python3-selenium python3
[ -z "${CI:-}" ] || need openmpi-bin libopenmpi-dev
command -v mpirun >/dev/null || echo "skipped: the tests over MPI (no openmpi-bin, libopenmpi-dev)"
command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ] || echo "skipped: what needs CUDA (no nvcc on PATH or under /usr/local/cuda)"
[ -e /dev/nvidia0 ] || echo "skipped: the tests with the label gpu, and tests/run_gpu.sh (no GPU: no /dev/nvidia0)"
command -v chromedriver >/dev/null || echo "skipped: the test of the HTML page (no chromium-driver)"
need g++ clang libclang-rt-dev cmake ninja-build libfmt-dev nlohmann-json3-dev libcli11-dev doctest-dev libvalijson-dev \
     libbenchmark-dev
echo "building with g++"
quietly cmake --preset ci
quietly cmake --build --preset ci --target all all_verify_interface_header_sets
echo "building with clang, address and undefined-behaviour sanitizers"
quietly cmake --preset asan
quietly cmake --build --preset asan
echo "testing under sanitizers"
quietly ctest --preset asan
tail -n 3 "$log" | head -n 1
echo "testing"
ctest --preset ci
