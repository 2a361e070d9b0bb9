#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Finds words that plain prose does without in comments, string literals, README files and the names of tests.
#
#   tests/prose.sh            checks what tests/prose/on.txt lists
#   tests/prose.sh PATH ...   checks these files and folders; "." for everything
#
# Prints file, line, the phrase found and what to write instead; exits with 1 if anything was found.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
if [ $# -eq 0 ]; then
  mapfile -t paths < <(grep -vE '^(#|!|$)' tests/prose/on.txt)
  mapfile -t off < <(sed -n 's/^!//p' tests/prose/on.txt)
  for path in "${paths[@]}" "${off[@]}"; do
    [ -e "$path" ] || { echo "tests/prose/on.txt: no such file or folder: $path"; exit 1; }
  done
  [ ${#paths[@]} -gt 0 ] || { echo "tests/prose/on.txt lists nothing"; exit 1; }
else
  paths=("$@") off=()
fi
prune=()
for path in "${off[@]}"; do prune+=(-o -path "$path"); done
mapfile -d '' -t files < <(find "${paths[@]}" \( -name 'build*' -o -name .git "${prune[@]}" \) -prune -o -type f \
  \( -name '*.hpp' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.md' -o -name '*.sh' -o -name '*.cmake' -o -name CMakeLists.txt \) \
  ! -path '*/tests/prose*' -print0)
[ ${#files[@]} -gt 0 ] || { echo "no sources in ${paths[*]}"; exit 1; }

# "file:line:prose": comments and literals of C++; of tests only the names and comments; Markdown without its code; comments of scripts.
prose=$(awk '
  FNR == 1 { block = 0 }
  { line = $0; text = "" }
  FILENAME ~ /\.md$/ {
    if (line ~ /^```/) { block = !block; next }
    if (block) next
    gsub(/`[^`]*`/, "", line)
    if (line ~ /^#/) next
    sub(/^[-* ]+/, "", line)
    print FILENAME ":" FNR ":" line
    next
  }
  FILENAME ~ /(\.sh|\.cmake|CMakeLists\.txt)$/ {
    if (match(line, /(^|[ \t])#+ /)) print FILENAME ":" FNR ":" substr(line, RSTART + RLENGTH)
    next
  }
  {
    while (match(line, /"([^"\\]|\\.)*"/)) {
      text = text (text == "" ? "" : " ") substr(line, RSTART + 1, RLENGTH - 2)
      line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
    }
    if (FILENAME ~ /^(\.\/)?tests\// && $0 !~ /TEST_CASE\(|^    "/) text = ""
    if (match(line, /\/\/[\/!<]* */)) text = text (text == "" ? "" : "; ") substr(line, RSTART + RLENGTH)
    if (text != "") print FILENAME ":" FNR ":" text
  }' "${files[@]}")

found=0
while IFS= read -r entry; do
  pattern=${entry%% => *}
  options=-onE
  [[ $pattern == *'[W]'* ]] || options=-onEi
  text=$(cut -d: -f3- <<<"$prose")
  while IFS=: read -r number phrase; do
    [ -n "$number" ] || continue
    place=$(sed -n "${number}p" <<<"$prose" | cut -d: -f1,2)
    echo "$place: \"${phrase:0:60}\" => ${entry#* => }"
    found=$((found + 1))
  done < <(grep $options -- "$pattern" <<<"$text")
done < <(grep -vE '^(#|$)' tests/prose/patterns.txt)
echo "${#files[@]} files, $found findings"
[ "$found" -eq 0 ]
