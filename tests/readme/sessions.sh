#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# sessions.sh README TOOL SOURCE_DIR: the commands of a README's shell sessions print what the README says. tests/readme.cmake has
# the rules.
set -uo pipefail
readme=$1 tool=$(realpath "$2") source_dir=$(realpath "$3")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin" "$work/session"
ln -s "$tool" "$work/bin/pipesched"
ln -s "$source_dir/include" "$source_dir/examples" "$work/session/"
export PATH=$work/bin:$PATH
failures=0 commands=0

# Whether the lines of file $1 are those of file $2, in which "..." stands for any lines.
as_expected() {
  awk -v actual="$1" '
    BEGIN { while ((getline line < actual) > 0) got[++count] = line; at = 1 }
    $0 == "..." { skip = 1; next }
    { while (skip && at <= count && got[at] != $0) ++at
      if (at > count || got[at] != $0) { bad = 1; print "line " NR ", expected: " $0; print "printed:  " got[at]; exit }
      ++at; skip = 0 }
    END { if (!bad && !skip && at <= count) { bad = 1; print "printed after the last expected line: " got[at] }
          exit bad }' "$2"
}

run_command() {
  [ -n "$command" ] || return 0
  commands=$((commands + 1))
  (cd "$work/session" && bash -c "$command") >"$work/printed" 2>&1 </dev/null
  if ! difference=$(as_expected "$work/printed" "$work/expected"); then
    printf '%s: $ %s\n%s\n' "$readme" "$command" "$difference"
    failures=$((failures + 1))
  fi
  command=
}

language= command= session= json= before=
while IFS= read -r line || [ -n "$line" ]; do
  if [[ $line == '```'* ]]; then
    if [ -n "$language" ]; then  # the end of a block
      run_command
      language= session=
      if [ -s "$work/block.py" ]; then
        command -v python3 >/dev/null && ! python3 -c "compile(open('$work/block.py').read(), 'a python block of $readme', 'exec')" && failures=$((failures + 1))
        rm -f "$work/block.py"
      fi
    else
      language=${line#'```'} session=
      language=${language:-none}
      json=
      [[ $language == json && $before =~ \`([A-Za-z0-9_.-]+\.json)\`[^\`]*$ ]] && json=$work/session/${BASH_REMATCH[1]} && : >"$json"
    fi
    continue
  fi
  case $language in
    "") [ -z "$line" ] || before=$line ;;
    python) printf '%s\n' "$line" >>"$work/block.py" ;;
    json) [ -z "$json" ] || printf '%s\n' "$line" >>"$json" ;;
    text)
      [ -n "$session" ] || { [[ $line == '$ '* ]] && session=yes || session=no; }
      if [ "$session" = yes ] && [[ $line == '$ '* ]]; then
        run_command
        command=${line#'$ '}
        : >"$work/expected"
      elif [ "$session" = yes ]; then
        printf '%s\n' "$line" >>"$work/expected"
      fi
      ;;
  esac
done <"$readme"
echo "$commands commands of sessions, $failures failures"
[ "$failures" -eq 0 ]
