#!/usr/bin/env bash
# Measure cachecore against its bars and its peers: two tables and build/peers.png, some minutes.
#   ci/bench.sh [--quick] [--json] [--png FILE] [ROW ...]      ci/bench.sh --help names the rows
#   ci/bench.sh policy [--traces FOLDER] [--seeds N] [--png FILE]   hit ratios, and build/policy.png
#   ci/bench.sh vectors [--quick] [--chart FILE] [--page FILE] [ROW ...]   VectorCache, and build/vectors.svg
#   ci/bench.sh server [--quick] [ROW ...]    the RESP server against redis-server, by redis-benchmark
#   ci/bench.sh tiers [--quick] [--page FILE] [ROW ...]    TieredCache over LMDB, Redis and memcached
#   ci/bench.sh ml [--quick] [--page FILE] [ROW ...]       the ML layer; with PyTorch and MiniLM
#   ci/bench.sh scale [--quick] [TABLE ...]    generated streams of up to 10^8 keys: half an hour
# Installs the checkout and its `bench` extra into build/bench-venv, which it keeps (BENCH_VENV=
# names another place). Progress goes to stderr.
set -euo pipefail
source "$(dirname "$0")/common.sh"

home=${BENCH_VENV:-build/bench-venv}
[ -x "$home/bin/python" ] || {
    need_build_tools
    venv "$home"
}
extras=bench
[ "${1-}" != ml ] || extras+=,examples # several hundred MB
install "$home" ".[$extras]" >&2
case "${1-}" in
vectors) need "redis-server --version" redis-server || true ;; # else the table says that it is left out
tiers | ml | server) need_servers ;;
esac
case "${1-}" in
ml | policy | scale | server | tiers | vectors) exec "$home/bin/python" "asv_bench/$1.py" "${@:2}" ;;
esac
exec "$home/bin/python" asv_bench/table.py "$@"
