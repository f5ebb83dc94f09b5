"""What tests of tiers are given: caches that are closed after them, stores, servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cachecore import TieredCache
from cachecore.tiers import MmapTier, RedisTier, testing
from cachecore.tiers.memcached import MemcachedTier
from servers import STARTED, Cluster, Sentinels, Server, memcached_server, redis_server
from support import Clock
from tiers import caches
from tiers.caches import Counting, Make, Open, Source
from tiers.listeners import client_of, emptied, url_of
from tiers.proxy import Proxy

testing.PATIENCE = STARTED  # seconds, for a machine that does other things as well
testing.SHORT = 60  # milliseconds: no tier here needs longer to tell lifetimes apart


@pytest.fixture
def clock() -> Clock:
    return caches.clock()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    """Whether methods are called as they are, or their asynchronous twins."""
    return str(request.param)


@pytest.fixture
def make() -> Iterator[Make]:
    """TieredCache with room for a thousand."""
    with ExitStack() as stack:
        yield lambda maxsize=1000, **settings: stack.enter_context(TieredCache(maxsize, **settings))


@pytest.fixture
def store_at(tmp_path: Path) -> Iterator[Open]:
    """A memory-mapped tier that counts, by its name."""
    opened: list[MmapTier] = []

    def open_store(name: str = "store", **settings: Any) -> Counting:
        opened.append(MmapTier(tmp_path / name, max_bytes="8MB", name=name, **settings))
        return Counting(opened[-1])

    yield open_store
    for tier in opened:
        tier.close()


@pytest.fixture
def store(store_at: Open) -> Any:
    return store_at()


@pytest.fixture(scope="session")
def _redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("redis")
    server = redis_server(folder, "--unixsocket", str(folder / "socket"))
    yield server
    server.kill()


@pytest.fixture
def running(_redis: Server) -> Server:
    """A Redis that tests share and nobody stops, emptied."""
    emptied(_redis)
    return _redis


@pytest.fixture
def client(running: Server) -> Iterator[Any]:
    with client_of(running) as client:
        yield client


@pytest.fixture
def redis_url(running: Server) -> str:
    return f"{url_of(running)}/0"


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.kill()


@pytest.fixture
def cluster(_cluster: Cluster) -> Cluster:
    """Three nodes that tests share, emptied; who stops one starts it again."""
    for node in _cluster.nodes:
        emptied(node)
    return _cluster


@pytest.fixture(scope="session")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    """A pair with one sentinel that tests share and nobody stops."""
    sentinels = Sentinels(tmp_path_factory.mktemp("sentinels"))
    yield sentinels
    sentinels.kill()


@pytest.fixture
def redis_tier(redis_url: str) -> Iterator[Counting]:
    tier = RedisTier(redis_url, timeout=2.0)
    yield Counting(tier)
    tier.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Redis of the test's own."""
    server = redis_server(tmp_path / "redis")
    yield server
    server.kill()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """What stands before it."""
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture(params=["sync", "async"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner | None]:
    """None: calls are to be made by this thread; else by this event loop."""
    if request.param == "sync":
        yield None
        return
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="session")
def memcached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = memcached_server(tmp_path_factory.mktemp("memcached"))
    yield server
    server.kill()


@pytest.fixture
def inner(memcached: Server, request: pytest.FixtureRequest) -> Iterator[MemcachedTier]:
    """With keys of the test's own."""
    node = request.node
    prefix = f"{node.path.stem}.{getattr(request.cls, '__name__', '')}.{node.name}:"
    tier = MemcachedTier(f"127.0.0.1:{memcached.port}", timeout=5, prefix=prefix)
    yield tier
    tier.close()
