#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# links.sh README: every relative link names a file or folder that exists, and a heading of it where it names one.
set -uo pipefail
readme=$1
folder=$(dirname "$readme")
broken=0 count=0

# The anchors of a file's headings, as GitHub makes them: lower case, no punctuation, hyphens for spaces.
anchors() { sed -n 's/^##* *//p' "$1" | tr '[:upper:]' '[:lower:]' | sed -E 's/[^[:alnum:] _-]//g; s/ /-/g'; }

while IFS= read -r target; do
  case $target in http://* | https://* | mailto:*) continue ;; esac
  count=$((count + 1))
  path=${target%%#*}
  file=$folder/$path
  [ -n "$path" ] || file=$readme
  if [ ! -e "$file" ]; then
    echo "$readme: no such file: $target"
    broken=$((broken + 1))
  elif [[ $target == *#* && $file == *.md ]] && ! anchors "$file" | grep -qxF -- "${target#*#}"; then
    echo "$readme: no such heading: $target"
    broken=$((broken + 1))
  fi
done < <(awk '/^```/ {code = !code; next} !code' "$readme" | tr '\n' ' ' | sed 's/`[^`]*`//g' |
         grep -oE '\]\([^)]+\)|(src|href)="[^"]+"' | sed -E 's/^\]\(//; s/\)$//; s/^(src|href)="//; s/"$//')
echo "$count relative links, $broken broken"
[ "$broken" -eq 0 ]
