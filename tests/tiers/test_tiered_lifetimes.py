"""TieredCache: how long values and absences live, and how many values at a time expire."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from cachecore.tiers import Policy
from support import Clock
from tiers.caches import LONG, Counting, Make, Source, call, counts, settle


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(20_15)


def test_a_value_expires(make: Make, clock: Clock, source: Source, mode: str) -> None:
    cache = make(loader=source.one, ttl=10, timer=clock)
    call(mode, cache.get, "key")
    source.version = 1
    clock.advance(9.99)
    assert call(mode, cache.get, "key") == "'key' v0"
    clock.advance(0.02)
    assert call(mode, cache.get, "key") == "'key' v1"
    assert cache.l0.stats().expirations == 1


def test_it_expires_in_tiers_too(make: Make, store: Counting, clock: Clock, mode: str) -> None:
    cache = make(tiers=[store], ttl=LONG, timer=clock)
    call(mode, cache.set, "key", 1)
    call(mode, cache.set, "longer", 2, ttl=2 * LONG)
    call(mode, cache.set, "ever", 3, ttl=math.inf)
    clock.advance(LONG + 0.01)
    cache.l0.clear()
    assert call(mode, cache.get_many, ["key", "longer", "ever"]) == [None, 2, 3]
    clock.advance(LONG)
    cache.l0.clear()
    assert call(mode, cache.get_many, ["key", "longer", "ever"]) == [None, None, 3]
    assert cache.l0.get_ttl("ever") is None


def test_without_a_ttl_it_does_not(make: Make, store: Counting, clock: Clock, mode: str) -> None:
    cache = make(tiers=[store], timer=clock, loader=str.upper, stale_ttl=3, early_refresh=1)
    call(mode, cache.set, "a", 1)
    call(mode, cache.set, "b", 1, ttl=5)
    assert call(mode, cache.get, "c") == "C"
    assert cache.l0.get_ttl("a") is cache.l0.get_ttl("c") is None
    assert cache.l0.get_ttl("b") == pytest.approx(8)
    clock.advance(100 * 365 * 86_400)
    assert call(mode, cache.get_many, ["a", "b", "c"]) == [1, "B", "C"]
    assert cache.stats().loads == 2


@pytest.mark.parametrize("ttl", [0, -1, math.nan, "1", True, [1]])
def test_what_is_no_lifetime(make: Make, store: Counting, mode: str, ttl: Any) -> None:
    cache = make(tiers=[store])
    cache.set("key", 1)
    for method, args in ((cache.set, ("key", 2)), (cache.set_many, ({"key": 2},))):
        with pytest.raises((TypeError, ValueError), match="ttl"):
            call(mode, method, *args, ttl=ttl)
    assert cache.get("key") == 1


def test_the_shortest_lifetime(make: Make, store: Counting, clock: Clock, mode: str) -> None:
    cache = make(tiers=[store], timer=clock)
    call(mode, cache.set, "key", 1, ttl=1e-9)
    assert call(mode, cache.get, "key") == 1
    clock.advance(0.001)
    assert call(mode, cache.get, "key") is None


def test_jitter_is_within_its_bounds(make: Make, clock: Clock, mode: str) -> None:
    cache = make(5000, ttl=100, ttl_jitter=0.25, timer=clock, loader_many=lambda keys: keys)
    call(mode, cache.get_many, range(2000))
    call(mode, cache.set_many, {key: key for key in range(2000, 4000)})
    ttls = np.array([cache.l0.get_ttl(key) for key in range(4000)])
    assert ttls.min() >= 75
    assert ttls.max() <= 100
    assert ttls.mean() == pytest.approx(87.5, abs=0.6)  # 5 sigma
    assert ttls.std() == pytest.approx(25 / math.sqrt(12), abs=0.5)


def test_jitter_is_the_same_in_every_tier(make: Make, store: Counting, clock: Clock) -> None:
    cache = make(tiers=[store], ttl=LONG, ttl_jitter=1.0, timer=clock)
    cache.set_many({key: key for key in range(50)})
    before = [cache.l0.get_ttl(key) for key in range(50)]
    cache.l0.clear()
    cache.get_many(range(50))
    assert [cache.l0.get_ttl(key) for key in range(50)] == pytest.approx(before, abs=0.01)


def test_hard_and_soft(make: Make, store: Counting, clock: Clock) -> None:
    policy = Policy(ttl=10, stale_while_revalidate=5, stale_if_error=20)
    cache = make(tiers=[store], policy=policy, timer=clock)
    cache.set("key", 1)
    assert cache.l0.get_ttl("key") == pytest.approx(30)
    cache.l0.clear()
    assert cache.get("key") == 1
    assert cache.l0.get_ttl("key") == pytest.approx(30)
    clock.advance(30.001)
    cache.l0.clear()
    assert cache.get("key") is None


# --- absence


def test_absence_is_remembered_for_its_own_time(make: Make, clock: Clock, mode: str) -> None:
    source = Source("key")
    cache = make(loader=source.one, ttl=100, negative_ttl=5, timer=clock)
    assert call(mode, cache.get, "key", "default") == "default"
    for default in (None, 1):
        assert call(mode, cache.get, "key", default) is default
        assert call(mode, cache.get_many, ["key", "key"], default) == [default, default]
    assert source.calls == 1
    source.absent.clear()
    clock.advance(4.99)
    assert call(mode, cache.get, "key") is None
    clock.advance(0.02)
    assert call(mode, cache.get, "key") == "'key' v0"
    assert counts(cache, "loads", "negative_hits") == (2, 5)


def test_absence_is_not_remembered_unasked(make: Make, mode: str) -> None:
    source = Source("key")
    cache = make(loader=source.one)
    for _ in range(3):
        assert call(mode, cache.get, "key") is None
    assert source.calls == 3


def test_absence_is_no_none(make: Make, mode: str) -> None:
    source = Source("absent")
    cache = make(loader=lambda key: None if key == "none" else source.one(key), negative_ttl=LONG)
    for _ in range(2):
        assert call(mode, cache.get, "none", "default") is None
        assert call(mode, cache.get, "absent", "default") == "default"
    assert source.calls == 1
    assert counts(cache, "loads", "negative_hits") == (2, 1)


def test_a_value_that_is_set_ends_an_absence(make: Make, store: Counting, mode: str) -> None:
    source = Source("key")
    cache = make(loader=source.one, negative_ttl=LONG, tiers=[store])
    assert call(mode, cache.get, "key") is None
    call(mode, cache.set, "key", 1)
    assert call(mode, cache.get, "key") == 1
    call(mode, cache.delete, "key")
    assert call(mode, cache.get, "key") is None
    assert source.calls == 2, "a deletion is no proof of absence"
    call(mode, cache.set_many, {"key": 2})
    assert call(mode, cache.get, "key") == 2


def test_absence_without_a_loader(make: Make, store: Counting, clock: Clock, mode: str) -> None:
    cache = make(tiers=[store], negative_ttl=5, timer=clock)
    assert call(mode, cache.get, "key") is None
    store.told()
    assert call(mode, cache.get, "key") is None
    assert store.told() == []
    clock.advance(5.001)
    assert call(mode, cache.get, "key") is None
    assert store.told() == [("get", [b"key"])]


def test_absence_ends_with_the_namespace(make: Make, store: Counting) -> None:
    source = Source("key")
    cache = make(loader=source.one, negative_ttl=LONG, tiers=[store], namespace="n")
    cache.get("key")
    source.absent.clear()
    cache.invalidate("n")
    assert cache.get("key") == "'key' v0"


def test_an_error_is_no_absence(make: Make, mode: str, source: Source) -> None:
    source.failing = LookupError()
    cache = make(loader=source.one, negative_ttl=LONG)
    for _ in range(2):
        with pytest.raises(LookupError):
            call(mode, cache.get, "key")
    source.failing = None
    assert call(mode, cache.get, "key") == "'key' v0"


# --- refreshing before the expiry


def test_early_refresh_follows_its_distribution(make: Make, clock: Clock, source: Source) -> None:
    """A key is due -ln(U) * beta * delta before its expiry, says XFetch.

    Refreshes fail here: a key that is due stays due, and each look-up that finds one is counted.
    """
    many, beta, delta = 4000, 50.0, 0.0

    def load(keys: list[int]) -> list[int]:
        import time

        if source.failing is not None:
            raise source.failing
        time.sleep(0.1)
        return keys

    def on_event(event: str, keys: int, spent: float) -> None:
        nonlocal delta
        delta = delta or spent

    policy = Policy(ttl=1000, early_refresh=beta, retry=10_000)
    cache = make(2 * many, loader_many=load, policy=policy, timer=clock, on_event=on_event)
    cache.get_many(range(many))
    source.failing = LookupError()
    scale, before = beta * delta, 0
    assert 5 <= scale < 100
    begin = clock.now
    for ahead in (4, 3, 2, 1.5, 1, 0.5, 0.2, 0.1):
        clock.advance(begin + 1000 - ahead * scale - clock.now)
        cache.get_many(range(many))
        settle(cache)
        (counted,) = counts(cache, "early_refreshes")
        due, before = counted - before, counted
        share = math.exp(-ahead)
        assert due / many == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / many))
    clock.advance(begin + 1000.001 - clock.now)
    with pytest.raises(LookupError):
        cache.get(0)


def test_an_early_refresh_happens_once_and_behind_the_back(
    make: Make, store: Counting, clock: Clock, source: Source, mode: str
) -> None:
    policy = Policy(ttl=1000, early_refresh=1e15)
    cache = make(loader=source.one, policy=policy, timer=clock, tiers=[store])
    call(mode, cache.get, "key")
    source.version = 1
    assert call(mode, cache.get, "key") == "'key' v0"  # it is good for a millisecond at least
    clock.advance(0.05)
    assert call(mode, cache.get, "key") == "'key' v0"
    settle(cache)
    assert source.calls == 2
    assert call(mode, cache.get, "key") == "'key' v1"
    assert counts(cache, "early_refreshes") == (1,)
    assert counts(cache, "stale_while_revalidate") == (0,)


def test_what_was_set_is_not_refreshed_early(make: Make, clock: Clock, source: Source) -> None:
    cache = make(loader=source.one, ttl=1000, early_refresh=1e15, timer=clock)
    cache.set("key", 1)
    clock.advance(999.9)
    assert cache.get("key") == 1
    settle(cache)
    assert source.calls == 0


def test_the_time_that_loading_took_goes_with_the_value(
    make: Make, store: Counting, clock: Clock, source: Source
) -> None:
    policy = Policy(ttl=LONG, early_refresh=1e15)
    make(loader=source.one, policy=policy, timer=clock, tiers=[store]).get("key")
    source.version = 1
    clock.advance(0.05)
    cache = make(loader=source.one, policy=policy, timer=clock, tiers=[store])
    assert cache.get("key") == "'key' v0"
    settle(cache)
    assert counts(cache, "early_refreshes") == (1,)
    assert cache.get("key") == "'key' v1"
