"""MULTI, EXEC, DISCARD, WATCH, UNWATCH.

Commands that cannot be executed (unknown, wrong number of arguments, not allowed) abort the
transaction when they are queued; those that fail while it runs do not, and nothing is undone.
EXEC does nothing when a watched key was written, or has expired or been evicted, since WATCH.
"""

from __future__ import annotations

from cachecore._resp_client import Client
from cachecore._resp_values import NOTHING, NULL_ARRAY, ReplyError
from cachecore.server.commands.registry import Table

TABLE = Table()
FLAGS = "noscript loading stale fast"


@TABLE.command("multi", 1, flags=FLAGS, immediate=True)
def multi(client: Client, args: list[bytes]) -> str:
    """MULTI: queue what follows."""
    if client.queue is not None:
        raise ReplyError("ERR MULTI calls can not be nested")
    client.queue, client.aborted = [], False
    return "OK"


@TABLE.command("exec", 1, flags="noscript loading stale", immediate=True)
def exec_(client: Client, args: list[bytes]) -> object:
    """EXEC: execute what was queued."""
    queue = client.queue
    if queue is None:
        raise ReplyError("ERR EXEC without MULTI")
    aborted = client.aborted
    changed = client.touched or _has_lost(client)
    _end(client)
    if aborted:
        raise ReplyError("EXECABORT Transaction discarded because of previous errors.")
    if changed:
        return NULL_ARRAY
    client.begin_array(len(queue))
    for command in queue:
        client.execute(command)
    return NOTHING


@TABLE.command("discard", 1, flags=FLAGS, immediate=True)
def discard(client: Client, args: list[bytes]) -> str:
    """DISCARD: forget what was queued."""
    if client.queue is None:
        raise ReplyError("ERR DISCARD without MULTI")
    _end(client)
    return "OK"


@TABLE.command("watch", -2, flags=FLAGS, keys=(1, -1, 1), immediate=True)
def watch(client: Client, args: list[bytes]) -> str:
    """WATCH key [key ...]."""
    if client.queue is not None:
        raise ReplyError("ERR WATCH inside MULTI is not allowed")
    keys = [client.prefix + key for key in args[1:]]
    client.watch(keys)
    present = client.state.setdefault("watched", set())
    present.update(key for key in keys if key in client.cache)
    return "OK"


@TABLE.command("unwatch", 1, flags=FLAGS)
def unwatch(client: Client, args: list[bytes]) -> str:
    """UNWATCH."""
    _forget(client)
    return "OK"


def _has_lost(client: Client) -> bool:
    """Whether a watched key is no longer there: it expired, or was evicted."""
    return any(key not in client.cache for key in client.state.get("watched", ()))


def _end(client: Client) -> None:
    client.queue, client.aborted = None, False
    _forget(client)


def _forget(client: Client) -> None:
    client.unwatch()
    client.state.pop("watched", None)
