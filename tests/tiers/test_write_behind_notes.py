"""What a cache sets one by one over a WriteBehind: noted at first, and an operation later."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import pytest

from cachecore import TieredCache
from cachecore.errors import TierError
from cachecore.tiers.memcached import MemcachedTier
from cachecore.tiers.write_behind import WriteBehind
from servers import Server
from tiers.caches import Make

LONG = 1000.0  # a delay that no test waits for: what is set waits until flush()


def behind(inner: MemcachedTier, **settings: Any) -> WriteBehind:
    return WriteBehind(inner, delay=LONG, **settings)


def begun(make: Make, tier: WriteBehind, **settings: Any) -> TieredCache:
    """A cache that knows its generation, and whose writer waits: what is set now is noted."""
    cache = make(tiers=[tier], **settings)
    cache.set("begun", b"")
    tier.flush()
    cache.set("begun", b"again")
    return cache


def row(number: int) -> Any:
    return np.full(8, number, np.float32)


def equal(found: Any, number: int) -> bool:
    return found is not None and np.array_equal(found, row(number))


def test_who_reads_finds_what_was_noted(make: Make, inner: MemcachedTier) -> None:
    tier = behind(inner)
    cache = begun(make, tier)
    keys: list[Any] = ["a", "\u20ac", b"\xff", 7, 2**70]
    for at, key in enumerate(keys):
        cache.set(key, row(at))
    assert tier.stats()["waiting"] == len(keys) + 1
    cache.l0.clear()
    assert all(equal(cache.get(key), at) for at, key in enumerate(keys))
    tier.flush()
    assert tier.stats()["waiting"] == tier.stats()["waiting_bytes"] == 0
    with TieredCache(10, tiers=[inner]) as other:
        assert all(equal(other.get(key), at) for at, key in enumerate(keys))
        assert other.get("begun") == b"again"


def test_the_last_of_all_kinds_of_writes_is_kept(make: Make, inner: MemcachedTier) -> None:
    """Sets that are noted among writes that are not, and flushes at any time."""
    tier = behind(inner)
    cache = begun(make, tier)
    truth: dict[str, int | None] = {}
    choice = random.Random(5)
    for number in range(3000):
        key = f"key {choice.randrange(30)}"
        match choice.randrange(8):
            case 0:
                cache.delete(key)
                truth[key] = None
            case 1:
                cache.set_many([(key, row(number))])
                truth[key] = number
            case 2 if number % 20 == 0:
                tier.flush()
            case _:
                cache.set(key, row(number))
                truth[key] = number
    tier.flush()
    with TieredCache(100, tiers=[inner]) as other:
        for key, last in truth.items():
            found = other.get(key)
            assert found is None if last is None else equal(found, last)


def test_what_the_caller_changes_later_is_not_written(make: Make, inner: MemcachedTier) -> None:
    tier = behind(inner)
    cache = begun(make, tier)
    value = row(1)
    cache.set("a", value)
    value[:] = 2
    tier.flush()
    with TieredCache(10, tiers=[inner]) as other:
        assert equal(other.get("a"), 1)


@pytest.mark.parametrize("bounds", [{"max_items": 10}, {"max_bytes": 10 * (1024 + 3)}])
def test_the_oldest_make_room(make: Make, inner: MemcachedTier, bounds: dict[str, int]) -> None:
    tier = behind(inner, **bounds)
    cache = begun(make, tier)
    tier.flush()
    for at in range(50):
        cache.set(f"k{at:02}", bytes([at]) * 1024)
    counts = tier.stats()
    assert (counts["waiting"], counts["lost"]) == (10, 40)
    assert counts["lost_bytes"] == 40 * 1027
    tier.flush()
    with TieredCache(100, tiers=[inner]) as other:
        found = other.get_many([f"k{at:02}" for at in range(50)])
    assert found == [None] * 40 + [bytes([at]) * 1024 for at in range(40, 50)]


def test_no_room_is_an_error_where_that_is_wanted(make: Make, inner: MemcachedTier) -> None:
    tier = behind(inner, max_items=10, overflow="drop_newest")
    cache = begun(make, tier, strict=True)
    for at in range(9):
        cache.set(at, b"value")
    with pytest.raises(TierError, match=r"no room for 1 of 1 operations"):
        cache.set("one more", b"value")
    assert tier.stats()["waiting"] == 10
    assert tier.stats()["lost"] == 1
    tier.flush()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_leaves_it_to_its_parent(make: Make, inner: MemcachedTier) -> None:
    tier = behind(inner)
    cache = begun(make, tier)
    cache.set("a", row(1))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            cache.set("b", row(2))
            assert tier.stats()["waiting"] == 1
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert tier.stats()["waiting"] == 2
    tier.flush()
    with TieredCache(10, tiers=[inner]) as other:
        assert equal(other.get("a"), 1)
        assert other.get("b") is None


def test_close_writes_what_was_noted(make: Make, memcached: Server) -> None:
    def tier() -> MemcachedTier:
        return MemcachedTier(f"127.0.0.1:{memcached.port}", timeout=5, prefix="noted:")

    cache = begun(make, behind(tier()))
    for at in range(500):
        cache.set(at, row(at))
    cache.close()
    with TieredCache(1000, tiers=[tier()]) as other:
        assert all(equal(other.get(at), at) for at in range(500))
