"""TieredCache: what loaders may return and raise, and what becomes of it."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import UserDict, defaultdict, deque
from typing import Any

import numpy as np
import pytest

from cachecore import MISSING
from support import Clock
from tiers.caches import LONG, Counting, Make, Source, call, counts, settle

# --- what they return


@pytest.mark.parametrize(
    "values",
    [
        ["A", MISSING, "C"], ("A", MISSING, "C"), deque(["A", MISSING, "C"]),
        np.array(["A", MISSING, "C"], object), {"a": "A", "c": "C"}, {"c": "C", "a": "A", "x": 1},
        UserDict({"a": "A", "c": "C"}), defaultdict(str, a="A", c="C"),
    ],
    ids=lambda values: type(values).__name__,
)  # fmt: skip
def test_what_loader_many_may_return(make: Make, mode: str, values: Any) -> None:
    cache = make(loader_many=lambda keys: values)
    assert call(mode, cache.get_many, list("abc"), 0) == ["A", 0, "C"]
    assert cache.get("a") == "A"
    assert len(cache.l0) == 2


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (["A"], ValueError), (["A"] * 4, ValueError), (None, TypeError), ("ABC", TypeError),
        (b"ABC", TypeError), (7, TypeError), (iter("ABC"), TypeError), ({"A", "B", "C"}, TypeError),
        (np.array(5), TypeError),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, type) else value.__name__,
)  # fmt: skip
def test_what_loader_many_may_not_return(
    make: Make, store: Counting, mode: str, values: Any, error: Any
) -> None:
    cache = make(tiers=[store], loader_many=lambda keys: values, negative_ttl=LONG)
    cache.set("here", 1)
    for _ in range(2):
        with pytest.raises(error):
            call(mode, cache.get_many, ["a", "b", "c", "here"])
    assert counts(cache, "loads", "load_errors", "negative_hits") == (6, 6, 0)
    assert list(cache.l0) == ["here"]
    assert not cache.flights


def test_arguments_of_loaders(make: Make, mode: str) -> None:
    asked: list[Any] = []

    def many(keys: Any) -> Any:
        asked.append(keys)
        values = list(keys)
        keys.clear()  # it is the loader's own
        return values

    cache = make(loader_many=many)
    assert call(mode, cache.get_many, ("a", 1, b"b")) == ["a", 1, b"b"]
    assert call(mode, cache.get, "c") == "c"
    assert [type(keys) for keys in asked] == [list, list]


def test_loaders_that_are_refused() -> None:
    from cachecore import TieredCache

    with pytest.raises(TypeError, match="loader must be callable"):
        TieredCache(1, loader=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="loader_many must be callable"):
        TieredCache(1, loader_many="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="do not go together"):
        TieredCache(1, loader=len, loader_many=len)


# --- what they raise


def test_an_exception_of_the_loader_is_its_keys(make: Make, store: Counting, mode: str) -> None:
    def one(key: str) -> str:
        if key == "bad":
            raise LookupError(key)
        return key.upper()

    cache = make(tiers=[store], loader=one, negative_ttl=LONG)
    with pytest.raises(LookupError, match="bad"):
        call(mode, cache.get_many, ["a", "bad", "b"])
    assert cache.l0.copy() == {"a": "A", "b": "B"}
    assert store.told() == [("get", [b"a", b"bad", b"b"]), ("set", [b"a", b"b"])]
    with pytest.raises(LookupError, match="bad"):
        call(mode, cache.get, "bad")
    assert counts(cache, "loads", "load_errors", "negative_hits") == (4, 2, 0)


def test_an_exception_of_loader_many_is_its_batchs(make: Make, store: Counting, mode: str) -> None:
    source = Source()
    cache = make(tiers=[store], loader_many=source.many)
    cache.set("below", 1)
    cache.l0.clear()
    source.failing = LookupError("all")
    with pytest.raises(LookupError, match="all"):
        call(mode, cache.get_many, ["a", "below", "b"])
    assert cache.l0.copy() == {"below": 1}
    source.failing = None
    assert call(mode, cache.get_many, ["a", "below", "b"]) == ["'a' v0", 1, "'b' v0"]


def test_an_exception_that_is_none(make: Make) -> None:
    cache = make(loader=lambda key: (_ for _ in ()).throw(KeyboardInterrupt))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            cache.get("key")
    assert not cache.flights
    assert cache.stats().load_errors == 0
    cache.set("key", 1)
    assert cache.get("key") == 1


def test_a_value_that_cannot_be_written_down_is_its_keys(
    make: Make, store: Counting, mode: str
) -> None:
    cache = make(tiers=[store], loader=lambda key: (1, 2) if key == "bad" else key)
    for _ in range(2):
        with pytest.raises(TypeError, match=r"'bad'.*tuple"):
            call(mode, cache.get_many, ["a", "bad", "b"])
    assert cache.get_many(["a", "b"]) == ["a", "b"]
    assert "bad" not in cache.l0
    with pytest.raises(TypeError, match=r"'bad'.*tuple"):
        call(mode, cache.get, "bad")
    assert cache.stats().tiers[0].errors == 0
    cache.l0.clear()
    asked = cache.stats().loads
    assert cache.get_many(["a", "b"]) == ["a", "b"]
    assert cache.stats().loads == asked


def test_without_tiers_any_value_will_do(make: Make, mode: str) -> None:
    cache = make(loader=lambda key: {key})
    assert call(mode, cache.get, "a") == {"a"}


# --- coroutine functions


async def doubled(key: Any) -> Any:
    await asyncio.sleep(0)
    return key * 2


async def doubled_many(keys: list[Any]) -> list[Any]:
    await asyncio.sleep(0)
    return [key * 2 for key in keys]


class Doubling:
    async def __call__(self, key: Any) -> Any:
        return await doubled(key)


async def multiplied(by: int, key: Any) -> Any:
    return key * by


@pytest.mark.parametrize(
    "loader",
    [
        {"loader": doubled}, {"loader_many": doubled_many}, {"loader": Doubling()},
        {"loader": functools.partial(multiplied, 2)}, {"loader": Doubling().__call__},
    ],
    ids=str,
)  # fmt: skip
def test_a_coroutine_function_loads_for_tasks(make: Make, store: Counting, loader: Any) -> None:
    cache = make(tiers=[store], **loader)
    assert asyncio.run(cache.aget("a")) == "aa"
    assert asyncio.run(cache.aget_many(["a", "b", "c", "b"])) == ["aa", "bb", "cc", "bb"]
    assert cache.stats().loads == 3
    with pytest.raises(TypeError, match="coroutine function"):
        cache.get("d")
    with pytest.raises(TypeError, match="coroutine function"):
        cache.get_many(["a", "d"])
    assert cache.stats().loads == 3


@pytest.mark.parametrize("timed", [False, True])
def test_what_is_here_needs_no_loader(make: Make, clock: Clock, timed: bool) -> None:
    cache = make(loader=doubled, timer=clock if timed else None)
    cache.set("a", 1)
    cache.set("tagged", 2, tags=["tag"])
    assert cache.get("a") == 1
    assert cache.get("tagged") == 2
    assert cache.get_many(["a", "tagged"]) == [1, 2]
    with cache.request():
        assert cache.get_many(["a", "tagged"]) == [1, 2]
    with pytest.raises(TypeError, match="coroutine function"):
        cache.get("b")


def test_a_stale_value_is_no_answer_to_who_cannot_refresh_it(make: Make, clock: Clock) -> None:
    cache = make(loader=doubled, ttl=10, stale_ttl=10, timer=clock)
    cache.set("a", "old")
    clock.advance(15)
    with pytest.raises(TypeError, match="coroutine function"):
        cache.get("a")
    with pytest.raises(TypeError, match="coroutine function"):
        cache.get_many(["a"])

    async def stale_then_fresh() -> None:
        assert await cache.aget("a") == "old"
        while cache.flights:
            await asyncio.sleep(0.001)
        assert await cache.aget("a") == "aa"

    asyncio.run(stale_then_fresh())
    settle(cache)
    assert counts(cache, "loads") == (1,)


def test_a_function_that_returns_a_coroutine_is_refused(make: Make, mode: str) -> None:
    cache = make(loader=lambda key: multiplied(2, key))
    with pytest.raises(TypeError, match="make it a coroutine function"):
        call(mode, cache.get, "a")
    cache = make(loader_many=lambda keys: doubled_many([*keys]))
    with pytest.raises(TypeError, match="make it a coroutine function"):
        call(mode, cache.get_many, ["a"])


def test_a_coroutine_loader_that_raises(make: Make, store: Counting) -> None:
    async def one(key: str) -> str:
        await asyncio.sleep(0)
        if key == "bad":
            raise LookupError(key)
        return key

    cache = make(tiers=[store], loader=one)
    with pytest.raises(LookupError, match="bad"):
        asyncio.run(cache.aget_many(["a", "bad", "b"]))
    assert cache.l0.copy() == {"a": "a", "b": "b"}


def test_keys_of_a_coroutine_loader_are_loaded_together(make: Make) -> None:
    async def main() -> None:
        begun = 0
        together = asyncio.Event()

        async def one(key: int) -> int:
            nonlocal begun
            begun += 1
            if begun == 5:
                together.set()
            await together.wait()
            return key

        cache = make(loader=one)
        assert await asyncio.wait_for(cache.aget_many(range(5)), 30) == list(range(5))

    asyncio.run(main())


def test_a_function_runs_in_a_thread_of_its_own(make: Make) -> None:
    threads: list[threading.Thread] = []

    def one(key: str) -> str:
        threads.append(threading.current_thread())
        return key

    cache = make(loader=one)
    assert asyncio.run(cache.aget("a")) == "a"
    assert threads[0] is not threading.main_thread()
    assert cache.get("b") == "b"
    assert threads[1] is threading.main_thread()


# --- what is told of it


def test_events(make: Make, mode: str) -> None:
    heard: list[tuple[str, int, float]] = []

    def on_event(event: str, keys: int, spent: float) -> None:
        heard.append((event, keys, spent))

    source = Source()
    cache = make(loader_many=source.many, on_event=on_event)
    call(mode, cache.get_many, ["a", "b"])
    call(mode, cache.get_many, ["a", "b"])
    source.failing = LookupError()
    with pytest.raises(LookupError):
        call(mode, cache.get, "c")
    assert [(event, keys) for event, keys, _ in heard] == [("load", 2), ("load", 1)]
    assert all(0 <= spent < 10 for _, _, spent in heard)


def test_an_event_hook_that_fails_is_logged(
    make: Make, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make(loader=str.upper, on_event=lambda *event: 1 // 0)
    assert call(mode, cache.get, "a") == "A"
    assert "on_event failed" in caplog.text
