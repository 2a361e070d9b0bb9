#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Tests cmake/packages.sh on machines that lack programs: it asks for the missing packages only, in one sentence.
set -uo pipefail
. "$(dirname "$0")/../cmake/packages.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# expect NAME EXIT_CODE OUTPUT COMMAND...
expect() {
  local name=$1 code=$2 output=$3 got
  shift 3
  got=$("$@" 2>&1)
  local got_code=$?
  [ "$got_code" -eq "$code" ] && [ "$got" = "$output" ] && return
  printf 'FAILED: %s: exit code %s, output: %s\n' "$name" "$got_code" "$got"
  failures=$((failures + 1))
}

# Simulates a machine with bash and the named programs only; the user is root or not.
machine() {  # user id, programs
  local id=$1 program
  shift
  rm -rf "$work/bin" && mkdir "$work/bin"
  printf '#!%s\necho %s\n' "$BASH" "$id" >"$work/bin/id"
  for program in "$@"; do printf '#!%s\n' "$BASH" >"$work/bin/$program"; done
  chmod +x "$work"/bin/*
}
on_machine() { PATH=$work/bin "$@"; }

machine 1000 g++ cmake ninja
expect "everything is there, without dpkg and apt-get" 0 "" on_machine need g++ cmake ninja-build
expect "no apt-get" 1 "needed, and not found: what Debian has in its packages clang clang-19" on_machine need g++ clang clang-19
machine 1000 g++ cmake apt-get
expect "neither root nor sudo" 1 "needed, and not found; ask an administrator to run: apt-get install ninja-build" \
  on_machine need g++ cmake ninja-build
expect "no python3 for Conan" 1 "needed, and not found; ask an administrator to run: apt-get install python3 python3-venv" \
  on_machine need_conan "$work/conan"
machine 1000 conan
expect "Conan is there" 0 "" on_machine need_conan "$work/conan"
expect "a folder that can be written to" 0 "" need_writable "$work/build"
[ -z "$(ls -A "$work/build")" ] || { echo "FAILED: need_writable leaves a file"; failures=$((failures + 1)); }
expect "a folder that cannot" 1 \
  "/proc/build cannot be written to; copy the sources to a folder of your own and run the script there" need_writable /proc/build
[ "$failures" -eq 0 ] && echo "as expected"
