"""What holds for every test: hypothesis without deadlines, a header that says what is tested."""

from __future__ import annotations

import signal
from pathlib import Path

import hypothesis

import cachecore

# A machine may be slow; a failing example is printed in a form that can be replayed.
hypothesis.settings.register_profile("cachecore", deadline=None, print_blob=True)
hypothesis.settings.load_profile("cachecore")

# A shell's jobs in the background ignore SIGINT; tests of interruptions send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    return f"cachecore {cachecore.__version__} in {Path(cachecore.__file__).parent}"
