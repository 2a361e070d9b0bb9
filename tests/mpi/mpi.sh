#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs tests/mpi/mpi.cpp with four processes: mpi.sh PROGRAM. Exits with 77 where there is no MPI.
set -uo pipefail
program=$(realpath "$1")
[ -x "$program" ] || { echo "FAILED: there is no program $1"; exit 1; }  # mpirun --enable-recovery would wait for it
command -v mpirun >/dev/null || { echo "skipped: no mpirun"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1  # in containers; other users are not concerned
# Each with a session folder of its own: two that begin at once fail over a shared one.
run() { (TMPDIR=$(mktemp -d "$work/XXXXXX") && export TMPDIR && exec timeout --kill-after=5 240 mpirun --oversubscribe -n 4 "$@"); }
failed=0

for part in refuses trains throws wrong_size leaves stalls control large; do
  run "$program" "$part" || { echo "FAILED: $part"; failed=1; }
done

# A rank is killed at a random place, and the others' reports are judged. The runs wait more than they compute, so four share the cores.
kills() {  # first seed, last seed, judge
  local seed running=0
  for seed in $(seq "$1" "$2"); do
    [ "$running" -lt 4 ] || { wait -n; running=$((running - 1)); }
    "$3" "$seed" &
    running=$((running + 1))
  done
  wait
}
judged() { find . -name "$1" | wc -l; }  # good.*, bad.*
verdict() {  # number, sentence
  local good
  good=$(judged 'good.*')
  [ "$good" != "$1" ] || echo "ok: $1 times $2"
  [ "$good" = "$1" ] || { failed=1; find . -name 'bad.*' -exec cat {} +; }
  rm -f good.* bad.*
}

# SIGKILL of a rank, at a hundred random places. With --enable-recovery mpirun leaves the others alone, and they end by the time
# limit, each with a report.
ends_by_itself() {
  local seed=$1 code
  run --enable-recovery "$program" killed "$work/said.$seed" "$seed" >"log.$seed" 2>&1
  code=$?
  if [ "$code" -ne 124 ] && [ "$(cat "said.$seed".* 2>/dev/null | grep -c '^ok')" = 3 ]; then
    : >"good.$seed"
  else
    { echo "FAILED: the ranks after one was killed, seed $seed, status $code"; cat "log.$seed" "said.$seed".*; } >"bad.$seed" 2>&1
  fi
}
kills 1 100 ends_by_itself
grep -h '^ok' said.100.* | sed 's/: aborted.*/: .../'
verdict 100 "a rank is killed, and the other three end by themselves, with a report"

# By default mpirun ends the others itself, before the limit or about then.
ended_by_mpirun() {
  local seed=$1 start took code
  start=$(date +%s)
  run "$program" killed "$work/said.$seed" "$seed" >"log.$seed" 2>&1
  code=$?
  took=$(($(date +%s) - start))
  if [ "$code" -ne 0 ] && [ "$took" -le 10 ] && grep -q 'signal 9' "log.$seed" && ! grep -qs FAILED "said.$seed".*; then
    : >"good.$seed"
  else
    { echo "FAILED: after $took s, seed $seed, status $code"; cat "log.$seed" "said.$seed".*; } >"bad.$seed" 2>&1
  fi
}
rm -f said.*
kills 1 10 ended_by_mpirun
verdict 10 "a rank is killed, and mpirun ends the others"
exit "$failed"
