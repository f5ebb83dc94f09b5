"""What counts as a look-up, an insert, a deletion, an expiration; and that the counts add up."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cachecore import Cache
from support import Clock, MakeCache, check

# operation on a cache that holds "a" but not "z": (hits, misses) that it adds
LOOK_UPS: dict[str, tuple[Callable[[Cache[Any, Any]], object], int, int]] = {
    "c[k] hit": (lambda c: c["a"], 1, 0),
    "get hit": (lambda c: c.get("a"), 1, 0),
    "get miss": (lambda c: c.get("z"), 0, 1),
    "get with a default": (lambda c: c.get("z", 1), 0, 1),
    "get_many": (lambda c: c.get_many(["a", "z", "a", "y"]), 2, 2),
    "get_many of none": (lambda c: c.get_many([]), 0, 0),
    "gather": (lambda c: c.gather(["a", "z", "a"], np.empty((3, 4), np.uint8)), 2, 1),
    "get_or_set hit": (lambda c: c.get_or_set("a", lambda: b"none"), 1, 0),
    "get_or_set miss": (lambda c: c.get_or_set("z", lambda: b"none"), 0, 1),
    "setdefault hit": (lambda c: c.setdefault("a", b"none"), 1, 0),
    "setdefault miss": (lambda c: c.setdefault("z", b"none"), 0, 1),
    "pop hit": (lambda c: c.pop("a"), 1, 0),
    "pop miss": (lambda c: c.pop("z", None), 0, 1),
    "in": (lambda c: "a" in c, 0, 0),
    "not in": (lambda c: "z" in c, 0, 0),
    "peek": (lambda c: (c.peek("a"), c.peek("z")), 0, 0),
    "iteration": (lambda c: (list(c), list(c.items()), list(c.values())), 0, 0),
    "views": (lambda c: (("a", 1) in c.items(), "a" in c.keys()), 0, 0),  # noqa: SIM118
    "comparison": (lambda c: (c == {"a": 1}, repr(c)), 0, 0),
    "copy": (lambda c: c.copy(), 0, 0),
    "set": (lambda c: (c.set("a", b"1"), c.set("z", b"1")), 0, 0),
    "update": (lambda c: c.update(a=b"1", z=b"2"), 0, 0),
    "delete": (lambda c: (c.delete("a"), c.delete("z"), c.delete_many("az".split())), 0, 0),
    "popitem": (lambda c: c.popitem(), 0, 0),
    "touch": (lambda c: (c.touch("a", 5), c.touch("z", 5)), 0, 0),
    "get_ttl": (lambda c: c.get_ttl("a"), 0, 0),
    "hottest": (lambda c: c.hottest(3), 0, 0),
    "expire": (lambda c: c.expire(), 0, 0),
    "clear": (lambda c: c.clear(), 0, 0),
}


@pytest.mark.parametrize("operation", LOOK_UPS)
@pytest.mark.parametrize("bounds", [{"maxsize": 8}, {"max_bytes": 9999}, {"maxsize": 8, "ttl": 9}])
def test_look_ups_and_only_they_are_hits_or_misses(
    make: MakeCache, operation: str, bounds: dict[str, Any]
) -> None:
    cache = make(**bounds)
    cache["a"] = b"0123"
    act, hits, misses = LOOK_UPS[operation]
    act(cache)
    assert (cache.stats().hits, cache.stats().misses) == (hits, misses)
    if hits + misses:
        assert cache.stats().hit_ratio == hits / (hits + misses)


def test_a_failed_look_up_of_an_absent_key_is_a_miss(make: MakeCache) -> None:
    cache = make(8)
    for attempt in (lambda: cache["z"], lambda: cache.pop("z")):
        with pytest.raises(KeyError):
            attempt()
    assert cache.stats().misses == 2


def test_an_overwrite_is_neither_insert_nor_deletion(make: MakeCache) -> None:
    cache = make(8)
    cache["a"] = 1
    cache["a"] = 2
    cache.setdefault("a", 3)
    assert cache.stats().inserts == 1
    assert cache.stats().deletions == 0


@pytest.mark.parametrize(
    ("remove", "count"),
    [
        (lambda c: c.delete("a"), 1),
        (lambda c: c.__delitem__("a"), 1),
        (lambda c: c.pop("a"), 1),
        (lambda c: c.popitem(), 1),
        (lambda c: c.delete_many(["a", "b", "z", "a"]), 2),
        (lambda c: c.clear(), 3),
        (lambda c: (c.delete("z"), c.pop("z", None)), 0),
    ],
)
def test_removals_are_deletions_and_not_reported(
    make: MakeCache, remove: Callable[[Cache[Any, Any]], object], count: int
) -> None:
    heard: list[object] = []
    cache = make(8, on_evict=lambda *leaver: heard.append(leaver))
    cache.update(a=1, b=2, c=3)
    remove(cache)
    assert cache.stats().deletions == count
    assert len(cache) == 3 - count
    assert heard == []


def test_expired_entries_count_when_they_are_removed(clock: Clock, make: MakeCache) -> None:
    cache = make(100, ttl=1, timer=clock)
    removals: list[Callable[[str], object]] = [
        lambda key: cache.set(key, "again"),
        cache.delete,
        lambda key: cache.pop(key, None),
        lambda key: cache.setdefault(key, "again"),
        lambda key: cache.get_or_set(key, lambda: "again"),
        lambda key: cache.expire(),
    ]
    for removal in removals:
        cache.clear()
        cache["k"] = 1
        clock.advance(2)
        assert cache.get("k") is None
        assert len(cache) == 1  # it is not reclaimed yet
        before = cache.stats()
        removal("k")
        after = cache.stats()
        assert after.expirations - before.expirations == 1
        assert after.deletions == before.deletions
        check(cache)


def test_on_evict_hears_of_exactly_what_the_counts_say(clock: Clock, make: MakeCache) -> None:
    heard: Counter[str] = Counter()
    cache = make(50, timer=clock, on_evict=lambda key, value, reason: heard.update([reason]))
    rng = random.Random(3)
    for _ in range(20_000):
        key = int(rng.paretovariate(0.7)) % 1000
        if cache.get(key) is None:
            cache.set(key, key, ttl=rng.choice([None, 0.5, 2]))
        clock.advance(rng.choice([0, 0, 0.01]))
    stats = cache.stats()
    assert heard == {
        "evicted": stats.evictions,
        "rejected": stats.rejections,
        "expired": stats.expirations,
    }
    assert min(heard.values()) > 0


@pytest.mark.parametrize("seed", range(4))
def test_the_counts_add_up_after_any_sequence(clock: Clock, make: MakeCache, seed: int) -> None:
    rng = random.Random(seed)
    cache = make(40, max_bytes=6000, timer=clock, ttl=rng.choice([None, 1.0]))
    look_ups = 0
    for step in range(5000):
        key = rng.randrange(120)
        choice = rng.randrange(10)
        if choice < 4:
            cache.get(key)
            look_ups += 1
        elif choice < 7:
            cache[key] = b"x" * rng.choice([0, 10, 100, 1000, 7000])
        elif choice == 7:
            cache.pop(key, None)
            look_ups += 1
        elif choice == 8:
            cache.get_many(range(key, key + 20))
            look_ups += 20
        else:
            cache.delete_many(range(key, key + 3))
            clock.advance(0.1)
        if step % 50 == 0:
            check(cache)
    stats = cache.stats()
    assert stats.hits + stats.misses == look_ups
    assert stats.refused > 0
    assert stats.hit_ratio == stats.hits / look_ups
