#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Trains the example's model for a few steps under several schedules. The losses must equal those of one device, and fall.
#
#   tests/train.sh TRAIN TOOL
set -euo pipefail
train=$1 tool=$2
failures=0
for schedule in 1f1b interleaved_1f1b zbv dualpipe dualpipev chimera v_half looped_bfs; do
  out=$("$train" --schedule "$schedule" --pp 2 --micro 5 --steps 15 --layers 2 --width 16 --context 16 --batch 2 --check --evaluate)
  difference=$(sed -n 's/.*largest relative difference of a step.s loss \([^ ]*\)$/\1/p' <<<"$out")
  first=$(sed -n 's/^step    1 of .* loss \([^ ]*\) .*/\1/p' <<<"$out")
  last=$(sed -n 's/^one device: last loss \([^ ;]*\);.*/\1/p' <<<"$out")
  held=$(sed -n 's/^held-out text: loss //p' <<<"$out")
  if awk "BEGIN { exit !($difference < 1e-6 && $last < $first - 0.3 && $held < $first) }"; then
    echo "$schedule: loss $first to $last, held-out $held, relative difference from one device $difference"
  else
    echo "FAILED: $schedule: $out"
    failures=$((failures + 1))
  fi
done
whole=
for recompute in none all inside; do
  out=$("$train" --schedule dualpipev --pp 2 --micro 4 --steps 12 --layers 4 --width 16 --context 16 --recompute $recompute)
  out=$(sed -n 's/^\(step .* loss [^ ]*\) .*/\1/p; /|/p' <<<"$out")
  if [ -z "$out" ] || [ "${whole:=$out}" != "$out" ]; then
    echo "FAILED: --recompute $recompute: other losses than without: $out"; failures=$((failures + 1))
  else
    echo "--recompute $recompute: the losses of a step that keeps everything"
  fi
done
out=$("$train" --schedule zbv --pp 2 --micro 4 --steps 3 --layers 2 --width 16 --context 16 --predict v_half,dualpipev)
if ! grep -q '^last step: measured [0-9.]* ms, simulated with the fitted costs [0-9.]* ms' <<<"$out" ||
   ! grep -q '^dualpipev: [0-9.]* ms with these costs' <<<"$out"; then
  echo "FAILED: --predict: $out"; failures=$((failures + 1))
fi
out=$("$train" --schedule zbv --pp 2 --micro 4 --steps 6 --layers 4 --width 16 --context 16 --partition 3,0,2,1 --one-thread --check --fit 2)
difference=$(sed -n 's/.*largest relative difference of a step.s loss \([^ ]*\)$/\1/p' <<<"$out")
if ! awk "BEGIN { exit !(\"$difference\" != \"\" && $difference + 0 < 1e-6) }" ||
   ! grep -q '^costs of layers in ms, fitted to 2 steps and measured alone$' <<<"$out" ||
   [ "$(grep -cE '^(embedding|block|head) +[FIW] +[0-9.]+ +[0-9.]+ +[+-][0-9.]+ %$' <<<"$out")" != 9 ]; then
  echo "FAILED: --partition and --fit: $out"; failures=$((failures + 1))
fi
# From a measured step to the fitted model, its plan, and a step of the plan with its partition.
small="--pp 2 --micro 4 --steps 3 --layers 4 --width 16 --context 16"
"$train" --schedule zbv $small --one-thread --fit 3 --fitted fitted.json >out
"$tool" plan --model fitted.json --pp 2 --micro 4 --placement vee --evaluations 2000 -o plan.json
out=$("$train" --schedule plan.json $small --check --evaluate --fit 3)
difference=$(sed -n 's/.*largest relative difference of a step.s loss \([^ ]*\)$/\1/p' <<<"$out")
if ! awk "BEGIN { exit !(\"$difference\" != \"\" && $difference + 0 < 1e-6) }" ||
   ! grep -qE '^step: measured [0-9.]+ ms, median of 3; simulated with the fitted costs [0-9.]+ ms$' <<<"$out"; then
  echo "FAILED: --fitted, a plan, and the plan as --schedule: $out"; failures=$((failures + 1))
else
  echo "a planned step: relative difference from one device $difference"
fi
# Two copies of every stage; those of stage 1 are on one rank, which adds their gradients itself.
cat >copies.json <<'END'
{"format": "pipesched.schedule", "version": 1, "name": "copies", "pp": 3, "stages": 3, "micro": 4,
 "placement": {"kind": "custom", "rank_of_stage": [[0, 1, 2], [2, 1, 0]]},
 "ranks": [["0F0", "0F1", "2F2", "2F3", "0B0", "0B1", "2B2", "2B3"],
           ["1F0", "1F1", "1F2", "1F3", "1B0", "1B1", "1B2", "1B3"],
           ["2F0", "2F1", "0F2", "0F3", "2B0", "2B1", "0B2", "0B3"]]}
END
out=$("$train" --schedule copies.json --pp 3 --micro 4 --steps 6 --layers 3 --width 16 --context 16 --check || true)
difference=$(sed -n 's/.*largest relative difference of a step.s loss \([^ ]*\)$/\1/p' <<<"$out")
if ! awk "BEGIN { exit !(\"$difference\" != \"\" && $difference + 0 < 1e-6) }"; then
  echo "FAILED: both copies of a stage on one rank: $out"; failures=$((failures + 1))
else
  echo "both copies of a stage on one rank: relative difference from one device $difference"
fi
if "$train" --schedule plan.json --pp 4 >out 2>err || [ $? -ne 2 ] ||
   [ "$(cat err)" != "train: --schedule plan.json has 2 ranks and 4 micro-batches; --pp and --micro say 4 and 8" ]; then
  echo "FAILED: --schedule with other ranks: $(cat err)"; failures=$((failures + 1))
fi
for layers in '0,3,3,0:the first stage has the embedding; got 0 layers for it, nearest 1' \
              '3,3:a partition of 2 stages; expected 4' '3,3,3,3:a partition of 12 layers; the model has 6'; do
  if "$train" --schedule zbv --pp 2 --micro 4 --layers 4 --partition "${layers%%:*}" >out 2>err || [ $? -ne 2 ] ||
     [ "$(cat err)" != "train: ${layers#*:}" ]; then
    echo "FAILED: --partition ${layers%%:*}: $(cat err)"; failures=$((failures + 1))
  fi
done
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1  # for containers, which run as root
refusal=$("$train" --transport mpi --html x 2>&1 || true)
if command -v mpirun >/dev/null && [[ $refusal != *"without MPI"* ]]; then
  TMPDIR=$(mktemp -d)  # a session folder of its own: two runs that begin at once fail over a shared one
  trap 'rm -rf "$TMPDIR"' EXIT
  export TMPDIR
  for schedule in dualpipe zbv; do
    out=$(timeout 120 mpirun --oversubscribe -n 2 "$train" --transport mpi --schedule "$schedule" --pp 2 --micro 4 --steps 12 --layers 2 \
      --width 16 --context 16 --check --evaluate)
    difference=$(sed -n 's/.*largest relative difference of a step.s loss \([^ ]*\)$/\1/p' <<<"$out")
    if awk "BEGIN { exit !(\"$difference\" != \"\" && $difference + 0 < 1e-6) }"; then
      echo "$schedule over MPI: relative difference from one device $difference"
    else
      echo "FAILED: $schedule over MPI: $out"; failures=$((failures + 1))
    fi
  done
fi
if "$train" --schedule nothing >out 2>err || [ $? -ne 2 ] || ! grep -q '^train: no schedule is called "nothing"' err; then
  echo "FAILED: an unknown schedule"; failures=$((failures + 1))
fi
rm -f out err fitted.json plan.json copies.json
exit "$((failures > 0))"
