"""The service as a whole: built from its settings, run until a signal, stopped with care."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from cachecore._core import Cache
from cachecore._resp import Engine
from cachecore.server import listeners
from cachecore.server.commands import all_commands

SWEEP = 1.0  # seconds between two looks for idle and slow clients
GRACE = 5.0  # seconds that clients have to take their last replies


class Service:
    """A cache, the engine of its clients and the sockets it listens on. Belongs to one event loop.

    Args:
        cache: keys are bytes, the first of them the number of a database.
        host, port: where to listen; port 0: any that is free; None: not on TCP.
        unix_socket: a path to listen on too.
        options: limits, as of Engine.
    """

    def __init__(
        self,
        cache: Cache[bytes, Any],
        *,
        host: str = "127.0.0.1",
        port: int | None = 6380,
        unix_socket: Path | None = None,
        **options: Any,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.engine = Engine(cache, all_commands(), self.loop, **options)
        self._unix_socket = unix_socket
        self.listeners = [] if port is None else listeners.tcp(host, port)
        if unix_socket is not None:
            self.listeners.append(listeners.unix(unix_socket))
        for listener in self.listeners:
            self.engine.listen(listener.fileno())
        self.loop.add_reader(self.engine.fileno(), self.engine.drain)
        self._sweeping = self.loop.create_task(self._sweep())

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        return int(self.listeners[0].getsockname()[1])

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            self.engine.sweep()

    async def stop(self) -> None:
        """Accept nobody any more, answer what has been sent, and close."""
        for listener in self.listeners:
            self.engine.unlisten(listener.fileno())
            listener.close()
        if self._unix_socket is not None:
            with suppress(FileNotFoundError):
                self._unix_socket.unlink()
        end = self.loop.time() + GRACE
        while self.engine.close_idle() and self.loop.time() < end:
            await asyncio.sleep(0.01)
        self.engine.close()
        self.loop.remove_reader(self.engine.fileno())
        self._sweeping.cancel()


async def serve(service: Service) -> None:
    """Run until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    await service.stop()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def size_of(value: Any) -> int:
    """Bytes that a value of the server's cache counts for."""
    return sys.getsizeof(value)
