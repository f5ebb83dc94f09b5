"""The service as a whole: built from its settings, run until a signal, stopped with care."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from socket import socket
from sys import getsizeof
from typing import TYPE_CHECKING, Any

from cachecore._core import Cache
from cachecore._keyspace import Hash, expire
from cachecore._resp import Engine
from cachecore.server import listeners
from cachecore.server.access import Access
from cachecore.server.commands import all_commands
from cachecore.server.keyspace import Keyspace
from cachecore.server.machine import OTHER_FILES, allow_descriptors
from cachecore.server.notify import notify
from cachecore.server.settings import MisfitError, Settings
from cachecore.server.snapshot import Saver
from cachecore.server.tls import TlsListener, context_of

if TYPE_CHECKING:
    from cachecore.server.http import StatusServer
    from cachecore.server.proxy import Proxy

SWEEP = 1.0  # seconds between two looks for idle and slow clients
PACE, SLOTS = 0.05, 20_000  # seconds, entries: some of them are looked at for being expired
GRACE = 5.0  # seconds that clients have to take their last replies
RATES = ("total_commands_processed", "total_net_input_bytes", "total_net_output_bytes")

log = logging.getLogger("cachecore.server")


class Server:
    """A cache, the engine of its clients, who may come in, where it listens. Of one event loop.

    Handlers of commands reach it as `client.engine.server`. It serves from `start` to `stop`.

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
        self.cache = _cache_of(settings) if cache is None else cache
        self.keyspace = Keyspace(self.cache, settings.databases)
        self.saver = None if settings.snapshot is None else _saver_of(self.cache, settings.snapshot)
        self.base: dict[str, int] = {}
        self.base_calls: dict[bytes, int] = {}
        self.rates = dict.fromkeys(RATES, 0.0)
        self.stopping = asyncio.Event()
        self._save_at_stop = True
        self._tasks: list[asyncio.Task[None]] = []
        self._sockets: list[socket] = []
        self._tls: list[TlsListener] = []
        self.engine = self._engine()
        self.proxy = None if settings.upstream is None else _proxy_of(self.engine, settings)
        if self.proxy is not None:
            self.keyspace.used |= {0, 1}  # nobody tells which: they are counted
        self._listen(context)
        self.status = None if settings.metrics_port is None else self._status(settings.metrics_port)

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
            proxy=settings.upstream is not None,
        )
        engine.server = self
        engine.greet = self.access.greet
        return engine

    def _listen(self, context: ssl.SSLContext | None) -> None:
        settings = self.settings
        self.port = settings.port
        try:
            for address in settings.bind:
                for listener in listeners.tcp(address, self.port, settings.backlog):
                    self._sockets.append(listener)
                    self.port = int(listener.getsockname()[1])
                    if context is None:
                        self.engine.listen(listener.fileno())
                    else:
                        self._tls.append(TlsListener(self.engine, listener, context))
            if settings.unix_socket is not None:
                self._sockets.append(listeners.unix(settings.unix_socket, settings.backlog))
                self.engine.listen(self._sockets[-1].fileno())
        except OSError:
            self._close_sockets()
            raise

    def _status(self, port: int) -> StatusServer:
        try:
            from cachecore.integrations.prometheus import CacheCollector
            from cachecore.server.http import StatusServer
        except ImportError as error:
            what = f"needs {error.name}: pip install cachecore-ml[server]"
            raise MisfitError("metrics_port", what) from None
        from cachecore.server.watched import Watched

        self._watched = Watched(self)  # the collector keeps nothing alive
        collector = CacheCollector(None)
        collector.add(self._watched, "server")
        bind, hosts = self.settings.metrics_bind, self.settings.metrics_hosts
        try:
            return StatusServer(
                collector, host=bind, port=port, hosts=hosts, health=self._watched.trouble
            )
        except OSError:
            self._close_sockets()
            raise

    # --- what goes on meanwhile

    async def start(self) -> None:
        """Load the snapshot, connect to the upstream, and begin to serve."""
        if self.saver is not None:
            self.saver.load()
            self.keyspace.used |= self.saver.loaded.databases
            if self.settings.snapshot_interval:
                self._begin(self._save_often(self.saver))
        if self.proxy is not None:
            await self.proxy.start()
        if self.status is not None:
            await self.status.start()
            log.info("metrics and the status page are at %s", self.status.url)
        self.loop.add_reader(self.engine.fileno(), self.engine.drain)
        self._begin(self._sweep())
        self._begin(self._expire())
        for listener in self._sockets:
            log.info("listening on %s", listeners.shown(listener))

    def _begin(self, work: Any) -> None:
        self._tasks.append(self.loop.create_task(work))

    async def _sweep(self) -> None:
        before, at = self.counts(), time.monotonic()
        while True:
            await asyncio.sleep(SWEEP)
            self.engine.sweep()
            counts, now = self.counts(), time.monotonic()
            self.rates = {name: (counts[name] - before[name]) / (now - at) for name in RATES}
            before, at = counts, now

    async def _expire(self) -> None:
        """Let go of what has expired and nobody asks for: a few ms at a time, at most."""
        slot = 0
        while True:
            await asyncio.sleep(PACE)
            if self.engine.expiring:
                slot = expire(self.cache, slot, SLOTS)

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
            "total_error_replies": sum(engine.errors.values()),
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
        await self.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.ask_to_stop)
        notify("READY=1")
        await self.stopping.wait()
        log.info("stopping")
        notify("STOPPING=1")
        await self.stop()

    async def stop(self) -> None:
        """Accept nobody any more, answer what has been sent, close, and write the snapshot."""
        for task in self._tasks:
            task.cancel()
        self._close_sockets()
        end = self.loop.time() + GRACE
        while self.engine.close_idle() and self.loop.time() < end:
            await asyncio.sleep(0.01)
        self.engine.close()
        self.loop.remove_reader(self.engine.fileno())
        if self.proxy is not None:
            self.proxy.close()
        if self.saver is not None and self._save_at_stop:
            with suppress(OSError):  # it is logged
                await self.saver.save_last()
        if self.status is not None:
            await self.status.close()

    def _close_sockets(self) -> None:
        for tls in self._tls:
            tls.close()
        for listener in self._sockets:
            if listener.fileno() >= 0:
                self.engine.unlisten(listener.fileno())
                listeners.close(listener)


def _cache_of(settings: Settings) -> Cache[bytes, Any]:
    return Cache(
        max_bytes=settings.memory_limit, ttl=settings.default_ttl or None, getsizeof=getsizeof
    )


def _saver_of(cache: Cache[bytes, Any], path: Path) -> Saver:
    if not os.access(path.parent, os.W_OK | os.X_OK):  # else it would be lost, at the very end
        raise MisfitError("snapshot", f"{path}: there is no folder {path.parent} to write to")
    return Saver(cache, path, Hash)


def _proxy_of(engine: Engine, settings: Settings) -> Proxy:
    try:
        from cachecore.server.proxy import Proxy
    except ImportError as error:
        what = f"needs {error.name}: pip install cachecore-ml[server]"
        raise MisfitError("upstream", what) from None
    assert settings.upstream is not None
    return Proxy(
        engine,
        settings.upstream.reveal(),
        max_stale=settings.max_stale,
        timeout=settings.upstream_timeout,
        has_users=settings.password is not None or settings.users_file is not None,
    )


def run(settings: Settings) -> None:
    """Serve with these settings until a signal; on uvloop where it is installed.

    Raises:
        SettingsError: a file that is named in the settings is wrong.
        OSError: an address is taken, or cannot be listened on.
    """
    needed = settings.maxclients + OTHER_FILES
    allowed = allow_descriptors(needed)
    if allowed < needed:
        text = "the limit of open files, %d, is too low for maxclients = %d: more are refused"
        log.warning(text, allowed, settings.maxclients)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    await Server(settings).run()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes uvloop's event loops; None, for asyncio's own, where it is not installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop
