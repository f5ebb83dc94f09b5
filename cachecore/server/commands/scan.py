"""Commands that walk through a database: KEYS, SCAN, RANDOMKEY, DBSIZE."""

from __future__ import annotations

from typing import Any, NamedTuple

from cachecore._core import Cache
from cachecore._keyspace import Hash, random_key, scan
from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError
from cachecore.server.commands.numbers import MOST, cursor, integer
from cachecore.server.commands.registry import Table
from cachecore.server.commands.values import SYNTAX

TABLE = Table()
KINDS = {b"string": bytes, b"hash": Hash}


class Options(NamedTuple):
    """What SCAN and HSCAN may be told."""

    most: int = 10  # to look at; a hint
    pattern: bytes | None = None
    kind: type | None = None  # of values; NoneType: one that there is not here


def read_options(words: list[bytes], *, keys: bool = False) -> Options:
    """[MATCH pattern] [COUNT count], and of `keys` [TYPE type]. ReplyError for anything else."""
    options, words = Options(), words[::-1]
    while words:
        word, value = words.pop().lower(), words.pop() if words else None
        if value is not None and word == b"count":
            options = options._replace(most=integer(value))
            if options.most < 1:
                raise ReplyError(SYNTAX)
        elif value is not None and word == b"match":
            options = options._replace(pattern=value)
        elif value is not None and word == b"type" and keys:
            options = options._replace(kind=KINDS.get(value.lower(), type(None)))
        else:
            raise ReplyError(SYNTAX)
    return options


@TABLE.command("scan", -2, flags="readonly")
def scan_(client: Client, args: list[bytes]) -> list[bytes | list[bytes]]:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]."""
    start = cursor(args[1])
    most, pattern, kind = read_options(args[2:], keys=True)
    end, names = scan(client.cache, client.database, start, most, pattern, kind)
    return [b"%d" % end, names]


@TABLE.command("keys", 2, flags="readonly")
def keys(client: Client, args: list[bytes]) -> list[bytes]:
    """KEYS pattern."""
    return names_in(client.cache, client.database, args[1])


def names_in(cache: Cache[bytes, Any], database: int, pattern: bytes = b"*") -> list[bytes]:
    """The names of the keys of a database that match."""
    return scan(cache, database, 0, MOST, pattern)[1]


@TABLE.command("randomkey", 1, flags="readonly")
def randomkey(client: Client, args: list[bytes]) -> bytes | None:
    """RANDOMKEY."""
    return random_key(client.cache, client.database)


@TABLE.command("dbsize", 1, flags="readonly fast")
def dbsize(client: Client, args: list[bytes]) -> int:
    """DBSIZE."""
    size: int = client.engine.server.keyspace.size(client.database)
    return size
