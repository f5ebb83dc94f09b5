#!/usr/bin/env bash
# Other projects' tests of a Redis, run against `cachecore serve`: what share of them passes.
#   ci/compat.sh REDIS_PY REDIS    folders with the sources of redis-py 8 and of Redis 7.0
# Fetches neither. PORT= names a server that runs already, else one is started, and stopped.
# COMPAT_VENV= (build/compat-venv) is where the checkout and what the suites need are installed.
set -euo pipefail
[ $# = 2 ] || {
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
}
suites=("$(realpath "$1")" "$(realpath "$2")")
source "$(dirname "$0")/common.sh"
need "tclsh </dev/null" tcl

home=${COMPAT_VENV:-build/compat-venv}
if [ ! -x "$home/bin/python" ]; then
    need_build_tools
    venv "$home"
    install "$home" ".[server]" >&2
    # Not redis: the suite brings the version that it tests.
    install "$home" numpy packaging pytest pytest-asyncio pytest-timeout aiohttp pybreaker \
        cryptography PyJWT requests xxhash >&2
fi

if [ -z "${PORT-}" ]; then
    PORT=$("$home/bin/python" -c "import socket; s = socket.socket(); s.bind(('', 0)); print(s.getsockname()[1])")
    log=$(mktemp)
    "$home/bin/python" -m cachecore serve --port "$PORT" --snapshot "$log.snapshot" >"$log" 2>&1 &
    server=$!
    trap 'kill "$server"; wait "$server" || true; rm -f "$log" "$log.snapshot"' EXIT
fi
"$home/bin/python" ci/compat.py "$PORT" "${suites[@]}"
