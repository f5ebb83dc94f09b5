#!/usr/bin/env bash
# Measure cachecore against its bars and its peers: two tables and build/peers.png, some minutes.
#   ci/bench.sh [--quick] [--json] [--png FILE] [ROW ...]      ci/bench.sh --help names the rows
#   ci/bench.sh policy [--traces FOLDER] [--seeds N] [--png FILE]   hit ratios, and build/policy.png
# Installs the checkout and its `bench` extra into build/bench-venv, which it keeps (BENCH_VENV=
# names another place). Progress goes to stderr.
set -euo pipefail
source "$(dirname "$0")/common.sh"

home=${BENCH_VENV:-build/bench-venv}
[ -x "$home/bin/python" ] || {
    need_build_tools
    venv "$home"
}
install "$home" ".[bench]" >&2
if [ "${1-}" = policy ]; then
    exec "$home/bin/python" asv_bench/policy.py "${@:2}"
fi
exec "$home/bin/python" asv_bench/table.py "$@"
