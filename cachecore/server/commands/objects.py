"""Commands that look at how a key is kept: OBJECT, MEMORY."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from cachecore._keyspace import Hash, age_of, frequency_of, size_of
from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError
from cachecore.server.commands.numbers import integer, shown
from cachecore.server.commands.registry import Table
from cachecore.server.commands.values import SYNTAX

TABLE = Table()
STARTED = monotonic()
MOST_EMBEDDED = 44  # bytes of a string that Redis keeps within its object
MOST_FIELDS, MOST_FIELD = 512, 64  # of a hash that Redis keeps as a list, and bytes in it


def encoding(client: Client, key: bytes) -> bytes | None:
    """What Redis would call the encoding of the value; here there is one for each type."""
    value = client.cache.peek(key)
    if value is None:
        return None
    if isinstance(value, Hash):
        small = len(value) <= MOST_FIELDS and all(
            len(field) <= MOST_FIELD and len(item) <= MOST_FIELD for field, item in value.items()
        )
        return b"listpack" if small else b"hashtable"
    try:
        integer(value)
    except ReplyError:
        return b"embstr" if len(value) <= MOST_EMBEDDED else b"raw"
    return b"int"


def frequency(client: Client, key: bytes) -> int | None:
    """Look-ups of late: a count that is halved from time to time."""
    return frequency_of(client.cache, key)


def idle_time(client: Client, key: bytes) -> int | None:
    """Seconds since the last look-up, as far as can be told.

    The cache counts time in accesses: this is what came since, at their average pace.
    """
    age = age_of(client.cache, key)
    return None if age is None else int(age * (monotonic() - STARTED))


def references(client: Client, key: bytes) -> int | None:
    """One, if it is there."""
    return 1 if key in client.cache else None


Look = Callable[[Client, bytes], bytes | int | None]
LOOKS: dict[bytes, Look] = {
    b"encoding": encoding,
    b"freq": frequency,
    b"idletime": idle_time,
    b"refcount": references,
}
OBJECT_HELP = [
    "ENCODING <key>",
    "    Return the kind of representation that Redis would have for the value.",
    "FREQ <key>",
    "    Return how often the key was asked for of late.",
    "IDLETIME <key>",
    "    Return the estimated number of seconds since the key was asked for.",
    "REFCOUNT <key>",
    "    Return 1.",
]
MEMORY_HELP = [
    "USAGE <key> [SAMPLES <count>]",
    "    Return the bytes that the key, its value and their overhead count for.",
]


def _help(name: str, lines: list[str]) -> list[str]:
    head = f"{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    return [head, *lines, "HELP", "    Print this help."]


def _wrong_arity(name: bytes) -> ReplyError:
    return ReplyError(f"ERR wrong number of arguments for '{shown(name)}' command")


def _unknown(args: list[bytes]) -> ReplyError:
    name = shown(args[0]).upper()
    return ReplyError(f"ERR unknown subcommand '{shown(args[1][:128])}'. Try {name} HELP.")


@TABLE.command("object", -2, flags="readonly", keys=(2, 2, 1))
def object_(client: Client, args: list[bytes]) -> list[str] | bytes | int | None:
    """OBJECT ENCODING | FREQ | IDLETIME | REFCOUNT key, OBJECT HELP."""
    what = args[1].lower()
    if what != b"help" and what not in LOOKS:
        raise _unknown(args)
    if len(args) != (2 if what == b"help" else 3):
        raise _wrong_arity(b"object|" + what)
    if what == b"help":
        return _help("OBJECT", OBJECT_HELP)
    return LOOKS[what](client, client.prefix + args[2])


@TABLE.command("memory", -2, flags="readonly")
def memory(client: Client, args: list[bytes]) -> list[str] | int | None:
    """MEMORY USAGE key [SAMPLES count], MEMORY HELP."""
    what = args[1].lower()
    if what not in (b"help", b"usage"):
        raise _unknown(args)
    if len(args) < 3 if what == b"usage" else len(args) != 2:
        raise _wrong_arity(b"memory|" + what)
    if what == b"help":
        return _help("MEMORY", MEMORY_HELP)
    options = args[3:]
    while options:  # all of it is counted, whatever sample is asked for
        if options[0].lower() != b"samples" or len(options) < 2 or integer(options[1]) < 0:
            raise ReplyError(SYNTAX)
        del options[:2]
    key = client.prefix + args[2]
    value = client.cache.peek(key)
    return None if value is None else size_of(client.cache, key, value)
