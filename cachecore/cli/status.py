"""`cachecore status`: what a server does, once or again and again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from time import monotonic, sleep
from typing import Any

import click

from cachecore.cli.client import Client, ReplyError
from cachecore.cli.command import command
from cachecore.cli.failures import Failure, InputError, NotRunning
from cachecore.cli.health import Health, Rates, read
from cachecore.cli.target import Target, target_options
from cachecore.server.values import duration
from cachecore.units import size, span

BARS = "▁▂▃▄▅▆▇█"
KEPT = 60  # looks that are drawn
EXAMPLES = [
    ("cachecore status", "once; exit code 3 if no server is running"),
    ("cachecore status --watch", "every second, until Ctrl-C"),
    ("cachecore status --json | jq .hit_ratio", "for programs"),
]


@command(examples=EXAMPLES)
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--interval", metavar="TIME", default="1s", show_default=True, help="Time between looks."
)
@click.option("--times", type=click.IntRange(1), help="End after so many looks.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, a line each look.")
@target_options
def status(watch: bool, interval: str, times: int | None, as_json: bool, target: Target) -> None:
    """Show what the server does: its memory, keys, hits, clients, and the Redis behind it.

    With --watch, rates are those since the look before. --json prints all that the server tells,
    as `info`, besides.
    """
    try:
        seconds = duration(interval, "--interval")
    except ValueError as error:
        raise InputError(str(error)) from None
    looks = islice(_looks(target, seconds), times if watch else 1)
    if as_json:
        try:
            for health in looks:
                click.echo(json.dumps(health.as_object(str(target))))
        except NotRunning:
            click.echo(json.dumps({"running": False, "address": str(target)}))
            raise
    elif not watch:
        for health in looks:
            click.echo(_page(health, target))
    elif sys.stdout.isatty():
        _watch(looks, target)
    else:
        for health in looks:
            click.echo(_line(health))


def _looks(target: Target, interval: float) -> Iterator[Health]:
    """What the server says, every so often, at times that do not drift."""
    with Client(target) as client:
        begin, before = monotonic(), None
        for number in range(1, sys.maxsize):
            try:
                told = client.call(b"INFO", b"cachecore")  # of a proxy: of itself, not its upstream
                health = read(told or client.call(b"INFO"), before)
            except ReplyError as error:
                raise Failure(f"{target}: {error}") from None
            yield health
            before = health
            sleep(max(0.0, begin + number * interval - monotonic()))


def _page(health: Health, target: Target) -> str:
    """A line for each thing to know."""
    rows = [
        ("server", f"{health.name} {health.version} at {target}, process {health.process}"),
        ("up for", span(health.uptime)),
        ("keys", f"{health.keys:,}"),
        ("memory", _memory(health)),
        ("hit ratio", _ratio(health.hits, health.misses)),
        ("commands", f"{health.commands:,}, now {health.per_second:,} a second"),
        ("clients", f"{health.clients:,}"),
        ("evicted", f"{health.evicted:,}, expired {health.expired:,}"),
        *health.upstream_rows(),
    ]
    return "\n".join(f"{click.style(f'{label:<10}', bold=True)}{text}" for label, text in rows)


def _memory(health: Health) -> str:
    if not health.memory_limit:
        return size(health.memory)
    share = health.memory / health.memory_limit
    return f"{size(health.memory)} of {size(health.memory_limit)} ({share:.0%})"


def _ratio(hits: int, misses: int) -> str:
    asked = hits + misses
    return f"{hits / asked:.1%} of {asked:,} look-ups" if asked else "no look-ups yet"


def _line(health: Health) -> str:
    """The same in one line, for logs."""
    rates = health.rates or Rates(0, 0, None)
    ratio = f"{rates.hit_ratio:.3f}" if rates.hit_ratio is not None else "-"
    return (
        f"keys={health.keys} memory={health.memory} hit_ratio={ratio}"
        f" commands_per_second={rates.commands:.0f} clients={health.clients}"
        f" evicted={health.evicted}"
    )


def _watch(looks: Iterator[Health], target: Target) -> None:
    """The page, redrawn in place, with what came before as small curves."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    ratios: list[float | None] = []
    commands: list[float | None] = []
    with (
        suppress(KeyboardInterrupt),
        Live(console=Console(), auto_refresh=False, transient=False) as live,
    ):
        for health in looks:
            if health.rates is not None:
                ratios.append(health.rates.hit_ratio)
                commands.append(health.rates.commands)
            text = Text.from_ansi(_page(health, target))
            if health.rates is not None:
                now = f"{ratios[-1]:.1%}" if ratios[-1] is not None else "-"
                text.append(f"\n\nhit ratio {_curve(ratios, 1.0)} {now}")
                most = max(1.0, *(rate for rate in commands if rate is not None))
                text.append(f"\ncommands  {_curve(commands, most)} {commands[-1]:,.0f} a second")
            live.update(text, refresh=True)


def _curve(values: list[Any], most: float) -> str:
    return "".join(
        " " if value is None else BARS[int(value / most * 7.99)] for value in values[-KEPT:]
    ).rjust(KEPT)
