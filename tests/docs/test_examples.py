"""The examples of the documentation run, say what they promise, and clean up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PROMISES = {
    "shared_vectors.py": ["killed by SIGKILL", "Broken rows: 0."],
}


def test_every_example_is_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PROMISES)


def left_behind() -> set[Path]:
    return set(Path("/dev/shm").glob("cachecore-example-*"))


@pytest.mark.parametrize("name", PROMISES)
def test_example(name: str) -> None:
    before = left_behind()
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for promise in PROMISES[name]:
        assert promise in done.stdout
    assert left_behind() <= before
