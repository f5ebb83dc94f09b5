"""Commands that are answered from what has been cached, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

# What is fetched of a key, whole: a string, a hash, or the strings of several keys at once.
STRING, HASH, STRINGS = "string", "hash", "strings"


class Read(NamedTuple):
    """A command: what it needs of its key, how many arguments it has, its reply.

    `answer(value, args)` is given bytes, a dict, or a list with an item for each key; None stands
    for a key that is not there.
    """

    kind: str
    least: int
    most: int
    answer: Callable[[Any, list[bytes]], Any]


READS: dict[bytes, Read] = {
    b"get": Read(STRING, 2, 2, lambda value, _: value),
    b"strlen": Read(STRING, 2, 2, lambda value, _: len(value or b"")),
    b"exists": Read(STRING, 2, 2, lambda value, _: int(value is not None)),
    b"mget": Read(STRINGS, 2, 1024, lambda values, _: values),
    b"hget": Read(HASH, 3, 3, lambda value, args: (value or {}).get(args[2])),
    b"hmget": Read(HASH, 3, 2**20, lambda value, args: [*map((value or {}).get, args[2:])]),
    b"hgetall": Read(HASH, 2, 2, lambda value, _: value or {}),
    b"hlen": Read(HASH, 2, 2, lambda value, _: len(value or ())),
    b"hexists": Read(HASH, 3, 3, lambda value, args: int(args[2] in (value or ()))),
    b"hstrlen": Read(HASH, 3, 3, lambda value, args: len((value or {}).get(args[2], b""))),
    b"hkeys": Read(HASH, 2, 2, lambda value, _: [*(value or ())]),
    b"hvals": Read(HASH, 2, 2, lambda value, _: [*(value or {}).values()]),
}


def strings(values: list[Any]) -> list[bytes | None]:
    """What MGET says: nothing of what is no string."""
    return [value if isinstance(value, bytes) else None for value in values]
