"""A server of ours in a thread, and connections that see replies as they were sent."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterable
from typing import Any, Self

from cachecore.server.service import Server
from cachecore.server.settings import Settings

Argument = bytes | str | int


class Ours:
    """The service over a cache, on a port of its own, in a thread of its own."""

    def __init__(self, memory_limit: Any = "1GB") -> None:
        self._settings = Settings(port=0, memory_limit=memory_limit)
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        server = Server(self._settings)
        self.cache, self.port = server.cache, server.port
        await server.start()
        self._started.set()
        await self._stopped.wait()
        await server.stop()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()


class Error(str):
    """An error reply."""


class Status(str):
    """A simple string."""


class Map(list[Any]):
    """A map of RESP3, flat."""


class Wire:
    """A connection whose replies keep the kinds that they were sent as: see `read`."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self.socket.close()

    def call(self, *args: Argument) -> Any:
        """The reply to one command."""
        return self.pipeline([args])[0]

    def pipeline(self, commands: Iterable[Iterable[Argument]]) -> list[Any]:
        """The replies to commands that are sent at once."""
        packed = [pack(command) for command in commands]
        self.socket.sendall(b"".join(packed))
        return [self.read() for _ in packed]

    def read(self) -> Any:
        """A reply: bytes, int, Status, Error, list, Map, the nulls "$-1", "*-1" and "_" as text."""
        line = self._file.readline()
        assert line.endswith(b"\r\n"), line
        kind, rest = line[:1], line[1:-2]
        if line in (b"$-1\r\n", b"*-1\r\n", b"_\r\n"):
            return line[:-2].decode()
        if kind == b"$":
            body = self._file.read(int(rest) + 2)
            assert body.endswith(b"\r\n")
            return body[:-2]
        if kind in b"*%":
            count = int(rest)
            items = [self.read() for _ in range(count if kind == b"*" else 2 * count)]
            return items if kind == b"*" else Map(items)
        if kind == b":":
            return int(rest)
        assert kind in b"+-", line
        return (Status if kind == b"+" else Error)(rest.decode("latin-1"))


def pack(command: Iterable[Argument]) -> bytes:
    """A command as it is sent."""
    args = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in command]
    return b"".join([b"*%d\r\n" % len(args), *(b"$%d\r\n%b\r\n" % (len(a), a) for a in args)])


def same(one: Any, other: Any) -> bool:
    """Whether two replies are equal, and of equal kinds throughout."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
