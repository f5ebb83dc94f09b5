"""Listening to a Redis for what changed: one connection of its own, in a thread of its own.

`Listener` owns the life of that connection: it notices a loss also when the other side merely
falls silent, says so before anything else, and comes back by itself. What is asked of the server
and what its messages mean is for the subclasses, in invalidation.py.
"""

from __future__ import annotations

import logging
import math
import os
import random
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final, NoReturn, Protocol
from weakref import WeakSet

from cachecore.errors import TierError
from cachecore.settings import seconds

try:
    import hiredis
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as error:
    raise ImportError(
        'invalidation needs redis-py with hiredis: pip install "cachecore-ml[redis]"'
    ) from error

LEAST_HEARTBEAT = 0.1  # seconds; servers look at their clocks ten times in one
BACKOFF = 0.05, 2.0  # seconds between two attempts to connect: the first, the most
STOPPED = 0.2  # seconds that stop() waits for the thread
RECEIVED = 65_536  # bytes taken from the socket at a time
ReplyError: Final[type[Exception]] = hiredis.ReplyError
LATE: Final = object()  # in place of a message: none came in time

_log = logging.getLogger("cachecore")
_listeners: WeakSet[Listener] = WeakSet()


class Sink(Protocol):
    """Who keeps values and is told of what changed.

    One thread calls at a time. What a method raises is counted, and `forget_all` is called in its
    place; if that raises too, the connection counts as lost.
    """

    def forget(self, keys: Sequence[bytes]) -> None:
        """What is kept under these keys has changed: wire keys, without the tier's own prefix."""

    def forget_all(self) -> None:
        """Anything may have changed."""

    def distrust(self) -> None:
        """From now on changes may be missed: what is kept in this process is not to be trusted.

        Also called in the child right after a fork, when nothing else runs there: it must not
        wait for a lock that another thread may have held in the parent.
        """

    def trust(self) -> None:
        """What is loaded from now on is told of again when it changes."""


class Wire:
    """An open connection: commands out; replies and pushes in, each by a deadline."""

    def __init__(self, connected: socket.socket, timeout: float) -> None:
        self._socket, self._timeout = connected, timeout
        self._reader = hiredis.Reader(notEnoughData=LATE)

    def send(self, *commands: tuple[Any, ...]) -> None:
        self._socket.settimeout(self._timeout)
        self._socket.sendall(b"".join(map(hiredis.pack_command, commands)))

    def receive(self, until: float) -> Any:
        """The next message whole; LATE when it is not there by `until`. Raises error replies.

        What has arrived by then is delivered, however long ago `until` is.
        """
        while (message := self._reader.gets()) is LATE:
            try:
                self._socket.settimeout(max(until - monotonic(), 0.001))
                data = self._socket.recv(RECEIVED)
            except TimeoutError:
                return LATE
            if not data:
                raise ConnectionError("the server closed the connection")
            self._reader.feed(data)
        if isinstance(message, ReplyError):
            raise message
        return message

    def answer(self, until: float) -> Any:
        """The same, where a reply is due: TimeoutError when it is late."""
        message = self.receive(until)
        if message is LATE:
            raise TimeoutError("the server does not answer")
        return message


class Run:
    """One start of a listener: its thread, its connection, and what it tells its sink."""

    def __init__(self, listener: Listener, sink: Sink) -> None:
        self.sink, self._listener = sink, listener
        self.stopped = threading.Event()
        self.thread: threading.Thread | None = None
        self.connection: Any = None  # redis-py's; its socket is there from the connect on
        self.trusted = False
        self.before = False  # whether it was trusted once

    # --- what the sink is told

    def forget(self, keys: Sequence[bytes]) -> None:
        self._go_on()
        if keys and not self._tell(self.sink.forget, keys):
            self.forget_all()

    def forget_all(self) -> None:
        self._go_on()
        if not self._tell(self.sink.forget_all):
            raise RuntimeError("the sink could not forget")

    def trust(self) -> None:
        self._go_on()
        self.trusted = True  # whatever comes of it: from now on a loss is told
        if not self._tell(self.sink.trust):
            raise RuntimeError("the sink could not trust")
        self._listener._well(self.before)
        self.before = True

    def distrust(self) -> None:
        self.trusted = False
        if not self._tell(self.sink.distrust):
            self._tell(self.sink.forget_all)

    def _go_on(self) -> None:
        if self.stopped.is_set():
            raise RuntimeError("stopped")

    def _tell(self, method: Callable[..., None], *args: Any) -> bool:
        try:
            method(*args)
        except Exception as error:
            self.mistake(error)
            return False
        return True

    def mistake(self, error: Exception) -> None:
        """Count what somebody's code, or somebody's message, did wrong."""
        self._listener._count("errors", "so everything is forgotten", error)

    # --- its end

    def stop(self) -> None:
        """End the thread; one that the operating system keeps in a connect() ends after that."""
        self.stopped.set()
        end = monotonic() + STOPPED
        while monotonic() < end:
            connected = self._socket()
            if connected is not None:
                with suppress(OSError):  # of TLS too: only wake who waits for it, in its thread
                    socket.socket.shutdown(connected, socket.SHUT_RDWR)
            if self.thread is None or self.thread is threading.current_thread():
                return
            self.thread.join(0.01)
            if not self.thread.is_alive():
                return

    def abandon(self) -> None:
        """In the child after a fork: close the parent's connection here, and only here."""
        self.stopped = threading.Event()  # another thread may have held the lock of the old one
        self.stopped.set()  # for its own thread, if that is the one that forked
        connected = self._socket()
        if connected is not None:
            connected.close()

    def disconnect(self) -> None:
        if self.connection is not None:
            self.connection.disconnect()

    def _socket(self) -> socket.socket | None:
        connected: socket.socket | None = getattr(self.connection, "_sock", None)
        return connected


class Listener:
    """A source of invalidations; its methods may be called from any thread.

    Nothing runs before `start`. From then on a daemon thread keeps a connection of its own, made
    as those of the client's pool are (address, TLS, user, Sentinel), in RESP3: Redis 6 or newer.
    The sink is told `distrust` at once, and `trust` when the connection stands and everything that
    may have been missed is forgotten.

    A connection is lost when it breaks and when the server does not answer within `heartbeat`:
    `distrust` comes at most 2 x `heartbeat` after the loss. So is one whose messages are read
    later than that, because the sink does not keep up. Then it is tried again, after 50 ms at
    first and 2 s at most, for as long as it takes: neither an absent server nor a wrong password
    is an error of `start`. Both are counted and logged (to the logger "cachecore").

    After a fork the child is told `distrust`, and listens on a connection and thread of its own.
    """

    def __init__(self, url_or_client: Any, heartbeat: float) -> None:
        self.heartbeat = seconds(heartbeat, "heartbeat")
        if not LEAST_HEARTBEAT <= self.heartbeat < math.inf:
            raise ValueError(f"heartbeat must be {LEAST_HEARTBEAT} s or more, not {heartbeat!r}")
        self._redis = _client(url_or_client, self.heartbeat)
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._counts = dict.fromkeys(("received", "losses", "reconnects", "failures", "errors"), 0)
        self._said: set[str] = set()
        _listeners.add(self)

    def start(self, sink: Sink) -> None:
        """Listen, and tell `sink`, until `stop`. RuntimeError when it listens already."""
        with self._lock:
            if self._run is not None:
                raise RuntimeError("it listens already: stop() it first")
            self._begin(sink)

    def stop(self) -> None:
        """Stop listening: the last that the sink is told is `distrust`. Twice does nothing.

        It takes 0.2 s at most. A call of the sink that takes longer, and a connect that the
        operating system still waits for, end after that; then the sink is not called but for the
        `distrust` that is due.
        """
        with self._lock:
            run, self._run = self._run, None
        if run is not None:
            run.stop()

    @property
    def connected(self) -> bool:
        """Whether the sink is told of all changes just now."""
        run = self._run
        return run is not None and run.trusted

    def stats(self) -> dict[str, int]:
        """What was counted since construction.

        `received`: messages that name keys or everything; `losses` of a connection that was
        trusted, and `reconnects` after them; `failures`: attempts to connect that failed;
        `errors`: what the sink raised, and messages that could not be read.
        """
        return dict(self._counts)

    # --- for the subclasses

    def _execute(self, *command: Any) -> None:
        """Send a command through the client, in the caller's thread."""
        try:
            self._redis.execute_command(*command)
        except redis.RedisError as error:
            raise TierError(f"invalidations were not sent: {_reason(error)}") from error

    def _serve(self, run: Run, wire: Wire) -> NoReturn:
        """Subscribe, tell the sink until it can trust and from then on; ends by an exception."""
        raise NotImplementedError

    # --- the thread

    def _begin(self, sink: Sink) -> None:
        run = Run(self, sink)
        run.distrust()
        run.thread = threading.Thread(
            target=self._listen, args=(run,), name="cachecore-invalidation", daemon=True
        )
        run.thread.start()
        self._run = run

    def _listen(self, run: Run) -> None:
        failed = 0
        try:
            while not run.stopped.is_set():
                try:
                    self._serve(run, self._connect(run))
                except Exception as error:
                    lost = run.trusted
                    if lost:
                        run.distrust()
                    run.disconnect()
                    if run.stopped.is_set():
                        return
                    failed = 0 if lost else failed + 1
                    what = "losses" if lost else "failures"
                    self._count(what, "invalidations are not heard of", error)
                first, most = BACKOFF
                pause = min(most, first * 2 ** min(failed, 10))
                run.stopped.wait(pause * random.uniform(0.5, 1))  # not all clients at once
        finally:
            begun = self._run  # it may have been started again while this one was in a long call
            if run.trusted and (begun is None or begun.sink is not run.sink):
                run.distrust()

    def _connect(self, run: Run) -> Wire:
        """A connection like those of the client's pool, but for the protocol and the patience."""
        pool = self._redis.connection_pool
        settings = {
            name: value
            for name, value in pool.connection_kwargs.items()
            if not name.startswith(("retry", "maint_"))
        }
        connection = pool.connection_class(**settings | {"protocol": 3})
        connection.socket_timeout = connection.socket_connect_timeout = self.heartbeat
        run.connection = connection
        connection.connect()
        return Wire(connection._sock, self.heartbeat)

    def _count(self, what: str, consequence: str, error: Exception) -> None:
        """Count an error, and log it, once until all is well again."""
        self._counts[what] += 1
        reason = _reason(error)
        if reason not in self._said:
            self._said.add(reason)
            _log.warning("%s: %s: %s", type(self).__name__, consequence, reason)

    def _well(self, again: bool) -> None:
        """The sink trusts, again or for the first time."""
        self._counts["reconnects"] += again
        if self._said:
            self._said.clear()
            _log.info("%s: invalidations are heard of", type(self).__name__)

    def _forked(self) -> None:
        """Begin again, in the child, where there is neither the thread nor a use for its lock."""
        self._lock = threading.Lock()
        run = self._run
        if run is not None:
            run.abandon()
            self._begin(run.sink)


def _client(url_or_client: Any, timeout: float) -> Any:
    if isinstance(url_or_client, redis.Redis):
        return url_or_client
    if not isinstance(url_or_client, str):
        kind = type(url_or_client).__name__
        raise TypeError(f"url_or_client must be a URL or a redis.Redis, not {kind}")
    # One retry, for a connection of the pool that the server closed meanwhile.
    return redis.Redis.from_url(
        url_or_client,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 1),
    )


def _reason(error: Exception) -> str:
    """An error in words, without what a server repeats of a command: it may be a password."""
    return f"{type(error).__name__}: {error}".partition(", with args")[0]


def _after_fork() -> None:
    for listener in list(_listeners):
        listener._forked()


os.register_at_fork(after_in_child=_after_fork)
