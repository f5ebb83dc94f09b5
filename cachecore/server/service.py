"""The service as a whole: built from its settings, run until a signal, stopped with care."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from logging import getLogger
from pathlib import Path
from typing import Any

from cachecore._core import Cache
from cachecore._resp import Engine
from cachecore.server import listeners
from cachecore.server.commands import all_commands
from cachecore.server.notify import notify
from cachecore.server.settings import Settings, SettingsError

SWEEP = 1.0  # seconds between two looks for idle and slow clients
REFUSED = ("password", "users_file", "tls_cert", "upstream")
LATER = ("snapshot", "metrics_port")
GRACE = 5.0  # seconds that clients have to take their last replies

log = getLogger("cachecore.server")


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


def run(settings: Settings) -> None:
    """Run a service until SIGTERM or SIGINT, on uvloop where it is installed.

    Raises:
        OSError: an address is taken, or cannot be listened on.
    """
    loops = import_module("uvloop" if find_spec("uvloop") else "asyncio")
    loops.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    for name in REFUSED:
        if getattr(settings, name):
            raise SettingsError(f"{name} is not served yet")
    ignored = [name for name in LATER if getattr(settings, name)]
    if ignored:
        log.warning("not served yet: %s", ", ".join(ignored))
    cache: Cache[bytes, Any] = Cache(
        max_bytes=settings.memory_limit, ttl=settings.default_ttl or None, getsizeof=size_of
    )
    service = Service(
        cache,
        host=settings.bind[0] if settings.bind else "",
        port=settings.port if settings.bind else None,
        unix_socket=settings.unix_socket,
        max_clients=settings.maxclients,
        max_bulk=settings.max_value,
        max_command=settings.max_command,
        max_output=settings.max_unread,
        max_buffered=settings.max_buffered,
        idle_timeout=settings.idle_timeout,
        command_timeout=settings.stall_timeout,
        output_timeout=settings.stall_timeout,
    )
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        service.loop.add_signal_handler(number, stopped.set)
    for listener in service.listeners:
        log.info("listening on %s", listener.getsockname())
    notify("READY=1")
    await stopped.wait()
    log.info("stopping")
    notify("STOPPING=1")
    await service.stop()


def size_of(value: Any) -> int:
    """Bytes that a value of the server's cache counts for."""
    return sys.getsizeof(value)
