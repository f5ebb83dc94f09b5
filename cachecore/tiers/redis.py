"""A tier on Redis, Valkey, Dragonfly or KeyDB: one server, a Sentinel's master, or a Cluster.

hiredis packs and parses and redis-py says what URLs, TLS options and clients mean; the connections
are our own, because those of redis-py time each read, not a call: a server that dribbles bytes, or
has been stopped, keeps their callers waiting for a multiple of any timeout.

What may go wrong, and what a call makes of it, always within its deadline:

    connection refused, reset,  `TierError`. If the connection had been idle and nothing had come
    cut off in mid-reply        back yet (the server was restarted), once more on a new one; but
                                never `add`, before which idle connections are looked at instead
    no or not the whole answer  `TierTimeoutError`; the connection is closed, so that what comes
    in time, a cancelled task,  late is read by nobody; the exception itself if it was not time
    KeyboardInterrupt
    LOADING                     `TierError`. By Sentinel: the next call asks who is master
    READONLY, MASTERDOWN        `TierError`, after the connection was closed: a name or a proxy may
                                lead elsewhere next time. By Sentinel: who is master now is asked
                                at once, and the call repeated there
    OOM                         `TierError`; what is in the server can still be read
    NOAUTH, WRONGPASS, NOPERM   `TierError` that repeats the server's words, never the password
    MOVED, ASK                  Cluster: followed once, and the slots are asked for again after
                                MOVED. One server: `TierError`, as it is a Cluster's
    CLUSTERDOWN, a node away    `TierError`, with what other nodes answered as its `values`; the
                                next calls ask for the slots again, each 250 ms at most
    TRYAGAIN, CROSSSLOT         cannot happen: in a Cluster, commands have one key each
    WRONGTYPE                   a miss: something else is kept under that key
    what is not the protocol    `TierError`; the connection is closed
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from time import monotonic
from typing import Any, TypeVar

from cachecore.errors import TierError
from cachecore.settings import positive_int, seconds
from cachecore.tiers.base import Item, Tier

try:
    from cachecore.tiers.redis_link import Node, Refusal, pack
    from cachecore.tiers.redis_pool import Ask, Connections
    from cachecore.tiers.redis_route import Cluster, Command, Route
    from cachecore.tiers.redis_target import read_target
except ModuleNotFoundError as error:
    raise ImportError(
        'RedisTier needs redis-py with hiredis: pip install "cachecore-ml[redis]"'
    ) from error

T = TypeVar("T")

SCANNED = 1000  # keys that a server looks at for each SCAN
# What a reply may be.
_DATA: set[type] = {bytes, type(None)}
_DONE: set[type] = {bytes}
_NUMBER: set[type] = {int}
_LIST: set[type] = {list}


class RedisTier(Tier):
    """Keeps bytes in a Redis.

    Args:
        url_or_client: `redis://`, `rediss://` (TLS), `unix://`, `redis+sentinel://user:password@
            host:port,host:port/service/db` or `redis+cluster://host:port,host:port`; or a client
            of redis-py, sync or async, whose settings are taken over and which stays as it is.
        timeout: Seconds that a call may take in all.
        prefix: Goes before each key; str or bytes.
        max_connections: At most so many to a server, for all threads and for each event loop; who
            finds none free waits for one, within the deadline.
        name: For people and metrics.
        tls_options: `ssl_ca_certs` and the like, as redis-py has them.

    Nothing is connected before the first call. All methods may be called from any thread, those
    that begin with `a` from any event loop. Servers must know UNLINK (Redis 4).
    """

    def __init__(
        self,
        url_or_client: Any,
        *,
        timeout: float = 0.1,
        prefix: str | bytes = b"",
        max_connections: int = 64,
        name: str = "redis",
        **tls_options: Any,
    ) -> None:
        self._timeout = seconds(timeout, "timeout")
        if not isfinite(self._timeout):
            raise ValueError("timeout must be finite")
        if not isinstance(prefix, str | bytes):
            raise TypeError(f"prefix must be str or bytes, not {type(prefix).__name__}")
        if not isinstance(name, str) or not name:
            raise TypeError("name must be a str that is not empty")
        limit = positive_int(max_connections, "max_connections")
        self._servers, self._called = read_target(url_or_client, tls_options)
        self._prefix = prefix.encode() if isinstance(prefix, str) else prefix
        self._many = isinstance(self._servers, Cluster)
        self._connections = Connections(name, limit)
        self.name = name

    def __repr__(self) -> str:
        return f"RedisTier({self._called!r}, timeout={self._timeout!r})"

    # --- the tier

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._do(self._get(keys)) if keys else []

    def set_many(self, items: Sequence[Item]) -> None:
        if items:
            self._do(self._set(items))

    def delete_many(self, keys: Sequence[bytes]) -> int:
        return self._do(self._delete(keys)) if keys else 0

    def add(self, item: Item) -> bool:
        return self._do(self._add(item))

    def scan(self, prefix: bytes = b"") -> Iterator[bytes]:
        """The keys that begin with `prefix`; each step has a deadline of its own."""
        begin = len(self._prefix)
        pattern = re.sub(rb"([*?\[\]\\])", rb"\\\1", self._prefix + prefix) + b"*"
        for node in self._do(self._servers.nodes()):
            cursor = b"0"
            while True:
                cursor, keys = self._do(self._scan(node, cursor, pattern))
                for key in keys:
                    yield key[begin:]
                if cursor == b"0":
                    break

    def close(self) -> None:
        self._connections.close()

    def stats(self) -> dict[str, int]:
        """Connections: `open` now, `made` and `dropped` so far; and what happened.

        `timeouts` and `errors` count answers that a server did not give, `refusals` calls of which
        it refused something, `retries` connections found closed, `redirects` commands and masters
        that were elsewhere.
        """
        names = ("made", "dropped", "timeouts", "errors", "refusals", "retries")
        connections = self._connections
        return {
            "open": connections.open_now(),
            **{name: connections.counts[name] for name in names},
            "redirects": self._servers.redirects,
        }

    # --- hashes, of features say: a value for each of several names under a key

    def get_fields(
        self, keys: Sequence[bytes], fields: Sequence[bytes]
    ) -> list[list[bytes | None]]:
        """For each key, what is kept under each of the fields. `TierError` carries no values."""
        return self._do(self._get_fields(keys, fields)) if keys and fields else [[] for _ in keys]

    def set_fields(
        self, items: Mapping[bytes, Mapping[bytes, bytes]], lifetime: int | None = None
    ) -> None:
        """Set fields of keys, beside those they have.

        `lifetime`: milliseconds from now, of the key with all its fields; None: as it was.
        """
        if commands := self._setting(items, lifetime):
            self._do(self._checked(commands, _NUMBER))

    def delete_fields(self, keys: Sequence[bytes], fields: Sequence[bytes]) -> int:
        """Forget fields of keys; how many there were."""
        return self._do(self._delete_fields(keys, fields)) if keys and fields else 0

    # --- the asynchronous twins

    async def aget_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return await self._ado(self._get(keys)) if keys else []

    async def aset_many(self, items: Sequence[Item]) -> None:
        if items:
            await self._ado(self._set(items))

    async def adelete_many(self, keys: Sequence[bytes]) -> int:
        return await self._ado(self._delete(keys)) if keys else 0

    async def aadd(self, item: Item) -> bool:
        return await self._ado(self._add(item))

    async def aclose(self) -> None:
        self.close()

    async def aget_fields(
        self, keys: Sequence[bytes], fields: Sequence[bytes]
    ) -> list[list[bytes | None]]:
        """The same as `get_fields`."""
        if not keys or not fields:
            return [[] for _ in keys]
        return await self._ado(self._get_fields(keys, fields))

    async def aset_fields(
        self, items: Mapping[bytes, Mapping[bytes, bytes]], lifetime: int | None = None
    ) -> None:
        """The same as `set_fields`."""
        if commands := self._setting(items, lifetime):
            await self._ado(self._checked(commands, _NUMBER))

    async def adelete_fields(self, keys: Sequence[bytes], fields: Sequence[bytes]) -> int:
        """The same as `delete_fields`."""
        return await self._ado(self._delete_fields(keys, fields)) if keys and fields else 0

    # --- what is asked; one body for threads and event loops

    def _get(self, keys: Sequence[bytes]) -> Route[list[bytes | None]]:
        if self._prefix:
            keys = [self._prefix + key for key in keys]
        if self._many or len(keys) == 1:
            replies = yield from self._servers.do([("GET", key) for key in keys])
        else:
            [reply] = yield from self._servers.do([("MGET", *keys)])
            fits = isinstance(reply, list) and len(reply) == len(keys)
            replies = reply if fits else [reply] * len(keys)
        if not _DATA.issuperset(map(type, replies)):
            values, failure = self._sorted_out(replies, _DATA, reading=True)
            if failure is not None:
                if not _DATA.isdisjoint(map(type, replies)):  # else nobody has answered
                    failure.values = values
                raise failure
            return values
        return replies

    def _set(self, items: Sequence[Item]) -> Route[None]:
        if self._many:  # where one of two could be redirected, and come last
            items = [*{item.key: item for item in items}.values()]
        yield from self._checked([self._set_command(item) for item in items], _DONE)

    def _delete(self, keys: Sequence[bytes]) -> Route[int]:
        keys = [self._prefix + key for key in keys]
        commands = [("UNLINK", key) for key in keys] if self._many else [("UNLINK", *keys)]
        return sum((yield from self._checked(commands, _NUMBER)))

    def _add(self, item: Item) -> Route[bool]:
        command = (*self._set_command(item), "NX")
        [reply] = yield from self._checked([command], _DATA, again=False)
        return reply is not None

    def _scan(self, node: Node, cursor: bytes, pattern: bytes) -> Route[tuple[bytes, list[bytes]]]:
        question = pack(("SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED))
        [answer] = yield [Ask(node, question, 1)]
        replies, failure = self._sorted_out(answer if isinstance(answer, list) else [answer], _LIST)
        if failure is not None:
            raise failure
        cursor, found = replies[0]
        return cursor, found

    def _get_fields(
        self, keys: Sequence[bytes], fields: Sequence[bytes]
    ) -> Route[list[list[bytes | None]]]:
        commands = [("HMGET", self._prefix + key, *fields) for key in keys]
        replies = yield from self._checked(commands, _LIST, reading=True)
        return [reply or [None] * len(fields) for reply in replies]

    def _setting(
        self, items: Mapping[bytes, Mapping[bytes, bytes]], lifetime: int | None
    ) -> list[Command]:
        commands: list[Command] = []
        for key, fields in items.items():
            if fields:
                pairs = [part for pair in fields.items() for part in pair]
                commands.append(("HSET", self._prefix + key, *pairs))
                if lifetime is not None:
                    commands.append(("PEXPIRE", self._prefix + key, lifetime))
        return commands

    def _delete_fields(self, keys: Sequence[bytes], fields: Sequence[bytes]) -> Route[int]:
        commands = [("HDEL", self._prefix + key, *fields) for key in keys]
        return sum((yield from self._checked(commands, _NUMBER)))

    def _set_command(self, item: Item) -> Command:
        key, data, lifetime = item
        if lifetime is None:
            return ("SET", self._prefix + key, data)
        return ("SET", self._prefix + key, data, "PX", lifetime)

    def _checked(
        self,
        commands: Sequence[Command],
        kinds: set[type],
        *,
        again: bool = True,
        reading: bool = False,
    ) -> Route[list[Any]]:
        """The replies, which are of these kinds; TierError if one is an error."""
        replies = yield from self._servers.do(commands, again)
        replies, failure = self._sorted_out(replies, kinds, reading)
        if failure is not None:
            raise failure
        return replies

    def _sorted_out(
        self, replies: list[Any], kinds: set[type], reading: bool = False
    ) -> tuple[list[Any], TierError | None]:
        """The replies, None in place of others; and the first error that is no mere miss."""
        wrong = [reply for reply in replies if type(reply) not in kinds]
        if not wrong:
            return replies, None
        replies = [reply if type(reply) in kinds else None for reply in replies]
        for reply in wrong:
            if isinstance(reply, TierError):
                return replies, reply
            if not isinstance(reply, Refusal):
                self._connections.count("errors")
                return replies, TierError(f"{self.name}: a server answered what does not fit")
            if not (reading and reply.code == "WRONGTYPE"):
                self._connections.count("refusals")
                return replies, TierError(f"{self.name}: a server refused: {reply}")
        return replies, None

    # --- who carries it out

    def _do(self, route: Route[T]) -> T:
        until = monotonic() + self._timeout
        try:
            asks = next(route)
            while True:
                asks = route.send(self._connections.exchange(asks, until))
        except StopIteration as done:
            result: T = done.value
            return result

    async def _ado(self, route: Route[T]) -> T:
        until = monotonic() + self._timeout
        try:
            asks = next(route)
            while True:
                asks = route.send(await self._connections.aexchange(asks, until))
        except StopIteration as done:
            result: T = done.value
            return result
