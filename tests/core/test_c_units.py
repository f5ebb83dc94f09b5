"""The C core without Python: its own test programs, built from the sources and run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = sorted(map(str, (ROOT / "src" / "core").glob("*.c")))
FLAGS = ["-std=gnu11", "-O1", "-g", "-DCC_DEBUG", "-Wall", "-Wextra", "-Werror", "-pthread"]


@pytest.mark.parametrize("program", ["selftest", "segmenttest", "vectorstest"])
def test_a_c_program_passes(program: str, tmp_path: Path) -> None:
    source, binary = ROOT / "tests" / "core" / f"{program}.c", tmp_path / program
    command = ["cc", *FLAGS, f"-I{ROOT / 'src' / 'core'}", str(source), *UNITS, "-lm"]
    subprocess.run([*command, "-o", str(binary)], check=True)
    done = subprocess.run(
        [str(binary)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout
