"""TieredCache: its counts, its end, its kind: what is around the look-ups."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import cachecore
import cachecore.tiers
from cachecore import MISSING, Cache, TieredCache
from cachecore.tiers import Policy, PubSub, RedisTier, TieredStats, background
from cachecore.tiers.testing import eventually
from support import Clock, check_shared
from tiers.caches import HANGS, Counting, Gate, Make, Open, Source, call, callers, counts, settle

# --- counts


def test_every_look_up_is_answered_somewhere(make: Make, store_at: Open, clock: Clock) -> None:
    source = Source(*range(0, 300, 7))
    tiers = [store_at("a"), store_at("b")]
    policy = Policy(ttl=50, negative_ttl=20, stale_while_revalidate=20)
    cache = make(40, tiers=tiers, loader_many=source.many, policy=policy, timer=clock)
    asked = 0
    for turn in range(60):
        keys = [(turn * 13 + step * 7) % 300 for step in range(20)]
        cache.get_many(keys)
        cache.get(turn)
        asked += 21
        cache.set(turn + 400, turn, tags=["tag"] if turn % 2 else [])
        cache.delete(turn * 3 % 300)
        clock.advance(1)
        if turn % 20 == 19:
            cache.invalidate("tag")
    settle(cache)
    stats = cache.stats()
    assert stats.l0.hits + stats.l0.misses == asked
    assert stats.hit_ratio == stats.l0.hit_ratio
    assert stats.loads == len(source.asked)
    assert sum(stats.load_latencies) == source.calls
    assert stats.load_seconds > 0
    for tier in stats.tiers:
        assert tier.errors == tier.timeouts == tier.owed == 0
        assert sum(tier.refused.values()) <= tier.misses
        assert sum(tier.latencies) > 0
        assert len(tier.latencies) == 32
        assert tier.seconds > 0
    first, second = stats.tiers
    assert second.hits + second.misses <= first.misses
    check_shared(cache.l0)


def test_stats_is_a_plain_tuple(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store], loader=str.upper)
    call(mode, cache.get, "a")
    stats = cache.stats()
    assert isinstance(stats, TieredStats)
    assert stats.tiers[0].name == "store"
    assert (stats.tiers[0].hits, stats.tiers[0].misses, stats.tiers[0].writes) == (0, 1, 1)
    assert stats.tiers[0].own == store.stats()
    cache.l0.clear()
    call(mode, cache.get, "a")
    tier = cache.stats().tiers[0]
    assert (tier.hits, tier.misses) == (1, 1)
    assert tier.bytes_read == tier.bytes_written > 0
    assert stats.tiers[0].hits == 0  # as it was
    cache.delete("a")
    assert cache.stats().tiers[0].deletes == 1


def test_names() -> None:
    assert cachecore.TieredCache is TieredCache is cachecore.tiers.TieredCache
    assert isinstance(TieredCache(5).l0, Cache)
    assert TieredCache(5, namespace="ns").namespace == "ns"


def test_it_is_no_mapping() -> None:
    cache: Any = TieredCache(5)
    for act in (lambda: cache["a"], lambda: len(cache), lambda: iter(cache), lambda: "a" in cache):
        with pytest.raises(TypeError):
            act()


def test_repr(make: Make, store_at: Open) -> None:
    cache = make(tiers=[store_at("ssd"), store_at("disk")], namespace="users")
    cache.set("key", 1)
    assert repr(cache) == "<TieredCache 'users' of 1 entries over [ssd, disk]>"
    cache.close()
    assert repr(cache) == "<TieredCache 'users' of 0 entries over [ssd, disk]>"


# --- the end


def test_calls_after_close(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store], loader=str.upper)
    cache.set("key", 1)
    call(mode, cache.close)
    calls: list[tuple[Any, Any]] = [
        (cache.get, ("key",)), (cache.get, ("other",)), (cache.get_many, (["key"],)),
        (cache.set, ("key", 2)), (cache.set_many, ({"key": 2},)), (cache.delete, ("key",)),
        (cache.delete_many, (["key"],)), (cache.invalidate, ("",)),
    ]  # fmt: skip
    for method, args in calls:
        with pytest.raises(ValueError, match="closed"):
            call(mode, method, *args)
    with pytest.raises(ValueError, match="closed"):
        cache.warm(["key"])
    with cache.request(), pytest.raises(ValueError, match="closed"):
        cache.get("key")
    call(mode, cache.close)
    cache.close()
    assert cache.stats().l0.entries == 0
    assert cache.stats().tiers[0].name == "store"
    with pytest.raises(OSError, match="closed"):
        store.tier.get_many([b"key"])


def test_close_after_the_event_loop_has_ended(make: Make, redis_tier: Counting) -> None:
    source = Source()
    cache = make(tiers=[redis_tier], loader=source.aone)
    assert asyncio.run(cache.aget("key")) == "'key' v0"
    assert asyncio.run(cache.aget("other")) == "'other' v0"
    cache.close()


def test_as_a_context(store_at: Open) -> None:
    with TieredCache(5, tiers=[store_at()]) as cache:
        cache.set("key", 1)
        assert cache.get("key") == 1
    with pytest.raises(ValueError, match="closed"):
        cache.get("key")


def test_close_during_a_load(make: Make, store: Counting, mode: str) -> None:
    gate = Gate()
    cache = make(loader=gate.one, tiers=[store])
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(call, mode, cache.get, "key") for _ in range(2)]
        gate.wait()
        eventually(lambda: callers(cache, "key") == 2)
        begin = time.monotonic()
        cache.close()
        assert time.monotonic() - begin < 5
        gate.let(2)
        assert [future.result(HANGS) for future in futures] == ["loaded"] * 2
    assert len(cache.l0) == 0
    assert not cache.flights


def test_close_during_a_refresh(make: Make, clock: Clock) -> None:
    gate = Gate("new")
    cache = make(loader=gate.one, ttl=10, stale_ttl=10, timer=clock)
    cache.set("key", "old")
    clock.advance(11)
    assert cache.get("key") == "old"
    gate.wait()
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(cache.close)
        eventually(lambda: cache.closed)
        gate.let()
        closing.result(HANGS)
    assert len(cache.l0) == 0


def test_close_from_many_threads(make: Make, store: Counting) -> None:
    cache = make(tiers=[store], loader=lambda key: key)
    stop = threading.Event()

    def work(at: int) -> str:
        for turn in range(100_000):
            try:
                cache.get_many(range(turn, turn + 5))
                cache.set(turn, turn)
            except ValueError as error:
                return str(error)
        return "never closed"

    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(work, at) for at in range(4)]
        eventually(lambda: cache.stats().l0.inserts > 100)
        closings = [pool.submit(cache.close) for _ in range(3)]
        assert {future.result(HANGS) for future in futures} == {"this cache is closed"}
        assert [future.result(HANGS) for future in closings] == [None] * 3
    stop.set()


# --- its kind


class Loading(TieredCache):
    """A subclass with its own way of being made, and a method of its own."""

    def __init__(self, prefix: str, **settings: Any) -> None:
        super().__init__(100, loader=self.load, **settings)
        self.own = prefix

    def load(self, key: str) -> str:
        return self.own + key

    def get_twice(self, key: str) -> list[Any]:
        return [self.get(key), self.get(key)]


def test_a_subclass(store: Counting, mode: str) -> None:
    with Loading("x", tiers=[store]) as cache:
        assert call(mode, cache.get, "a") == "xa"
        assert cache.get_twice("b") == ["xb", "xb"]
        assert isinstance(cache, TieredCache)


def test_one_that_was_not_made_whole() -> None:
    with pytest.raises(ValueError, match="maxsize"):
        TieredCache()
    cache = TieredCache.__new__(TieredCache)
    del cache
    gc.collect()


def dies(make_one: Any) -> None:
    """What a function returns is collected once nobody has it."""
    found = make_one()
    alive = weakref.ref(found)
    del found

    def gone() -> bool:
        gc.collect()
        return alive() is None

    eventually(gone)


def test_a_cache_that_nobody_has_is_collected(store_at: Open, clock: Clock) -> None:
    def plain() -> Any:
        cache = TieredCache(5, loader=str.upper)
        cache.get("a")
        return cache

    def below() -> Any:
        cache = TieredCache(5, tiers=[store_at(f"{len(opened)}")], exclusive=True)
        opened.append(cache.tiers[0])
        for _ in range(3):
            cache.set_many(dict.fromkeys("abcdefg", 1), tags=["tag"])
            cache.get_many("abcdefg"[at] for at in range(7))
        return cache

    def refreshing() -> Any:
        cache = TieredCache(5, loader=str.upper, ttl=10, stale_ttl=10, timer=clock)
        cache.set("a", 1)
        clock.advance(11)
        cache.get("a")
        return cache

    def as_task() -> Any:
        cache = TieredCache(5, loader=Source().aone)
        asyncio.run(cache.aget("a"))
        return cache

    def itself() -> Any:
        cache = TieredCache(5)
        cache.set("self", cache)
        return cache

    def in_a_request() -> Any:
        cache = TieredCache(5)
        with cache.request():
            cache.get("a", MISSING)
        return cache

    def own_loader() -> Any:
        cache = Loading("x")
        cache.get("a")
        return cache

    opened: list[Any] = []
    for make_one in (plain, below, refreshing, as_task, itself, in_a_request, own_loader):
        dies(make_one)


def test_a_cache_that_listens_is_collected_too(redis_url: str) -> None:
    source = PubSub(redis_url, "changes")

    def listening() -> Any:
        cache = TieredCache(5, tiers=[RedisTier(redis_url)], invalidation=[source])
        eventually(lambda: source.connected)
        cache.set("a", 1)
        assert cache.get("a") == 1
        return cache

    dies(listening)
    eventually(lambda: not source.connected)
    names = [thread.name for thread in threading.enumerate()]
    assert "cachecore-invalidation" not in names


def test_its_threads_end_with_it() -> None:
    code = """
import threading
from cachecore import TieredCache
from cachecore.tiers.testing import eventually
now = [1e9]
cache = TieredCache(5, loader=str.upper, ttl=10, stale_ttl=10, timer=lambda: now[0])
cache.set("a", 1)
now[0] += 11
cache.get("a")
eventually(lambda: cache.get("a") == "A")
assert threading.active_count() == 2, threading.enumerate()
cache.close()
eventually(lambda: threading.active_count() == 1)
cache = TieredCache(5, loader=str.upper, ttl=10, stale_ttl=10, timer=lambda: now[0])
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=HANGS)


def test_a_thread_without_work_leaves(
    make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "IDLE", 0.1)
    cache = make(loader=str.upper, ttl=10, stale_ttl=10, timer=clock)
    cache.set("a", 1)
    clock.advance(11)
    cache.get("a")
    settle(cache)
    eventually(lambda: cache.background._started == 0)
    assert counts(cache, "loads") == (1,)
