#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Conan builds the package and a separate project that uses it, with io and without. One package serves every compiler.
# The system's packages stand for fmt and nlohmann_json; nothing is fetched.
#
#   tests/packaging/conan.sh CONAN
set -euo pipefail
conan=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CONAN_HOME=$work/home
fail() { cat "$work/log"; echo "FAILED: $*"; exit 1; }

"$conan" profile detect >"$work/log" 2>&1 || fail "Conan finds no compiler"
cat >>"$CONAN_HOME/profiles/default" <<'END'
[platform_requires]
fmt/9.1.0
nlohmann_json/3.11.2
END
options=(--no-remote -s:a build_type=Debug -s:a compiler.cppstd=20 -c:a tools.cmake.cmaketoolchain:generator=Ninja
         -c:a "tools.cmake.cmake_layout:test_folder=$work/test")
for io in True False; do
  "$conan" create "$root/cmake/packaging/conan" "${options[@]}" -o "&:io=$io" >"$work/log" 2>&1 || fail "conan create with io=$io"
  grep -q '^pipesched/[0-9.]* (test package): RUN: .*consumer$' "$work/log" || fail "the separate project did not run"
  "$conan" install --requires "pipesched/[*]" --output-folder "$work/install" "${options[@]}" -o "pipesched/*:io=$io" \
    -s:a compiler=clang -s:a compiler.version=19 -s:a compiler.libcxx=libc++ -s:a build_type=Release >"$work/log" 2>&1 ||
    fail "not one package for every compiler, with io=$io"
done
version=$(sed -nE 's/^#define PIPESCHED_VERSION_(MAJOR|MINOR|PATCH) //p' "$root/include/pipesched/version.hpp" | paste -sd.)
"$conan" list "pipesched/$version" >"$work/log" 2>&1 && grep -q "^ *pipesched/$version\$" "$work/log" || fail "the version is not $version"
echo "packaged by Conan, built and run: with io, and the core alone"
