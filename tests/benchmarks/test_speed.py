"""A developer's quick look at speed: `pytest tests/benchmarks`.

With --benchmark-disable, as in CI, each body runs once, as a test. Claims are made from
`ci/bench.sh`, which interleaves what it compares.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cachecore import Cache, memoize

ENTRIES = 10_000
KEYS = [f"item:{i:08d}" for i in range(ENTRIES)]
ABSENT = [f"absent:{i:08d}" for i in range(ENTRIES)]

Benchmark = Callable[..., Any]  # the pytest-benchmark fixture


@pytest.fixture(params=["dict", "Cache", "Cache with ttl"])
def full(request: pytest.FixtureRequest) -> Any:
    """Give a container that holds every key as its own value."""
    makers: dict[str, Callable[[], Any]] = {
        "dict": dict,
        "Cache": lambda: Cache(ENTRIES),
        "Cache with ttl": lambda: Cache(ENTRIES, ttl=3600),
    }
    container = makers[request.param]()
    container.update(zip(KEYS, KEYS, strict=True))
    return container


@pytest.mark.benchmark(group="10,000 hits c[k]")
def test_item(benchmark: Benchmark, full: Any) -> None:
    def look_up() -> int:
        found = 0
        for key in KEYS:
            found += full[key] is key
        return found

    assert benchmark(look_up) == ENTRIES


@pytest.mark.benchmark(group="10,000 misses c.get(k)")
def test_miss(benchmark: Benchmark, full: Any) -> None:
    def look_up() -> int:
        absent = 0
        for key in ABSENT:
            absent += full.get(key) is None
        return absent

    assert benchmark(look_up) == ENTRIES


@pytest.mark.benchmark(group="10,000 keys at once")
def test_get_many(benchmark: Benchmark, full: Any) -> None:
    if isinstance(full, dict):
        found = benchmark(lambda: [full[key] for key in KEYS])
    else:
        found = benchmark(full.get_many, KEYS)
    assert found == KEYS


@pytest.mark.benchmark(group="10,000 new keys at capacity")
def test_set_at_capacity(benchmark: Benchmark) -> None:
    cache: Cache[str, str] = Cache(ENTRIES)
    cache.update(zip(KEYS, KEYS, strict=True))
    calls = iter(range(1_000_000))

    def new_keys() -> tuple[tuple[list[str]], dict[str, Any]]:
        call = next(calls)
        return ([f"{call}:{key}" for key in KEYS],), {}

    def write(keys: list[str]) -> None:
        for key in keys:
            cache[key] = key

    benchmark.pedantic(write, setup=new_keys, rounds=20)  # type: ignore[attr-defined]
    assert len(cache) == ENTRIES


@pytest.mark.benchmark(group="1,000 rows of 4 KB")
@pytest.mark.parametrize("way", ["np.stack over dict", "gather"])
def test_gather(benchmark: Benchmark, way: str) -> None:
    rows = np.arange(1000 * 1024, dtype=np.float32).reshape(1000, 1024)
    plain = {key: row.copy() for key, row in zip(KEYS, rows, strict=False)}
    keys = list(plain)
    if way == "gather":
        cache: Cache[str, Any] = Cache(ENTRIES)
        cache.update(plain)
        out = np.empty_like(rows)
        assert benchmark(cache.gather, keys, out).all()
    else:
        out = benchmark(lambda: np.stack([plain[key] for key in keys]))
    assert (out == rows).all()


@pytest.mark.benchmark(group="10,000 memoized calls")
@pytest.mark.parametrize("decorate", [functools.lru_cache, memoize], ids=["lru_cache", "memoize"])
def test_memoize(benchmark: Benchmark, decorate: Any) -> None:
    remembered = decorate(maxsize=ENTRIES)(len)

    def call() -> int:
        total = 0
        for key in KEYS:
            total += remembered(key)
        return total

    assert benchmark(call) == sum(map(len, KEYS))
    assert remembered.cache_info().misses == ENTRIES
