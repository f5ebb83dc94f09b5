"""What a user can see of the policy: who stays, who leaves and why. Its quality is benchmarked."""

from __future__ import annotations

import math
import random
from collections import Counter, OrderedDict
from typing import Any

import pytest

from cachecore import Cache
from support import Clock, MakeCache, check


def replay(cache: Any, keys: list[int]) -> float:
    hits = 0
    for key in keys:
        if cache.get(key) is None:
            cache[key] = key
        else:
            hits += 1
    return hits / len(keys)


class LRU(OrderedDict[int, int]):
    def __init__(self, maxsize: int) -> None:
        super().__init__()
        self.maxsize = maxsize

    def get(self, key: int) -> int | None:  # type: ignore[override]
        if key in self:
            self.move_to_end(key)
            return self[key]
        return None

    def __setitem__(self, key: int, value: int) -> None:
        super().__setitem__(key, value)
        if len(self) > self.maxsize:
            self.popitem(last=False)


def zipf(rng: random.Random, count: int, keys: int) -> list[int]:
    weights = [1 / rank**0.9 for rank in range(1, keys + 1)]
    return rng.choices(range(keys), weights, k=count)


@pytest.mark.parametrize("maxsize", [50, 500, 2000])
def test_it_beats_lru_on_a_skewed_stream(make: MakeCache, maxsize: int) -> None:
    keys = zipf(random.Random(1), 100_000, 20_000)
    assert replay(make(maxsize), keys) > replay(LRU(maxsize), keys) + 0.03


def test_it_is_not_lost_where_recency_is_all_that_counts(make: MakeCache) -> None:
    """A working set that moves on: an old favourite must not stay for ever."""
    rng = random.Random(2)
    keys = [start + rng.randrange(100) for start in range(0, 20_000, 10) for _ in range(50)]
    assert replay(make(300), keys) > replay(LRU(300), keys) - 0.05


def test_a_scan_does_not_flush_the_hot_set(make: MakeCache) -> None:
    cache = make(1000)
    hot = list(range(500))
    for _ in range(10):
        replay(cache, hot)
    replay(cache, list(range(10_000, 15_000)))
    assert sum(key in cache for key in hot) > 450


def test_the_hot_set_changes_in_the_end(make: MakeCache) -> None:
    cache = make(100)
    for _ in range(100):
        replay(cache, list(range(80)))
    for _ in range(300):
        replay(cache, list(range(1000, 1080)))
    assert sum(key in cache for key in range(1000, 1080)) > 70


def test_evicted_and_rejected_are_told_apart(make: MakeCache) -> None:
    reasons: Counter[str] = Counter()
    cache = make(100, on_evict=lambda key, value, reason: reasons.update([reason]))
    cache.update(dict.fromkeys(range(100)))
    for _ in range(5):
        cache.get_many(range(100))
    cache.update(dict.fromkeys(range(1000, 1100)))
    assert reasons["rejected"] > 50  # asked for once, against those asked for five times
    reasons.clear()
    for key in range(2000, 2100):
        cache[key] = key
        cache.get_many([key] * 20)
    assert reasons["evicted"] > 50


@pytest.mark.parametrize("maxsize", [1, 2, 3, 10, 1000])
def test_a_full_cache_stays_full(make: MakeCache, maxsize: int) -> None:
    cache = make(maxsize)
    for i in range(3 * maxsize + 10):
        cache[i] = i
        assert len(cache) == min(i + 1, maxsize)


def test_what_costs_more_is_kept_longer(make: MakeCache) -> None:
    cache = make(1000)
    rng = random.Random(3)
    kept = {"dear": 0, "cheap": 0}
    for i in range(20_000):
        kind = "dear" if i % 2 else "cheap"
        cache.set((kind, i), None, cost=50 if kind == "dear" else 0.5)
        cache.get((kind, rng.randrange(i + 1)))
    for kind, _ in cache:
        kept[kind] += 1
    assert kept["dear"] > 2 * kept["cheap"]


def resist(cache: Cache[Any, Any], keys: int) -> int:
    """How many of the keys 0 ... keys - 1 are left after others, asked for twice each."""
    for i in range(10**6, 10**6 + 20_000):
        cache[i] = i
        assert cache[i] == i
    return sum(key in cache for key in range(keys))


@pytest.mark.parametrize("bound", [{"maxsize": 200}, {"max_bytes": 30_000}])
def test_what_is_dear_stays(make: MakeCache, bound: dict[str, int]) -> None:
    left = {}
    for cost in (1, 100):
        cache = make(**bound)
        for key in range(100):
            cache.set(key, key, cost=cost)
        left[cost] = resist(cache, 100)
        check(cache)
    assert left[100] > 60 > 30 > left[1]


def test_an_overwrite_takes_the_new_cost(make: MakeCache) -> None:
    left = {}
    for way in ("dear", "made dear", "made cheap"):
        cache = make(200)
        for key in range(100):
            cache.set(key, key, cost=1 if way == "made dear" else 100)
        for key in range(100):
            if way == "made dear":
                cache.set(key, key, cost=100)
            elif way == "made cheap":
                cache[key] = key
        left[way] = resist(cache, 100)
    assert min(left["dear"], left["made dear"]) > 60 > 30 > left["made cheap"]


def test_costs_are_copied_and_no_frequencies(make: MakeCache) -> None:
    cache = make(200)
    for key in range(100):
        cache.set(key, key, cost=100)
    assert cache.hottest(1)[0][1] == 1
    assert resist(cache.copy(), 100) > 60


@pytest.mark.parametrize("way", ["deletions", "clear", "resize"])
def test_counts_age_by_what_fits_now(make: MakeCache, way: str) -> None:
    """Not by what fitted once: they halve every 60 x capacity accesses, and 5000 at least."""
    cache = make(max_bytes="15MB")
    cache.update(dict.fromkeys(range(100_000)))
    if way == "deletions":
        cache.delete_many(range(99_900))
    elif way == "clear":
        cache.clear()
    cache.resize(max_bytes="15KB")
    cache["hot"] = 1
    cache.get_many(["hot"] * 1000)
    cache.update(dict.fromkeys(range(200_000, 240_000)))
    assert dict(cache.hottest(1000)).get("hot", 0) <= 500


@pytest.mark.parametrize("cost", [1e-300, 0.5, 1, 100, 1e300, math.inf])
def test_any_positive_cost_will_do(make: MakeCache, cost: float) -> None:
    cache = make(10)
    for i in range(100):
        cache.set(i, i, cost=cost)
        assert cache[i] == i
    assert len(cache) == 10


def test_small_values_are_not_starved_by_large_ones(make: MakeCache) -> None:
    cache = make(max_bytes=200_000)
    rng = random.Random(5)
    for _ in range(20_000):
        key = rng.randrange(1000)
        if cache.get(key) is None:
            cache[key] = b"x" * (10 if key % 2 else 2000)
    small = sum(key % 2 for key in cache)
    assert small > len(cache) / 3


def test_many_expired_entries_make_room_before_a_living_one_leaves(
    clock: Clock, make: MakeCache
) -> None:
    reasons: Counter[str] = Counter()
    cache = make(1000, timer=clock, on_evict=lambda key, value, reason: reasons.update([reason]))
    cache.set_many({("old", i): i for i in range(900)}, ttl=1)
    cache.set_many({("live", i): i for i in range(100)})
    clock.advance(2)
    cache.set_many({("new", i): i for i in range(1000)})
    assert reasons["expired"] == 900
    assert reasons["evicted"] + reasons["rejected"] == 100


def test_eviction_copes_with_bulk_deletions(make: MakeCache) -> None:
    """Slots stand empty everywhere, in the window's queue too, and are used again."""
    rng = random.Random(6)
    cache = make(5000)
    for round_ in range(6):
        cache.update({(round_, i): i for i in range(8000)})
        assert len(cache) == 5000
        doomed = [key for key in cache if rng.random() < 0.97]
        assert cache.delete_many(doomed) == len(doomed)
        cache._check()
        for i in range(300):
            cache[round_, "after", i] = i
            assert cache[round_, "after", i] == i
        cache._check()


def memory(entries: int, **settings: Any) -> int:
    """Bytes that a full cache holds beside its objects."""
    cache: Cache[int, None] = Cache(entries, **settings)
    cache.update(dict.fromkeys(range(entries + 1)))
    return cache.__sizeof__()


def test_the_sketch_grows_with_the_capacity_unless_it_is_pinned(make: MakeCache) -> None:
    least = memory(200_000, sketch_bytes=64)
    assert 7 * 200_000 < memory(200_000) - least <= 8 * 200_000
    assert 2**21 < memory(200_000, sketch_bytes="2MB") - least < 2**21 * 1.02
    assert 2**19 < memory(10_000) - memory(10_000, sketch_bytes=64) < 2**19 * 1.02
    assert memory(100) - memory(100, sketch_bytes=64) < 100 * 260
    pinned = make(10_000, sketch_bytes=64)
    pinned.update(dict.fromkeys(range(20_000)))
    copied = pinned.copy()
    copied.update(dict.fromkeys(range(20_000)))
    assert copied.__sizeof__() < memory(10_000) - 2**18


def test_a_narrow_sketch_still_tells_the_frequent_from_the_rare(make: MakeCache) -> None:
    keys = zipf(random.Random(1), 100_000, 20_000)
    assert replay(make(500, sketch_bytes=2000), keys) > replay(LRU(500), keys) + 0.03
