"""TieredCache: namespaces and tags, which one write in each tier makes void."""

from __future__ import annotations

from typing import Any

import pytest

from cachecore.tiers import TierError, Wrapper
from cachecore.tiers.base import Item
from support import Clock
from tiers.caches import NOW, Counting, Make, Open, Source, call, counts, refused

SECOND = 1.0  # how long a generation that was read is believed


@pytest.fixture(params=["mmap", "redis"])
def shared(request: pytest.FixtureRequest) -> Any:
    """A tier that two caches use."""
    return request.getfixturevalue({"mmap": "store", "redis": "redis_tier"}[request.param])


# --- this process


def test_a_namespace_is_void_at_once(make: Make, shared: Counting, mode: str) -> None:
    cache = make(tiers=[shared], namespace="ns")
    cache.set_many({key: key for key in range(100)})
    shared.told()
    call(mode, cache.invalidate, "ns")
    assert shared.told() == []  # a generation, and no key
    assert [call for call, _ in shared.calls] == []
    assert cache.get_many(range(100)) == [None] * 100
    assert refused(cache) == {"other generation": 100}
    cache.set("key", "after")
    cache.l0.clear()
    assert call(mode, cache.get, "key") == "after"


def test_one_write_whatever_there_is(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store], namespace="ns")
    cache.set_many({key: key for key in range(500)}, tags=["tag"])
    for name in ("tag", "ns"):
        store.calls.clear()
        call(mode, cache.invalidate, name)
        assert [call for call, _ in store.calls] == ["set"]


def test_a_tag_is_void_at_once(make: Make, shared: Counting, mode: str) -> None:
    cache = make(tiers=[shared], namespace="ns")
    call(mode, cache.set, "a", 1, tags=["red", "round"])
    call(mode, cache.set_many, {"b": 2, "c": 3}, tags=["red"])
    call(mode, cache.set, "d", 4, tags=["blue"])
    call(mode, cache.set, "e", 5)
    assert call(mode, cache.get_many, list("abcde")) == [1, 2, 3, 4, 5]
    call(mode, cache.invalidate, "red")
    for _ in range(2):
        assert call(mode, cache.get_many, list("abcde")) == [None, None, None, 4, 5]
        cache.l0.clear()
    call(mode, cache.set, "a", 6, tags=["red", "round"])
    for _ in range(2):
        assert call(mode, cache.get, "a") == 6
        cache.l0.clear()
    call(mode, cache.invalidate, "round")
    assert call(mode, cache.get_many, list("abcde")) == [None, None, None, 4, 5]


def test_tags_climb_with_their_values(make: Make, store_at: Open, mode: str) -> None:
    upper, lower = store_at("upper"), store_at("lower")
    make(tiers=[lower]).set("key", 1, tags=["tag", "other"])
    cache = make(tiers=[upper, lower])
    assert call(mode, cache.get, "key") == 1
    assert upper.told()[-1] == ("set", [b"key"])
    cache.l0.clear()
    assert call(mode, cache.get, "key") == 1
    assert lower.told()[-1][0] == "get"
    call(mode, cache.invalidate, "other")
    assert call(mode, cache.get, "key") is None


def test_tags_without_tiers(make: Make, mode: str) -> None:
    cache = make()
    cache.set("a", 1, tags=["tag"])
    cache.set("b", 2)
    assert call(mode, cache.get_many, ["a", "b"]) == [1, 2]
    call(mode, cache.invalidate, "tag")
    assert call(mode, cache.get_many, ["a", "b"]) == [None, 2]
    call(mode, cache.invalidate, "")
    assert call(mode, cache.get_many, ["a", "b"]) == [None, None]


def test_hits_of_values_with_tags(make: Make, store: Counting, clock: Clock) -> None:
    cache = make(tiers=[store], timer=clock, ttl=10)
    value = [1]
    cache.set("key", value, tags=["tag"])
    store.told()
    assert all(cache.get("key") is value for _ in range(10))
    stats = cache.l0.stats()
    assert (stats.hits, stats.misses) == (10, 0)
    assert store.told() == []
    clock.advance(10.001)
    assert cache.get("key") is None


def test_a_tag_of_nobodys_and_names_that_are_none(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store], namespace="ns")
    cache.set("key", 1)
    call(mode, cache.invalidate, "nobody's")
    assert cache.get("key") == 1
    for name in (None, 5, b"ns", ["ns"]):
        with pytest.raises(TypeError, match="name must be a str"):
            call(mode, cache.invalidate, name)
    assert cache.get("key") == 1


# --- another cache over the same tier


def test_another_cache_notices_within_a_second(
    make: Make, shared: Counting, clock: Clock, mode: str
) -> None:
    ours, theirs = (make(tiers=[shared], namespace="ns", timer=clock) for _ in range(2))
    for cache in (ours, theirs):
        cache.set_many({"a": 1, "b": 2})
        cache.set("tagged", 3, tags=["tag"])
        assert cache.get_many(["a", "b", "tagged"]) == [1, 2, 3]
    clock.advance(0.01)
    call(mode, ours.invalidate, "tag")
    clock.advance(SECOND)
    theirs.l0.delete("tagged")
    assert call(mode, theirs.get_many, ["a", "tagged"]) == [1, None]
    call(mode, ours.invalidate, "ns")
    clock.advance(SECOND)
    assert call(mode, theirs.get, "none") is None  # asks the tier
    assert len(theirs.l0) == 0
    assert call(mode, theirs.get_many, ["a", "b"]) == [None, None]


def test_they_do_not_answer_each_other(
    make: Make, shared: Counting, store_at: Open, clock: Clock
) -> None:
    """Who notices an invalidation makes none of it: or two would go on for ever."""
    private = store_at("private")
    caches = [make(tiers=[private, shared], namespace="ns", timer=clock) for _ in range(3)]
    for turn, name in enumerate(["ns", "tag", "ns"]):
        for cache in caches:
            cache.set("key", turn, tags=["tag"])
        caches[turn].invalidate(name)
        for _ in range(4):
            clock.advance(SECOND)
            for cache in caches:
                cache.l0.clear()
                cache.get("key")
        writes = [call for call, _ in private.calls + shared.calls].count("set")
        caches[0].set("key", turn, tags=["tag"])
        clock.advance(SECOND)
        for _ in range(3):
            clock.advance(SECOND)
            for cache in caches:
                assert cache.get("key") == turn
                cache.l0.clear()
        assert [call for call, _ in private.calls + shared.calls].count("set") == writes + 2


def test_what_was_set_after_the_news_stays(make: Make, store: Counting, clock: Clock) -> None:
    ours, theirs = (make(tiers=[store], namespace="ns", timer=clock) for _ in range(2))
    theirs.get("key")
    ours.invalidate("ns")
    clock.advance(SECOND)
    source = Source()
    theirs.set("key", "after")
    assert source.calls == 0
    for _ in range(3):
        clock.advance(SECOND)
        assert theirs.get("key") == ours.get("key") == "after"
        theirs.l0.clear(), ours.l0.clear()


# --- what does not meet


def test_namespaces_do_not_meet(make: Make, shared: Counting, mode: str) -> None:
    names = ["", "a", "ab", "a:b", "é"]
    caches = {name: make(tiers=[shared], namespace=name) for name in names}
    for name, cache in caches.items():
        cache.set("b:key", name)
        cache.set("key", name, tags=["tag"])
    for cache in caches.values():
        cache.l0.clear()
    for name, cache in caches.items():
        # "a" with "b:key" and "a:b" with "key" have one place in a tier, and are two keys.
        assert cache.get("b:key") in (name, None)
        assert cache.get("key") in (name, None)
    call(mode, caches["ab"].invalidate, "ab")
    call(mode, caches["é"].invalidate, "tag")
    assert caches["ab"].get("key") is None
    assert caches["é"].get("key") is None
    assert caches["é"].get("b:key") == "é"
    assert caches[""].get("key") == ""
    assert caches["a:b"].get("key") == "a:b"


def test_a_tag_of_one_namespace_is_none_of_another(make: Make, store: Counting) -> None:
    ours, theirs = (make(tiers=[store], namespace=name) for name in "ab")
    for cache in (ours, theirs):
        cache.set("key", 1, tags=["tag"])
    ours.invalidate("tag")
    assert (ours.get("key"), theirs.get("key")) == (None, 1)
    theirs.invalidate("a")  # a tag of theirs, if at all
    ours.set("key", 2)
    assert ours.get("key") == 2


# --- a generation that is lost


@pytest.mark.parametrize("what", ["namespace", "tag"])
def test_a_generation_that_the_tier_has_lost(
    make: Make, shared: Counting, clock: Clock, mode: str, what: str
) -> None:
    cache = make(tiers=[shared], namespace="ns", timer=clock)
    cache.set("key", 1, tags=["tag"])
    cache.set("other", 2)
    names = [key for key in shared.tier.scan(b"ns:\0") if (b"tag" in key) == (what == "tag")]
    assert len(names) == 1
    shared.tier.delete_many(names)
    clock.advance(SECOND)
    cache.l0.delete("key")
    assert call(mode, cache.get, "key") is None
    assert call(mode, cache.get, "other") == 2  # here; that the tier is empty makes nothing void
    cache.l0.clear()
    assert call(mode, cache.get, "other") == (2 if what == "tag" else None)
    cache.set("key", 3, tags=["tag"])
    cache.l0.clear()
    assert call(mode, cache.get, "key") == 3


def test_a_new_process_over_a_lost_generation(make: Make, store: Counting) -> None:
    make(tiers=[store]).set("key", 1)
    store.tier.delete_many([b"\0generation"])
    cache = make(tiers=[store])
    assert cache.get("key") is None
    assert refused(cache) == {"other generation": 1}


@pytest.mark.parametrize("junk", [b"", b"1234567", b"123456789"])
def test_a_generation_that_is_none(make: Make, store: Counting, clock: Clock, junk: bytes) -> None:
    cache = make(tiers=[store], timer=clock)
    cache.set("key", 1)
    store.tier.set_many([Item(b"\0generation", junk)])
    clock.advance(SECOND)
    cache.l0.clear()
    assert cache.get("key") is None


class ReadOnly(Wrapper):
    """As a replica is."""

    def add(self, item: Item) -> bool:
        raise TierError("read only")

    def set_many(self, items: Any) -> None:
        raise TierError("read only")

    async def aadd(self, item: Item) -> bool:
        return self.add(item)

    async def aset_many(self, items: Any) -> None:
        self.set_many(items)


def test_a_tier_that_cannot_be_given_a_generation(
    make: Make, store: Counting, source: Source, mode: str
) -> None:
    cache = make(tiers=[ReadOnly(store)], loader=source.one)
    assert call(mode, cache.get, "key") == "'key' v0"
    assert call(mode, cache.get_many, ["key", "other"]) == ["'key' v0", "'other' v0"]
    assert cache.stats().tiers[0].errors > 0
    assert counts(cache, "loads") == (2,)


def test_invalidation_of_a_tier_that_refuses(
    make: Make, store: Counting, clock: Clock, mode: str
) -> None:
    tier = ReadOnly(store)
    make(tiers=[store], namespace="ns").set("key", 1, tags=["tag"])
    cache = make(tiers=[tier], namespace="ns", timer=clock)
    assert call(mode, cache.get, "key") == 1
    call(mode, cache.invalidate, "tag")
    assert call(mode, cache.get, "key") is None
    call(mode, cache.invalidate, "ns")
    assert call(mode, cache.get, "key") is None
    strict = make(tiers=[tier], namespace="ns", strict=True)
    with pytest.raises(TierError, match="not every tier was told"):
        call(mode, strict.invalidate, "ns")
    assert strict.get("key") is None


def test_a_clock_of_seconds(make: Make, store: Counting, clock: Clock) -> None:
    cache = make(tiers=[store], timer=clock)
    assert cache.now_ms() == NOW * 1000
    clock.advance(0.0005)
    assert cache.now_ms() in (NOW * 1000, NOW * 1000 + 1)
