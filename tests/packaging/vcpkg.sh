#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The port of vcpkg makes a package, with stand-ins for vcpkg's functions (vcpkg.cmake), and a separate project finds and uses it:
# compiled and run with the core alone; with io, configured.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
logged() { "$@" >>"$work/log" 2>&1 || { cat "$work/log"; exit 1; }; }

for features in core "core;io"; do
  io=OFF without=(-DCMAKE_DISABLE_FIND_PACKAGE_fmt=ON -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON)
  [ "$features" = core ] || { io=ON; without=(); }
  logged cmake -DPORT_DIR="$here/../../cmake/packaging/vcpkg/pipesched" -DWORK="$work/$io" "-DFEATURES=$features" -P "$here/vcpkg.cmake"
  mv "$work/$io/package" "$work/$io/moved"
  logged cmake -S "$here/consumer" -B "$work/$io/consumer" -G Ninja -DCMAKE_PREFIX_PATH="$work/$io/moved" -DIO=$io "${without[@]}"
done
logged cmake --build "$work/OFF/consumer"
"$work/OFF/consumer/consumer"
grep -qF -- "-isystem $work/ON/moved/include" "$work/ON/consumer/build.ninja" || { echo "FAILED: io does not use the package"; exit 1; }
echo "packaged by the port of vcpkg with stand-ins for its functions, found and used"
