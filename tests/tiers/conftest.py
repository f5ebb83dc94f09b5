"""A memcached that the tests of wrappers share, and a tier on it for each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cachecore.tiers.memcached import MemcachedTier
from servers import Server, memcached_server


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
