#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# readme_table.sh README COMMAND...: every line that the command prints stands in the README.
set -euo pipefail
readme=$1
shift
printed=$("$@")
[ -n "$printed" ] || exit 1
while IFS= read -r line; do
  grep -qxF -- "$line" "$readme" || { echo "the README lacks: $line"; exit 1; }
done <<<"$printed"
echo "as printed"
