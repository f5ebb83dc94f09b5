"""The command line, run within this process or as a process of its own."""

from __future__ import annotations

import subprocess
import sys

from click.testing import CliRunner, Result

COMMAND = [sys.executable, "-m", "cachecore"]


def invoke(*arguments: object, stdin: bytes | None = None) -> Result:
    """Run it here, by its commands' own code; what is no exit is raised."""
    from cachecore.cli.group import cli

    result = CliRunner().invoke(cli, [*map(str, arguments)], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run it as users do."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=90, check=False)
