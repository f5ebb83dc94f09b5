"""The click group that gathers the commands; each is imported when it is run, not for `--help`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from cachecore.cli.command import write_examples

# Section by section: the command, its module, and what it does.
SECTIONS = {
    "Service": [
        ("init", "init", "Write a file of settings, with what each means."),
        ("start", "start", "Start the server in the background."),
        ("stop", "stop", "Stop it."),
        ("serve", "serve", "Run the server in the foreground."),
        ("status", "status", "Show what it does."),
        ("doctor", "doctor", "Check the installation, the machine and the settings."),
    ],
    "Data": [
        ("get", "get", "Print a value."),
        ("set", "set", "Set a value."),
        ("del", "delete", "Delete keys."),
        ("warm", "warm", "Fill the cache from a file."),
    ],
    "Measure": [
        ("bench", "bench", "Load a server, and draw its latencies."),
        ("plan", "plan", "Size a cache for an access log, or say that none is worth it."),
        ("replay", "replay", "Run an access log through a cache."),
        ("demo", "demo", "Show what a cache does for embeddings of real text."),
    ],
    "Shell": [("completion", "completion", "Print what completes commands in your shell.")],
}
MODULES = {name: module for rows in SECTIONS.values() for name, module, _ in rows}
EXIT_CODES = [
    ("0", "done"),
    ("1", "failed, or there is no such key"),
    ("2", "wrong use, or wrong settings"),
    ("3", "no server is running"),
    ("130", "interrupted"),
]


EXAMPLES = [
    ("cachecore init && cachecore start", "settings in cachecore.toml, and a server on port 6380"),
    ("cachecore set greeting hello && cachecore get greeting", "as any Redis client can"),
    ("cachecore status --watch", "what it does, until Ctrl-C"),
    ("cachecore stop", "the end of it"),
]


class LazyGroup(click.Group):
    """Commands that are imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, section by section."""
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name; None if there is none."""
        if cmd_name not in MODULES:
            return None
        module = import_module(f"cachecore.cli.{MODULES[cmd_name]}")
        found: click.Command = getattr(module, MODULES[cmd_name])
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        for section, rows in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, about) for name, _, about in rows], col_spacing=4)
        with formatter.section("Exit codes"):
            formatter.write_dl(EXIT_CODES, col_spacing=4)
        write_examples(EXAMPLES, formatter)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command to run, or tell which one might have been meant."""
        if args and args[0] not in MODULES and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], MODULES, 1)
            hint = f" Is {near[0]!r} meant?" if near else " See `cachecore --help`."
            ctx.fail(f"There is no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


def _show_version(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from cachecore import __version__

        click.echo(f"cachecore {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Print the version.",
)
def cli() -> None:
    """A cache for ML serving: a server that speaks Redis' protocol, and tools to size one.

    `cachecore COMMAND --help` says more of each command, with examples.
    """
