"""The connection that fills the cache, and tells what of it is no longer true.

All that is cached of a database (in a Cluster: of a node) was read on one connection, on which
CLIENT TRACKING is on. Redis remembers what was read there and says on the same connection when it
changes. So the order of the stream tells what is newer: a value that comes after an invalidation
was read after the change. A key that is invalidated while it is being fetched is not kept.

    fill of a string   PTTL key, GET key
    fill of a hash     PTTL key, HSCAN key 0 COUNT max_fields [, HPTTL key FIELDS ...]
    of several strings PTTL key ... , MGET key ...

The lifetime comes first, so that nothing can happen between the value's arrival and its being
kept. What is longer than the bounds is not kept but forwarded, and remembered, so that it is not
fetched in vain again. (GETRANGE would bound what is sent of a large value, but cannot tell "" from
no value, and is not what who looks at the upstream's MONITOR or SLOWLOG expects.)

    up        what is cached is true, as far as the stream has been read
    doubtful  the connection was lost: nothing of it is served; clients ask the upstream
    away      it could not be replaced: what is cached is served for `max_stale` seconds, counted
              from when the upstream was last heard

When the connection is back, what the old one covered is dropped before anything is served. A
connection on which nothing is heard within `timeout` seconds, in reply to a PING, is lost too.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from logging import getLogger
from time import monotonic
from typing import TYPE_CHECKING, Any

import hiredis

from cachecore._keyspace import Hash
from cachecore.server.proxy.commands import Table
from cachecore.server.proxy.reads import HASH, STRING, STRINGS
from cachecore.server.proxy.stream import LOST, TOO_LONG, Callback, Stream
from cachecore.tiers.redis_link import Node, Refusal, pack

if TYPE_CHECKING:
    from cachecore.server.proxy.proxy import Proxy

log = getLogger("cachecore.server.proxy")

UNFIT: Any = object()  # in place of a value: ask the upstream yourself
MOST_FLIGHTS = 16_384
MOST_UNFIT = 10_000  # keys that are known to be too large, or of another kind
COARSE = 0.01  # seconds by which the cache's clock may lag
FIRST_DELAY, LAST_DELAY = 0.05, 1.0  # seconds between two attempts to connect
FAILURES = (OSError, TimeoutError, Refusal, ValueError, hiredis.HiredisError)


class Flight:
    """Keys that are being fetched."""

    __slots__ = ("asked", "kept", "keys", "kind", "ttls", "waiters")

    def __init__(self, kind: str, keys: Sequence[bytes], asked: float) -> None:
        self.kind, self.keys, self.asked = kind, keys, asked
        self.waiters: list[Callback] = []
        self.ttls: list[Any] = []
        self.kept = True  # unless a key changes meanwhile


class Tracker:
    """What is cached of one database of one node, and the connection that keeps it true."""

    def __init__(self, proxy: Proxy, node: Node, database: int) -> None:
        self._proxy, self.node, self.database = proxy, node, database
        self._prefix = bytes((database,))
        self._loop = asyncio.get_running_loop()
        self._stream: Stream | None = None
        self._flights: dict[bytes, list[Flight]] = {}
        self._unfit: dict[tuple[str, bytes], None] = {}
        self._hash_lifetimes = False
        self.up = False
        self.tracking = True
        self.covers = False  # whether anything cached may be of it
        self.heard = self._loop.time()
        self.failure: str | None = (
            None  # why it could not be connected last; None: it was, or not tried
        )
        self._task = self._loop.create_task(self._run())

    # --- its life

    async def _run(self) -> None:
        delay = 0.0
        while True:
            await asyncio.sleep(delay * random.uniform(0.5, 1))
            began = self._loop.time()
            stream = None
            try:
                async with asyncio.timeout(self._proxy.timeout):
                    stream = await self._connect()
            except Exception as error:
                if not isinstance(error, FAILURES):
                    log.exception("connecting to %s failed", self.node)
                self._failed(error)
            else:
                reason = await self._stay(stream)
                self._lost(reason)
            lasted = self._loop.time() - began if stream is not None else 0
            delay = 0.0 if lasted > 1 else min(LAST_DELAY, max(FIRST_DELAY, 2 * delay))

    async def _connect(self) -> Stream:
        stream: Stream = await self._proxy.connect(
            self.node, lambda: Stream(self._loop, self._pushed)
        )
        try:
            self._stream = stream
            for command in self._proxy.login(self.node, self.database):
                await stream.asked(command)
            tracking = await self._track(stream)
            table = Table(await stream.asked(pack(("COMMAND",))))
            self._proxy.table = table
            self._hash_lifetimes = b"hpttl" in table
        except BaseException:
            stream.end("it could not be used")
            raise
        self._came_up(tracking)
        return stream

    async def _track(self, stream: Stream) -> bool:
        try:
            await stream.asked(pack(("HELLO", 3)))
            await stream.asked(pack(("CLIENT", "SETNAME", "cachecore-proxy")))
            await stream.asked(pack(("CLIENT", "TRACKING", "ON")))
        except Refusal as refusal:
            if refusal.code in {"LOADING", "NOAUTH", "MASTERDOWN"}:
                raise
            if self.tracking:
                log.warning(
                    "%s cannot track what clients read (%s): nothing is cached, every command is "
                    "forwarded", self.node, refusal,
                )  # fmt: skip
            return False
        return True

    async def _stay(self, stream: Stream) -> str:
        """Until it is lost; why."""
        timeout = self._proxy.timeout
        while not stream.ended.done():
            await asyncio.wait([stream.ended], timeout=timeout / 4)
            now = self._loop.time()
            if stream.expected and now - stream.expected[0][1] > timeout:
                stream.end("the server does not answer")
            elif not stream.expected and now - stream.heard > timeout / 4:
                stream.ask([pack(("PING",))], [lambda _: None])
        return stream.ended.result()

    def _came_up(self, tracking: bool) -> None:
        self.drop()
        self.up = self.covers = True
        self.tracking, self.failure = tracking, None
        self._proxy.changed(self)

    def _lost(self, reason: str) -> None:
        assert self._stream is not None
        log.warning("the connection to %s that tracks database %d was lost: %s",
                    self.node, self.database, reason)  # fmt: skip
        self.up, self.heard, self._stream = False, self._stream.heard, None
        self._proxy.losses += 1
        self._flights.clear()
        self._proxy.changed(self)
        self._loop.call_at(self.heard + self._proxy.max_stale, self._grown_old)

    def _failed(self, error: BaseException) -> None:
        reason = str(error) or type(error).__name__
        if self.failure is None:
            log.warning("%s cannot be reached: %s", self.node, reason)
        self.failure, self._stream = reason, None
        self._proxy.changed(self)

    def _grown_old(self) -> None:
        """What is cached has been stale for as long as it may."""
        if not self.up and self._loop.time() - self.heard >= self._proxy.max_stale:
            self.drop()
            self._proxy.changed(self)

    def serves_stale(self) -> bool:
        """Whether what is cached may be served though it may no longer be true."""
        age = self._loop.time() - self.heard
        return not self.up and self.failure is not None and age < self._proxy.max_stale

    def close(self) -> None:
        """End it, and drop what it covered."""
        self._task.cancel()
        if self._stream is not None:
            self._stream.end("closed")
        self.up = False
        self.drop()

    # --- what changes

    def _pushed(self, push: Any) -> None:
        if push is TOO_LONG or push[0] != b"invalidate":
            return
        if push[1] is None:
            self.flush()
            return
        self._proxy.invalidations += len(push[1])
        self._proxy.cache.delete_many([self._prefix + key for key in push[1]])
        for key in push[1]:
            self.disturb(key)

    def disturb(self, key: bytes) -> None:
        """A key changes: what is being fetched of it is not kept, nor joined by who asks later."""
        for flight in self._flights.pop(key, ()):
            flight.kept = False
        if self._unfit:
            for kind in (STRING, HASH):
                self._unfit.pop((kind, key), None)

    def drop(self) -> None:
        """Drop everything that it covered."""
        for flights in self._flights.values():
            for flight in flights:
                flight.kept = False
        self._flights.clear()
        self._unfit.clear()
        if self.covers:
            self.covers = False
            self._proxy.forget(self)

    def flush(self) -> None:
        """Drop everything, and go on."""
        self.drop()
        self.covers = self.up

    def settle(self, callback: Callable[[], None]) -> bool:
        """Call back when all is known that had changed by now; False: it is, as nothing is left."""
        if self._stream is not None and self.up and self.tracking:

            def settled(reply: Any) -> None:
                if reply is LOST:  # the connection was lost: nobody knows
                    self.drop()
                callback()

            self._stream.ask([pack(("PING",))], [settled])
            return True
        self.drop()
        return False

    # --- what is fetched

    def can_fetch(self, kind: str, key: bytes) -> bool:
        """Whether it is worth trying."""
        return (
            self.up
            and self.tracking
            and len(self._flights) < MOST_FLIGHTS
            and (kind, key) not in self._unfit
        )

    def fetch(self, kind: str, keys: Sequence[bytes], waiter: Callback) -> None:
        """Fetch keys, the strings of several or all of one; `waiter` gets the value, or UNFIT."""
        if kind != STRINGS:
            for flight in self._flights.get(keys[0], ()):
                if flight.kind == kind:
                    flight.waiters.append(waiter)
                    return
        assert self._stream is not None
        flight = Flight(kind, keys, monotonic())  # uvloop counts in ms
        flight.waiters.append(waiter)
        for key in keys:
            self._flights.setdefault(key, []).append(flight)
        self._proxy.fills += 1
        packed = [pack((b"PTTL", key)) for key in keys]
        callbacks: list[Callback] = [flight.ttls.append] * len(keys)
        if kind == STRING:
            packed.append(pack((b"GET", keys[0])))
            callbacks.append(lambda reply: self._finish(flight, _string(reply)))
        elif kind == STRINGS:
            packed.append(pack((b"MGET", *keys)))
            callbacks.append(lambda reply: self._finish(flight, _strings(reply)))
        else:
            packed.append(pack((b"HSCAN", keys[0], 0, b"COUNT", self._proxy.max_fields)))
            callbacks.append(lambda reply: self._got_hash(flight, reply))
        self._stream.ask(packed, callbacks)

    def _got_hash(self, flight: Flight, reply: Any) -> None:
        """Where fields have lifetimes of their own, the shortest of them is the hash's."""
        value = _hash(flight, reply)
        if not self._hash_lifetimes or not isinstance(value, dict) or self._stream is None:
            self._finish(flight, value)
            return

        def with_lifetimes(lifetimes: Any) -> None:
            fit = isinstance(lifetimes, list) and isinstance(flight.ttls[0], int)
            if fit:
                some = [ttl for ttl in (*lifetimes, flight.ttls[0]) if ttl >= 0]
                flight.ttls[0] = min(some, default=flight.ttls[0])
            self._finish(flight, value if fit else UNFIT)

        command = pack((b"HPTTL", flight.keys[0], b"FIELDS", len(value), *value))
        self._stream.ask([command], [with_lifetimes])

    def _finish(self, flight: Flight, value: Any) -> None:
        self._proxy.latencies.add(monotonic() - flight.asked)
        for key in flight.keys:
            if flight.kept and (flights := self._flights.get(key)):
                flights.remove(flight)
                if not flights:
                    del self._flights[key]
        values = value if flight.kind == STRINGS and value is not UNFIT else [value]
        for key, one, ttl in zip(flight.keys, values, flight.ttls, strict=False):
            too_long = isinstance(one, bytes) and len(one) > self._proxy.max_value
            unfit = too_long or one is TOO_LONG or one is UNFIT
            self._proxy.results["unfit" if unfit else "miss" if one is None else "hit"] += 1
            if one is TOO_LONG or (too_long and flight.kind == STRING):
                value = UNFIT
                if flight.kept:
                    self._remember_unfit(flight.kind, key)
            elif flight.kept and one is not None and not unfit:
                self._keep(key, one, ttl, flight.asked)
        for waiter in flight.waiters:
            waiter(value)

    def _keep(self, key: bytes, value: Any, ttl: Any, asked: float) -> None:
        seconds = None  # the cache's own lifetime
        if not isinstance(ttl, int) or ttl == -2:
            return
        if ttl >= 0:
            seconds = ttl / 1000 - (monotonic() - asked) - COARSE
        if self.up and (seconds is None or seconds > 0):
            self._proxy.cache.set(self._prefix + key, value, ttl=seconds)

    def _remember_unfit(self, kind: str, key: bytes) -> None:
        if len(self._unfit) >= MOST_UNFIT:
            del self._unfit[next(iter(self._unfit))]
        self._unfit[kind, key] = None


# --- replies as values: bytes, a dict or None; UNFIT: cannot be told; TOO_LONG: nothing to be kept


def _string(reply: Any) -> Any:
    return reply if isinstance(reply, bytes | None) else _no_value(reply)


def _no_value(reply: Any) -> Any:
    other = isinstance(reply, Refusal) and reply.code == "WRONGTYPE"
    return TOO_LONG if reply is TOO_LONG or other else UNFIT


def _strings(reply: Any) -> Any:
    return reply if isinstance(reply, list) else UNFIT


def _hash(flight: Flight, reply: Any) -> Any:
    if not isinstance(reply, list):
        return _no_value(reply)
    cursor, pairs = reply
    if cursor != b"0":
        return TOO_LONG
    if pairs:
        return Hash(zip(pairs[::2], pairs[1::2], strict=True))
    return None if flight.kept and flight.ttls == [-2] else UNFIT
