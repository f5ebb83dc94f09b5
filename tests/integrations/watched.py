"""What the tests of metrics share: caches that have seen something, and how scrapes are read."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cachecore import Cache, TieredCache, VectorCache
from cachecore.integrations.prometheus import CacheCollector
from cachecore.integrations.readings import Durations, Reading, ServerReading, TierReading
from cachecore.tiers import MmapTier, RedisTier, WriteBehind

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """The samples of an exposition, by name and labels; none is there twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            place = sample.name, frozenset(sample.labels.items())
            assert place not in found, place
            found[place] = sample.value
    return found


def scrape(collector: CacheCollector) -> Samples:
    """What Prometheus would read of a collector."""
    registry = CollectorRegistry()
    registry.register(collector)
    return samples(generate_latest(registry).decode())


def value(found: Samples, metric: str, **labels: str) -> float:
    """A sample of a metric, whose name is given without `cachecore_`."""
    return found[f"cachecore_{metric}", frozenset(labels.items())]


class Server:
    """A source such as a server is."""

    def __init__(self) -> None:
        self.calls = 1

    def read(self) -> Reading:
        counts = [0] * 32
        counts[5] = self.calls
        return Reading(
            kind="Server",
            results={"hit": 90, "miss": 10},
            entries=7,
            bytes=700,
            max_bytes=1000,
            inserts=20,
            evictions={"evicted": 3, "rejected": 10, "expired": 0},
            stale={"upstream": self.calls},
            tiers=[
                TierReading(
                    name="upstream", results={"hit": 6, "miss": 4}, breaker="open",
                    durations=Durations(counts, 0.5, self.calls), failures={"timeout": 2},
                )
            ],
            server=ServerReading(
                clients=3, commands={"get": 100, "set": 2}, traffic={"read": 10, "written": 20},
                durations=Durations(counts, 0.25, self.calls), refused={"too many clients": 1},
            ),
        )  # fmt: skip

    def hottest(self, n: int) -> Sequence[tuple[Any, int]]:
        return [(b"0key", 9)][:n]


class Caches:
    """Some of every kind."""

    def __init__(self, folder: Path, redis_port: int) -> None:
        self.users = TieredCache(
            max_bytes="64KB",
            tiers=[
                MmapTier(folder / "users", max_bytes="4MB"),
                WriteBehind(RedisTier(f"redis://127.0.0.1:{redis_port}"), delay=0.001),
            ],
            loader_many=self._load, namespace="users", stale_ttl=60, ttl=60,
        )  # fmt: skip
        self.sessions: Cache[str, bytes] = Cache(max_bytes="32KB", ttl=60)
        self.items = VectorCache(4, capacity=50)
        self.server = Server()
        self.failing = False
        self.named = {
            "users": self.users, "sessions": self.sessions, "items": self.items,
            "server": self.server,
        }  # fmt: skip

    def _load(self, keys: list[str]) -> list[str]:
        if self.failing:
            raise ConnectionError("nobody is there")
        return [key * 50 for key in keys]

    def use(self, turns: int = 100, seed: int = 1) -> None:
        """Look things up, and have some evicted, refused and stale."""
        chance = random.Random(seed)
        for _ in range(turns):
            keys = [f"key{int(chance.paretovariate(0.7)) % 1000}" for _ in range(20)]
            self.users.get_many(keys)
            for key in keys:
                if self.sessions.get(key) is None:
                    self.sessions[key] = key.encode() * 50
            ids = [len(key) for key in keys]
            self.items.gather(ids)
            self.items.put(ids, [[1.0] * 4] * len(ids))
        self.sessions["large"] = bytes(100_000)
        self.sessions.delete("key1")


@contextmanager
def caches(folder: Path, redis_port: int) -> Iterator[Caches]:
    """Caches of every kind, which are closed in the end."""
    made = Caches(folder, redis_port)
    try:
        yield made
    finally:
        made.users.close()
        made.items.close()
