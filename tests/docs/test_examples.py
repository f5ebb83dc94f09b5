"""The examples of the documentation run, say what they promise, and clean up; so does its code."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachecore import TieredCache
from servers import redis_server

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"
PROMISES = {
    "cluster.py": ["node 3 is killed", "Old values: 0. Writes that were forgotten: 0."],
    "fraud_scoring.py --requests 100": ["Old scores served: 0.", "Wrong answers: 0."],
    "outage.py --seconds 3": [
        "errors: 0.",
        "older than a write before: 0.",
        "still owed to it: 0.",
    ],
    "recommender.py --requests 60": ["Clicks older than 2 s: none."],
    "sentinel.py": ["the breaker is open", "errors: 0.", "Writes that were forgotten: 0."],
    "shared_vectors.py": ["killed by SIGKILL", "Broken rows: 0."],
    "sqlite_tier.py": ["10 from SQLite, 0 computed"],
    "weight_shards.py": ["Sums of all weights that the workers found: 1."],
}

WITH_MODELS = {"prefix_generation.py", "semantic_search.py"}  # tests/ml/torch runs them


def test_every_example_is_here() -> None:
    named = {command.partition(" ")[0] for command in PROMISES}
    programs = [path for path in EXAMPLES.glob("*.py") if "__main__" in path.read_text()]
    assert {path.name for path in programs} == named | WITH_MODELS


def left_behind() -> set[Path]:
    return set(Path("/dev/shm").glob("cachecore-example-*"))


@pytest.mark.parametrize("command", PROMISES)
def test_example(command: str, tmp_path: Path) -> None:
    before = left_behind()
    name, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for promise in PROMISES[command]:
        assert promise in done.stdout
    assert left_behind() <= before


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = redis_server(tmp_path_factory.mktemp("redis"))
    yield f"redis://127.0.0.1:{server.port}"
    server.kill()


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda path: str(path.name))
def test_code_of_a_page(
    page: Path, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All blocks of a page, one after another, as a reader would type them."""
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", page.read_text())
    assert blocks
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks).replace("/dev/shm", str(tmp_path))
    code = code.replace('"redis://localhost"', repr(redis_url))
    names: dict[str, Any] = {}
    try:
        exec(compile(code, page.name, "exec"), names)
    finally:  # a reader's program ends here, and its threads with it
        for value in names.values():
            if isinstance(value, TieredCache):
                value.close()
