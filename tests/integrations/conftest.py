"""Fixtures of the tests of metrics: a Redis, caches of every kind, a collector that has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cachecore.integrations.prometheus import CacheCollector
from integrations.watched import Caches, caches
from servers import Server, ask, redis_server


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Redis that nobody stops."""
    server = redis_server(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def made(tmp_path: Path, redis: Server) -> Iterator[Caches]:
    """Caches of every kind."""
    ask(redis.port, "flushall")
    with caches(tmp_path, redis.port) as each:
        yield each


@pytest.fixture
def collector(made: Caches) -> CacheCollector:
    """A collector that has them all."""
    found = CacheCollector(None)
    for name, cache in made.named.items():
        found.add(cache, name)
    return found
