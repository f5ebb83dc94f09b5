"""Each method of Cache as its signature and its docstring promise it, beyond what a dict does."""

from __future__ import annotations

import copy
import gc
import inspect
import random
import weakref
from collections.abc import Mapping, MutableMapping
from typing import Any

import pytest

from cachecore import MISSING, Cache, CacheStats
from support import MakeCache, check


def test_get_and_peek_return_the_value_or_the_default(make: MakeCache) -> None:
    cache = make(8)
    value = object()
    cache["a"] = value
    for look_up in (cache.get, cache.peek):
        assert look_up("a") is look_up("a", 1) is value
        assert look_up("b") is None
        assert look_up("b", MISSING) is MISSING
        assert look_up("b", default=3) == 3
        assert look_up(key="b", default=3) == 3


def test_missing_is_one_false_object() -> None:
    assert not MISSING
    assert repr(MISSING) == "MISSING"
    assert copy.deepcopy(MISSING) is copy.copy(MISSING) is MISSING


def test_a_value_may_be_none(make: MakeCache) -> None:
    cache = make(8)
    cache["a"] = None
    assert "a" in cache
    assert cache.get("a", 1) is cache.peek("a", 1) is cache["a"] is cache.setdefault("a", 1) is None
    assert cache.get_many(["a"], 1) == [None]
    assert cache.get_or_set("a", lambda: 1) is None
    assert cache.pop("a", 1) is None


def test_keys_of_several_types_that_are_equal_are_one_key(make: MakeCache) -> None:
    class Text(str):
        pass

    class Bytes(bytes):
        pass

    class Int(int):
        pass

    for same in ([1, 1.0, True, Int(1)], ["k", Text("k")], [b"k", Bytes(b"k")], [2**70, 2.0**70]):
        for stored in same:
            cache = make(8)
            cache[stored] = "value"
            for asked in same:
                assert cache[asked] == "value"
                assert cache.get_many([asked] * 40) == ["value"] * 40
                cache[asked] = "value"
            assert len(cache) == 1
            assert next(iter(cache)) is stored  # an overwrite keeps the first key, as in a dict


def test_keys_that_look_alike_are_not_equal(make: MakeCache) -> None:
    keys: list[Any] = [1, "1", b"1", (1,), 1.5, None, "", b"", 0, -1, -2, 2**61 - 1, 2**61, 2**64]
    keys += [-(2**61), 2**30, 2**60, -(2**30), "é", "e\u0301", "\u20ac", "\U0001f600", frozenset()]
    cache = make(100)
    for key in keys:
        cache[key] = ("value of", key)
    assert len(cache) == len(keys)
    for key in keys:
        assert cache[key] == ("value of", key)


def test_nan_is_found_by_identity(make: MakeCache) -> None:
    cache = make(8)
    nan = float("nan")
    cache[nan] = 1
    assert cache[nan] == 1
    assert nan in cache
    assert float("nan") not in cache


def test_delete_says_whether_the_key_was_there(make: MakeCache) -> None:
    cache = make(8)
    cache["a"] = 1
    assert cache.delete("a") is True
    assert cache.delete("a") is False
    with pytest.raises(KeyError, match="a"):
        del cache["a"]


def test_setdefault_returns_what_is_kept(make: MakeCache) -> None:
    cache = make(8)
    first: list[int] = []
    assert cache.setdefault("a", first) is first
    assert cache.setdefault("a", []) is first
    assert cache.setdefault("b") is None


def test_popitem_takes_the_last_in_table_order(make: MakeCache) -> None:
    cache = make(100)
    cache.update({i: -i for i in range(50)})
    while cache:
        last = list(cache.items())[-1]
        assert cache.popitem() == last
        assert last[0] not in cache
    with pytest.raises(KeyError):
        cache.popitem()


def test_a_subclass_may_have_an_init_attributes_and_missing() -> None:
    class Squares(Cache[int, int]):
        def __init__(self, name: str) -> None:
            super().__init__(16, name=name)
            self.asked: list[int] = []

        def __missing__(self, key: int) -> int:
            self.asked.append(key)
            return key * key

    squares = Squares("squares")
    assert squares[3] == 9
    assert squares.get(3) is None
    assert 3 not in squares
    squares[3] = 10
    assert squares[3] == 10
    assert squares.asked == [3]
    assert squares.name == "squares"
    twin = squares.copy()
    assert type(twin) is Squares
    assert twin == {3: 10}
    assert twin.asked == [3]
    assert twin[5] == 25
    check(squares)
    check(twin)


def test_fromkeys_builds_the_class_it_is_called_on() -> None:
    class Small(Cache[Any, Any]):
        def __init__(self) -> None:
            super().__init__(16)

    small = Small.fromkeys("abc", 1)
    assert type(small) is Small
    assert small == {"a": 1, "b": 1, "c": 1}
    with pytest.raises(ValueError, match="maxsize"):
        Cache.fromkeys("abc")


def test_an_object_whose_init_never_ran_is_harmless() -> None:
    bare = Cache.__new__(Cache)
    assert len(bare) == 0
    assert bare.get(1) is None
    assert list(bare) == []
    for use in (lambda: bare.set(1, 2), lambda: bare.resize(5)):
        with pytest.raises(RuntimeError, match="__init__"):
            use()
    bare.clear()


def test_init_runs_once(make: MakeCache) -> None:
    cache = make(4)
    cache[1] = 1
    with pytest.raises(RuntimeError):
        cache.__init__(8)  # type: ignore[misc]
    assert cache == {1: 1}
    assert cache.maxsize == 4


def test_init_that_is_called_by_its_own_argument_runs_once() -> None:
    class Maxsize:
        def __index__(self) -> int:
            cache.__init__(5)  # type: ignore[misc]
            cache["x"] = "value"
            return 10

    cache: Cache[str, str] = Cache.__new__(Cache)
    with pytest.raises(RuntimeError, match="already"):
        cache.__init__(Maxsize())  # type: ignore[misc]
    assert cache == {"x": "value"}
    assert cache.maxsize == 5
    check(cache)


def test_it_is_a_mutable_mapping_and_generic() -> None:
    cache: Cache[str, int] = Cache[str, int](4)
    assert isinstance(cache, MutableMapping)
    assert isinstance(cache, Mapping)
    assert issubclass(Cache, MutableMapping)
    assert type(cache) is Cache
    assert Cache[str, int].__args__ == (str, int)  # type: ignore[attr-defined]
    cache["a"] = 1
    match cache:
        case {"a": number}:
            assert number == 1
        case _:
            pytest.fail("a Cache is a mapping to match statements")


def test_it_can_be_referred_to_weakly() -> None:
    cache: Cache[Any, Any] = Cache(4)
    heard: list[object] = []
    reference = weakref.ref(cache, heard.append)
    assert reference() is cache
    del cache
    gc.collect()
    assert reference() is None
    assert heard == [reference]


def test_get_or_set_calls_the_factory_on_a_miss_only(make: MakeCache) -> None:
    cache = make(8)
    calls: list[int] = []

    def factory() -> int:
        calls.append(len(calls))
        return len(calls)

    assert [cache.get_or_set("a", factory) for _ in range(3)] == [1, 1, 1]
    assert calls == [0]
    assert cache.get_or_set("b", factory) == 2


@pytest.mark.parametrize("error", [ValueError, KeyError, KeyboardInterrupt, SystemExit])
def test_an_exception_of_the_factory_is_passed_on_and_not_kept(
    make: MakeCache, error: type[BaseException]
) -> None:
    cache = make(8)

    def fail() -> None:
        raise error("no")

    for _ in range(2):
        with pytest.raises(error, match="no"):
            cache.get_or_set("a", fail)
        assert "a" not in cache
    assert cache.get_or_set("a", lambda: 1) == 1


def test_a_factory_may_use_the_cache_and_ask_for_its_own_key(make: MakeCache) -> None:
    cache = make(100)

    def fibonacci(n: int) -> int:
        if n < 2:
            return n
        one: int = cache.get_or_set(n - 1, lambda: fibonacci(n - 1))
        two: int = cache.get_or_set(n - 2, lambda: fibonacci(n - 2))
        return one + two

    assert fibonacci(40) == 102_334_155
    assert cache.get_or_set("own", lambda: cache.get_or_set("own", lambda: 5)) == 5

    def clear_and_compute() -> int:
        cache.clear()
        return 6

    assert cache.get_or_set("after clear", clear_and_compute) == 6
    assert cache == {"after clear": 6}


def test_hottest_ranks_by_frequency(make: MakeCache) -> None:
    cache = make(100)
    cache.update(dict.fromkeys(range(50)))
    for key in (7, 7, 7, 7, 9, 9):
        cache.get(key)
    ranked = cache.hottest(3)
    assert [key for key, _ in ranked[:2]] == [7, 9]
    frequencies = [frequency for _, frequency in ranked]
    assert frequencies == sorted(frequencies, reverse=True)
    assert frequencies[0] - frequencies[1] == 2
    assert len(cache.hottest(1)) == 1
    assert sorted(key for key, _ in cache.hottest(1000)) == list(range(50))
    assert make(4).hottest(5) == []


def test_resize_changes_the_bounds_that_are_given(make: MakeCache) -> None:
    cache = make(100)
    cache.update(dict.fromkeys(range(100), b"x" * 100))
    cache.resize(50)
    assert (cache.maxsize, cache.max_bytes, len(cache)) == (50, None, 50)
    cache.resize(max_bytes=5000)
    assert (cache.maxsize, cache.max_bytes) == (50, 5000)
    assert 0 < cache.stats().bytes <= 5000
    cache.resize(maxsize=200, max_bytes="1MB")
    assert (cache.maxsize, cache.max_bytes) == (200, 2**20)
    cache.update(dict.fromkeys(range(1000)))
    assert len(cache) == 200
    cache.resize(1)
    assert len(cache) == 1
    cache["last"] = 1
    assert cache == {"last": 1}


def test_a_lone_byte_bound_can_be_joined_by_an_entry_bound(make: MakeCache) -> None:
    cache = make(max_bytes="1MB")
    cache.update(dict.fromkeys(range(100)))
    assert cache.maxsize is None
    cache.resize(10)
    assert len(cache) == 10


def test_clear_empties_and_the_counts_go_on(make: MakeCache) -> None:
    heard: list[object] = []
    cache = make(8, max_bytes=10_000, on_evict=lambda *leaver: heard.append(leaver))
    cache.update(a=1, b=2)
    cache.get("a")
    cache.clear()
    stats = cache.stats()
    assert (len(cache), stats.bytes, stats.inserts, stats.deletions, stats.hits) == (0, 0, 2, 2, 1)
    assert heard == []
    cache["a"] = 1
    assert cache == {"a": 1}


def test_stats_are_a_named_tuple_in_the_documented_order() -> None:
    assert CacheStats._fields == (
        "hits", "misses", "inserts", "evictions", "rejections", "refused", "expirations",
        "deletions", "entries", "bytes",
    )  # fmt: skip
    fresh = Cache[Any, Any](1).stats()
    assert isinstance(fresh, CacheStats)
    assert fresh == (0,) * 10
    assert fresh.hit_ratio == 0.0


SIGNATURES = {
    "get": "(key, default=None)",
    "peek": "(key, default=None)",
    "set": "(key, value, *, ttl=None, cost=None)",
    "get_many": "(keys, default=None)",
    "set_many": "(items, *, ttl=None)",
    "get_or_set": "(key, factory, *, ttl=None)",
    "gather": "(keys, out)",
    "touch": "(key, ttl)",
    "get_ttl": "(key)",
    "delete": "(key)",
    "delete_many": "(keys)",
    "expire": "()",
    "resize": "(maxsize=None, max_bytes=None)",
    "hottest": "(n)",
    "stats": "()",
    "copy": "()",
    "clear": "()",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_methods_say_how_they_are_called_and_what_they_do(name: str) -> None:
    method = getattr(Cache(1), name)
    assert str(inspect.signature(method)) == SIGNATURES[name]
    assert method.__doc__


def test_the_last_set_can_be_read_until_the_next_insertion(make: MakeCache) -> None:
    rng = random.Random(5)
    for maxsize in (1, 2, 3, 7, 100):
        cache = make(maxsize)
        for _ in range(2000):
            key = rng.randrange(maxsize * 3)
            cache[key] = value = object()
            assert cache.peek(key) is value
            if rng.random() < 0.5:
                cache.get(rng.randrange(maxsize * 3))
            assert cache[key] is value
            assert len(cache) <= maxsize
