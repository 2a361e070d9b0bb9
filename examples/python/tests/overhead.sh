#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# overhead.sh [PYTHON]: the time of make_dualpipe_schedule(64, 1024) in Python beside that of C++, for an optimized package that is
# installed for PYTHON: medians. Exits with 1 if Python takes more than twice as long.
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
#include <vector>
int main() {
  std::vector<double> all;
  for (int i = 0; i < 201; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const auto s = pipesched::make_dualpipe_schedule({.pp = 64, .micro = 1024});
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    if (s.size() == 64) all.push_back(took.count());
  }
  std::nth_element(all.begin(), all.begin() + 100, all.end());
  std::printf("%.9f\n", all[100]);
}
CODE
g++ -std=c++20 -O2 -DNDEBUG -I "$include" "$work/time.cpp" -o "$work/time"
cpp=$("$work/time")
"$python" -I - "$cpp" <<'CODE'
import statistics
import sys
import time
import pipesched

took = []
for _ in range(201):
    begin = time.perf_counter()
    schedule = pipesched.make_dualpipe_schedule(pp=64, micro=1024)
    took.append(time.perf_counter() - begin)
cpp, python = float(sys.argv[1]), statistics.median(took)
print(f"make_dualpipe_schedule(64, 1024): C++ {1e3 * cpp:.3f} ms, Python {1e3 * python:.3f} ms, {python / cpp:.2f} times")
sys.exit(python > 2 * cpp)
CODE
