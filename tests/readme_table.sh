#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The README's table is what the program prints, line for line.
set -euo pipefail
program=$1 readme=$2
"$program" >/dev/null
while IFS= read -r line; do
  grep -qxF -- "$line" "$readme" || { echo "the README lacks: $line"; exit 1; }
done < <("$program")
echo "as printed"
