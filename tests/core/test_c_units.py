"""The C core without Python: its own test programs, built from the sources and run."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import LONG

ROOT = Path(__file__).parents[2]
UNITS = sorted(map(str, (ROOT / "src" / "core").glob("*.c")))
FLAGS = ["-std=gnu11", "-O1", "-g", "-DCC_DEBUG", "-Wall", "-Wextra", "-Werror", "-pthread"]
SCALE = ["20"] if LONG else []


@pytest.fixture
def folder() -> Iterator[Path]:
    """In shared memory, where nobody waits for a disk."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as name:
        yield Path(name)


@pytest.mark.parametrize(
    "program", ["selftest", "segmenttest", "vectorstest", "crashtest", "historytest", "respfuzz"]
)
def test_a_c_program_passes(program: str, folder: Path) -> None:
    source, binary = ROOT / "tests" / "core" / f"{program}.c", folder / program
    command = ["cc", *FLAGS, f"-I{ROOT / 'src' / 'core'}", str(source), *UNITS, "-lm"]
    subprocess.run([*command, "-o", str(binary)], check=True)
    done = subprocess.run(
        [str(binary), *SCALE], cwd=folder, capture_output=True, text=True, timeout=1800, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    if done.stdout.startswith("skipped"):
        pytest.skip(done.stdout.strip())
    assert done.stdout
