"""TieredCache: values after their expiry, while they are loaded anew and where that has failed."""

from __future__ import annotations

from typing import Any

import pytest

from cachecore.tiers import Policy
from cachecore.tiers.testing import eventually
from support import Clock
from tiers.caches import LONG, Counting, Gate, Make, Open, Source, call, counts, in_threads, settle

REVALIDATED = "stale_while_revalidate"
ERROR = "stale_if_error"


def asleep(cache: Any, key: str = "key") -> None:
    """Until the refresh of a key has ended."""
    settle(cache)


# --- stale while it is loaded anew


def test_a_stale_value_is_returned_and_loaded_anew(
    make: Make, clock: Clock, source: Source, mode: str
) -> None:
    cache = make(loader=source.one, ttl=10, stale_ttl=5, timer=clock)
    assert call(mode, cache.get, "key") == "'key' v0"
    source.version = 1
    clock.advance(9.999)
    assert call(mode, cache.get, "key") == "'key' v0"
    assert source.calls == 1
    clock.advance(0.002)
    assert call(mode, cache.get, "key") == "'key' v0"
    eventually(lambda: source.calls == 2)
    settle(cache)
    assert call(mode, cache.get, "key") == "'key' v1"
    assert counts(cache, REVALIDATED, ERROR, "loads") == (1, 0, 2)
    assert cache.l0.get_ttl("key") == pytest.approx(15, abs=0.01)


def test_not_for_longer_than_allowed(make: Make, clock: Clock, source: Source, mode: str) -> None:
    cache = make(loader=source.one, ttl=10, stale_ttl=5, timer=clock)
    call(mode, cache.get, "key")
    source.version = 1
    clock.advance(15.001)
    assert call(mode, cache.get, "key") == "'key' v1"
    assert counts(cache, REVALIDATED, ERROR) == (0, 0)


def test_it_returns_at_once_and_refreshes_once(make: Make, clock: Clock, mode: str) -> None:
    gate = Gate("new")
    cache = make(loader=gate.one, ttl=10, stale_ttl=5, timer=clock)
    cache.set("key", "old")
    clock.advance(11)
    for _ in range(10):
        assert call(mode, cache.get, "key") == "old"
        assert call(mode, cache.get_many, ["key", "key"]) == ["old", "old"]
    gate.wait()
    assert counts(cache, REVALIDATED, "loads") == (20, 1)
    gate.let()
    settle(cache)
    assert call(mode, cache.get, "key") == "new"
    assert gate.asked == 1


def test_many_threads_refresh_once(make: Make, clock: Clock) -> None:
    gate = Gate("new")
    cache = make(loader=gate.one, ttl=10, stale_ttl=5, timer=clock)
    cache.set("key", "old")
    clock.advance(11)
    assert in_threads(16, lambda at: cache.get("key")) == ["old"] * 16
    gate.let()
    settle(cache)
    assert gate.asked == 1
    assert cache.get("key") == "new"


def test_a_batch_of_stale_and_absent_keys(
    make: Make, clock: Clock, source: Source, mode: str
) -> None:
    cache = make(loader_many=source.many, ttl=10, stale_ttl=5, timer=clock)
    cache.set_many({"a": "old", "b": "old"})
    clock.advance(11)
    assert call(mode, cache.get_many, ["a", "x", "b"]) == ["old", "'x' v0", "old"]
    settle(cache)
    assert sorted(source.asked) == ["a", "b", "x"]
    assert source.calls == 2
    assert call(mode, cache.get_many, ["a", "x", "b"]) == ["'a' v0", "'x' v0", "'b' v0"]
    assert sorted(source.asked) == ["a", "b", "x"]


def test_a_stale_value_of_a_tier_is_refreshed_too(
    make: Make, store: Counting, clock: Clock, source: Source, mode: str
) -> None:
    policy = Policy(ttl=LONG, stale_while_revalidate=LONG)
    make(tiers=[store], policy=policy, timer=clock).set("key", "old")
    clock.advance(LONG + 1)
    cache = make(tiers=[store], policy=policy, timer=clock, loader=source.one)
    assert call(mode, cache.get, "key") == "old"
    settle(cache)
    assert source.asked == ["key"]
    assert call(mode, cache.get, "key") == "'key' v0"
    assert counts(cache, REVALIDATED, "loads") == (1, 1)
    assert source.asked == ["key"]


def test_what_another_process_has_refreshed_is_not_loaded(
    make: Make, store: Counting, clock: Clock, source: Source, mode: str
) -> None:
    policy = Policy(ttl=LONG, stale_while_revalidate=LONG)
    cache = make(tiers=[store], policy=policy, timer=clock, loader=source.one)
    cache.set("key", "old")
    clock.advance(LONG + 1)
    make(tiers=[store], policy=policy, timer=clock).set("key", "of another")
    assert call(mode, cache.get, "key") == "old"
    settle(cache)
    assert call(mode, cache.get, "key") == "of another"
    assert source.asked == []


def test_a_refresh_reaches_every_tier(
    make: Make, store_at: Open, clock: Clock, source: Source
) -> None:
    tiers = [store_at("a"), store_at("b")]
    policy = Policy(ttl=LONG, stale_while_revalidate=LONG)
    cache = make(tiers=tiers, policy=policy, timer=clock, loader=source.one)
    cache.set("key", "old")
    clock.advance(LONG + 1)
    assert cache.get("key") == "old"
    settle(cache)
    for tier in tiers:
        assert make(tiers=[tier], policy=policy, timer=clock).get("key") == "'key' v0"


def test_what_has_gone_meanwhile_is_gone(
    make: Make, store: Counting, clock: Clock, mode: str
) -> None:
    source = Source("key")
    policy = Policy(ttl=LONG, stale_while_revalidate=LONG)
    cache = make(tiers=[store], policy=policy, timer=clock, loader=source.one)
    cache.set("key", "old")
    clock.advance(LONG + 1)
    assert call(mode, cache.get, "key") == "old"
    settle(cache)
    assert call(mode, cache.get, "key") is None
    assert store.tier.get_many([b"key"]) == [None]


def test_a_refresh_without_a_loader_changes_nothing(make: Make, clock: Clock, mode: str) -> None:
    cache = make(ttl=10, stale_ttl=5, timer=clock)
    cache.set("key", "old")
    clock.advance(11)
    for _ in range(3):
        found = call(mode, cache.get, "key")
        settle(cache)
        assert found in ("old", None)
    clock.advance(5)
    assert call(mode, cache.get, "key") is None


# --- where loading it anew fails


def failing(source: Source) -> None:
    source.failing = LookupError("down")


def test_a_refresh_that_fails_is_tried_again_after_a_pause(
    make: Make, clock: Clock, source: Source, mode: str
) -> None:
    policy = Policy(ttl=10, stale_while_revalidate=100, retry=3)
    cache = make(loader=source.one, policy=policy, timer=clock)
    call(mode, cache.get, "key")
    failing(source)
    clock.advance(11)
    for _ in range(5):
        assert call(mode, cache.get, "key") == "'key' v0"
        settle(cache)
    assert source.calls == 2
    assert counts(cache, REVALIDATED, ERROR, "load_errors") == (5, 0, 1)
    clock.advance(3.001)
    for _ in range(5):
        assert call(mode, cache.get, "key") == "'key' v0"
        settle(cache)
    assert source.calls == 3
    source.failing, source.version = None, 1
    clock.advance(3.001)
    call(mode, cache.get, "key")
    settle(cache)
    assert call(mode, cache.get, "key") == "'key' v1"


@pytest.mark.parametrize("tiered", [False, True])
def test_an_old_value_stands_in_for_an_error(
    make: Make, store: Counting, clock: Clock, source: Source, mode: str, tiered: bool
) -> None:
    policy = Policy(ttl=10, stale_if_error=100, retry=3)
    tiers = [store] if tiered else []
    cache = make(loader=source.one, policy=policy, timer=clock, tiers=tiers)
    call(mode, cache.get, "key")
    failing(source)
    clock.advance(11)
    if tiered:
        cache.l0.clear()
    for _ in range(5):
        assert call(mode, cache.get, "key") == "'key' v0"
    if not tiered:
        assert source.calls == 2, "the loader was not left alone"
        assert counts(cache, REVALIDATED, ERROR, "load_errors") == (0, 5, 1)
    assert counts(cache, REVALIDATED, ERROR)[0] == 0
    assert counts(cache, ERROR) == (5,)
    clock.advance(3.001)
    source.failing, source.version = None, 1
    assert call(mode, cache.get, "key") == "'key' v1", "it was not loaded at once"


def test_not_beyond_its_bound(make: Make, clock: Clock, source: Source, mode: str) -> None:
    cache = make(loader=source.one, policy=Policy(ttl=10, stale_if_error=100), timer=clock)
    call(mode, cache.get, "key")
    failing(source)
    clock.advance(109.9)
    assert call(mode, cache.get, "key") == "'key' v0"
    clock.advance(0.2)
    with pytest.raises(LookupError, match="down"):
        call(mode, cache.get, "key")


def test_both(make: Make, clock: Clock, source: Source, mode: str) -> None:
    policy = Policy(ttl=10, stale_while_revalidate=5, stale_if_error=20, retry=1)
    cache = make(loader=source.one, policy=policy, timer=clock)
    call(mode, cache.get, "key")
    failing(source)
    clock.advance(12)
    assert call(mode, cache.get, "key") == "'key' v0"
    settle(cache)
    assert counts(cache, REVALIDATED, ERROR, "loads") == (1, 0, 2)
    clock.advance(5)
    assert call(mode, cache.get, "key") == "'key' v0"
    assert counts(cache, REVALIDATED, ERROR, "loads") == (1, 1, 3)
    clock.advance(14)
    with pytest.raises(LookupError):
        call(mode, cache.get, "key")


def test_some_of_a_batch_are_old(
    make: Make, store: Counting, clock: Clock, source: Source, mode: str
) -> None:
    policy = Policy(ttl=10, stale_if_error=LONG)
    cache = make(loader_many=source.many, policy=policy, timer=clock, tiers=[store])
    cache.set_many({"old": 1, "below": 2})
    clock.advance(11)
    cache.l0.delete("below")
    cache.set("new", 3)
    failing(source)
    assert call(mode, cache.get_many, ["old", "new", "below"]) == [1, 3, 2]
    assert counts(cache, ERROR, "load_errors") == (2, 2)
    with pytest.raises(LookupError):
        call(mode, cache.get_many, ["old", "absent"])


def test_an_old_value_with_tags(
    make: Make, store: Counting, clock: Clock, source: Source, mode: str
) -> None:
    policy = Policy(ttl=10, stale_if_error=LONG)
    cache = make(loader=source.one, policy=policy, timer=clock, tiers=[store])
    cache.set("key", "old", tags=["tag"])
    clock.advance(11)
    failing(source)
    for _ in range(2):
        assert call(mode, cache.get, "key") == "old"
        cache.l0.clear()
    cache.invalidate("tag")
    with pytest.raises(LookupError):
        call(mode, cache.get, "key")


def test_a_stale_value_with_tags_is_refreshed(
    make: Make, store: Counting, clock: Clock, source: Source, mode: str
) -> None:
    cache = make(loader=source.one, ttl=10, stale_ttl=LONG, timer=clock, tiers=[store])
    cache.set("key", "old", tags=["tag"])
    cache.l0.clear()
    clock.advance(11)
    assert call(mode, cache.get, "key") == "old"
    settle(cache)
    assert call(mode, cache.get, "key") == "'key' v0"
    assert source.calls == 1


def test_a_value_too_old_for_this_caches_policy(
    make: Make, store: Counting, clock: Clock, source: Source, mode: str
) -> None:
    generous = Policy(ttl=LONG, stale_while_revalidate=LONG)
    make(tiers=[store], policy=generous, timer=clock).set_many({"a": "old", "b": "old"})
    cache = make(tiers=[store], policy=Policy(ttl=LONG), timer=clock, loader=source.one)
    assert call(mode, cache.get, "a") == "old"
    clock.advance(LONG + 1)
    assert call(mode, cache.get, "a") == "'a' v0"
    assert call(mode, cache.get, "b") == "'b' v0"
    assert counts(cache, REVALIDATED, "early_refreshes") == (0, 0)
