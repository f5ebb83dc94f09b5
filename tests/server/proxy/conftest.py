"""What tests of the proxy are given: an upstream, and proxies in front that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from server.proxy.proxies import ProxyProcess
from servers import Server, redis_server

Start = Callable[..., ProxyProcess]


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Server]:
    server = redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.kill()


@pytest.fixture
def start(upstream: Server) -> Iterator[Start]:
    """Starts a proxy, of `upstream` unless a URL is given."""
    with ExitStack() as stack:

        def started(url: str | None = None, **settings: float) -> ProxyProcess:
            proxy = ProxyProcess(url or f"redis://127.0.0.1:{upstream.port}", **settings)
            stack.callback(proxy.close)
            return proxy

        yield started
