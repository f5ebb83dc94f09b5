"""WriteBehind on a real memcached: the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cachecore.tiers.memcached import MemcachedTier
from cachecore.tiers.testing import TierContract
from cachecore.tiers.write_behind import WriteBehind
from servers import Server, memcached_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = memcached_server(tmp_path_factory.mktemp("memcached"))
    yield server
    server.kill()


class TestContract(TierContract):
    tells_deletions = False

    @pytest.fixture
    def tier(self, server: Server, request: pytest.FixtureRequest) -> Iterator[WriteBehind]:
        inner = MemcachedTier(f"127.0.0.1:{server.port}", timeout=2, prefix=f"{request.node.name}:")
        tier = WriteBehind(inner, delay=0.01)
        yield tier
        tier.close()
