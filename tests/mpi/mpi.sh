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
run=(timeout --kill-after=5 240 mpirun --oversubscribe -n 4)
failed=0

for part in refuses trains throws wrong_size leaves stalls control large; do
  "${run[@]}" "$program" "$part" || { echo "FAILED: $part"; failed=1; }
done

# SIGKILL of a rank, at a hundred random places. With --enable-recovery mpirun leaves the others alone, and they end by the time
# limit, each with a report.
good=0
for seed in $(seq 100); do
  rm -f said.*
  "${run[@]}" --enable-recovery "$program" killed "$work/said" "$seed" >log 2>&1
  [ $? -ne 124 ] || { echo "FAILED: no end within 240 s, seed $seed; the other seeds are not tried"; cat log; exit 1; }
  if [ "$(cat said.* 2>/dev/null | grep -c '^ok')" = 3 ]; then
    good=$((good + 1))
  else
    echo "FAILED: the ranks after one was killed, seed $seed"; cat log said.*; failed=1
  fi
done
grep -h '^ok' said.* | sed 's/: aborted.*/: .../'
[ "$good" != 100 ] || echo "ok: 100 times a rank is killed, and the other three end by themselves, with a report"

# By default mpirun ends the others itself, before the limit or about then.
good=0
for seed in $(seq 10); do
  rm -f said.*
  start=$(date +%s)
  if "${run[@]}" "$program" killed "$work/said" "$seed" >log 2>&1; then
    echo "FAILED: mpirun does not tell of a killed rank"; failed=1
  fi
  took=$(($(date +%s) - start))
  if [ "$took" -le 10 ] && grep -q 'signal 9' log && ! grep -qs FAILED said.*; then
    good=$((good + 1))
  else
    echo "FAILED: after $took s, seed $seed"; cat log said.*; failed=1
  fi
done
[ "$good" != 10 ] || echo "ok: 10 times a rank is killed, and mpirun ends the others"
exit "$failed"
