"""TieredCache: many look-ups at once, with one call of each tier and one of the loader."""

from __future__ import annotations

from typing import Any

import pytest

from cachecore import MISSING
from tiers.caches import Counting, Make, Open, Source, call, counts


def test_aligned_with_the_keys(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store])
    cache.set_many({"a": 1, "b": 2})
    assert call(mode, cache.get_many, ["b", "none", "a", "b", "none"]) == [2, None, 1, 2, None]
    assert call(mode, cache.get_many, ("b", "none"), default=0) == [2, 0]
    assert call(mode, cache.get_many, []) == []
    assert call(mode, cache.get_many, ()) == []


@pytest.mark.parametrize(
    "keys",
    [["a", "b"], ("a", "b"), {"a": 1, "b": 2}, {"a": 1, "b": 2}.keys()],
    ids=lambda keys: type(keys).__name__,
)
def test_keys_of_any_iterable(make: Make, mode: str, keys: Any) -> None:
    cache = make(loader=lambda key: key * 2)
    assert call(mode, cache.get_many, keys) == ["aa", "bb"]


def test_a_generator_of_keys(make: Make, mode: str) -> None:
    cache = make(loader=lambda key: key * 2)
    assert call(mode, cache.get_many, (key for key in "abca")) == ["aa", "bb", "cc", "aa"]


@pytest.mark.parametrize("keys", ["abc", b"abc", 5, None])
def test_what_is_no_batch(make: Make, mode: str, keys: Any) -> None:
    cache = make(loader=lambda key: key)
    for method in (cache.get_many, cache.delete_many):
        with pytest.raises(TypeError, match="keys must be an iterable"):
            call(mode, method, keys)


def test_an_iterable_that_fails_changes_nothing(make: Make, mode: str) -> None:
    cache = make(loader=lambda key: key)

    def keys() -> Any:
        yield "a"
        raise KeyError("keys")

    for method in (cache.get_many, cache.delete_many):
        with pytest.raises(KeyError):
            call(mode, method, keys())
    assert cache.stats().loads == 0


def test_one_call_of_each_tier_and_of_the_loader(make: Make, store_at: Open, mode: str) -> None:
    first, second = store_at("first"), store_at("second")
    source = Source()
    cache = make(tiers=[first, second], loader_many=source.many)
    make(tiers=[second]).set_many(dict.fromkeys("cd", "second"))
    make(tiers=[first]).set_many(dict.fromkeys("b", "first"))
    cache.set("a", "here")
    first.told(), second.told()
    found = call(mode, cache.get_many, list("abcdefa"))
    assert found == ["here", "first", "second", "second", "'e' v0", "'f' v0", "here"]
    assert first.told() == [
        ("get", [b"b", b"c", b"d", b"e", b"f"]), ("set", [b"c", b"d"]), ("set", [b"e", b"f"]),
    ]  # fmt: skip
    assert second.told() == [("get", [b"c", b"d", b"e", b"f"]), ("set", [b"e", b"f"])]
    assert (source.calls, source.asked) == (1, ["e", "f"])
    assert [(tier.hits, tier.misses) for tier in cache.stats().tiers] == [(1, 4), (2, 2)]
    assert counts(cache, "loads") == (2,)


def test_a_thousand_keys_over_redis(make: Make, redis_tier: Counting, mode: str) -> None:
    source = Source()
    make(tiers=[redis_tier]).set_many({key: str(key) for key in range(150)})
    cache = make(2000, tiers=[redis_tier], loader_many=source.many)
    for key in range(150, 1000):
        cache.l0[key] = str(key)
    redis_tier.told()
    assert call(mode, cache.get_many, range(1100))[:1000] == [str(key) for key in range(1000)]
    (get, asked), (put, given) = redis_tier.told()
    assert (get, len(asked), put, len(given)) == ("get", 250, "set", 100)
    assert source.calls == 1


def test_a_key_twice_is_asked_for_once(make: Make, store: Counting, mode: str) -> None:
    source = Source("absent")
    cache = make(tiers=[store], loader_many=source.many)
    keys = ["a", "absent", "a", "b", "absent", "a"]
    found = call(mode, cache.get_many, keys, 0)
    assert found == ["'a' v0", 0, "'a' v0", "'b' v0", 0, "'a' v0"]
    assert source.asked == ["a", "absent", "b"]
    assert store.told() == [("get", [b"a", b"absent", b"b"]), ("set", [b"a", b"b"])]


def test_more_keys_than_there_is_room_for(make: Make, store: Counting, mode: str) -> None:
    source = Source()
    cache = make(3, tiers=[store], loader_many=source.many)
    keys = list(range(100))
    expected = [source.value(key) for key in keys]
    assert call(mode, cache.get_many, keys) == expected
    assert call(mode, cache.get_many, keys) == expected
    assert source.calls == 1
    assert len(cache.l0) == 3


def test_one_loader_for_many_keys(make: Make, mode: str) -> None:
    source = Source("c")
    cache = make(loader=source.one)
    assert call(mode, cache.get_many, list("abcab"), 0) == [
        "'a' v0", "'b' v0", 0, "'a' v0", "'b' v0",
    ]  # fmt: skip
    assert source.asked == ["a", "b", "c"]


def test_look_ups_are_hits_or_misses(make: Make, store: Counting, mode: str) -> None:
    cache = make(tiers=[store], loader=lambda key: MISSING if key == 7 else key)
    cache.set_many({1: 1, 2: 2})
    call(mode, cache.get_many, [1, 2, 3, 3, 7])
    stats = cache.l0.stats()
    assert (stats.hits, stats.misses) == (2, 3)
    cache.get_many(range(8))
    assert cache.l0.stats().hits + cache.l0.stats().misses == 13
