#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run.sh FILE COMPILER [OPTION ...]: checks that FILE does not compile, with the diagnostics that its comments name:
#
#   // expected: REGEX    a line of the diagnostics matches it; one of these lines is an error
#   // compile: OPTIONS   further options of the compiler, if any
set -uo pipefail
file=$1
shift
read -ra options <<<"$(sed -n 's|^// compile: ||p' "$file")"
if diagnostics=$(LC_ALL=C "$@" ${options[@]+"${options[@]}"} "$file" 2>&1); then
  echo "$file compiles; expected an error"
  exit 1
fi
errors=0 expectations=0
while IFS= read -r expected; do
  expectations=$((expectations + 1))
  lines=$(grep -E -- "$expected" <<<"$diagnostics") || {
    printf '%s\nno line of these diagnostics matches: %s\n' "$diagnostics" "$expected"
    exit 1
  }
  ! grep -qE 'error: ' <<<"$lines" || errors=$((errors + 1))
done < <(sed -n 's|^// expected: ||p' "$file")
[ "$errors" -gt 0 ] || { printf '%s\nno line expected in %s is an error\n' "$diagnostics" "$file"; exit 1; }
echo "as expected: $expectations line(s) of the diagnostics"
