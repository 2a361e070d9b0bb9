#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs a fuzzer, bounded and repeatable. The corpus has schedules in both formats, with and without communication, costs, models and layouts.
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
  "$tool" lower "$work/corpus/$family" --format csv --output "$work/corpus/$family.comms.csv"
done
"$tool" lower "$work/corpus/zbv" --format csv --no-waits --output "$work/corpus/zbv.no_waits.csv"
printf '"0F0",\t0F1 ,"",0B0,0B1\r\n"1F0",1B0,1F1,1B1' >"$work/corpus/quotes.csv"
printf '0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\r\n1RECV_F0,1F0,1B0,1SEND_B0,1RECV_F1,1F1,1B1,1SEND_B1\r\n' \
  >"$work/corpus/deadlock.csv"
printf '0F0,0BW0\r\n' >"$work/corpus/letters_of_2024.csv"
echo '(0F7;7B13)' >"$work/corpus/cell"
cat >"$work/corpus/costs.json" <<'END'
{"forward": 1, "backward": 2.5, "backward_input": [1, 2, 1.5, 1], "overlap_efficiency": 0.9,
 "pairs": [{"ops": "FF", "time": 3}, {"ops": "FB", "stages": [0, 3], "time": 2.5}], "allowed_pairs": ["FB", "FI"],
 "communication": {"forward": 0.5, "backward_input": 0, "backward_weight": 0}, "release": {"forward": 1, "backward": 3},
 "transfer": 0.1, "message_bytes": [8, 9, 1e3], "bandwidth": 1,
 "memory": {"kept_by_forward": 7, "freed_by_input": 1, "freed_by_weight": 6, "weights": 5}}
END
cat >"$work/corpus/model.json" <<'END'
{"format": "pipesched.model", "version": 1, "time_unit": "ms",
 "layers": [{"kind": "embedding", "forward": 0.1}, {"kind": "moe", "count": 5, "forward": 2.28, "backward_input": 3.49,
  "backward_weight": 0.16, "recompute": 2, "kept": 1e9, "kept_input": 1e7, "context": 1e9, "transient": {"F": 0, "B": 5},
  "weights": 1e9, "message": 6e7}], "pairs": [{"kinds": ["moe", "moe"], "ops": "FB", "time": 3.9}],
 "allowed_pairs": ["FB", "FI"], "ranks": [{"speed": 1, "memory": 8e10}, {}],
 "links": [{"from": 0, "to": 1, "latency": 0.01, "bandwidth": 5e10, "busy": "none"}], "micro_batches": [1, 0.7]}
END
"$tool" model gemma_h1536_s4096_v256k --format json >"$work/corpus/gemma.json"
printf 'Et*2|(t|)*2,tL' >"$work/corpus/layout"
printf 'Ett||ttt|L' >"$work/corpus/layout.empty"
echo '{"rank_speeds": [1, 0.5], "micro_batches": [1, 0.7], "links": [{"from": 0, "to": 1, "latency": 1, "bandwidth": 2}]}' \
  >"$work/corpus/costs.ranks.json"
echo '{"overlapped": 3, "memory": {}, "pairs": []}' >"$work/corpus/costs.small.json"
if ! "$fuzzer" -runs="$runs" -seed=1 -max_len=2048 -timeout=20 -rss_limit_mb=2048 -artifact_prefix="$work/" "$work/corpus" \
     >"$work/log" 2>&1; then
  tail -n 40 "$work/log"
  exit 1
fi
tail -n 1 "$work/log"
