#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The core as one header: a program that makes, verifies and prints a schedule compiles with it alone, with g++ and with clang,
# is linked with a second object that includes it, and prints what the README says.
#
#   tests/packaging/single_header.sh PROGRAM.cpp   with PROGRAM.cpp.expected beside it
set -euo pipefail
program=$1
make_header=$(cd "$(dirname "$0")/../.." && pwd)/cmake/packaging/single_header.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAILED: $*"; exit 1; }

header=$work/pipesched/pipesched.hpp
mkdir "$work/pipesched"
"$make_header" >"$header"
(cd / && "$make_header") | cmp - "$header" || fail "the header depends on the folder in which it is made"
twice=$(grep '^#include <' "$header" | grep -v end_of_compilation | sort | uniq -d)
[ -z "$twice" ] || fail "included twice: $twice"
! grep '^#include "' "$header" || fail "a header of the library is still included"
[ "$(grep -c '^#pragma once' "$header")" = 1 ] || fail "not one #pragma once"
mapfile -t missing < <(cd "$(dirname "$make_header")/../../include" &&
  g++ -std=c++20 -MM pipesched/pipesched.hpp -I . | tr -s ' \\' '\n' | grep -x 'pipesched/.*/.*\.hpp' | while read -r name; do
    grep -qxF "// ==== $name" "$header" || echo "$name"
  done)
[ ${#missing[@]} -eq 0 ] || fail "not in the header: ${missing[*]}"

# refused SENTENCE ARGUMENT ...
refused() {
  local sentence=$1 code=0 output
  shift
  output=$("$make_header" "$@" 2>&1) || code=$?
  [ "$code" = 2 ] && [ "$output" = "$sentence" ] || fail "$*: exit code $code, output: $output"
}
refused 'no header "plan.hpp" under include/pipesched; nearest "plan/plan.hpp"' plan.hpp
refused 'no header "core" under include/pipesched; nearest "pipesched.hpp"' core
refused "io/json.hpp needs <nlohmann/json.hpp>; a single header needs the standard library only, as pipesched.hpp does" io/json.hpp

flags=(-std=c++20 -O0 -Wall -Wextra -Werror -I "$work")
echo '#include <pipesched/pipesched.hpp>' >"$work/other.cpp"
g++ "${flags[@]}" -c "$work/other.cpp" -o "$work/other.o"
clang=
for name in clang++-14 clang++-19 clang++; do [ -n "$clang" ] || clang=$(command -v $name || true); done
[ -n "$clang" ] || echo "skipped: compilation with clang (no clang++-14, clang++-19 or clang++)"
for compiler in g++ $clang; do
  "$compiler" "${flags[@]}" -c "$program" -o "$work/program.o"
  g++ "$work/program.o" "$work/other.o" -o "$work/program"
  "$work/program" | diff "$program.expected" - || fail "output of the program compiled with $compiler"
done
echo "one header: made, compiled, linked and run"
