#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs an example and compares its output with its head comment, after the line with the command.
set -euo pipefail
program=$1 source=$2
expected=$(awk '/^\/\/   build\// {on = 1; getline; next} on && !/^\/\// {exit} on {sub(/^\/\/ ?/, ""); print}' "$source")
[ -n "$expected" ] || { echo "$source names no expected output"; exit 1; }
diff <(echo "$expected") <("$program") && echo "as its comment says"
