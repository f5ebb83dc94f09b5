"""What the server keeps under a key, a string or a hash, and how commands reach it."""

from __future__ import annotations

from collections.abc import Iterable
from sys import getsizeof

from cachecore._keyspace import KEEP, NEVER, store
from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
TOO_LARGE = "OOM command not allowed when used memory > 'maxmemory'."
SYNTAX = "ERR syntax error"


class Hash(dict[bytes, bytes]):
    """A hash: fields to values. Only `put` and `drop` change it.

    It knows its size, so that counting it anew after a change does not depend on how large it is.
    """

    __slots__ = ("content",)

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.content = 0  # bytes of its fields and values
        for field, value in pairs:
            self.put(field, value)

    def put(self, field: bytes, value: bytes) -> None:
        """Set a field."""
        before = self.get(field)
        self.content += getsizeof(value)
        self.content += getsizeof(field) if before is None else -getsizeof(before)
        self[field] = value

    def drop(self, field: bytes) -> bool:
        """Remove a field; False: it was not there."""
        value = self.pop(field, None)
        if value is None:
            return False
        self.content -= getsizeof(field) + getsizeof(value)
        return True

    def __sizeof__(self) -> int:
        return dict.__sizeof__(self) + self.content


def string_at(client: Client, name: bytes) -> bytes | None:
    """The string at a key, looked up; None: there is nothing. ReplyError for anything else."""
    value = client.cache.get(client.prefix + name)
    if value is not None and not isinstance(value, bytes):
        raise ReplyError(WRONG_TYPE)
    return value


def hash_at(client: Client, name: bytes) -> Hash | None:
    """The hash at a key, looked up; None: there is nothing. ReplyError for anything else."""
    value = client.cache.get(client.prefix + name)
    if value is not None and not isinstance(value, Hash):
        raise ReplyError(WRONG_TYPE)
    return value


def put(client: Client, name: bytes, value: bytes | Hash, deadline: int = NEVER) -> None:
    """Set a key, until a deadline in Unix ms, or KEEP. ReplyError: it is larger than the cache."""
    if not store(client.cache, client.prefix + name, value, deadline):
        raise ReplyError(TOO_LARGE)


def change(client: Client, name: bytes, found: Hash | None, fields: dict[bytes, bytes]) -> int:
    """Set fields of the hash that was found at a key, or of a new one; how many are new.

    Raises:
        ReplyError: it would be larger than the cache; nothing changed.
    """
    value = Hash() if found is None else found
    before = [(field, value.get(field)) for field in fields]
    for field, new in fields.items():
        value.put(field, new)
    if store(client.cache, client.prefix + name, value, KEEP):
        return sum([old is None for _, old in before])
    for field, old in before:
        if old is None:
            value.drop(field)
        else:
            value.put(field, old)
    raise ReplyError(TOO_LARGE)
