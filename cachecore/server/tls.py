"""TLS: clients whose bytes come decrypted out of the event loop's transports into the engine.

Connections are accepted here, with a bound on the handshakes under way: each takes a transport and
some 50 KB. Where there are too many, the oldest goes: who is honest is done within milliseconds,
and so whoever opens thousands and says nothing neither takes memory nor keeps others out.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from pathlib import Path
from typing import Any

from cachecore._resp import Engine
from cachecore._resp_client import Client
from cachecore.server.settings import MisfitError, Settings

HANDSHAKES = 256  # under way at a time
HANDSHAKE_TIMEOUT = 10.0  # seconds
SHUTDOWN_TIMEOUT = 2.0  # seconds that a client has to take its last replies and to say goodbye
PAUSE = 0.1  # seconds until connections are accepted again, after there was no descriptor for one
OUT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def context_of(settings: Settings) -> ssl.SSLContext | None:
    """What the certificate, the key and the clients' authority are good for; None: no TLS.

    Raises:
        MisfitError: they cannot be read, or do not belong together.
    """
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_no_password)
    except (OSError, ValueError) as error:
        raise MisfitError("tls_cert", f"{settings.tls_cert}: {_reason(error)}") from None
    authority: Path | None = settings.tls_client_ca
    if authority is not None:
        try:
            context.load_verify_locations(authority)
        except (OSError, ValueError) as error:
            raise MisfitError("tls_client_ca", f"{authority}: {_reason(error)}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    raise ValueError("the private key is encrypted; it must be readable without a password")


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)


class TlsListener:
    """A listening socket whose clients speak TLS. Belongs to the engine's loop.

    Args:
        engine: where their commands are executed.
        listener: is the TlsListener's from here on.
        context: as of `context_of`.
    """

    def __init__(self, engine: Engine, listener: socket.socket, context: ssl.SSLContext) -> None:
        self._engine, self._listener, self._context = engine, listener, context
        self._loop = asyncio.get_running_loop()
        self._shaking: dict[asyncio.Task[None], None] = {}  # the oldest first
        self.failed = 0
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Accept nobody any more; who has not shown who it is goes too."""
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for task in self._shaking:
            task.cancel()

    def _accept(self) -> None:
        try:
            link, _ = self._listener.accept()
        except OSError as error:
            if error.errno in OUT_OF:
                self._loop.remove_reader(self._listener)
                self._loop.call_later(PAUSE, self._accept_again)
            return
        if len(self._shaking) >= HANDSHAKES:
            oldest = next(iter(self._shaking))
            del self._shaking[oldest]
            oldest.cancel()
        task = self._loop.create_task(self._shake_hands(link))
        self._shaking[task] = None
        task.add_done_callback(self._shaken)

    def _shaken(self, task: asyncio.Task[None]) -> None:
        self._shaking.pop(task, None)

    def _accept_again(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    async def _shake_hands(self, link: socket.socket) -> None:
        link.setblocking(False)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._loop.connect_accepted_socket(
                lambda: TlsProtocol(self._engine),
                link,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )
        except (OSError, asyncio.CancelledError):  # ssl.SSLError and TimeoutError are OSErrors
            self.failed += 1
            link.close()


class TlsProtocol(asyncio.BufferedProtocol):
    """Hands what a transport says on to a Client."""

    client: Client | None = None

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def connection_made(self, transport: Any) -> None:
        """The handshake is over."""
        self.client = self._engine.attach(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return memoryview(bytearray(1)) if self.client is None else self.client.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        """They are there."""
        if self.client is not None:
            self.client.buffer_updated(nbytes)

    def eof_received(self) -> bool:
        """The client sends no more; false: the transport closes when all is sent."""
        if self.client is not None:
            self.client.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        client, self.client = self.client, None  # else they keep each other, and its buffers
        if client is not None:
            client.connection_lost()

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        if self.client is not None:
            self.client.pause_writing()

    def resume_writing(self) -> None:
        """It has room again."""
        if self.client is not None:
            self.client.resume_writing()
