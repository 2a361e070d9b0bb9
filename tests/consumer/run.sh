#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs the library to a temporary folder, then builds and runs a separate project against it.
set -euo pipefail
build_dir=$1 source_dir=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build_dir" --prefix "$work/installed" >"$work/log"
cmake -S "$source_dir" -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$work/installed" >>"$work/log" || { cat "$work/log"; exit 1; }
cmake --build "$work/build" >>"$work/log" || { cat "$work/log"; exit 1; }
"$work/build/consumer_core"
"$work/build/consumer_json"
grep '^-- skipped: ' "$work/log" || true
if [ -x "$work/build/consumer_mpi" ]; then
  # A session folder of its own: two runs that begin at once fail over a shared one.
  TMPDIR=$work OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_plm=isolated \
    mpirun --oversubscribe -n 2 "$work/build/consumer_mpi"
fi
for part in launch cuda nccl; do [ ! -x "$work/build/consumer_$part" ] || "$work/build/consumer_$part"; done
# The core alone, without fmt and nlohmann_json.
cmake -S "$source_dir/core_only" -B "$work/core" -G Ninja -DCMAKE_PREFIX_PATH="$work/installed" \
      -DCMAKE_DISABLE_FIND_PACKAGE_fmt=ON -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON >>"$work/log" 2>&1 ||
  { cat "$work/log"; exit 1; }
cmake --build "$work/core" >>"$work/log" || { cat "$work/log"; exit 1; }
"$work/core/consumer_core"
# Refusals: one sentence with the reason (CMake breaks it into lines).
refused() {  # sentence, options of CMake
  local sentence=$1 output
  shift
  rm -rf "$work/refused"
  if output=$(cmake -S "$source_dir/refused" -B "$work/refused" -G Ninja -DCMAKE_PREFIX_PATH="$work/installed" "$@" 2>&1); then
    echo "accepted, with $*; expected: $sentence"
    exit 1
  fi
  output=$(tr -s ' \n' ' ' <<<"$output")
  [[ $output == *" $sentence "* ]] || { echo "$output"; echo "expected: $sentence"; exit 1; }
}
no_fmt=-DCMAKE_DISABLE_FIND_PACKAGE_fmt=ON no_json=-DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON
no_git=-DCMAKE_DISABLE_FIND_PACKAGE_Git=ON
neither="find_package(pipesched COMPONENTS core) needs neither fmt nor nlohmann_json"
refused "pipesched::pipesched needs fmt (Debian: libfmt-dev); $neither" $no_fmt
refused "pipesched::pipesched needs fmt (Debian: libfmt-dev) and nlohmann_json (Debian: nlohmann-json3-dev); $neither" \
  $no_fmt $no_json "-DCOMPONENTS=COMPONENTS;io"
refused "pipesched::mpi needs MPI for C++ (Debian: libopenmpi-dev)" -DCMAKE_DISABLE_FIND_PACKAGE_MPI=ON "-DCOMPONENTS=COMPONENTS;mpi"
refused "pipesched::cuda needs the CUDA toolkit (nvcc on PATH, or CUDAToolkit_ROOT)" -DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=ON \
  "-DCOMPONENTS=COMPONENTS;cuda"
refused 'pipesched has no component "iox"; its components are core, io, mpi, launch, cuda and nccl' "-DCOMPONENTS=COMPONENTS;core;iox"
refused "pipesched needs fmt (Debian: libfmt-dev): install it, or git, with which CMake fetches it; PIPESCHED_IO=OFF needs neither" \
  -DHOW=subdirectory $no_fmt $no_git
"$work/installed/bin/pipesched" generate dualpipe --pp 2 --micro 4 | "$work/installed/bin/pipesched" verify -
test -f "$work/installed/share/pipesched/schedule.schema.json"
test -f "$work/installed/share/pipesched/costs.schema.json"
echo "installed, found and used"
