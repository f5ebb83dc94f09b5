"""Engines with real sockets and no loop: a test sends bytes, lets the engine work, reads bytes."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cachecore import Cache
from cachecore._resp import Engine
from cachecore._resp_client import Client, Command
from cachecore._resp_values import NOTHING
from cachecore.server.commands import all_commands

BIG = 100_000  # bytes of a value that is sent from where it lies


class Talk:
    """One connection to an engine of its own; everything happens when `turn` is called."""

    def __init__(self, cache: Cache[bytes, Any] | None = None, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self._sockets: list[socket.socket] = []
        cache = Cache(max_bytes="64MB", getsizeof=sys.getsizeof) if cache is None else cache
        self.engine = Engine(cache, all_commands(), self.loop, **options)
        self.socket, self.client = self.connect()

    def connect(self) -> tuple[socket.socket, Client]:
        """One connection more: our end, and the engine's client."""
        ours, theirs = socket.socketpair()
        self._sockets.append(ours)
        ours.setblocking(False)
        theirs.setblocking(False)
        return ours, self.engine.adopt(theirs.detach())

    def turn(self) -> None:
        """Let the engine and the loop do what is due."""
        self.engine.drain()
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def ask(self, data: bytes) -> bytes:
        """Send bytes, and return what comes back at once."""
        left = memoryview(data)
        received = b""
        while left:
            try:
                left = left[self.socket.send(left) :]
            except BlockingIOError:
                received += self.receive()
            except BrokenPipeError:  # it was closed
                break
            self.turn()
        return received + self.receive()

    def receive(self) -> bytes:
        """All that has been sent to us."""
        parts = []
        try:
            while part := self.socket.recv(1 << 20):
                parts.append(part)
                self.turn()
        except BlockingIOError:
            pass
        return b"".join(parts)

    def close(self) -> None:
        for ours in self._sockets:
            ours.close()
        self.engine.close()
        self.turn()
        self.loop.close()


@contextmanager
def talk(cache: Cache[bytes, Any] | None = None, **options: Any) -> Iterator[Talk]:
    """A Talk that is closed at the end."""
    talk = Talk(cache, **options)
    try:
        yield talk
    finally:
        talk.close()


class Recorder(Talk):
    """What reaches a proxy: every command of a client, as its arguments."""

    def __init__(self, **options: Any) -> None:
        super().__init__(proxy=True, **options)
        self.commands: list[list[bytes]] = []
        self.engine.intercept = self._note

    def _note(self, client: Client, args: list[bytes]) -> Any:
        self.commands.append(args)
        return NOTHING


def array(*args: bytes) -> bytes:
    """A command as clients send it."""
    parts = [b"*%d\r\n" % len(args), *(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)]
    return b"".join(parts)


def with_command(each: Talk, handler: Any, name: bytes = b"test", **options: Any) -> None:
    """Give an engine one command more."""
    each.engine.commands[name] = Command(name, -1, handler, **options)
