"""MemcachedTier on real servers: the contract, keys and lifetimes, and servers that fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cachecore.tiers.memcached import MemcachedTier
from cachecore.tiers.testing import TierContract
from servers import Server, memcached_server


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    folder = tmp_path_factory.mktemp("memcached")
    started = [memcached_server(folder / str(at)) for at in range(3)]
    yield started
    for server in started:
        server.kill()


class TestOneServer(TierContract):
    @pytest.fixture
    def tier(
        self, servers: list[Server], request: pytest.FixtureRequest
    ) -> Iterator[MemcachedTier]:
        tier = MemcachedTier(
            f"127.0.0.1:{servers[0].port}",
            timeout=2,
            prefix=f"{type(self).__name__}.{request.node.name}:",
        )
        yield tier
        tier.close()


class TestThreeServers(TierContract):
    @pytest.fixture
    def tier(
        self, servers: list[Server], request: pytest.FixtureRequest
    ) -> Iterator[MemcachedTier]:
        places = [("127.0.0.1", server.port) for server in servers]
        tier = MemcachedTier(
            places, timeout=2, prefix=f"{type(self).__name__}.{request.node.name}:"
        )
        yield tier
        tier.close()
