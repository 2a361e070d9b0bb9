#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A separate project fetches an archive of this checkout, as it is now, and uses the core alone and then all of it.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! objects=$(git -C "$root" rev-parse --path-format=absolute --git-path objects 2>&1); then
  echo "skipped: the archive is made of a git checkout, which $root is not"
  exit 77
fi

# The archive has every file that git does not ignore. Nothing is written to the repository: index and objects are temporary.
export GIT_INDEX_FILE=$work/index GIT_OBJECT_DIRECTORY=$work/objects GIT_ALTERNATE_OBJECT_DIRECTORIES=$objects
mkdir "$work/objects"
git -C "$root" add --all
git -C "$root" archive --prefix=pipesched-archive/ --output="$work/pipesched.tar.gz" "$(git -C "$root" write-tree)"
unset GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES

for io in OFF ON; do
  without=()
  [ $io = ON ] || without=(-DCMAKE_DISABLE_FIND_PACKAGE_fmt=ON -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON)
  { cmake -S "$root/tests/packaging/consumer" -B "$work/$io" -G Ninja -DARCHIVE="$work/pipesched.tar.gz" -DIO=$io \
      "${without[@]}" && cmake --build "$work/$io"; } >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
  "$work/$io/consumer"
done
echo "fetched as an archive, built and run: core alone, and with io"
