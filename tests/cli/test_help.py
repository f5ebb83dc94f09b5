"""Help that teaches, commands that are imported when they are run, and completion of shells."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cachecore.cli.group import EXIT_CODES, MODULES, cli
from cli.running import invoke, run

OLDER = {"plan", "replay", "demo"}  # which have their examples in the README
SLOW = {"numpy", "rich", "redis", "asyncio", "ssl", "uvloop"}


def test_every_command_teaches() -> None:
    text = invoke("--help").output
    for code, _ in EXIT_CODES:
        assert f"\n  {code} " in text
    for name in MODULES:
        assert re.search(rf"\n  {name} +[A-Z]", text), name
        own = invoke(name, "--help").output
        assert f"cachecore {name}" in own.partition("Examples:")[2] or name in OLDER, name
    assert invoke("--version").output.startswith("cachecore 0.")


def test_examples_are_of_options_that_there_are() -> None:
    context = cli.make_context("cachecore", ["--help"], resilient_parsing=True)
    for name in MODULES:
        found = cli.get_command(context, name)
        assert found is not None
        known = {option for param in found.params for option in param.opts}
        for line, _ in getattr(found, "examples", ()):
            said = set(re.findall(r"--[a-z-]+", line.partition("|")[0]))
            assert said <= known, line


def modules_of(*arguments: str) -> set[str]:
    code = (
        f"import sys; sys.argv[1:] = {arguments!r}\n"
        "from cachecore.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["get", "k"], ["set", "k", "v"], ["del", "k"], ["stop"], ["status"]]
)
def test_what_must_be_quick_imports_nothing_slow(arguments: list[str]) -> None:
    assert modules_of(*arguments) & SLOW == set()


def test_as_a_module_and_as_a_script_it_is_the_same() -> None:
    script = shutil.which("cachecore", path=str(Path(sys.executable).parent))
    text = run("--help").stdout.decode()
    assert text.startswith("Usage: python -m cachecore [OPTIONS] COMMAND")
    if script is not None:  # it is installed, not run in a checkout
        done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
        assert done.stdout.replace("cachecore [OPT", "python -m cachecore [OPT") == text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    script = invoke("completion", shell).output
    assert "_CACHECORE_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n", "-c", script], check=True)


def test_completion_completes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_CACHECORE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "cachecore st")
    monkeypatch.setenv("COMP_CWORD", "1")
    code = (
        "import sys; sys.argv[0] = 'cachecore'\n"
        "from cachecore.cli.main import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {line.partition(",")[2] for line in done.stdout.split()} == {"start", "stop", "status"}


def test_output_without_a_terminal_is_plain() -> None:
    assert b"\x1b" not in run("--help").stdout
    failed = run("get", "k", "--port", 1)
    assert b"\x1b" not in failed.stderr
    assert failed.stderr.count(b"\n") == 1
