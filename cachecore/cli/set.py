"""`cachecore set`: a value from the command line, a file or a pipe to the server."""

from __future__ import annotations

import os
import sys

import click

from cachecore.cli.client import Client, ReplyError
from cachecore.cli.command import command
from cachecore.cli.failures import Failure, InputError
from cachecore.cli.target import Target, target_options
from cachecore.server.values import duration

EXAMPLES = [
    ("cachecore set greeting hello --ttl 10min", "set it for ten minutes"),
    ("cachecore set weights --file weights.bin", "set it to the bytes of a file"),
    ("date | cachecore set now", "set it to what comes through the pipe"),
]


@command(examples=EXAMPLES)
@click.argument("key")
@click.argument("value", required=False)
@click.option("--file", metavar="FILE", help="Set the bytes of FILE; -: standard input.")
@click.option("--ttl", metavar="TIME", help='Lifetime, such as 60, "10min" or "2d".')
@target_options
def set(key: str, value: str | None, file: str | None, ttl: str | None, target: Target) -> None:
    """Set KEY to VALUE, to the bytes of a file, or to what standard input says."""
    if value is not None and file is not None:
        raise InputError("VALUE and --file are two values: give one of them")
    if value is None and file is None and sys.stdin.isatty():
        raise InputError("VALUE is missing: give it, or --file, or pipe it in")
    arguments = [b"SET", os.fsencode(key)]
    arguments.append(os.fsencode(value) if value is not None else _read(file or "-"))
    if ttl is not None:
        try:
            arguments += [b"PX", b"%d" % max(1, round(duration(ttl, "--ttl") * 1000))]
        except ValueError as error:
            raise InputError(str(error)) from None
    with Client(target) as client:
        try:
            click.echo(client.call(*arguments))
        except ReplyError as error:
            raise Failure(str(error)) from None


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        with open(file, "rb") as source:
            return source.read()
    except OSError as error:
        raise InputError(f"--file {file}: {error.strerror}") from None
