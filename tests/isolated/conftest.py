"""Each test of this folder runs in a process of its own, with a deadline.

What these tests are about may hang, crash or eat memory when it is wrong, and must not take the
other tests along. A test is an ordinary function; its parameters, if any, are plain values. This
file runs it: under pytest as the parent, as a script (python conftest.py FILE TEST PARAMETERS) as
the child.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import signal
import subprocess
import sys

import pytest

DEADLINE = 60  # seconds; those who need longer say so: @pytest.mark.deadline(300)
SKIPPED = 77  # exit status of a child
DEADLINE_FACTOR = float(os.environ.get("CACHECORE_DEADLINE_FACTOR", "1"))  # sanitizers are slow


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "deadline(seconds): for a test in a process of its own")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    parameters = pyfuncitem.callspec.params if hasattr(pyfuncitem, "callspec") else {}
    marker = pyfuncitem.get_closest_marker("deadline")
    seconds = (marker.args[0] if marker else DEADLINE) * DEADLINE_FACTOR
    command = [
        sys.executable, "-X", "faulthandler", __file__, str(pyfuncitem.path),
        pyfuncitem.function.__name__, repr(parameters),
    ]  # fmt: skip
    # The child imports what its parent does, and from the same places.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    # A sanitizer that keeps freed memory back would make every measurement of memory wrong.
    asan = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"
    environment = {**os.environ, "PYTHONPATH": path, "ASAN_OPTIONS": asan}
    try:
        child = subprocess.run(
            command, check=False, env=environment, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"no end after {late.timeout} seconds", pytrace=False)
    if child.returncode == SKIPPED:
        pytest.skip(child.stdout.strip())
    if child.returncode != 0:
        output = f"exit status {child.returncode}\n{child.stdout}\n{child.stderr}"
        pytest.fail(output, pytrace=False)
    return True


def run_test(path: str, name: str, parameters: str) -> None:
    spec = importlib.util.spec_from_file_location("isolated_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["isolated_test"] = module
    spec.loader.exec_module(module)
    # A shell's background jobs, and with them all that they start, ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        getattr(module, name)(**ast.literal_eval(parameters))
    except pytest.skip.Exception as skipped:
        print(skipped)
        sys.exit(SKIPPED)


if __name__ == "__main__":
    run_test(*sys.argv[1:])
