#!/usr/bin/env bash
# Test what would be released: build the sdist, from it the wheel, install that into a fresh
# virtualenv, then lint, type-check and test what the sdist holds against what was installed.
#   ci/test.sh [PYTEST ARGUMENT ...]
# Needs Python 3.11 and gcc; as root on Debian it installs what is missing. Some minutes.
set -euo pipefail
source "$(dirname "$0")/common.sh"

need_build_tools
minor=$("$python" -c 'import sys; print(sys.version_info.minor)')
need_servers
need_watchers
need "$python -c 'import test.mapping_tests, test.test_dict'" "libpython3.$minor-testsuite"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "sdist, and the wheel from it"
venv "$work/venv"
install "$work/venv" build
"$work/venv/bin/python" -m build --outdir "$work/dist" . >"$work/build.log" 2>&1 || {
    cat "$work/build.log" >&2
    exit 1
}
tar -xzf "$work"/dist/*.tar.gz -C "$work"
mv "$work"/cachecore_ml-*/ "$work/sdist"
if [ -e .git ]; then # the sdist is complete
    git ls-files -- ':!.gitignore' | (cd "$work/sdist" && xargs -d '\n' ls >/dev/null)
fi
if [ -d ../shared/traces ]; then ln -s "$(realpath ../shared)" "$work/shared"; fi # the real traces

say "install the wheel"
install "$work/venv" "$(echo "$work"/dist/*.whl)[dev]"
export PATH="$work/venv/bin:$PATH"

say "lint"
cd "$work/sdist"
ruff check .
ruff format --check .
cython-lint cachecore
includes=$(python -c 'import numpy, sysconfig
print("-isystem", sysconfig.get_path("include"), "-isystem", numpy.get_include())')
for file in src/*/*.c; do
    # shellcheck disable=SC2086
    "${CC:-gcc}" -std=gnu11 -O2 -Wall -Wextra -Werror -Isrc/core -Isrc/python $includes \
        -c "$file" -o /dev/null
done

say "types"
mypy
stubs=$(basename -as .pyi cachecore/*.pyi | sed 's/^/cachecore./')
cd tests # from here on the installed package is imported, never the source tree
# shellcheck disable=SC2086
stubtest $stubs --allowlist typing/stubtest.txt
python -c 'import cachecore, sys; assert cachecore.__file__.startswith(sys.prefix)'

say "tests"
pytest --benchmark-disable "$@"
