"""Fixtures of the tests of what is served: a server in a thread, on either event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import uvloop

from cachecore.integrations.prometheus import CacheCollector
from cachecore.server import http, status
from cachecore.server.http import StatusServer
from server.browser import Browser

Serve = Callable[..., StatusServer]


@contextmanager
def on_uvloop(server: StatusServer) -> Iterator[StatusServer]:
    """Serve in a loop as that of the service."""
    begun: Future[Callable[[], object]] = Future()

    async def run() -> None:
        end, loop = asyncio.Event(), asyncio.get_running_loop()
        await server.start()
        begun.set_result(lambda: loop.call_soon_threadsafe(end.set))
        await end.wait()
        await server.close()

    def work() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=work)
    thread.start()
    stop = begun.result()
    yield server
    stop()
    thread.join()


@pytest.fixture(params=["asyncio", "uvloop"])
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Serves caches on a free port until the end of the test, on each loop in turn."""
    with ExitStack() as stack:

        def begin(collector: CacheCollector | None = None, **options: Any) -> StatusServer:
            server = StatusServer(collector or CacheCollector(None), **{"port": 0, **options})
            return stack.enter_context(server if request.param == "asyncio" else on_uvloop(server))

        yield begin


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium."""
    running = Browser(tmp_path_factory.mktemp("chromium"))
    yield running
    running.close()


@pytest.fixture
def collector() -> CacheCollector:
    """One that is registered nowhere."""
    return CacheCollector(None)


@pytest.fixture
def server(collector: CacheCollector, monkeypatch: pytest.MonkeyPatch) -> Iterator[StatusServer]:
    """A server whose history and page are ten times as fast as usual."""
    monkeypatch.setattr(http, "INTERVAL", 0.1)
    monkeypatch.setattr(status, "INTERVAL", 0.1)
    monkeypatch.setattr(status, "FRESH", 0.1)
    with StatusServer(collector, port=0, title="ranker-1") as serving:
        yield serving
