"""`cachecore del`: keys of the server."""

from __future__ import annotations

import os

import click

from cachecore.cli.client import Client, ReplyError
from cachecore.cli.command import command
from cachecore.cli.failures import Failure
from cachecore.cli.target import Target, target_options

EXAMPLES = [("cachecore del user:17 user:18", "delete both, and print how many there were")]


@command(name="del", examples=EXAMPLES)
@click.argument("keys", nargs=-1, required=True)
@target_options
def delete(keys: tuple[str, ...], target: Target) -> None:
    """Delete KEYS, and print how many of them there were."""
    with Client(target) as client:
        try:
            click.echo(client.call(b"DEL", *map(os.fsencode, keys)))
        except ReplyError as error:
            raise Failure(str(error)) from None
