"""One connection to a Redis: a socket that never blocks, and the protocol on it, in steps.

Steps are a generator that does what can be done at once and yields what it must wait for: a `Wish`
for a socket, or a Future. redis_wait.py runs them for a thread, for several servers at a time or
for an event loop, and keeps a deadline by not running them any further. So the deadline holds
for each byte of everything: name resolution, connecting, TLS, AUTH, sending and reading.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Generator, Hashable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import hiredis

T = TypeVar("T")

BUFFER = 65536  # bytes read at a time
MORE = object()  # what a parser says when it has no whole reply
# What says that the other side has closed the connection, maybe long ago.
ENDED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command


class Wish(NamedTuple):
    """A socket to wait for, and how: (descriptor, POLLIN or POLLOUT, a poll object for that)."""

    fd: int
    event: int
    poll: select.poll


Steps = Generator[Wish | Future[Any], None, T]


class Refusal(Exception):  # noqa: N818 -- what went wrong is told by its code
    """An error that the server answered; `code` is its first word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]

    def without(self, secrets: tuple[str, ...]) -> Refusal:
        """The same, without what a server may have repeated: "unknown command AUTH with ..."."""
        text = str(self)
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        return Refusal(text)


class Helpers:
    """Calls that may take for ever, each in a thread of its own that nobody has to wait for."""

    def __init__(self) -> None:
        self._running: dict[Hashable, Future[Any]] = {}
        self.late: set[Any] = set()
        """Addresses that once did not answer in time: where a host has others, those go first."""

    def start(self, key: Hashable, call: Callable[[], T]) -> Future[T]:
        """A future of `call()`; as long as one runs, all who ask under its key share it."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # so that no waiter cancels it for the others
        running = self._running.setdefault(key, future)
        if running is future:
            threading.Thread(target=self._run, args=(key, call, future), daemon=True).start()
        return running

    def _run(self, key: Hashable, call: Callable[[], T], future: Future[T]) -> None:
        try:
            result = call()
        except BaseException as error:
            self._running.pop(key, None)
            future.set_exception(error)
        else:
            self._running.pop(key, None)
            future.set_result(result)


@dataclass(frozen=True, eq=False)
class Access:
    """How to be let in; the same for all the nodes of a cluster."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    credentials: Any = None  # a redis-py CredentialProvider, in place of both
    db: int = 0
    client_name: str | None = None
    tls: ssl.SSLContext | None = None

    def words(self, helpers: Helpers) -> Steps[tuple[str, ...]]:
        """The arguments of AUTH; none: it is not needed."""
        if self.credentials is not None:
            future = helpers.start(self.credentials, self.credentials.get_credentials)
            yield future
            if error := future.exception():
                raise PermissionError(errno.EACCES, f"no credentials: {type(error).__name__}")
            return tuple(future.result())
        if self.username:
            return (self.username, self.password or "")
        return (self.password,) if self.password else ()

    def commands(self, credentials: tuple[str, ...]) -> list[tuple[Any, ...]]:
        """What is said first on a connection."""
        said: list[tuple[Any, ...]] = []
        if credentials:
            said.append(("AUTH", *credentials))
        if self.db:
            said.append(("SELECT", self.db))
        if self.client_name:
            said.append(("CLIENT", "SETNAME", self.client_name))
        return said


class Node(NamedTuple):
    """A server: its host and port, or the path of its Unix socket and 0; and how to be let in."""

    host: str
    port: int
    access: Access

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


class Link:
    """A connection to a node. `open` it, then `exchange`, again and again, until an error.

    After an exception in the midst of either, the end of its steps included, it can only be closed
    or opened anew: what is on its way would be the answer to somebody else's question.
    """

    __slots__ = (
        "__weakref__", "_buffer", "_reader", "_sock", "_want_read", "_want_write", "heard", "node",
    )  # fmt: skip

    def __init__(self, node: Node) -> None:
        self.node = node
        self.heard = False
        """Whether anything was answered in the last exchange."""
        self._sock: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        return self._sock is not None

    def open(self, helpers: Helpers) -> Steps[None]:
        """Connect and be let in."""
        self.close()
        failure: OSError = OSError(errno.EADDRNOTAVAIL, f"{self.node.host} has no address")
        addresses = yield from self._addresses(helpers)
        addresses.sort(key=lambda each: each[1] in helpers.late)
        for family, address in addresses:
            self._use(socket.socket(family, socket.SOCK_STREAM))
            try:
                yield from self._connect(family, address)
                helpers.late.discard(address)
                break
            except OSError as error:
                self.close()
                failure = error
            except GeneratorExit:  # out of time
                helpers.late.add(address)
                raise
        else:
            raise failure
        access = self.node.access
        if access.tls is not None:
            yield from self._start_tls(access.tls)
        self._reader = hiredis.Reader(replyError=Refusal, notEnoughData=MORE)
        self._buffer = bytearray(BUFFER)
        credentials = yield from access.words(helpers)
        if said := access.commands(credentials):
            try:
                replies = yield from self.exchange(b"".join(map(pack, said)), len(said))
                _raise_refusal(replies)
            except Refusal as refusal:
                raise refusal.without(credentials) from None

    def _addresses(self, helpers: Helpers) -> Steps[list[tuple[int, Any]]]:
        host, port, _ = self.node
        if not port:
            return [(socket.AF_UNIX, host)]
        try:
            found = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
        except socket.gaierror:  # a name, whose servers may keep us waiting
            future = helpers.start(
                (host, port), lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            )
            yield future
            found = future.result()
        return [(family, address) for family, _, _, _, address in found]

    def _use(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        wishes = []
        for event in (select.POLLIN, select.POLLOUT):
            poll = select.poll()
            poll.register(sock, event)
            wishes.append(Wish(sock.fileno(), event, poll))
        self._want_read, self._want_write = wishes

    def _connect(self, family: int, address: Any) -> Steps[None]:
        assert self._sock is not None
        code = self._sock.connect_ex(address)
        if code == errno.EINPROGRESS:
            yield self._want_write
            code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        if family != socket.AF_UNIX:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def _start_tls(self, context: ssl.SSLContext) -> Steps[None]:
        assert self._sock is not None
        sock = context.wrap_socket(
            self._sock, server_hostname=self.node.host, do_handshake_on_connect=False
        )
        self._sock = sock
        while True:
            try:
                sock.do_handshake()
                return
            except ssl.SSLWantReadError:
                yield self._want_read
            except ssl.SSLWantWriteError:
                yield self._want_write

    def exchange(self, payload: bytes, count: int) -> Steps[list[Any]]:
        """Send packed commands and read as many replies; errors among them are `Refusal`s."""
        sock, reader, buffer = self._sock, self._reader, self._buffer
        assert sock is not None
        self.heard = False
        try:
            sent = sock.send(payload)
        except _BLOCKED:
            sent = 0
        if sent < len(payload):
            yield from self._send(memoryview(payload)[sent:])
        replies: list[Any] = []
        while len(replies) < count:
            # OpenSSL may hold what poll() no longer sees.
            if not (isinstance(sock, ssl.SSLSocket) and sock.pending()):
                yield self._want_read
            try:
                received = sock.recv_into(buffer)
            except _BLOCKED as error:
                if isinstance(error, ssl.SSLWantWriteError):
                    yield self._want_write
                continue
            if not received:
                _raise_refusal(replies)  # "too many clients", say
                raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")
            self.heard = True
            reader.feed(buffer, 0, received)  # type: ignore[arg-type]
            while len(replies) < count and (reply := reader.gets()) is not MORE:
                replies.append(reply)
        if reader.has_data():
            raise hiredis.ProtocolError("more was answered than asked")
        return replies

    def _send(self, rest: memoryview) -> Steps[None]:
        assert self._sock is not None
        wish = self._want_write
        while rest:
            yield wish
            try:
                rest = rest[self._sock.send(rest) :]
            except _BLOCKED as error:
                want_read = isinstance(error, ssl.SSLWantReadError)
                wish = self._want_read if want_read else self._want_write

    def has_ended(self) -> bool:
        """Whether the other side has closed an idle connection, or said what nobody asked."""
        return bool(self._want_read.poll.poll(0))

    def hang_up(self) -> None:
        """End it for whoever uses it in another thread, who will then close it."""
        if self._sock is not None:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def __del__(self) -> None:
        if (sock := getattr(self, "_sock", None)) is not None:
            sock.close()


def _raise_refusal(replies: list[Any]) -> None:
    for reply in replies:
        if isinstance(reply, Refusal):
            raise reply
