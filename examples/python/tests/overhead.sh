#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# overhead.sh [PYTHON]: the time of make_dualpipe_schedule(64, 1024) in Python beside that of C++, for an optimized package that is
# installed for PYTHON. Exits with 1 if Python takes more than twice as long.
set -euo pipefail
python=${1:-python3}
include=$(cd "$(dirname "$0")/../include" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/time.cpp" <<'CODE'
#include <chrono>
#include <cstdio>
#include <algorithm>
#include <pipesched/generate/dualpipe.hpp>
int main() {
  double best = 1e9;
  for (int i = 0; i < 50; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const auto s = pipesched::make_dualpipe_schedule({.pp = 64, .micro = 1024});
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    if (s.size() == 64) best = std::min(best, took.count());
  }
  std::printf("%.9f\n", best);
}
CODE
g++ -std=c++20 -O2 -DNDEBUG -I "$include" "$work/time.cpp" -o "$work/time"
cpp=$("$work/time")
"$python" - "$cpp" <<'CODE'
import sys
import time
import pipesched

best = 1e9
for _ in range(50):
    begin = time.perf_counter()
    schedule = pipesched.make_dualpipe_schedule(pp=64, micro=1024)
    best = min(best, time.perf_counter() - begin)
cpp = float(sys.argv[1])
print(f"make_dualpipe_schedule(64, 1024): C++ {1e3 * cpp:.3f} ms, Python {1e3 * best:.3f} ms, {best / cpp:.2f} times")
sys.exit(best > 2 * cpp)
CODE
