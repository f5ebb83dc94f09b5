# shellcheck shell=bash
# Sourced by the scripts here: an interpreter, what a bare Debian lacks to compile, virtualenvs.
#   PYTHON=  the interpreter to use (python3)

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
python=${PYTHON:-python3}

say() { printf '\n== %s\n' "$*" >&2; }

# need COMMAND PACKAGES... : runs COMMAND; if it fails, installs the Debian PACKAGES and tries again.
need() {
    eval "$1" >/dev/null 2>&1 && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing: $1   (on Debian and Ubuntu: apt-get install ${*:2})" >&2
        return 1
    fi
    apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${@:2}" >/dev/null
    eval "$1" >/dev/null
}

# What it takes to build: Python 3.11 with venv and headers, and a C compiler.
need_build_tools() {
    need "$python -c 'import ensurepip, venv'" python3-venv
    need "$python -c 'import sys; assert sys.version_info >= (3, 11)'" python3
    need "${CC:-gcc} --version && ls /usr/include/stdio.h" gcc libc6-dev
    need "ls \$($python -c 'import sysconfig; print(sysconfig.get_path(\"include\"))')/Python.h" \
        python3-dev
}

# venv DIRECTORY : a fresh virtualenv.
venv() {
    "$python" -m venv --clear "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
}

# install DIRECTORY ARGUMENTS... : pip install into that virtualenv.
install() {
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}"
}

# What looks at metrics and at the status page in tests: a real Prometheus and a real browser.
need_watchers() {
    need "prometheus --version && promtool --version" prometheus
    need "chromium --version" chromium
    need "prometheus-redis-exporter --version" prometheus-redis-exporter
}

# The servers that the tests of tiers start themselves.
need_servers() {
    need "redis-server --version && redis-cli --version && redis-sentinel --version" \
        redis-server redis-tools redis-sentinel
    need "memcached --version" memcached
    need "openssl version" openssl
    need "perl -MRedis -e 1" libredis-perl # a client in another language
    need "systemd-analyze --version" systemd # for the unit in deploy/
}
