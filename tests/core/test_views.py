"""All of a cache at once: iteration, views, equality, repr, copies."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from cachecore import Cache
from support import Clock, MakeCache, check


def test_iteration_gives_what_peek_gives(make: MakeCache) -> None:
    cache = make(1000)
    cache.update({i: str(i) for i in range(1000)})
    assert sorted(cache) == sorted(cache.keys()) == list(range(1000))
    assert list(zip(cache.keys(), cache.values(), strict=True)) == list(cache.items())
    assert all(cache.peek(key) is value for key, value in cache.items())


@pytest.mark.parametrize("change", ["set", "delete", "clear", "pop", "popitem", "resize"])
@pytest.mark.parametrize("view", ["__iter__", "keys", "values", "items"])
def test_iteration_during_a_change_raises(make: MakeCache, view: str, change: str) -> None:
    cache = make(100)
    cache.update(dict.fromkeys(range(50)))
    changes = {
        "set": lambda: cache.set("new", 1),
        "delete": lambda: cache.delete(7),
        "clear": cache.clear,
        "pop": lambda: cache.pop(8),
        "popitem": cache.popitem,
        "resize": lambda: cache.resize(10),
    }
    iterator = iter(getattr(cache, view)())
    next(iterator)
    changes[change]()
    with pytest.raises(RuntimeError, match="changed"):
        next(iterator)
    with pytest.raises(StopIteration):
        next(iterator)


def test_overwriting_and_looking_up_do_not_disturb_iteration(make: MakeCache) -> None:
    cache = make(100)
    cache.update(dict.fromkeys(range(50), 0))
    for key in cache:
        cache[key] = 1
        cache.get(key)
        cache.get("absent")
    assert set(cache.values()) == {1}


def test_views_are_live_and_sets(make: MakeCache) -> None:
    cache = make(8)
    keys, items, values = cache.keys(), cache.items(), cache.values()
    cache.update(a=1, b=2)
    assert len(keys) == len(items) == len(values) == 2
    assert keys & {"a", "z"} == {"a"}
    assert items - {("a", 1)} == {("b", 2)}
    assert keys | {"z"} == {"a", "b", "z"}
    assert ("a", 1) in items
    assert ("a", 2) not in items
    assert "a" in keys
    assert 2 in values
    assert 3 not in values


def test_equality_is_that_of_mappings(make: MakeCache) -> None:
    cache, other = make(8), make(100)
    for mapping in (cache, other):
        mapping.update(a=1, b=[2])
    assert cache == other == {"a": 1, "b": [2]}
    assert {"b": [2], "a": 1} == cache
    other["c"] = 3
    assert cache != other
    assert cache != {"a": 1}
    assert cache != [("a", 1), ("b", [2])]
    with pytest.raises(TypeError, match="unhashable"):
        hash(cache)


def test_repr_is_a_dicts_and_bounded(make: MakeCache) -> None:
    cache = make(5000)
    cache["a"] = [1]
    assert repr(cache) == "{'a': [1]}"
    cache["a"] = cache
    assert repr(cache) == "{'a': {...}}"
    cache.clear()
    cache.update(dict.fromkeys(range(3000)))
    assert 1000 <= repr(cache).count("None") <= 1001
    assert "2000 more" in repr(cache)


def test_copy_keeps_configuration_and_lifetimes(clock: Clock, make: MakeCache) -> None:
    evicted: list[tuple[Any, Any, str]] = []
    cache = make(
        8, max_bytes=10_000, ttl=10, ttl_jitter=0.0, getsizeof=len, name="n", timer=clock,
        on_evict=lambda *leaver: evicted.append(leaver),
    )  # fmt: skip
    cache["a"] = "aa"
    cache.set("b", "bb", ttl=math.inf)
    cache.set("c", "cc", ttl=3)
    clock.advance(1)
    for twin in (cache.copy(), copy.copy(cache)):
        assert type(twin) is Cache
        assert twin == cache == {"a": "aa", "b": "bb", "c": "cc"}
        assert (twin.maxsize, twin.max_bytes, twin.ttl, twin.name) == (8, 10_000, 10, "n")
        assert (twin.get_ttl("a"), twin.get_ttl("b"), twin.get_ttl("c")) == (9, None, 2)
        assert twin.stats().bytes == cache.stats().bytes
        assert twin.stats().hits == twin.stats().misses == 0
        twin["a"] = "other"
        twin.update(dict.fromkeys(range(20), ""))
        assert len(twin) == 8
        assert cache == {"a": "aa", "b": "bb", "c": "cc"}
        check(twin)
    assert evicted
    assert {reason for *_, reason in evicted} <= {"evicted", "rejected"}


def test_copy_leaves_out_what_has_expired(clock: Clock, make: MakeCache) -> None:
    cache = make(8, timer=clock)
    cache.set("old", 1, ttl=1)
    cache["new"] = 2
    clock.advance(2)
    assert cache.copy() == {"new": 2}


def test_a_full_copy_holds_the_same_entries(make: MakeCache) -> None:
    cache = make(200)
    for i in range(2000):
        cache[i] = i
    twin = cache.copy()
    assert twin == cache
    assert len(twin) == 200
    check(twin)
