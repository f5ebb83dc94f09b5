"""A redis-server and a server of ours, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import redis_server

from .wire import Ours, Wire


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder: Path = tmp_path_factory.mktemp("redis")
    server = redis_server(folder)
    yield server.port
    server.kill()


@pytest.fixture(scope="session")
def server() -> Iterator[Ours]:
    with Ours() as server:
        yield server


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def pair(request: pytest.FixtureRequest, redis_port: int, server: Ours) -> Iterator[list[Wire]]:
    """Connections to both, to ours first, in one protocol; nothing is in them."""
    with Wire(server.port) as ours, Wire(redis_port) as theirs:
        for wire in (ours, theirs):
            wire.call(b"HELLO", b"%d" % request.param)
            wire.call(b"FLUSHALL")
        yield [ours, theirs]


@pytest.fixture
def ours(server: Ours) -> Iterator[Wire]:
    """A connection to ours; nothing is in it."""
    with Wire(server.port) as wire:
        wire.call(b"FLUSHALL")
        yield wire
