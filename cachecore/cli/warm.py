"""`cachecore warm`: a server is asked, or told, before its clients ask."""

from __future__ import annotations

from collections.abc import Iterator

import click

from cachecore.cli.client import Client, ReplyError, encode
from cachecore.cli.command import command
from cachecore.cli.failures import Failure, InputError
from cachecore.cli.target import Target, target_options
from cachecore.cli.terminal import Bar, progress_bars
from cachecore.cli.warm_files import FORMATS as OTHERS
from cachecore.cli.warm_files import CommandLog, ValueLog
from cachecore.plan.logs import FORMATS, Log, LogError, open_log
from cachecore.server.values import duration

Told = ValueLog | CommandLog
EXAMPLES = [
    ("cachecore warm access.log", "GET each key of an access log: a proxy loads what it has not"),
    ("cachecore warm values.jsonl --ttl 1h", "SET the values of JSON Lines, for an hour"),
    ("cachecore warm commands.resp", "send commands, such as `redis-cli --pipe` takes"),
]


@command(examples=EXAMPLES)
@click.argument("file")
@click.option(
    "--format",
    type=click.Choice([*OTHERS, *FORMATS]),
    help="What FILE is, if it does not show.",
)
@click.option("--ttl", metavar="TIME", help="Lifetime of values that tell none of their own.")
@target_options
def warm(file: str, format: str | None, ttl: str | None, target: Target) -> None:
    """Fill the cache from FILE, or `-` for standard input; it may be packed by gzip or Zstandard.

    Of an access log, as `cachecore plan` reads them, each key is asked for, in their order: so the
    server loads it from the Redis behind it, and learns which keys are hot.

    JSON Lines with key and value (or value_base64), and perhaps ttl in seconds, are set. Commands
    in Redis' protocol are sent as they are.
    """
    try:
        lifetime = None if ttl is None else duration(ttl, "--ttl")
        with (
            Client(target, timeout=60) as client,
            open_log(file, format=format, others=OTHERS) as log,
            progress_bars() as bars,
        ):
            told = isinstance(log, Told)
            commands = log.commands(lifetime) if isinstance(log, Told) else _gets(log)
            total, found, errors, first = _send(client, commands, log, bars.add("warming"))
    except ValueError as error:  # of --ttl, or a LogError
        raise InputError(str(error)) from None
    if told:
        click.echo(f"sent {total:,} commands: {found:,} were done")
    else:
        click.echo(f"asked for {total:,} keys: {found:,} have a value")
    if errors:
        raise Failure(f"{errors:,} were refused, the first with: {first}")


def _gets(log: Log) -> Iterator[bytes]:
    for chunk in log.chunks():
        for key in chunk.keys:
            yield encode(b"GET", str(key).encode("utf-8", "surrogateescape"))


def _send(
    client: Client, commands: Iterator[bytes], log: Log, bar: Bar
) -> tuple[int, int, int, str]:
    """Replies, those that are values or thanks, those that are errors, and the first of these."""
    total = found = errors = 0
    first = ""
    for reply in client.call_many(commands):
        total += 1
        if isinstance(reply, ReplyError):
            errors += 1
            first = first or str(reply)
        elif reply is not None:
            found += 1
        if total % 4096 == 0:
            bar.update(log.share())
    if not total:
        raise LogError(f"{log.name}: nothing in it")
    return total, found, errors, first
