"""The server as its settings describe it: built, run until a signal, stopped with care."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from secrets import token_hex
from typing import Any

from cachecore._core import Cache
from cachecore._resp import Engine
from cachecore.server import listeners
from cachecore.server.access import Access
from cachecore.server.commands import all_commands
from cachecore.server.keyspace import Keyspace
from cachecore.server.notify import notify
from cachecore.server.service import size_of
from cachecore.server.settings import Settings
from cachecore.server.snapshot import Saver
from cachecore.server.tls import TlsListener, context_of

SWEEP = 1.0  # seconds between two looks for idle and slow clients
GRACE = 5.0  # seconds that clients have to take their last replies
RATES = ("total_commands_processed", "total_net_input_bytes", "total_net_output_bytes")

log = logging.getLogger("cachecore.server")


class Server:
    """A cache, the engine of its clients, who may come in, where it listens. Of one event loop.

    Handlers of commands reach it as `client.engine.server`.

    Args:
        settings: what it is like.
        cache: instead of one that the settings describe; its keys are bytes, the first of them the
            number of a database.

    Raises:
        SettingsError: a file that is named in the settings is wrong.
        OSError: an address is taken.
    """

    def __init__(self, settings: Settings, cache: Cache[bytes, Any] | None = None) -> None:
        self.settings = settings
        self.started = time.time()
        self.run_id = token_hex(20)
        self.loop = asyncio.get_running_loop()
        context = context_of(settings)
        self.encrypted = context is not None
        self.access = Access(settings.password, settings.users_file, encrypted=self.encrypted)
        self.cache = (
            cache
            if cache is not None
            else Cache(
                max_bytes=settings.memory_limit, ttl=settings.default_ttl or None, getsizeof=size_of
            )
        )
        self.keyspace = Keyspace(self.cache)
        self.saver = None if settings.snapshot is None else Saver(self.cache, settings.snapshot)
        if self.saver is not None:
            self.saver.load()
            self.keyspace.used |= self.saver.loaded.databases
        self.sections: dict[str, Callable[[Server], dict[str, Any]]] = {}
        self.base: dict[str, int] = {}
        self.base_calls: dict[bytes, int] = {}
        self.rates = dict.fromkeys(RATES, 0.0)
        self.stopping = asyncio.Event()
        self._save_at_stop = True
        self.engine = self._engine()
        self._tls: list[TlsListener] = []
        self._listen(context)
        self.loop.add_reader(self.engine.fileno(), self.engine.drain)
        self._tasks = [self.loop.create_task(self._sweep())]
        if self.saver is not None and settings.snapshot_interval:
            self._tasks.append(self.loop.create_task(self._save_often(self.saver)))

    def _engine(self) -> Engine:
        settings = self.settings
        engine = Engine(
            self.cache,
            all_commands(),
            self.loop,
            max_clients=settings.maxclients,
            max_bulk=settings.max_value,
            max_command=settings.max_command,
            max_output=settings.max_unread,
            max_buffered=settings.max_buffered,
            idle_timeout=settings.idle_timeout,
            command_timeout=settings.stall_timeout,
            output_timeout=settings.stall_timeout,
        )
        engine.server = self
        engine.greet = self.access.greet
        return engine

    def _listen(self, context: Any) -> None:
        settings = self.settings
        self._sockets = []
        self.port = settings.port
        try:
            for address in settings.bind:
                for listener in listeners.tcp(address, self.port):
                    self._sockets.append(listener)
                    self.port = int(listener.getsockname()[1])
                    if context is None:
                        self.engine.listen(listener.fileno())
                    else:
                        self._tls.append(TlsListener(self.engine, listener, context))
            if settings.unix_socket is not None:
                self._sockets.append(listeners.unix(settings.unix_socket))
                self.engine.listen(self._sockets[-1].fileno())
        except OSError:
            for listener in self._sockets:
                listener.close()
            raise

    # --- what goes on meanwhile

    async def _sweep(self) -> None:
        before, at = self.counts(), time.monotonic()
        while True:
            await asyncio.sleep(SWEEP)
            self.engine.sweep()
            counts, now = self.counts(), time.monotonic()
            self.rates = {name: (counts[name] - before[name]) / (now - at) for name in RATES}
            before, at = counts, now

    async def _save_often(self, saver: Saver) -> None:
        while True:
            await asyncio.sleep(self.settings.snapshot_interval)
            if saver.taking is None:
                with suppress(OSError):  # it is logged, and INFO tells it
                    await saver.save()

    def counts(self) -> dict[str, int]:
        """What INFO counts, since the start."""
        engine, stats = self.engine, self.cache.stats()
        return {
            "total_connections_received": engine.accepted + engine.refused,
            "total_commands_processed": engine.executed,
            "total_net_input_bytes": engine.bytes_in,
            "total_net_output_bytes": engine.bytes_out,
            "rejected_connections": engine.refused,
            "expired_keys": stats.expirations,
            "evicted_keys": stats.evictions + stats.rejections,
            "keyspace_hits": stats.hits,
            "keyspace_misses": stats.misses,
            "acl_access_denied_auth": self.access.denied,
        }

    def reset_counts(self) -> None:
        """Count from here on."""
        self.base, self.base_calls = self.counts(), self.engine.calls()

    # --- the end

    def ask_to_stop(self, *, save: bool = True) -> None:
        """Have `run` end; `save` says whether the snapshot is written, if there is one."""
        self._save_at_stop = save
        self.stopping.set()

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or SHUTDOWN."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.ask_to_stop)
        notify("READY=1")
        await self.stopping.wait()
        notify("STOPPING=1")
        await self.stop()

    async def stop(self) -> None:
        """Accept nobody any more, answer what has been sent, close, and write the snapshot."""
        for task in self._tasks:
            task.cancel()
        for tls in self._tls:
            tls.close()
        for listener in self._sockets:
            if listener.fileno() >= 0:
                self.engine.unlisten(listener.fileno())
                listener.close()
        if self.settings.unix_socket is not None:
            self.settings.unix_socket.unlink(missing_ok=True)
        end = self.loop.time() + GRACE
        while self.engine.close_idle() and self.loop.time() < end:
            await asyncio.sleep(0.01)
        self.engine.close()
        self.loop.remove_reader(self.engine.fileno())
        if self.saver is not None and self._save_at_stop:
            with suppress(OSError):  # it is logged
                await self.saver.save_last()


def run(settings: Settings) -> None:
    """Serve with these settings until a signal; on uvloop where it is installed."""

    async def main() -> None:
        server = Server(settings)
        log.info("listening on port %d", server.port)
        await server.run()

    new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):
        from uvloop import new_event_loop as new_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
