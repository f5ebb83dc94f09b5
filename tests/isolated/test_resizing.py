"""Callbacks and sizes that change the cache while its bounds change: it ends, and counts right."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from cachecore import Cache
from support import Key, check

serial = itertools.count()


@pytest.mark.parametrize("bounds", [{"maxsize": 5}, {"max_bytes": 1000}])
def test_on_evict_that_puts_back_does_not_keep_a_resize_from_ending(bounds: dict[str, int]) -> None:
    depth = 0

    def put_back(key: Any, value: Any, reason: str) -> None:
        nonlocal depth
        if depth < 2:
            depth += 1
            cache[key] = value
            depth -= 1

    cache: Cache[Any, Any] = Cache(100, max_bytes=50_000, on_evict=put_back)
    cache.update(dict.fromkeys(range(100), b""))
    with contextlib.suppress(RuntimeError):
        cache.resize(**bounds)
    check(cache)


@pytest.mark.parametrize("bounds", [{"maxsize": 10}, {"max_bytes": 1000}])
def test_a_resize_that_its_own_callbacks_undo_ends(bounds: dict[str, int]) -> None:
    def undo(key: Any, value: Any, reason: str) -> None:
        cache.resize(100, max_bytes=50_000)
        cache[key] = value

    cache: Cache[Any, Any] = Cache(100, max_bytes=50_000, on_evict=undo)
    cache.update(dict.fromkeys(range(100), b""))
    with contextlib.suppress(RuntimeError):
        cache.resize(**bounds)
    check(cache)


@pytest.mark.parametrize("act", ["insert", "overwrite"])
def test_sizing_that_always_changes_the_cache_ends(act: str) -> None:
    class Restless:
        def __sizeof__(self) -> int:
            cache[next(serial) if act == "insert" else "other"] = 1
            return 10

    cache: Cache[Any, Any] = Cache(10**8)
    cache.update(k=Restless(), other=1)
    with pytest.raises(RuntimeError, match="keeps changing"):
        cache.resize(max_bytes=5000)
    assert cache.max_bytes is None
    check(cache)


@pytest.mark.parametrize("act", ["resize", "clear", "insert", "delete", "overwrite"])
def test_sizing_that_changes_what_is_sized(act: str) -> None:
    """A resize to a byte bound sizes every entry, and sizing may run any code: once, here."""
    armed = [True]

    class Sized(Key):
        def __sizeof__(self) -> int:
            if armed:
                armed.clear()
                acts[act]()
            return 10

    cache: Cache[Any, Any] = Cache(100)
    acts: dict[str, Callable[[], object]] = {
        "resize": lambda: cache.resize(max_bytes=5000),
        "clear": cache.clear,
        "insert": lambda: cache.update(dict.fromkeys(range(50))),
        "delete": lambda: cache.delete_many(list(cache)[::2]),
        "overwrite": lambda: cache.update(dict.fromkeys(list(cache), b"x" * 100)),
    }
    cache.update((Sized(n, hash=n), n) for n in range(20))
    cache.resize(max_bytes=6000)
    assert not armed
    check(cache)
    assert cache.stats().bytes == cache.copy().stats().bytes
