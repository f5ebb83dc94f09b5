"""A small HTTP/1.1 server for metrics and the status page, which trusts nobody.

    GET /             the page (page/)
    GET /status.json  what it shows
    GET /metrics      for Prometheus, as text or as OpenMetrics
    GET /healthz      200 while all is well, else 503

One request a connection. Everything is bounded: connections, the size of a request, the time that
it may take to come and its answer to be taken. A page elsewhere that had its own name resolve to
this machine (DNS rebinding) gets nothing, because the Host header must name this server.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import re
import socket
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from email.utils import formatdate
from importlib.resources import files
from typing import NamedTuple, Self
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from cachecore.integrations.prometheus import CacheCollector
from cachecore.server.status import INTERVAL, Status

MOST_CLIENTS = 64  # connections at a time
LONGEST_HEAD = 8192  # bytes of a request
TIME_TO_ASK = 5.0  # seconds that a request may take to come
TIME_TO_TAKE = 10.0  # seconds that its answer may take to leave
LINGER = 1.0  # seconds that are waited for a client's end, so that it can read its answer

_log = logging.getLogger("cachecore")
_servers: weakref.WeakSet[StatusServer] = weakref.WeakSet()
_REQUEST = re.compile(rb"([A-Z]+) (/[!-~]*) HTTP/1\.([01])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*?)[ \t]*")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z._-]+)(:\d{1,5})?")
_REASONS = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 421: "Misdirected Request", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip
_NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_OWN = "script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'"
_KINDS = {
    "css": "text/css; charset=utf-8", "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml",
}  # fmt: skip


class Request(NamedTuple):
    """The head of a request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    """By name in lower case; of several of one name, the last."""


class RefusedError(Exception):
    """Why a request is not answered: a status and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Answer(NamedTuple):
    """The answer to a request."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: int = 200
    policy: str = _NOTHING


def parse(head: bytes) -> Request:
    """A request from its lines, an empty one at their end.

    Raises:
        RefusedError: it is no request, or not one for this server.
    """
    first, *lines = head[:-4].split(b"\r\n")
    request = _REQUEST.fullmatch(first)
    if request is None:
        raise RefusedError(400, "This is no request of HTTP/1.0 or 1.1 for a path.")
    headers: dict[str, str] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise RefusedError(400, "A line of the request is no header.")
        name = header[1].decode().lower()
        if name in headers and name in ("host", "content-length"):
            raise RefusedError(400, f"There are two {name} headers.")
        headers[name] = header[2].decode("latin-1")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise RefusedError(400, "A request has no body here.")
    if "host" not in headers and request[3] == b"1":
        raise RefusedError(400, "There is no Host header.")
    path, _, query = request[2].decode().partition("?")
    return Request(request[1].decode(), path, query, headers)


class StatusServer:
    """Serves the metrics of watched caches, and a page that shows them.

    Args:
        collector: the caches.
        host, port: where to listen; port 0 takes any that is free, which `port` tells then.
        hosts: names under which clients reach this server, beside "localhost" and addresses.
        keys: whether the page shows the hottest keys; by default only if nobody but this machine
            can reach it. Looking for them takes 8 ms for each million entries, at most a 200th of
            the time, and only while somebody looks at the page.
        registry: what /metrics shows; by default the caches and this process.
        health: returns what is wrong, for /healthz; nothing while all is well.
        title: what the page is headed with, and what distinguishes it from others.

    Serves in an event loop between `start` and `close`, or in a thread of its own in a `with` block
    or between `start_thread` and `stop_thread`. Whoever reaches the port sees the page: put what
    asks for a password before it on other addresses. The child of a fork does not listen.

    Raises:
        OSError: the address cannot be had.
    """

    def __init__(
        self,
        collector: CacheCollector,
        *,
        host: str = "127.0.0.1",
        port: int = 9380,
        hosts: Iterable[str] = (),
        keys: bool | None = None,
        registry: CollectorRegistry | None = None,
        health: Callable[[], str] = str,
        title: str = "",
    ) -> None:
        if isinstance(hosts, str):
            raise TypeError("hosts must be an iterable of names, not one str")
        self._hosts = {"localhost", *(name.lower() for name in hosts)}
        if registry is None:
            registry = CollectorRegistry()
            registry.register(collector)
            ProcessCollector(registry=registry)
        self._registry, self._health, self._page = registry, health, _page()
        self._listener = _listen(host, port)
        self.host, self.port = host, int(self._listener.getsockname()[1])
        if keys is None:
            keys = _is_loopback(self._listener.getsockname()[0])
        self._status = Status(collector, title or socket.gethostname(), keys)
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self._thread: threading.Thread | None = None
        _servers.add(self)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"

    async def start(self) -> None:
        """Listen, and keep a history, until `close`."""
        self._server = await asyncio.start_server(
            self._connected, sock=self._listener, limit=LONGEST_HEAD
        )
        self._sampling = asyncio.create_task(self._sample())

    async def close(self) -> None:
        """Stop listening, and end what is being served."""
        if self._server is not None:
            self._server.close()
            self._sampling.cancel()
            tasks = [self._sampling, *self._clients]
            for writer in self._clients.values():
                writer.transport.abort()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # their connections are closed now
        self._listener.close()

    def start_thread(self) -> None:
        """Serve in a thread until `stop_thread`; a daemon, which keeps no process from ending."""
        begun: Future[None] = Future()

        async def run() -> None:
            self._end = asyncio.Event()
            self._loop = asyncio.get_running_loop()
            try:
                await self.start()
            except BaseException as error:
                begun.set_exception(error)
                raise
            begun.set_result(None)
            await self._end.wait()
            await self.close()

        self._thread = threading.Thread(
            target=asyncio.run, args=(run(),), name="cachecore-status", daemon=True
        )
        self._thread.start()
        begun.result()

    def stop_thread(self) -> None:
        """Serve no more, and let go of the port."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()
            self._thread = None
        self._listener.close()

    def __enter__(self) -> Self:
        self.start_thread()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_thread()

    def forget(self) -> None:
        """Let go of what another process, of which this is a fork, listens on."""
        self._listener.close()
        self._thread = None

    async def _sample(self) -> None:
        while True:
            try:
                self._status.sample()
            except Exception:
                _log.exception("cachecore: the history of the status page lacks a sample")
            await asyncio.sleep(INTERVAL)

    # --- a connection

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._clients) >= MOST_CLIENTS:
                text = f"There are {MOST_CLIENTS} clients already.\n"
                writer.write(_bytes(Answer(text.encode(), status=503)))
                return
            self._clients[task] = writer
            await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it has gone, or does not take its answer
        finally:
            self._clients.pop(task, None)
            writer.transport.abort()  # all that it was to get has left

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = True
        try:
            try:
                async with asyncio.timeout(TIME_TO_ASK):
                    head = await reader.readuntil(b"\r\n\r\n")
            except TimeoutError:
                raise RefusedError(408, "The request took too long.") from None
            except asyncio.LimitOverrunError:
                raise RefusedError(431, f"A request is at most {LONGEST_HEAD} bytes.") from None
            request = parse(head)
            body = request.method != "HEAD"
            answer = self._answer(request)
        except RefusedError as refusal:
            answer = Answer(f"{refusal}\n".encode(), status=refusal.status)
        except OSError:
            raise
        except Exception:
            _log.exception("cachecore: a request of the status page failed")
            answer = Answer(b"This failed; the log says why.\n", status=500)
        writer.transport.set_write_buffer_limits(0)
        writer.write(_bytes(answer, body))
        async with asyncio.timeout(TIME_TO_TAKE):
            await writer.drain()
        writer.write_eof()
        # A close with something unread is a reset, which may overtake the answer.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while await reader.read(LONGEST_HEAD):
                    pass

    # --- what it asks for

    def _answer(self, request: Request) -> Answer:
        if "host" in request.headers and not self._is_ours(request.headers["host"]):
            raise RefusedError(421, "The Host header names another server. See `hosts`.")
        if request.method not in ("GET", "HEAD"):
            raise RefusedError(405, "Only GET and HEAD are answered.")
        if request.path == "/metrics":
            encode, kind = choose_encoder(request.headers.get("accept", ""))
            return Answer(encode(self._registry), kind)
        if request.path == "/status.json":
            since = parse_qs(request.query).get("since", ["0"])[0]
            try:
                document = self._status.document(float(since))
            except ValueError:
                raise RefusedError(400, "since must be a number of Unix seconds.") from None
            return Answer(json.dumps(document).encode(), "application/json")
        if request.path == "/healthz":
            wrong = self._health()
            return Answer(f"{wrong or 'ok'}\n".encode(), status=503 if wrong else 200)
        if request.path in self._page:
            return self._page[request.path]
        raise RefusedError(404, "There are /, /status.json, /metrics and /healthz.")

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this server, or an address: no other page has that origin."""
        match = _HOST.fullmatch(host.lower())
        if match is None:
            return False
        name = match[1].strip("[]").removesuffix(".")
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _bytes(answer: Answer, body: bool = True) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}",
        f"Date: {formatdate(usegmt=True)}",
        f"Content-Type: {answer.kind}",
        f"Content-Length: {len(answer.body)}",
        "Connection: close",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: no-referrer",
        "Cross-Origin-Resource-Policy: same-origin",
        f"Content-Security-Policy: {answer.policy}",
    ]
    if answer.status == 405:
        lines.append("Allow: GET, HEAD")
    head = "\r\n".join([*lines, "", ""]).encode()
    return head + answer.body if body else head


def _page() -> dict[str, Answer]:
    """The files of the page, by path."""
    answers = {}
    for file in files("cachecore.server").joinpath("page").iterdir():
        if (kind := _KINDS.get(file.name.rpartition(".")[2])) is not None:
            path = "/" if file.name == "page.html" else f"/{file.name}"
            body = file.read_bytes()
            answers[path] = Answer(body, kind, policy=f"{_NOTHING}; {_OWN}")
    return answers


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=MOST_CLIENTS)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot listen on {host} port {port}: {error.strerror}"
        ) from error


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _begin_anew() -> None:
    """In a child process nobody serves, and the port is its parent's."""
    for server in list(_servers):
        server.forget()


os.register_at_fork(after_in_child=_begin_anew)
