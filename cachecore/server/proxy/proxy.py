"""The proxy as a whole: an engine's commands, an upstream's nodes, what is tracked and counted."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from logging import getLogger
from time import monotonic
from typing import Any, TypeVar

from cachecore._load import Latencies
from cachecore._resp import Engine
from cachecore._resp_client import Client
from cachecore._resp_values import ReplyError
from cachecore.errors import TierError
from cachecore.server.proxy.commands import Table
from cachecore.server.proxy.guest import Guest
from cachecore.server.proxy.line import Line
from cachecore.server.proxy.tracking import Tracker
from cachecore.settings import deadline, positive_int
from cachecore.tiers.redis_link import Helpers, Node, pack
from cachecore.tiers.redis_pool import Connections
from cachecore.tiers.redis_route import SLOTS, Cluster, Route, slot_of
from cachecore.tiers.redis_target import read_target

T = TypeVar("T")
log = getLogger("cachecore.server.proxy")

LOOK = 1.0  # seconds between two questions to sentinels, or for a cluster's slots
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class Proxy:
    """Answers an engine's clients from its cache and an upstream. Belongs to the loop's thread.

    Args:
        engine: Made with `proxy=True`; its `intercept`, `greet` and `on_...` become the proxy's,
            which calls the `greet` and `on_close` that were there.
        url: Of the upstream, as RedisTier takes it: redis://, rediss://, unix://,
            redis+sentinel://, redis+cluster://. Its user is who reads for all clients that do not
            authenticate, and its database is theirs at first.
        max_stale: Seconds for which cached keys are served while the upstream cannot be reached,
            counted from when it was last heard; 0: not at all.
        timeout: Seconds for connecting, and for the answer to a PING on a tracking connection.
        reply_timeout: Seconds of silence after which commands under way become errors, while the
            upstream cannot be reached.
        max_value: Bytes of a string; longer ones are forwarded, not cached.
        max_fields: Fields of a hash; the same.
        has_users: Clients authenticate as users of this server, not of the upstream.
        tls_options: `ssl_ca_certs` and the like, as redis-py has them.
    """

    def __init__(
        self,
        engine: Engine,
        url: str,
        *,
        max_stale: float = 30.0,
        timeout: float = 2.0,
        reply_timeout: float = 30.0,
        max_value: int = 8 << 20,
        max_fields: int = 1000,
        has_users: bool = False,
        tls_options: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(url, str):
            raise TypeError(f"url must be a str, not {type(url).__name__}")
        self._target, self.called = read_target(url, tls_options or {})
        self.max_stale = max_stale and deadline(max_stale, "max_stale")
        self.timeout = deadline(timeout, "timeout")
        self.reply_timeout = deadline(reply_timeout, "reply_timeout")
        self.max_value = positive_int(max_value, "max_value")
        self.max_fields = positive_int(max_fields, "max_fields")
        self.has_users = has_users
        self.loop = asyncio.get_running_loop()
        self.engine, self.cache = engine, engine.cache
        self.is_cluster = isinstance(self._target, Cluster)
        self.table = Table()
        self.lines: set[Line] = set()
        self._shared: dict[tuple[Node, int, int], Line] = {}
        self.trackers: dict[tuple[Node, int], Tracker] = {}
        self.base = 0
        self.credentials: tuple[str, ...] = ()
        self.fills = self.invalidations = self.forwarded = self.stale_served = 0
        self.losses = self.drops = self.redirects = 0
        self.results = Counter(hit=0, miss=0)
        """Keys fetched, by what came of it: "hit", "miss", "unfit" to be cached."""
        self.latencies = Latencies()
        self._connections = Connections("proxy", 4)
        self._owners: list[Node | None] = []
        self._doubt = asyncio.Event()
        self._guests: dict[int, Guest] = {}
        self._watching: asyncio.Task[None] | None = None
        self._greet, self._on_close = engine.greet, engine.on_close
        engine.intercept, engine.greet, engine.on_close = self._command, self._came, self._left
        engine.on_end = self._ended
        engine.on_room = lambda client: self._guests[client.id].room()

    async def start(self) -> None:
        """Look for the upstream; return when it is connected, or turned out not to be reachable."""
        await self._look()
        self._watching = self.loop.create_task(self._watch())
        with suppress(TimeoutError):
            async with asyncio.timeout(self.timeout + 1):
                while any(not (one.up or one.failure) for one in self.trackers.values()):
                    await asyncio.sleep(0.01)

    def close(self) -> None:
        """End all connections; to be called when the engine's clients have gone."""
        if self._watching is not None:
            self._watching.cancel()
        for tracker in self.trackers.values():
            tracker.close()
        self.trackers.clear()
        for line in [*self.lines]:
            line.finish()
        self._connections.close()

    # --- clients

    def _came(self, client: Client) -> None:
        if self._greet is not None:
            self._greet(client)
        self._guests[client.id] = Guest(self, client)

    def _ended(self, client: Client) -> None:
        """It sends no more: what it waits for by BLPOP and the like is left to others at once."""
        if any(line.blocks for line in self._guests[client.id].lines.values()):
            client.close("ended", now=True)

    def _left(self, client: Client) -> None:
        if (guest := self._guests.pop(client.id, None)) is not None:
            guest.close()
        if self._on_close is not None:
            self._on_close(client)

    def _command(self, client: Client, args: list[bytes]) -> Any:
        if not client.may and client.last_command != b"reset":  # it has to say first who it is
            ours = self.engine.commands.get(client.last_command)
            open_to_all = ours is not None and not ours.needs
            return NotImplemented if open_to_all else ReplyError("NOAUTH Authentication required.")
        if client.last_command == b"info" and args[1:] == [b"cachecore"] and not client.private:
            return NotImplemented  # it is about this server, not the upstream
        return self._guests[client.id].command(args)

    # --- the upstream's nodes

    async def _ask(self, route: Route[T]) -> T:
        until = monotonic() + self.timeout
        try:
            asks = next(route)
            while True:
                asks = route.send(await self._connections.aexchange(asks, until))
        except StopIteration as done:
            result: T = done.value
            return result

    async def _watch(self) -> None:
        """Look again who is master, each second and when there is reason to."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._doubt.wait()
            self._doubt.clear()
            try:
                await self._look()
            except Exception:
                log.exception("looking for the upstream failed")
            await asyncio.sleep(LOOK / 10)

    async def _look(self) -> None:
        self._target.forget()
        try:
            nodes = await self._ask(self._target.nodes())
        except TierError as error:
            log.warning("%s: %s", self.called, error)
            return
        owners = [self._target.owner(slot) for slot in range(SLOTS if self.is_cluster else 1)]
        if owners != self._owners:
            moved = {at for at, node in enumerate(self._owners) if node != owners[at]}
            self._owners = owners
            self._leave({*nodes}, moved)
        for node in nodes:
            self.base = node.access.db
            self.credentials = _credentials(node)
            self._tracker(node, self.base)

    def _leave(self, nodes: set[Node], moved: set[int]) -> None:
        """Other nodes have the keys now: what has moved is dropped, who has none is left."""
        for (node, database), tracker in [*self.trackers.items()]:
            if node not in nodes:
                log.warning("%s is no longer used", node)
                del self.trackers[node, database]
                tracker.close()
        for line in [*self.lines]:
            if line.node not in nodes:
                line.end(f"upstream {line.node} was replaced")
        if moved and self.is_cluster:
            self.cache.delete_many([key for key in self.cache if slot_of(key[1:]) in moved])

    def doubt(self) -> None:
        """Something was not where it was expected: look again."""
        self._doubt.set()

    def node_of(self, key: bytes | None) -> Node | None:
        """Who has a key; None for a key: any that has keys."""
        if key is not None and self.is_cluster and self._owners:
            return self._owners[slot_of(key)]
        return next(filter(None, self._owners), None)

    def node_at(self, place: str) -> Node:
        """The node that a redirection names."""
        host, _, port = place.rpartition(":")
        some = self.node_of(None)
        assert some is not None
        return Node(host or some.host, int(port), some.access)

    async def connect(self, node: Node, factory: Callable[[], Any]) -> Any:
        """The protocol of a new connection."""
        if not node.port:
            _, protocol = await self.loop.create_unix_connection(factory, node.host)
            return protocol
        tls = node.access.tls
        transport, protocol = await self.loop.create_connection(
            factory, node.host, node.port, ssl=tls, server_hostname=node.host if tls else None
        )
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return protocol

    def login(self, node: Node, database: int) -> list[bytes]:
        """What is said first on a connection."""
        words = _credentials(node)
        said = [pack(("AUTH", *words))] if words else []
        return [*said, pack(("SELECT", database))] if database else said

    def shared_line(self, client: Client) -> Line | None:
        """The connection for short writes of such clients; None: the upstream is away."""
        node, database, protocol = self.node_of(None), client.database, client.protocol
        if node is None or self.is_away(node):
            return None
        line = self._shared.get((node, database, protocol))
        if line is None:
            said = self.login(node, database) + [pack(("HELLO", 3))] * (protocol == 3)
            line = self._shared[node, database, protocol] = Line(self, node, said, None)
            self.lines.add(line)
        return line

    def line_ended(self, line: Line) -> None:
        """A connection is gone."""
        self.lines.discard(line)
        self._shared = {place: one for place, one in self._shared.items() if one is not line}

    # --- what is tracked

    def tracker(self, database: int, keys: Sequence[bytes]) -> Tracker | None:
        """Who covers these keys; None: nobody, or not the same one."""
        node = self.node_of(keys[0])
        if self.is_cluster and any(slot_of(key) != slot_of(keys[0]) for key in keys[1:]):
            return None
        return None if node is None else self._tracker(node, database)

    def _tracker(self, node: Node, database: int) -> Tracker:
        tracker = self.trackers.get((node, database))
        if tracker is None:
            tracker = self.trackers[node, database] = Tracker(self, node, database)
        return tracker

    def changed(self, tracker: Tracker) -> None:
        """A tracker came up, was lost, or could not be connected."""
        if not tracker.up:
            self.doubt()
        # Something cached may not be true any more: each read must be looked at.
        self.engine.guarded = any(one.covers and not one.up for one in self.trackers.values())
        if tracker.failure is not None and self.loop.time() - tracker.heard > self.reply_timeout:
            for line in [*self.lines]:
                silent = self.loop.time() - line.heard
                if line.node == tracker.node and line.expected and silent > self.reply_timeout:
                    line.end(f"upstream {line.node} does not answer")

    def is_away(self, node: Node | None) -> bool:
        """Whether a node, None: any, could not be connected when that was tried last."""
        node = node or self.node_of(None)
        tracker = self.trackers.get((node, self.base)) if node is not None else None
        return tracker is None or tracker.failure is not None

    def why_away(self, node: Node | None) -> str:
        """What went wrong."""
        tracker = self.trackers.get((node, self.base)) if node is not None else None
        return (tracker and tracker.failure) or "no node is known"

    def forget(self, tracker: Tracker) -> None:
        """Drop what a tracker covers."""
        self.drops += 1
        if len(self.trackers) <= 1:
            self.cache.clear()
            return
        database, cluster = tracker.database, self.is_cluster
        owners, node = self._owners, tracker.node
        self.cache.delete_many([
            key for key in self.cache
            if key[0] == database and not (cluster and owners[slot_of(key[1:])] != node)
        ])  # fmt: skip

    def wrote(self, database: int, keys: Sequence[bytes]) -> None:
        """Keys have been written: what is cached of them is dropped, and not filled from before."""
        if not keys:
            return
        prefix = bytes((database,))
        self.cache.delete_many([prefix + key for key in keys])
        for (_, number), tracker in self.trackers.items():
            if number == database:
                for key in keys:
                    tracker.disturb(key)

    def drop_all(self) -> None:
        """Anything may have changed, and nobody tells."""
        for tracker in self.trackers.values():
            tracker.flush()

    def settle(self, callback: Callable[[], None]) -> bool:
        """Any key may have been written: call back when all trackers know. True: they do now."""
        left = 1

        def settled() -> None:
            nonlocal left
            left -= 1
            if not left:
                callback()

        for tracker in [*self.trackers.values()]:
            left += 1
            if not tracker.settle(settled):
                left -= 1
        left -= 1
        return not left

    # --- what is told

    def info(self) -> dict[str, int | float | str]:
        """The state and the counts, as INFO tells them."""
        trackers = [*self.trackers.values()]
        up = bool(trackers) and all(one.up for one in trackers)
        away = [one for one in trackers if not one.up and one.failure is not None]
        now, stats = self.loop.time(), self.cache.stats()
        return {
            "cache_keys": stats.entries,
            "cache_bytes": stats.bytes,
            "cache_max_bytes": self.cache.max_bytes or 0,
            "cache_hits": stats.hits,
            "cache_misses": stats.misses,
            "cache_evictions": stats.evictions + stats.rejections,
            "upstream": self.called,
            "upstream_status": "up" if up else "down" if away or not trackers else "doubtful",
            "upstream_tracking": "on" if all(one.tracking for one in trackers) else "off",
            "upstream_silent_seconds": round(max([0.0, *(now - one.heard for one in away)]), 1),
            "upstream_connections": len(self.lines),
            "tracking_connections": sum(one.up for one in trackers),
            "tracking_lost": self.losses,
            "max_stale_seconds": self.max_stale,
            "stale_served": self.stale_served,
            "fills": self.fills,
            "invalidations": self.invalidations,
            "drops": self.drops,
            "forwarded": self.forwarded,
            "redirects": self.redirects,
        }

    def add_info(self, reply: bytes) -> bytes | None:
        """The upstream's reply to INFO with our section."""
        kind, head = reply[:1], reply.find(b"\r\n")
        if kind not in (b"$", b"="):
            return None
        lines = ["# Cachecore", *(f"{name}:{value}" for name, value in self.info().items()), ""]
        text = reply[head + 2 : -2] + b"\r\n" + "\r\n".join(lines).encode()
        return b"%b%d\r\n%b\r\n" % (kind, len(text), text)


def _credentials(node: Node) -> tuple[str, ...]:
    """The words of AUTH."""
    words: tuple[str, ...] = ()
    steps = node.access.words(Helpers())
    try:
        next(steps)
    except StopIteration as done:
        words = done.value
    return words
