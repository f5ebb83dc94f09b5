"""Entry point of the command line: says what to install when the `cli` extra is missing."""

from __future__ import annotations

import sys
from io import TextIOWrapper


def main() -> int:
    """Run the command line and return its exit code; see `group.EXIT_CODES`."""
    try:
        return _main()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        print('cachecore: the command line needs: pip install "cachecore-ml[cli]"', file=sys.stderr)
        return 2


def _main() -> int:
    import click

    from cachecore.cli.group import cli

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # "µs" on a terminal that knows ASCII only
    try:
        return int(cli.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except OSError as error:  # the output's: what is read has its own messages
        print(f"cachecore: {error.strerror or error}", file=sys.stderr)
        return 1
    except click.Abort:
        print("cachecore: interrupted", file=sys.stderr)
        return 130
