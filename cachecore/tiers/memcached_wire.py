"""Connections to memcached: pymemcache's client on sockets that keep a deadline."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cachecore.tiers.workers import Workers

try:
    from pymemcache.client.base import Client, normalize_server_spec
except ImportError as error:
    message = 'MemcachedTier needs pymemcache: pip install "cachecore-ml[memcached]"'
    raise ImportError(message) from error

BATCH = 1000  # commands that are sent before their answers are read,
SENT = 1 << 20  # and bytes
PIECES = 1 << 12, 1 << 16  # pymemcache copies what is left of a piece once for each line and value
TOO_LARGE = b"SERVER_ERROR object too large for cache"

Address = str | tuple[str, int]  # the path of a Unix socket, or host and port


class Wire:
    """A socket whose every wait ends at `end`, by the monotonic clock.

    It is also the `socket_module` from which pymemcache makes its socket: this very one.
    """

    AF_UNIX, AF_UNSPEC, SOCK_STREAM = socket.AF_UNIX, socket.AF_UNSPEC, socket.SOCK_STREAM
    IPPROTO_TCP, TCP_NODELAY = socket.IPPROTO_TCP, socket.TCP_NODELAY

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._socket: socket.socket | None = None
        self.end = 0.0
        self.piece = PIECES[0]  # bytes that are read at a time; pymemcache takes any number

    def _left(self) -> float:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left

    def _open(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionError("the connection is closed")
        self._socket.settimeout(self._left())
        return self._socket

    # --- as a module

    def getaddrinfo(self, host: str, port: int, *_: Any) -> list[tuple[Any, ...]]:
        return [(0, 0, 0, "", (host, port))]  # connect() looks it up

    def socket(self, *_: Any) -> Wire:
        return self

    # --- as a socket

    def setsockopt(self, *_: Any) -> None: ...

    def settimeout(self, *_: Any) -> None: ...

    def connect(self, address: Address) -> None:
        failure: OSError | None = None
        for family, where in self._addresses(address):
            try:
                self._socket = socket.socket(family, socket.SOCK_STREAM)
                self._socket.settimeout(self._left())
                self._socket.connect(where)
                if family != socket.AF_UNIX:
                    self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return
            except OSError as error:
                failure = error
                self.close()
        raise failure or OSError(f"{address} has no address")

    def _addresses(self, address: Address) -> list[tuple[int, Any]]:
        if isinstance(address, str):
            return [(socket.AF_UNIX, address)]
        question = (*address, socket.AF_UNSPEC, socket.SOCK_STREAM, 0)
        try:
            found = socket.getaddrinfo(*question, socket.AI_NUMERICHOST)
        except socket.gaierror:  # a name: the resolver knows no deadline
            found = self._workers.run(self._left(), socket.getaddrinfo, *question)
        return [(family, where) for family, *_, where in found]

    def sendall(self, data: bytes) -> None:
        self._open().sendall(data)

    def recv(self, _: int) -> bytes:
        return self._open().recv(self.piece)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def is_good(self) -> bool:
        """Whether it can be used again: nothing has come, neither its end nor what nobody asked."""
        if self._socket is None:
            return False
        try:
            self._socket.settimeout(0)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False


class Connection(Client):  # type: ignore[misc]  # it has no types
    """pymemcache's client of one server, which reads flags and knows what has ended by them."""

    def __init__(
        self, address: Address, workers: Workers, has_ended: Callable[[int], bool]
    ) -> None:
        self.wire = Wire(workers)
        super().__init__(address, serde=self, socket_module=self.wire)
        self._has_ended = has_ended
        self.found: dict[bytes, bytes | None] = {}

    def deserialize(self, key: bytes, data: bytes, flags: int) -> bytes | None:
        """What pymemcache calls for each item as it arrives; None: it has expired."""
        self.wire.piece = min(max(PIECES[0], 8 * len(data)), PIECES[1])
        value = None if self._has_ended(flags) else data
        self.found[key] = value
        return value

    def ask(self, commands: list[bytes]) -> list[bytes]:
        """Send commands that are answered by one line each; those lines."""
        lines: list[bytes] = []
        begin = size = 0
        for at, command in enumerate(commands):
            size += len(command)
            if size > SENT or at - begin == BATCH:
                lines += self._misc_cmd(commands[begin:at], b"", False)
                begin, size = at, len(command)
        lines += self._misc_cmd(commands[begin:], b"", False)
        return lines

    def _raise_errors(self, line: bytes, name: bytes) -> None:
        if line != TOO_LARGE:  # of one item among others, which are answered as ever
            super()._raise_errors(line, name)


def read_servers(servers: Any) -> list[Address]:
    """What names one server or several: paths of sockets, and pairs of host and port."""
    if isinstance(servers, str) or (
        isinstance(servers, tuple) and [type(part) for part in servers] == [str, int]
    ):
        servers = [servers]
    addresses: list[Address] = []
    for server in servers:
        address: Any = None
        with suppress(ValueError):
            address = normalize_server_spec(server)
        match address:
            case str() if address:
                addresses.append(address)
            case (str(host), int(port)) if host and 0 < port < 65536:
                addresses.append((host, port))
            case _:
                what = 'servers must be "host:port", ("host", port), a path, or a list of these'
                raise ValueError(f"{what}, not {server!r}")
    if not addresses or len(set(addresses)) < len(addresses):
        raise ValueError(f"servers must be at least one, each another, not {servers!r}")
    return addresses
