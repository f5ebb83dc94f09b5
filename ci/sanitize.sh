#!/usr/bin/env bash
# The suite under AddressSanitizer and UBSan, with the checks of debug builds (CC_DEBUG); the C core's
# threads under ThreadSanitizer.
#   ci/sanitize.sh [PYTEST ARGUMENT ...]        paths are relative to tests/
# Builds into build/asan and the virtualenv build/asan/venv. Needs gcc with its sanitizers.
set -euo pipefail
source "$(dirname "$0")/common.sh"

need_build_tools
work=$PWD/build/asan
say "build"
venv "$work/venv"
CC=gcc CACHECORE_BUILD=asan install "$work/venv" ".[test]"
core=$(echo "$work"/venv/lib/python3*/site-packages/cachecore/_core.*.so)
grep -q __asan_report "$core" && grep -q __ubsan_handle "$core"

export CACHECORE_BUILD=asan # for tests of memory use, which the sanitizer changes
export PYTHONMALLOC=malloc  # a pool would hide what overruns one object into the next
# Leaks are not for this script to find: CPython itself frees little at exit, and LeakSanitizer
# reports all that; tests/isolated counts references and memory instead. A huge allocation must
# fail as malloc does, since tests ask for MemoryError.
export ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:abort_on_error=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:abort_on_error=1
preload="$(realpath "$(gcc -print-file-name=libasan.so)") $(realpath "$(gcc -print-file-name=libubsan.so)")"

say "threads"
c_program() { # NAME FLAG ...: builds tests/core/NAME.c
    gcc -std=gnu11 -g -pthread -Isrc/core "${@:2}" "tests/core/$1.c" src/core/*.c -lm -o "$work/$1"
}
export TSAN_OPTIONS=halt_on_error=1
c_program vectorstest -O1 -fsanitize=thread
"$work/vectorstest" 10
c_program historytest -O1 -fsanitize=thread
"$work/historytest" 1 threads

say "ten million requests and replies, broken and cut at random"
gcc -std=gnu11 -O1 -g -DCC_DEBUG -fsanitize=address,undefined -Isrc/core \
    tests/core/respfuzz.c src/core/cc_resp.c src/core/cc_out.c -lm -o "$work/respfuzz"
"$work/respfuzz" 100

say "millions of operations, hundreds of deaths, as they are released"
c_program historytest -O3
c_program crashtest -O3
(cd "$work" && ./historytest 20 && ./crashtest 5)

say "tests"
cd tests # the installed package is imported, not the source tree
# -s: a sanitizer reports to stderr as it ends the process, which pytest would swallow.
# Its allocator returns little to the system (a dict of 10^6 ints, deleted, leaves 56 MB resident),
# so the tests that measure resident memory say nothing here. It finds faults in libcachesim's code.
# It makes nothing of mlock and munlock, takes bus errors for itself, and its allocator may be locked
# for ever in a child that is forked while a thread allocates without the GIL, as NumPy's copies do.
LD_PRELOAD=$preload "$work/venv/bin/python" -P -m pytest -s --benchmark-disable \
    --deselect tests/isolated/test_memory.py::test_memory_comes_back_when_a_large_cache_goes \
    --deselect tests/cli/test_plan.py::test_memory_does_not_grow_with_the_log \
    --deselect tests/plan/test_policies.py \
    --deselect tests/ml/test_weights_memory.py::test_pages_of_two_tensors_are_locked_while_one_is \
    --deselect tests/ml/test_weights_memory.py::test_an_interrupt_leaves_nothing_half_pinned \
    --deselect tests/ml/test_weights_memory.py::test_a_budget_keeps_what_is_asked_for_most \
    --deselect tests/ml/test_semantic_eviction.py::test_a_child_works_while_a_thread_of_the_parent_writes \
    --deselect tests/isolated/test_weights.py::test_a_truncated_file_is_a_bus_error "$@"
