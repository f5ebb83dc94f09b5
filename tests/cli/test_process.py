"""The command line as a process of its own: pipes, signals, and the missing extra."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "cachecore"]


def run(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)


def test_help_lists_the_commands() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert b"replay" in done.stdout
    assert b"demo" in done.stdout


@pytest.mark.parametrize("bound", [[], ["--maxsize", "2"]], ids=["read twice", "streamed"])
def test_standard_input(bound: list[str]) -> None:
    done = run("replay", "--json", "-", *bound, stdin=b"a\nb\na\nc\n" * 1000)
    assert (done.returncode, done.stderr) == (0, b"")
    report = json.loads(done.stdout)
    assert (report["log"], report["requests"], report["distinct"]) == ("standard input", 4000, 3)


def test_standard_input_as_csv() -> None:
    done = run("replay", "--json", "--csv", "--maxsize", 9, "-", stdin=b"a,10\nb,30\na,10\n")
    assert json.loads(done.stdout)["byte_hit_ratio"] == pytest.approx(0.2)


def test_bad_input_is_one_line() -> None:
    done = run("replay", "-", stdin=b"a\n\xff\n")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"Error: standard input:2: not UTF-8 text\n"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_reader_of_the_output_goes_away(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "log").write_text("a\nb\n")
    command = [*COMMAND, "replay", str(tmp_path / "log"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_output_that_cannot_be_written(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "log").write_text("a\nb\n")
    command = [*COMMAND, "replay", str(tmp_path / "log"), *options]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"cachecore: No space left on device\n")


def test_interrupt() -> None:
    # What a shell runs in the background ignores the signal, and so would a child of these tests.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from cachecore.cli.main import main; sys.argv[1:] = ['replay', '-']; sys.exit(main())"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdin is not None
    process.stdin.write(b"key\n" * 100_000)  # more than a pipe holds: the command is reading
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, b"")
    assert stderr.strip() == b"cachecore: interrupted"


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from cachecore.cli.main import main; sys.argv[1:] = ['replay', '-']; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b'cachecore: the command line needs: pip install "cachecore-ml[cli]"\n'


def test_a_model_without_its_library_is_one_line() -> None:
    code = (
        "import sys; sys.modules['sentence_transformers'] = None\n"
        "from cachecore.cli.main import main; sys.argv[1:] = ['demo', '--model', 'm']\n"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    message = b"Error: --model needs sentence_transformers: pip install sentence-transformers\n"
    assert done.stderr == message
