"""What the server keeps under a key, a string or a hash, and how commands reach it."""

from __future__ import annotations

from typing import TypeVar

from cachecore._keyspace import OWN, Hash, put_fields, store
from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
TOO_LARGE = "OOM command not allowed when used memory > 'maxmemory'."
SYNTAX = "ERR syntax error"

_R = TypeVar("_R")


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


def unchanged(client: Client, reply: _R) -> _R:
    """The reply of a write command that wrote nothing: who watches its keys is not told."""
    client.unchanged = True
    return reply


def put(client: Client, name: bytes, value: bytes | Hash, deadline: int = OWN) -> None:
    """Set a key, until a deadline in Unix ms, OWN or KEEP. ReplyError: it is too large."""
    if not store(client.cache, client.prefix + name, value, deadline):
        raise ReplyError(TOO_LARGE)


def change(client: Client, name: bytes, found: Hash | None, pairs: list[bytes]) -> int:
    """Set [field, value, ...] of the hash found at a key, or of a new one; how many are new.

    Raises:
        ReplyError: it would be larger than the cache; nothing changed.
    """
    value = Hash() if found is None else found
    count = put_fields(client.cache, client.prefix + name, value, pairs)
    if count is None:
        raise ReplyError(TOO_LARGE)
    return count
