#!/usr/bin/env bash
# Measure cachecore against its bars and its peers: two tables and build/peers.png, some minutes.
#   ci/bench.sh [--quick] [--json] [--png FILE] [ROW ...]      ci/bench.sh --help names the rows
# Installs the checkout and its `bench` extra into build/bench-venv (BENCH_VENV= names another place;
# PYTHON= the interpreter it is made with). Progress goes to stderr.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${BENCH_VENV:-build/bench-venv}
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check ".[bench]" >&2
exec "$venv/bin/python" asv_bench/table.py "$@"
