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
from importlib.resources import files
from typing import Self
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from cachecore.integrations.prometheus import CacheCollector
from cachecore.server.http_messages import NOTHING, Answer, RefusedError, Request, parse, to_bytes
from cachecore.server.status import INTERVAL, Status

MOST_CLIENTS = 64  # connections at a time
LONGEST_HEAD = 8192  # bytes of a request
TIME_TO_ASK = 5.0  # seconds that a request may take to come
TIME_TO_TAKE = 10.0  # seconds that its answer may take to leave
PAUSE = 1.0  # seconds without new clients when no descriptor is left
LINGER = 1.0  # seconds that are waited for a client's end, so that it can read its answer

_log = logging.getLogger("cachecore")
_servers: weakref.WeakSet[StatusServer] = weakref.WeakSet()
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z._-]+)(:\d{1,5})?")
_OWN = "script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'"
_KINDS = {
    "css": "text/css; charset=utf-8", "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml",
}  # fmt: skip


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
        health: Callable[[], str] = lambda: "",
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
        self._clients: dict[asyncio.Task[None], socket.socket] = {}
        self._sampling: asyncio.Task[None] | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        _servers.add(self)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"

    async def start(self) -> None:
        """Listen, and keep a history, until `close`."""
        self._loop = asyncio.get_running_loop()
        self._sampling = self._loop.create_task(self._sample())
        self._begin_accepting()

    async def close(self) -> None:
        """Stop listening, and end what is being served."""
        if self._sampling is not None:
            self._loop.remove_reader(self._listener)
            if self._pause is not None:
                self._pause.cancel()
            tasks = [self._sampling, *self._clients]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._sampling = None
        self._listener.close()

    def start_thread(self) -> None:
        """Serve in a thread until `stop_thread`; a daemon, which keeps no process from ending."""
        begun: Future[None] = Future()

        async def run() -> None:
            self._end = asyncio.Event()
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
        for client in self._clients.values():
            client.close()
        self._thread = None

    async def _sample(self) -> None:
        while True:
            try:
                self._status.sample()
            except Exception:
                _log.exception("cachecore: the history of the status page lacks a sample")
            await asyncio.sleep(INTERVAL)

    # --- a connection

    def _begin_accepting(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:  # no descriptor is left: it would be tried again at once, again and again
            self._loop.remove_reader(self._listener)
            self._pause = self._loop.call_later(PAUSE, self._begin_accepting)
            return
        client.setblocking(False)
        if len(self._clients) >= MOST_CLIENTS:
            with contextlib.suppress(OSError):
                client.send(to_bytes(RefusedError(503, "There are too many clients.").answer))
            client.close()
            return
        task = self._loop.create_task(self._serve(client))
        self._clients[task] = client
        task.add_done_callback(lambda task: self._clients.pop(task).close())

    async def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it has gone, or does not take its answer in time
            data = await self._exchange(client)
            async with asyncio.timeout(TIME_TO_TAKE):
                await self._loop.sock_sendall(client, data)
            client.shutdown(socket.SHUT_WR)
            # A close with something unread is a reset, which may overtake the answer.
            async with asyncio.timeout(LINGER):
                while await self._loop.sock_recv(client, LONGEST_HEAD):
                    pass

    async def _exchange(self, client: socket.socket) -> bytes:
        """What to send to a client for what it has sent."""
        try:
            request = parse(await self._head(client))
        except RefusedError as refusal:
            return to_bytes(refusal.answer)
        try:
            answer = self._answer(request)
        except RefusedError as refusal:
            answer = refusal.answer
        except Exception:
            _log.exception("cachecore: a request of the status page failed")
            answer = Answer(b"This failed; the log says why.\n", status=500)
        return to_bytes(answer, request.method != "HEAD")

    async def _head(self, client: socket.socket) -> bytes:
        """The lines of a request, without the empty one."""
        head = b""
        try:
            async with asyncio.timeout(TIME_TO_ASK):
                while b"\r\n\r\n" not in head:
                    if len(head) >= LONGEST_HEAD:
                        raise RefusedError(431, f"A request is at most {LONGEST_HEAD} bytes.")
                    part = await self._loop.sock_recv(client, LONGEST_HEAD)
                    if not part:
                        raise ConnectionResetError
                    head += part
        except TimeoutError:
            raise RefusedError(408, "The request took too long.") from None
        return head.partition(b"\r\n\r\n")[0]

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


def _page() -> dict[str, Answer]:
    """The files of the page, by path."""
    answers = {}
    for file in files("cachecore.server").joinpath("page").iterdir():
        if (kind := _KINDS.get(file.name.rpartition(".")[2])) is not None:
            path = "/" if file.name == "page.html" else f"/{file.name}"
            body = file.read_bytes()
            answers[path] = Answer(body, kind, policy=f"{NOTHING}; {_OWN}")
    return answers


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=MOST_CLIENTS)
    except OSError as error:
        text = f"cannot listen on {host} port {port}: {error.strerror}"
        raise OSError(error.errno, text) from error
    listener.setblocking(False)
    return listener


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _begin_anew() -> None:
    """In a child process nobody serves, and the port is its parent's."""
    for server in list(_servers):
        server.forget()


os.register_at_fork(after_in_child=_begin_anew)
