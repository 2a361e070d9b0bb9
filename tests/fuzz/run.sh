#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A bounded, repeatable run of a fuzzer, started from real schedules and hand-made wrong ones.
set -euo pipefail
fuzzer=$1 tool=$2 runs=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/corpus"
for family in $("$tool" list | cut -d' ' -f1); do
  "$tool" generate $family --pp 2 --micro 4 --output "$work/corpus/$family"
done
for family in 1f1b interleaved_zb dualpipev; do
  "$tool" generate $family --pp 2 --micro 4 --format csv --output "$work/corpus/$family.csv"
done
echo '(0F7;7B13)' >"$work/corpus/cell"
if ! "$fuzzer" -runs="$runs" -seed=1 -max_len=2048 -timeout=20 -rss_limit_mb=2048 -artifact_prefix="$work/" "$work/corpus" \
     >"$work/log" 2>&1; then
  tail -n 40 "$work/log"
  exit 1
fi
tail -n 1 "$work/log"
