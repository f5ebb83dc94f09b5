"""Commands that look at how a key is kept: OBJECT, MEMORY."""

from __future__ import annotations

from time import monotonic

from cachecore._keyspace import Hash, age_of, frequency_of, size_of
from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError
from cachecore.server.commands.numbers import integer
from cachecore.server.commands.registry import Table
from cachecore.server.commands.server import MEMORY
from cachecore.server.commands.subcommands import Family
from cachecore.server.commands.values import SYNTAX

TABLE = Table()
OBJECT = Family(TABLE, "object", flags="readonly")
STARTED = monotonic()
MOST_EMBEDDED = 44  # bytes of a string that Redis keeps within its object
MOST_FIELDS, MOST_FIELD = 512, 64  # of a hash that Redis keeps as a list, and bytes in it


@OBJECT.add("encoding", 3, keys=(2, 2, 1))
def encoding(client: Client, args: list[bytes]) -> bytes | None:
    """ENCODING <key>: Return what Redis would call the representation of the value."""
    value = client.cache.peek(client.prefix + args[2])
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


@OBJECT.add("freq", 3, keys=(2, 2, 1))
def freq(client: Client, args: list[bytes]) -> int | None:
    """FREQ <key>: Return how often the key was asked for of late; the count is halved at times."""
    return frequency_of(client.cache, client.prefix + args[2])


@OBJECT.add("idletime", 3, keys=(2, 2, 1))
def idletime(client: Client, args: list[bytes]) -> int | None:
    """IDLETIME <key>: Return the estimated number of seconds since the key was asked for."""
    # The cache counts time in accesses: this is what came since, at their average pace.
    age = age_of(client.cache, client.prefix + args[2])
    return None if age is None else int(age * (monotonic() - STARTED))


@OBJECT.add("refcount", 3, keys=(2, 2, 1))
def refcount(client: Client, args: list[bytes]) -> int | None:
    """REFCOUNT <key>: Return 1 if the key is there."""
    return 1 if client.prefix + args[2] in client.cache else None


@MEMORY.add("usage", -3, keys=(2, 2, 1))
def usage(client: Client, args: list[bytes]) -> int | None:
    """USAGE <key> [SAMPLES <count>]: Return the bytes of the key, its value and their overhead."""
    options = args[:2:-1]
    while options:  # all of it is counted, whatever sample is asked for
        if options.pop().lower() != b"samples" or not options or integer(options.pop()) < 0:
            raise ReplyError(SYNTAX)
    key = client.prefix + args[2]
    value = client.cache.peek(key)
    return None if value is None else size_of(client.cache, key, value)
