#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Writes headers of the library, and all that they include, as one header to standard output.
#
#   cmake/packaging/single_header.sh [HEADER ...]   headers relative to include/pipesched; without one, pipesched.hpp: the core
#
# Every header comes once, after those that it includes; each standard header is included once, at the top. Headers that need
# more than the standard library are refused.
set -euo pipefail
export LC_ALL=C
source_dir=$(cd "$(dirname "$0")/../.." && pwd)
root=$source_dir/include/pipesched
[ $# -gt 0 ] || set -- pipesched.hpp
for header in "$@"; do
  [[ $header == *.hpp && -f $root/$header ]] && continue
  nearest=$(cd "$root" && find . -name "${header##*/}" -name '*.hpp' -printf '%P\n' | sort | head -n 1)
  echo "no header \"$header\" under include/pipesched; nearest \"${nearest:-pipesched.hpp}\"" >&2
  exit 2
done
version=$(sed -nE 's/^#define PIPESCHED_VERSION_(MAJOR|MINOR|PATCH) //p' "$root/version.hpp" | paste -sd.)
copyright=$(grep '^Copyright' "$source_dir/LICENSE")

awk -v root="$root" -v headers="$*" -v title="pipesched $version. $copyright." '
  # Appends a header to `body`, after the headers that it includes. Includes under an #if stay where they are.
  function add(name,    file, line, text, depth, code, part) {
    if (name in seen) return
    seen[name] = 1
    file = root "/" name
    while ((getline line < file) > 0) {
      if (line ~ /^#if/) depth++
      if (line ~ /^#endif/) depth--
      if (!depth && line ~ /^#include "pipesched\//) {
        split(line, part, "\"")
        add(substr(part[2], length("pipesched/") + 1))
      } else if (!depth && line ~ /^#include </) {
        split(line, part, /[<>]/)
        if (part[2] ~ /[.\/]/) refuse(name, part[2])
        standard[part[2]] = 1
      } else if (line !~ /^(#pragma once|\/\/ SPDX)/ && (line != "" || text !~ /(^|\n\n)$/)) {
        text = text line "\n"
        if (line !~ /^(\/\/|$)/) code = 1
      }
    }
    close(file)
    if (code) body = body "\n// ==== pipesched/" name "\n\n" text
  }
  function refuse(name, header) {
    print name " needs <" header ">; a single header needs the standard library only, as pipesched.hpp does" > "/dev/stderr"
    exit 2
  }
  BEGIN {
    count = split(headers, header, " ")
    for (i = 1; i <= count; i++) add(header[i])
    print "// SPDX-License-Identifier: MIT"
    print "// " title
    print "// Made by cmake/packaging/single_header.sh from " headers "; not to be edited."
    print "#pragma once\n"
    fflush()
    for (name in standard) print "#include <" name ">" | "sort"
    close("sort")
    printf "%s", body
  }'
