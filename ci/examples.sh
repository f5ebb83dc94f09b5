#!/usr/bin/env bash
# Test the ML layer with PyTorch, transformers and a real model, and run the examples that need
# them; ci/test.sh has all the rest.
#   ci/examples.sh [PYTEST ARGUMENT ...]
# Installs the checkout and its extra `examples` (several hundred MB) into build/examples-venv,
# which it keeps (EXAMPLES_VENV= names another place). About a minute beyond that.
set -euo pipefail
source "$(dirname "$0")/common.sh"

home=${EXAMPLES_VENV:-build/examples-venv}
[ -x "$home/bin/python" ] || {
    need_build_tools
    venv "$home"
}
install "$home" ".[examples,test]" >&2
home=$(realpath "$home")
cd tests # from here on the installed package is imported, never the source tree
exec "$home/bin/python" -m pytest ml/torch "$@"
