#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Compile time of the library: a file that includes pipesched/pipesched.hpp and makes one schedule, beside one
# that includes nlohmann/json.hpp and parses {}. Prints the least processor time of several compilations of each, in seconds.
#
#   bench/compile_time.sh [compiler ...]
set -euo pipefail
source_dir=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/pipesched.cpp" <<'END'
#include <pipesched/pipesched.hpp>
int main() { return static_cast<int>(pipesched::make_dualpipe_schedule({.pp = 8, .micro = 20})[0].size()); }
END
cat >"$work/json.cpp" <<'END'
#include <nlohmann/json.hpp>
int main() { return static_cast<int>(nlohmann::json::parse("{}").size()); }
END

shortest() {  # compiler, flags, file
  local best=999 seconds TIMEFORMAT='%U %S'
  for _ in 1 2 3 4 5 6 7; do
    seconds=$( { time "$1" -std=c++20 $2 -I"$source_dir/include" -c "$3" -o "$work/object" 2>/dev/null; } 2>&1 | awk '{print $1 + $2}')
    best=$(awk "BEGIN {print ($seconds < $best ? $seconds : $best)}")
  done
  echo "$best"
}

for compiler in "${@:-g++}"; do
  for flags in -O0 -O2; do
    ours=$(shortest "$compiler" $flags "$work/pipesched.cpp")
    json=$(shortest "$compiler" $flags "$work/json.cpp")
    awk "BEGIN {printf \"%-8s %s  pipesched.hpp %.2f s  nlohmann/json.hpp %.2f s  ratio %.2f\n\", \"$compiler\", \"$flags\", $ours, $json, $ours / $json}"
  done
done
