#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs missing packages, builds the tool, and generates DeepSeek-V3's DualPipe for 8 ranks and 20 micro-batches:
# verified, drawn, and written to dualpipe.json in the current folder.
set -euo pipefail
source_dir=$(cd "$(dirname "$0")/.." && pwd)
. "$source_dir/cmake/packages.sh"

need_writable "$source_dir/build"
need g++ cmake ninja-build libfmt-dev nlohmann-json3-dev libcli11-dev libasio-dev
echo "building the tool (about a minute on two cores the first time)"
log=$(mktemp)
if ! { (cd "$source_dir" && cmake --preset release -DPIPESCHED_TESTS=OFF -DPIPESCHED_UNITY_BUILD=ON -DPIPESCHED_BENCHES=OFF) &&
       cmake --build "$source_dir/build" --target pipesched_tool; } >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
rm -f "$log"

pipesched=$source_dir/build/examples/pipesched
"$pipesched" generate dualpipe --pp 8 --micro 20 --format grid
"$pipesched" generate dualpipe --pp 8 --micro 20 --output dualpipe.json
"$pipesched" verify dualpipe.json
echo "written to dualpipe.json; more: ${pipesched#"$PWD"/} --help"
