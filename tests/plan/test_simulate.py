"""simulate: that it is the cache's own policy, counts what it should, and says what is wrong."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from cachecore import Cache
from cachecore.plan import SimulationResult, simulate
from plan.traces import Keys, drifting, loop, replaced, scanned, skewed

SEEDS = range(5)


def driven(keys: Keys, *, sizes: Any = None, **settings: Any) -> float:
    """The hit ratio of a real cache over a trace."""
    cache: Cache[int, int] = Cache(**settings)
    hits = 0
    for i, key in enumerate(keys.tolist()):
        if cache.get(key) is None:
            cache[key] = 1 if sizes is None else int(sizes[i])
        else:
            hits += 1
    return hits / len(keys)


@pytest.mark.parametrize("maxsize", [50, 2000])
@pytest.mark.parametrize(
    "keys",
    [skewed(100_000, 1 << 15, 1), scanned(100_000, 1 << 13, 2), drifting(100_000, 1 << 12, 3)],
    ids=["skewed", "scanned", "drifting"],
)
def test_a_cache_hits_what_was_simulated(keys: Keys, maxsize: int) -> None:
    simulated = np.mean([simulate(keys, maxsize, seed=seed).hit_ratio for seed in SEEDS])
    seen = np.mean([driven(keys, maxsize=maxsize) for _ in SEEDS])
    assert simulated == pytest.approx(seen, abs=0.003)


def test_a_byte_bounded_cache_hits_what_was_simulated() -> None:
    keys = skewed(100_000, 1 << 15, 1)
    values = keys * 7919 % 2000 + 1
    entry = 64 + np.where(keys == 0, 24, 28)  # overhead and the key, in bytes
    simulated = np.mean(
        [
            simulate(keys, max_bytes=300_000, sizes=values + entry, seed=seed).hit_ratio
            for seed in SEEDS
        ]
    )
    settings = {"max_bytes": 300_000, "getsizeof": lambda value: value}
    seen = np.mean([driven(keys, sizes=values, **settings) for _ in SEEDS])
    assert simulated == pytest.approx(seen, abs=0.003)


def lru_hits(keys: Keys, maxsize: int) -> int:
    """The hits of an LRU cache that begins empty."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in keys.tolist():
        hits += key in cache
        cache[key] = None
        cache.move_to_end(key)
        if len(cache) > maxsize:
            cache.popitem(last=False)
    return hits


@pytest.mark.parametrize("maxsize", [200, 1000, 4000])
def test_a_replaced_popular_set_is_learnt_as_fast_as_by_an_empty_lru(maxsize: int) -> None:
    keys = replaced(400_000, 1 << 15, 1)
    half, until = 200_000, 200_000 + 10 * maxsize
    before, after = simulate(keys[:half], maxsize).hits, simulate(keys[:until], maxsize).hits
    assert after - before >= lru_hits(keys[half:until], maxsize)


def consistent(result: SimulationResult) -> bool:
    left = result.evictions + result.rejections + result.expirations
    return result.misses - result.refused == result.entries + left


def test_what_is_counted() -> None:
    keys = np.array([1, 2, 1, 3, 1, 2, 1], np.int16)
    result = simulate(keys, 10)
    assert (result.requests, result.hits, result.misses, result.entries) == (7, 4, 3, 3)
    assert result.hit_ratio == 4 / 7
    assert (result.byte_hit_ratio, result.cost_saved, result.bytes) == (None, None, None)
    sizes, costs = np.array([5, 3, 5, 2, 5, 3, 5]), np.array([1, 10, 1, 100, 1, 10, 1])
    result = simulate(keys, 10, sizes=sizes, costs=costs)
    assert result.byte_hit_ratio == 18 / 28
    assert result.cost_saved == 13 / 124
    assert result.bytes == 10
    assert consistent(result)


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_it_adds_up(seed: int) -> None:
    keys = skewed(50_000, 1 << 14, 7)
    sizes = keys % 900 + 1
    cases: list[dict[str, Any]] = [
        {"maxsize": 100},
        {"max_bytes": 20_000, "sizes": sizes},
        {"max_bytes": 500, "sizes": sizes},
        {"maxsize": 30, "max_bytes": 20_000, "sizes": sizes, "costs": keys % 7 + 0.5},
        {"maxsize": 100, "times": np.arange(50_000) * 0.5, "ttl": 300},
    ]
    for settings in cases:
        result = simulate(keys, seed=seed, **settings)
        assert consistent(result)
        assert result.entries <= settings.get("maxsize", 50_000)
        assert (result.bytes or 0) <= settings.get("max_bytes", 10**9)
        assert (result.refused > 0) == (settings.get("max_bytes") == 500)
        assert (result.expirations > 0) == ("ttl" in settings)
        again = simulate(keys, seed=seed, **settings)
        assert again.hits == result.hits
        assert (again.window == result.window).all()
        assert ((result.window >= 0) & (result.window <= 1)).all()


def test_time_is_kept() -> None:
    keys = np.zeros(10, np.int64)
    times = 1e9 + np.arange(10.0)
    assert simulate(keys, 5, times=times, ttl=1.5).hits == 5
    assert simulate(keys, 5, times=times, ttl=0.5).hits == 0
    assert simulate(keys, 5, times=times, ttl=100).hits == 9
    assert simulate(keys, 5, times=times, ttl=float("inf")).hits == 9
    years = np.arange(10) * 1e8
    assert simulate(keys, 5, times=years, ttl=1.5e8).hits == 5


def test_dear_keys_are_missed_less() -> None:
    keys = skewed(200_000, 1 << 16, 1)
    costs = 10.0 ** (keys * 7919 % 3)
    blind = simulate(keys, 500)
    aware = simulate(keys, 500, costs=costs)
    assert aware.cost_saved is not None
    missed = simulate(keys, 500, costs=np.full(len(keys), 3.0)).cost_saved
    assert missed == pytest.approx(blind.hit_ratio, abs=0.003)  # equal costs change nothing
    assert aware.cost_saved > blind.hit_ratio + 0.03


def test_any_integers_and_no_requests() -> None:
    for dtype in (np.int8, np.uint16, np.int64, ">i4"):
        assert simulate(np.array([1, 2, 1], dtype), 2).hits == 1
    assert simulate([5, -(2**63), 2**63 - 1, -(2**63)], 4).hits == 1
    assert simulate(loop(1000, 10)[::2], 5).hits == 495
    nothing = simulate([], 5)
    assert (nothing.hit_ratio, len(nothing.window)) == (0.0, 0)


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({}, ValueError, "maxsize or max_bytes"),
    ({"maxsize": 0}, ValueError, "maxsize"),
    ({"keys": [1.5], "maxsize": 1}, TypeError, "keys"),
    ({"keys": ["a"], "maxsize": 1}, TypeError, "keys"),
    ({"keys": np.array([1], np.uint64), "maxsize": 1}, TypeError, "keys"),
    ({"keys": [[1, 2]], "maxsize": 1}, ValueError, "keys"),
    ({"max_bytes": "1KB"}, ValueError, "sizes"),
    ({"max_bytes": "4XB", "sizes": [1, 1, 1]}, ValueError, "max_bytes"),
    ({"maxsize": 1, "sizes": [1, 2]}, ValueError, "sizes"),
    ({"maxsize": 1, "sizes": [1, 0, 1]}, ValueError, "sizes"),
    ({"maxsize": 1, "sizes": [1.0, 2.0, 3.0]}, TypeError, "sizes"),
    ({"maxsize": 1, "costs": [1, 0, 1]}, ValueError, "costs"),
    ({"maxsize": 1, "costs": [1, np.nan, 1]}, ValueError, "costs"),
    ({"maxsize": 1, "costs": "abc"}, TypeError, "costs"),
    ({"maxsize": 1, "ttl": 1}, ValueError, "times"),
    ({"maxsize": 1, "ttl": -1, "times": [1, 2, 3]}, ValueError, "ttl"),
    ({"maxsize": 1, "ttl": 1, "times": [1, 3, 2]}, ValueError, "times"),
    ({"maxsize": 1, "seed": -1}, ValueError, "seed"),
    ({"maxsize": 1, "seed": 1.0}, TypeError, "seed"),
]


@pytest.mark.parametrize(("arguments", "error", "name"), BAD)
def test_bad_arguments_are_named(
    arguments: dict[str, Any], error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=name):
        simulate(**{"keys": [1, 2, 3], **arguments})


def test_other_threads_run_meanwhile() -> None:
    keys = skewed(2_000_000, 1 << 20, 1)
    ticks, done = 0, threading.Event()

    def work() -> None:
        simulate(keys, 100_000)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.wait(0.001):
        ticks += 1
    thread.join()
    assert ticks > 10
