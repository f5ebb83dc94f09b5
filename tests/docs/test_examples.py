"""The examples of the documentation run, say what they promise, and clean up; so does its code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"
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


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda path: str(path.name))
def test_code_of_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page, one after another, as a reader would type them."""
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", page.read_text())
    assert blocks
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks).replace("/dev/shm", str(tmp_path))
    exec(compile(code, page.name, "exec"), {})
