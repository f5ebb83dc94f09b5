"""What a type checker must conclude about Cache; mypy reads this file, nobody runs it."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, MutableMapping, ValuesView
from typing import Any, Literal, assert_type

import numpy as np
from numpy.typing import NDArray

from cachecore import MISSING, Cache, CacheStats
from cachecore.sentinel import Missing


def constructing() -> None:
    cache: Cache[str, int] = Cache(100)
    assert_type(Cache[str, int](max_bytes="4GB", ttl=0.5, name="ids"), Cache[str, int])
    assert_type(Cache[str, bytes](9, getsizeof=len), Cache[str, bytes])
    assert_type(Cache.fromkeys("abc", 0), Cache[str, int])
    assert_type((cache.maxsize, cache.max_bytes), tuple[int | None, int | None])
    assert_type((cache.ttl, cache.name), tuple[float | None, str | None])
    Cache[str, int](100, "4GB")  # type: ignore[call-arg]
    Cache[str, int](100, getsizeof=len)  # type: ignore[arg-type]
    cache.maxsize = 3  # type: ignore[misc]


def on_evict(key: str, value: int, reason: Literal["evicted", "rejected", "expired"]) -> None:
    """Take what Cache(on_evict=) passes."""


def a_mapping(cache: Cache[str, int]) -> None:
    Cache[str, int](5, on_evict=on_evict)
    Cache[str, str](5, on_evict=on_evict)  # type: ignore[arg-type]
    mapping: MutableMapping[str, int] = cache
    assert_type(cache["a"], int)
    cache["a"] = "text"  # type: ignore[assignment]
    cache[1]  # type: ignore[index]
    assert_type(iter(cache), Iterator[str])
    assert_type(cache.keys(), KeysView[str])
    assert_type(cache.values(), ValuesView[int])
    assert_type(cache.items(), ItemsView[str, int])
    assert_type(cache.popitem(), tuple[str, int])
    assert_type(cache.copy(), Cache[str, int])
    cache.update({"a": 1}, b=2)
    cache.update([("a", 1)])
    del mapping["a"]


def defaults(cache: Cache[str, int], maybe: Cache[str, int | None]) -> None:
    assert_type(cache.get("a"), int | None)
    assert_type(cache.get("a", 0), int)
    assert_type(cache.get("a", default=b""), int | bytes)
    assert_type(cache.get("a", MISSING), int | Missing)
    assert_type(cache.peek("a"), int | None)
    assert_type(cache.pop("a"), int)
    assert_type(cache.pop("a", None), int | None)
    assert_type(cache.setdefault("a", 1), int)
    assert_type(maybe.setdefault("a"), int | None)
    cache.setdefault("a")  # type: ignore[call-arg]
    if (value := cache.get("a", MISSING)) is not MISSING:
        assert_type(value, int)


def beyond_dict(cache: Cache[str, int], arrays: Cache[str, Any], out: NDArray[np.float32]) -> None:
    cache.set("a", 1, ttl=1.5, cost=2)
    cache.set("a", 1, 1.5)  # type: ignore[call-arg]
    assert_type(cache.get_or_set("a", lambda: 1), int)
    assert_type(cache.get_many(["a", "b"]), list[int | None])
    assert_type(cache.get_many(["a", "b"], default=0), list[int])
    cache.set_many({"a": 1}, ttl=3)
    cache.set_many([("a", "text")])  # type: ignore[list-item]
    assert_type(cache.delete_many(iter("ab")), int)
    assert_type(arrays.gather(["a"], out), NDArray[np.bool_])
    assert_type((cache.touch("a", None), cache.get_ttl("a")), tuple[bool, float | None])
    assert_type(cache.hottest(3), list[tuple[str, int]])
    cache.resize(max_bytes="1MB")
    assert_type(cache.stats(), CacheStats)
    assert_type(cache.stats().hit_ratio, float)
