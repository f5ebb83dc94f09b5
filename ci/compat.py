"""Runs redis-py's tests of commands and Redis' own tests against a server; see compat.sh.

    compat.py PORT REDIS_PY REDIS

Prints a line for each file: tests that passed, failed, need a command that is not there, and were
skipped by the suite itself; then the first line of each failure. Redis' suite is run from a copy
in which three things are changed: FUNCTION FLUSH and CONFIG SET may fail, and encodings, which are
told and not kept, are not compared.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as Xml

PYTHON_FILES = ["test_commands", "test_pipeline", "test_encoding"]
PYTHON_FILES += [f"test_asyncio/{name}" for name in PYTHON_FILES]
TCL_UNITS = ["type/string", "type/incr", "type/hash", "keyspace", "scan", "expire"]
ABSENT = re.compile(r"unknown (sub)?command|n command '|Unknown option or number of arguments")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
TCL_LINE = re.compile(r"^\[(ok|err|exception|ignore|skip)\]: (.*)$")
PATIENCE = 900  # seconds for a file


@dataclass
class Counts:
    """What became of the tests of a file."""

    passed: int = 0
    absent: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # names to reasons

    def add(self, name: str, trouble: str) -> None:
        """Count a test that did not pass."""
        if ABSENT.search(trouble):
            self.absent += 1
        else:
            self.failed[name] = trouble.strip().partition("\n")[0][:150]


def redis_py(folder: Path, name: str, port: int, protocol: int) -> Counts:
    """What became of a file of redis-py's tests."""
    with tempfile.TemporaryDirectory() as place:
        report = Path(place, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", f"tests/{name}.py", "--tb=line"]
        command += ["--redis-url", f"redis://127.0.0.1:{port}/9", "--protocol", str(protocol)]
        command += ["-p", "no:cacheprovider", f"--junitxml={report}", "--timeout", "30"]
        subprocess.run(
            command, cwd=folder, env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
            capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        counts = Counts()
        for case in Xml.parse(report).iter("testcase"):
            troubles = [case.find(kind) for kind in ("failure", "error")]
            trouble = next((each for each in troubles if each is not None), None)
            if trouble is not None:
                counts.add(case.get("name", ""), f"{trouble.get('message')}\n{trouble.text}")
            elif case.find("skipped") is not None:
                counts.skipped += 1
            else:
                counts.passed += 1
    return counts


def patched(folder: Path, place: Path) -> Path:
    """A copy of Redis' tests that goes on where a server lacks what no test here is about."""
    copy = place / "redis"
    shutil.copytree(folder / "tests", copy / "tests")
    for path in copy.glob("tests/**/*.tcl"):
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        text = re.sub(
            r"(?m)^(\s*)(r (?:function flush|config set [^\n\]]*))$", r"\1catch {\2}", text
        )
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return copy


def tcl(folder: Path, unit: str, port: int) -> Counts:
    """What became of a unit of Redis' tests."""
    command = ["tclsh", "tests/test_helper.tcl", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--single", f"unit/{unit}", "--durable", "--ignore-encoding"]
    command += ["--tags", "-needs:debug -needs:repl"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=PATIENCE, check=False)
    output = COLOURS.sub("", done.stdout.decode(errors="replace"))
    counts = Counts()
    lines = output.partition("The End")[0].splitlines()
    for at, line in enumerate(lines):
        match = TCL_LINE.match(line)
        if match is None:
            continue
        if match[1] == "ok":
            counts.passed += 1
        elif match[1] in ("ignore", "skip"):
            counts.skipped += 1
        else:
            counts.add(match[2], " ".join([match[2], *lines[at + 1 : at + 3]]))
    return counts


def results(port: int, python: Path, redis: Path) -> Iterator[tuple[str, Counts]]:
    """Names of files and what became of their tests."""
    for protocol in (2, 3):
        for name in PYTHON_FILES:
            yield f"redis-py {name} RESP{protocol}", redis_py(python, name, port, protocol)
    with tempfile.TemporaryDirectory() as place:
        copy = patched(redis, Path(place))
        for unit in TCL_UNITS:
            yield f"redis unit/{unit}", tcl(copy, unit, port)


def main(port: int, python: Path, redis: Path) -> None:
    """Run all of it."""
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            break
        except OSError:
            time.sleep(0.1)
    print(f"{'':44}{'passed':>8}{'failed':>8}{'share':>8}{'absent':>8}{'skipped':>8}", flush=True)
    failed = []
    for name, counts in results(port, python, redis):
        there = counts.passed + len(counts.failed)
        row = [counts.passed, len(counts.failed), f"{counts.passed / max(there, 1):.1%}"]
        row += [counts.absent, counts.skipped]
        print(f"{name:44}" + "".join(f"{each:>8}" for each in row), flush=True)
        failed += [f"{name}: {test}: {why}" for test, why in counts.failed.items()]
    print("\nFailed:", *failed, sep="\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
