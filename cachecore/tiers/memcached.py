"""Memcached as a tier, one server or several, through pymemcache.

What is kept. The data is stored as it is, so that other programs can read it. memcached counts
lifetimes in whole seconds: one of a minute or more is rounded down, and ends up to two seconds
early. The exact end of a shorter one is written in the item's flags: bit 31 set, and the lower 31
bits of its Unix time in milliseconds; the server keeps such an item a little longer than that.
Other flags mean that there is no such end. A key that memcached would not take, with spaces or too
long, is replaced by a digest of 256 bits.

Where. Each key has one server, by rendezvous hashing (Thaler and Ravishankar, 1996): when one is
added or removed, only the keys that come to it or were on it move. A server that is down keeps its
keys: if others took them over, what was deleted there meanwhile would come back with the server.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TypeVar

from pymemcache.exceptions import (
    MemcacheClientError,
    MemcacheError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
)

from cachecore.errors import TierError, TierTimeoutError
from cachecore.settings import deadline
from cachecore.tiers.base import Item, Tier
from cachecore.tiers.breaker import Circuit
from cachecore.tiers.memcached_wire import BATCH, TOO_LARGE, Address, Connection, read_servers
from cachecore.tiers.workers import Workers

C = TypeVar("C")
T = TypeVar("T")

IDLE = 16  # connections to a server that are kept for later
GRACE = 0.02  # seconds that threads may need to notice that a deadline has passed
THREADS = 32  # of a tier with several servers
LONGEST_KEY = 250  # bytes that memcached takes
PLAIN = re.compile(rb"[!-}\x80-\xff][!-~\x80-\xff]*")  # keys that are stored as they are
DIGESTED = b"~"  # goes before the digest of others
EXACT = 60_000  # milliseconds; shorter lifetimes end to the millisecond
RELATIVE = 30 * 24 * 3600  # seconds; memcached reads more as Unix time
LAST = 2**31 - 1  # the Unix time that memcached's parser ends with
MARK = 1 << 31


def _now() -> int:
    return time.time_ns() // 1_000_000


def _ending(lifetime: int | None) -> tuple[int, int]:
    """The flags and the exptime that stand for a lifetime in milliseconds."""
    if lifetime is None:
        return 0, 0
    if lifetime < EXACT:
        # The server's clock ticks once a second: it may count up to one too many.
        return (_now() + lifetime) % MARK | MARK, lifetime // 1000 + 2
    whole = lifetime // 1000 - 1
    return 0, whole if whole <= RELATIVE else min(int(time.time()) + whole, LAST)


def _has_ended(flags: int) -> bool:
    return bool(flags & MARK) and (_now() - flags) % MARK < MARK // 2


def _command(name: bytes, key: bytes, item: Item, ending: tuple[int, int]) -> bytes:
    return b"%b %b %d %d %d\r\n%b\r\n" % (name, key, *ending, len(item[1]), item[1])


class _Server:
    """One of the servers, and the connections to it."""

    def __init__(self, address: Address, name: str) -> None:
        self.address = address
        label = address if isinstance(address, str) else "{}:{}".format(*address)
        self.name = f"{name}: {label}"
        digest = blake2b(label.encode(), digest_size=8).digest()
        self.seed = int.from_bytes(digest, "little") | 1
        self.idle: list[Connection] = []
        # Several servers may share a call: one that hangs is to cost its deadline seldom.
        self.circuit = Circuit(2, 1.0, 30.0, time.monotonic)


class MemcachedTier(Tier):
    """Keeps bytes in one or more memcached servers.

    Args:
        servers: "host:port", ("host", port), the path of a Unix socket, or a list of these.
        timeout: Seconds that a call may take in all, connecting and looking up names included.
        prefix: Goes before every key.
        name: For people and metrics.

    The servers of a call are asked at the same time. When some fail, the others have done their
    part: the `TierError` of `get_many` has their answers as its `values`. A server that failed
    twice in a row is not asked for a second, then for longer (see `Breaker`): calls that need it
    fail at once. A value that is larger than the server takes (1 MB, by default) is not kept, and
    nor is what was there before; `add` of one is False. The same data may be read by other
    programs, see the head of this file.

    Any number of threads may use it; each call has a connection of its own, which is closed if the
    call did not end well. The child of a fork makes new ones. `stats()`: `connections` made,
    `errors` and, of these, `timeouts` of single servers, and values that were `refused`.
    """

    def __init__(
        self,
        servers: Address | Sequence[Address],
        *,
        timeout: float = 0.1,
        prefix: str = "",
        name: str = "memcached",
    ) -> None:
        if not isinstance(prefix, str) or not re.fullmatch("[!-~]{0,180}", prefix):
            raise ValueError(f"prefix must be at most 180 printable characters, not {prefix!r}")
        if not isinstance(name, str) or not name:
            raise ValueError(f"name must be text, not {name!r}")
        self.name = name
        self._servers = [_Server(address, name) for address in read_servers(servers)]
        self._timeout = deadline(timeout, "timeout")
        self._prefix = prefix.encode()
        self._workers = Workers(THREADS, name)
        self._process = os.getpid()
        self._closed = False
        self._connections = self._errors = self._timeouts = self._refused = 0

    # --- the contract

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found: dict[bytes, bytes | None] = {}

        def get(connection: Connection, wanted: list[bytes]) -> None:
            connection.found = found  # which has what came before a failure, too
            for at in range(0, len(wanted), BATCH):
                connection.get_many(wanted[at : at + BATCH])

        stored = [self._stored(key) for key in keys]
        answers, errors = self._on_each(get, stored, stored)
        values = [found.get(key) for key in stored]
        if errors:
            errors[0].values = values if answers or found else None
            raise errors[0]
        return values

    def set_many(self, items: Sequence[Item]) -> None:
        def store(connection: Connection, commands: list[bytes]) -> None:
            self._count(connection.ask(commands), b"STORED", TOO_LARGE)

        keys = [self._stored(item[0]) for item in items]
        commands = [
            _command(b"set", key, item, _ending(item[2]))
            for key, item in zip(keys, items, strict=True)
        ]
        _, errors = self._on_each(store, keys, commands)
        if errors:
            raise errors[0]

    def delete_many(self, keys: Sequence[bytes]) -> int:
        def delete(connection: Connection, commands: list[bytes]) -> int:
            return self._count(connection.ask(commands), b"DELETED", b"NOT_FOUND")

        stored = [self._stored(key) for key in keys]
        deleted, errors = self._on_each(delete, stored, [b"delete %b\r\n" % key for key in stored])
        if errors:
            raise errors[0]
        return sum(deleted)

    def add(self, item: Item) -> bool:
        key, ending = self._stored(item[0]), _ending(item[2])
        command = _command(b"add", key, item, ending)

        def add(connection: Connection, _: list[bytes]) -> bool:
            while True:  # until the deadline, while others always come first
                lines = connection.ask([command])
                if lines[0] != b"NOT_STORED":
                    return bool(self._count(lines, b"STORED", TOO_LARGE))
                there = connection.gets_many([key])
                if key in there:
                    data, unique = there[key]
                    if data is not None:
                        return False
                    # It has ended, but not for the server: ours takes its place if nobody's did.
                    swap = _command(b"cas", key, item, ending)
                    head, rest = swap.split(b"\r\n", 1)
                    lines = connection.ask([b"%b %b\r\n%b" % (head, unique, rest)])
                    if lines[0] not in (b"EXISTS", b"NOT_FOUND"):
                        return bool(self._count(lines, b"STORED", TOO_LARGE))

        added, errors = self._on_each(add, [key], [key])
        if errors:
            raise errors[0]
        return added[0]

    def close(self) -> None:
        self._closed = True
        for server in self._servers:
            while server.idle:
                server.idle.pop().close()

    def stats(self) -> dict[str, int]:
        return {
            "connections": self._connections,
            "errors": self._errors,
            "timeouts": self._timeouts,
            "refused": self._refused,
        }

    # --- keys, servers and connections

    def _stored(self, key: bytes) -> bytes:
        stored = self._prefix + key
        if PLAIN.fullmatch(key) and len(stored) <= LONGEST_KEY:
            return stored
        return self._prefix + DIGESTED + blake2b(key, digest_size=32).hexdigest().encode()

    def _server_of(self, key: bytes) -> _Server:
        number = int.from_bytes(blake2b(key, digest_size=8).digest(), "little")
        return max(self._servers, key=lambda server: number * server.seed & 0xFFFF_FFFF_FFFF_FFFF)

    def _grouped(self, keys: list[bytes], parts: list[C]) -> list[tuple[_Server, list[C]]]:
        if len(self._servers) == 1:
            return [(self._servers[0], parts)] if parts else []
        groups: dict[_Server, list[C]] = {}
        for key, part in zip(keys, parts, strict=True):
            groups.setdefault(self._server_of(key), []).append(part)
        return list(groups.items())

    def _count(self, lines: list[bytes], done: bytes, else_: bytes) -> int:
        """How many of the answers are the one; all others must be the other."""
        count, others = lines.count(done), lines.count(else_)
        if count + others < len(lines):
            raise ValueError(f"an answer that makes no sense: {set(lines) - {done, else_}}")
        if else_ == TOO_LARGE:
            self._refused += others
        return count

    def _on_each(
        self, call: Callable[[Connection, list[C]], T], keys: list[bytes], parts: list[C]
    ) -> tuple[list[T], list[TierError]]:
        """Call it once for each server that has some of the keys, with the parts that go with them.

        What the calls returned, and the errors of those that failed, the gravest first.
        """
        if self._closed:
            raise TierError(f"{self.name} is closed")
        end = time.monotonic() + self._timeout
        groups = self._grouped(keys, parts)
        answers: list[T] = []
        errors: list[TierError] = []
        here, elsewhere = groups[:1], []
        for server, some in groups[1:]:
            try:
                future = self._workers.submit(self._ask, server, end, call, some)
            except TierError:  # no thread to be had
                here.append((server, some))
            else:
                elsewhere.append((server, future))
        for server, some in here:
            try:
                answers.append(self._ask(server, end, call, some))
            except TierError as error:
                errors.append(error)
        for server, future in elsewhere:
            try:
                answers.append(future.result(max(0.0, end - time.monotonic()) + GRACE))
            except TierError as error:
                errors.append(error)
            except TimeoutError:
                self._workers.give_up(future)
                errors.append(TierTimeoutError(f"{server.name}: no thread had time for it"))
        errors.sort(key=lambda error: not isinstance(error, TierTimeoutError))
        return answers, errors

    def _ask(
        self, server: _Server, end: float, call: Callable[[Connection, list[C]], T], part: list[C]
    ) -> T:
        """Call it with a connection to the server, if the server is worth asking."""
        circuit = server.circuit
        probe = circuit.refusing
        if probe and not circuit.admit():
            raise TierError(f"{server.name} is not asked: it has failed several times in a row")
        connection = self._take(server)
        connection.wire.end = end
        try:
            answer = call(connection, part)
        except (OSError, MemcacheError, ValueError, LookupError) as error:
            connection.close()
            raise self._explained(error, server, probe) from error
        except BaseException:  # it stopped somewhere between command and answer
            connection.close()
            if probe:
                circuit.released()
            raise
        if circuit.trouble:
            circuit.succeeded(probe)
        if len(server.idle) < IDLE:
            server.idle.append(connection)
        else:
            connection.close()
        if self._closed:
            self.close()
        return answer

    def _take(self, server: _Server) -> Connection:
        if self._process != os.getpid():  # what is idle is the parent's
            for each in self._servers:
                each.idle = []
            self._process = os.getpid()
        while server.idle:
            try:
                connection = server.idle.pop()
            except IndexError:  # another thread took the last one
                break
            if connection.wire.is_good():
                return connection
            connection.close()
        self._connections += 1
        return Connection(server.address, self._workers, _has_ended)

    def _explained(self, error: Exception, server: _Server, probe: bool) -> TierError:
        self._errors += 1
        refusal = isinstance(error, (MemcacheClientError, MemcacheServerError))
        if refusal and not isinstance(error, MemcacheUnexpectedCloseError):
            server.circuit.succeeded(probe)  # it is there, and said no
        else:
            server.circuit.failed(probe)
        reason = str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            self._timeouts += 1
            return TierTimeoutError(
                f"{server.name}: no answer in {self._timeout} seconds: {reason}"
            )
        return TierError(f"{server.name}: {reason}")
