"""`cachecore get`: a value of the server, to the terminal, a pipe or a file."""

from __future__ import annotations

import os
import sys

import click

from cachecore.cli.client import Client, ReplyError
from cachecore.cli.command import command
from cachecore.cli.failures import Failure, InputError
from cachecore.cli.target import Target, target_options

EXAMPLES = [
    ("cachecore get user:17", "print it; exit code 1 if there is no such key"),
    ("cachecore get weights --file weights.bin", "write its bytes to a file, and nothing else"),
    ("cachecore get weights --file - | sha256sum", "the same to a pipe"),
]


@command(examples=EXAMPLES)
@click.argument("key")
@click.option("--file", metavar="FILE", help="Write exactly the value to FILE; -: standard output.")
@target_options
def get(key: str, file: str | None, target: Target) -> None:
    """Print the value of KEY, and a newline.

    On a terminal, what could steer it is shown as escapes; pipes and files get the bytes.
    """
    with Client(target) as client:
        try:
            value = client.call(b"GET", os.fsencode(key))
        except ReplyError as error:
            raise Failure(str(error)) from None
    if value is None:
        raise Failure(f"there is no key {key!r}")
    if file not in (None, "-"):
        try:
            with open(file, "wb") as output:
                output.write(value)
        except OSError as error:
            raise InputError(f"--file {file}: {error.strerror}") from None
        return
    if file is None:
        if sys.stdout.isatty():
            value = shown(value).encode()
        value += b"\n"
    sys.stdout.buffer.write(value)
    sys.stdout.buffer.flush()


def shown(value: bytes) -> str:
    """A value for a terminal: text as it is, all else as escapes."""
    text = value.decode("utf-8", "backslashreplace")
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1]
        for letter in text
    )
