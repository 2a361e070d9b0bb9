#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# tests/run_gpu.sh without a GPU: CMake, nvidia-smi and every program are stubs, so that its parts, time limits, results and
# refusals can be seen.
set -uo pipefail
script=$(dirname "$(realpath "$0")")/run_gpu.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# One stub for all: says what it was called as, does what the variables STUB_... ask for, and writes a file that ends in .json.
mkdir -p "$work/bin" "$work/programs"
cat >"$work/bin/stub" <<'STUB'
#!/usr/bin/env bash
name=$(basename "$0")
words="$name $* rank=${RANK-} host=${NCCL_HOSTID-} debug=${NCCL_DEBUG-}"
echo "$words" >>"$STUB_LOG"
[ "$name" = nvidia-smi ] || echo "$words"
case $name in
  cmake)
    [ -z "${STUB_NO_BUILD-}" ] || exit 1
    [ "$1" = -S ] || exit 0
    mkdir -p "$4"/{tests/cuda,examples/cuda,bench/cuda}
    for program in tests/cuda/cuda_{peer,mlp_ops,nccl_library} examples/cuda/cuda_mlp bench/cuda/{cuda_overhead,nccl_messages}; do
      ln -sf "$STUB" "$4/$program"
    done
    echo "NCCL_LIBRARY:FILEPATH=${STUB_NCCL-/usr/lib/libnccl.so.2}" >"$4/CMakeCache.txt"
    echo "NCCL_INCLUDE_DIR:PATH=/usr/include" >>"$4/CMakeCache.txt" ;;
  nvidia-smi)
    [[ $* == *--list-gpus* ]] && echo "GPU 0: a stub"
    [[ $* != *--query-gpu* ]] || echo "stub, 1.0" ;;
  *)
    [ -z "${NCCL_DEBUG_FILE-}" ] || [ -z "${RANK-}" ] || echo "NCCL of rank $RANK" >"${NCCL_DEBUG_FILE/\%h.\%p/stub.$$}"
    [[ ${!#} != *.json ]] || [ "${RANK-0}" != 0 ] || printf '{"words": "%s",\n "n": 1}\n' "${STUB_WORDS-}" >"${!#}"
    [[ " ${STUB_FAILS-} " != *" $name "* ]] || exit 5
    [[ " ${STUB_NO_GPU-} " != *" $name "* ]] || exit 77
    [[ " ${STUB_HANGS-} " != *" $name "* ]] || { trap '' TERM; while true; do sleep 0.1; done; } ;;
esac
STUB
chmod +x "$work/bin/stub"
for name in cmake nvidia-smi compute-sanitizer; do ln -s stub "$work/bin/$name"; done
export STUB=$work/bin/stub STUB_LOG=$work/log PATH=$work/bin:$PATH
export BUILD=$work/build OUT=$work/out

call() { "$script" "$@" >"$work/logs" 2>&1; }
expect() {  # what, command...
  local what=$1
  shift
  "$@" || { echo "FAILED: $what"; tail -n 20 "$work/logs"; failures=$((failures + 1)); }
}
result() { grep -c "\"run\": \"$1\".*$2" "$OUT/results.json"; }  # of a run, with a pattern
is_json() { ! command -v python3 >/dev/null || python3 -m json.tool "$OUT/results.json" >/dev/null; }

# Two calls of two parts each: the second keeps the results of the first, and adds its own.
call smoke check
expect "a call that passes" test $? = 0
expect "a run with its result" test "$(result check_dualpipe_8 '"exit": 0, "result": {"words": "", "n": 1}')" = 1
expect "a line of NCCL" grep -q 'NCCL of rank 0' <(tar -xzOf "$OUT/logs.tar.gz" logs/nccl_first.nccl)
expect "the first words of NCCL in full" grep -q 'cuda_mlp --transport nccl .* rank=1 host=host1 debug=INFO' "$STUB_LOG"
expect "two files" test "$(find "$OUT" -type f | wc -l)" = 2
STUB_WORDS=again call check bench messages
expect "a second call that passes" test $? = 0
expect "the first call's results" test "$(result nccl_first '"exit": 0')" = 1
expect "the later result of the same run" test "$(result check_dualpipe_8 'again')" = 1
expect "each run once" test "$(result check_dualpipe_8 '')" = 1
expect "every run of both calls" test "$(grep -c '"run": ' "$OUT/results.json")" = 30
expect "JSON" is_json
expect "warnings of NCCL" grep -q 'nccl_messages .* rank=0 host=host0 debug=WARN' "$STUB_LOG"
expect "at most eight files" test "$(find "$OUT" -type f | wc -l)" -le 8

# On a fresh machine, with the results of an earlier call.
mv "$OUT/results.json" "$work/earlier.json"
rm -rf "$BUILD" "$OUT"
EARLIER=$work/earlier.json STUB_FAILS=cuda_mlp_ops call peer sanitizers
expect "a call with a failure" test $? = 1
expect "the failure's exit code" test "$(result mlp_ops '"exit": 5')" = 1
expect "what comes after a failure" test "$(result nccl_library '"exit": 0')$(result sanitizer_initcheck '"exit": 0')" = 11
expect "the earlier results" test "$(result check_dualpipe_8 'again')" = 1
expect "JSON of two machines" is_json
EARLIER=$work/nothing call peer
expect "earlier results that are not there" test $? = 2
expect "the file's name" grep -q "EARLIER=$work/nothing cannot be read" "$work/logs"

# A program that hangs, even when asked to end, is killed; the part ends by its limit, and keeps what came before.
STUB_HANGS=cuda_overhead PART_SECONDS=14 call bench
expect "a call with a hang" test $? = 1
expect "the hang" test "$(result overhead '"exit": 137')" = 1
expect "what had no time left" test "$(result measure_v_1f1b '"exit": 124')" = 1
expect "why" grep -q 'not run: the 14 s of the part bench are over' <(tar -xzOf "$OUT/logs.tar.gz" logs/measure_v_1f1b.log)
expect "results of other parts" test "$(result nccl_library '"exit": 0')" = 1

# NCCL, GPUs, builds and names that are not there.
STUB_NCCL=NCCL_LIBRARY-NOTFOUND call nccl
expect "no NCCL" test $? = 2
expect "a sentence about NCCL" grep -q 'NCCL was not found; give NCCL_ROOT=folder, .* or WITHOUT_NCCL=1' "$work/logs"
STUB_NCCL=NCCL_LIBRARY-NOTFOUND WITHOUT_NCCL=1 call smoke nccl
expect "without NCCL, as asked for" test $? = 0
expect "what is left out" grep -q '^left out, without NCCL: nccl$' "$work/logs"
WITHOUT_NCCL=1 call messages
expect "nothing left" test $? = 2
STUB_NO_GPU=cuda_peer call peer
expect "no GPU" test $? = 77
STUB_FAILS=cuda_peer call peer
expect "a first program that fails" test $? = 1
expect "and nothing after it" grep -q 'nothing else was run' "$work/logs"
STUB_NO_BUILD=1 call smoke
expect "a build that fails" test $? = 1
expect "its words" grep -q '^cmake' <(tar -xzOf "$OUT/logs.tar.gz" logs/build.log)
call fast
expect "no such part" test $? = 2
expect "the parts that there are" grep -q 'no part is called "fast"; there are smoke peer ' "$work/logs"
PART_SECONDS=soon call smoke
expect "no number" test $? = 2
call --list
expect "a list" grep -q ' ranks 4 .*cuda_mlp --transport nccl --schedule dualpipev ' "$work/logs"

[ "$failures" -eq 0 ] && echo passed
exit "$((failures > 0))"
