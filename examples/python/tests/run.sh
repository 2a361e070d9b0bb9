#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run.sh FOLDER [TOOL]: builds the Python package in a virtual environment in FOLDER and runs its tests. With a built TOOL the
# command-line tool is not compiled again.
#
#   PYTHON           the interpreter; default: python3
#   PIPESCHED_OPTIMIZE  how far the compiler optimizes; default -O0, the fastest to build
#   PIPESCHED_SANITIZE  1: under the address and undefined-behaviour sanitizers of g++
#
# Exits with 77, after one line that says why, where the package cannot be built.
set -euo pipefail
folder=$1 tool=${2:-} python=${PYTHON:-python3}
package=$(cd "$(dirname "$0")/.." && pwd)
skip() {
  echo "skipped: the tests of the Python package: $*"
  exit 77
}

command -v "$python" >/dev/null || skip "$python was not found"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' || skip "$python is older than 3.9"
"$python" -c 'import ensurepip, venv' 2>/dev/null || skip "$python has no venv (Debian: python3-venv)"
"$python" - <<'CODE' || skip "$python has no headers (Debian: python3-dev)"
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))
CODE
mkdir -p "$folder"
[ -x "$folder/venv/bin/pip" ] || "$python" -m venv "$folder/venv"
log=$folder/pip.log
"$folder/venv/bin/pip" install --disable-pip-version-check nanobind scikit-build-core numpy tqdm >"$log" 2>&1 ||
  skip "pip cannot install nanobind, scikit-build-core, numpy and tqdm; see $log"
flags=
if [ "${PIPESCHED_SANITIZE:-0}" = 1 ]; then
  flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined"
  stubs=OFF  # they load the module
fi
settings=(
  build-dir="$folder/build"
  cmake.define.PIPESCHED_PYTHON_OPTIMIZE="${PIPESCHED_OPTIMIZE:--O0}"
  cmake.define.CMAKE_CXX_FLAGS="$flags"
  cmake.define.PIPESCHED_TOOL="$tool"
  cmake.define.PIPESCHED_PYTHON_STUBS="${stubs:-ON}"
)
"$folder/venv/bin/pip" install --disable-pip-version-check --no-build-isolation --no-deps --force-reinstall -v "$package" \
  "${settings[@]/#/--config-settings=}" >"$log" 2>&1 ||  # -C only from pip 23.1 on
  { tail -n 40 "$log"; exit 1; }
cd "$folder"
if [ -n "$flags" ]; then  # Python itself leaks
  export LD_PRELOAD=$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libstdc++.so) ASAN_OPTIONS=detect_leaks=0
fi
"$folder/venv/bin/python" -W error -m unittest discover -s "$package/tests"
