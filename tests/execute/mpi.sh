#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs tests/execute/mpi.cpp with four processes: mpi.sh PROGRAM. Exits with 77 where there is no MPI.
set -uo pipefail
program=$(realpath "$1")
command -v mpirun >/dev/null || { echo "skipped: no mpirun"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1  # in containers; other users are not concerned
run=(timeout --kill-after=5 120 mpirun --oversubscribe -n 4)
failed=0

for part in refuses trains throws wrong_size leaves stalls large; do
  "${run[@]}" "$program" "$part" || { echo "FAILED: $part"; failed=1; }
done

# SIGKILL of rank 1. With --enable-recovery mpirun leaves the others alone, and they end by the time limit, with a report.
"${run[@]}" --enable-recovery "$program" killed "$work/said" >log 2>&1
for rank in 0 2 3; do
  grep -q '^ok' "said.$rank" 2>/dev/null || { echo "FAILED: rank $rank after rank 1 was killed"; cat log said.*; failed=1; }
done
grep -h '^ok' said.* | sed 's/: nothing.*/: .../; s/^ok:/ok: rank 1 is killed:/'
rm -f said.*

# By default mpirun ends the others itself, before the limit or about then.
start=$(date +%s)
if "${run[@]}" "$program" killed "$work/said" >log 2>&1; then echo "FAILED: mpirun does not tell of a killed rank"; failed=1; fi
took=$(($(date +%s) - start))
if [ "$took" -le 10 ] && ! grep -qs FAILED said.*; then
  echo "ok: rank 1 is killed: mpirun ends all others, in $took s"
else
  echo "FAILED: after $took s"; cat log; failed=1
fi
exit "$failed"
