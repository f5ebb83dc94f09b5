"""RedisTier against real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cachecore.tiers import RedisTier
from cachecore.tiers.testing import TierContract
from servers import Server, redis_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = redis_server(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


class TestOneServer(TierContract):
    @pytest.fixture
    def tier(self, server: Server) -> Iterator[RedisTier]:
        import redis
        redis.Redis(port=server.port).flushall()
        tier = RedisTier(f"redis://127.0.0.1:{server.port}", timeout=5)
        yield tier
        tier.close()
