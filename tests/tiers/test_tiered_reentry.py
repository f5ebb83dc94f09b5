"""TieredCache: loaders, hooks and finalisers that ask the very cache they belong to."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

import pytest

from cachecore import TieredCache
from cachecore.tiers import Wrapper
from tiers.caches import HANGS, Counting, Make, Slow, in_threads


def ends(function: Any) -> Any:
    """What a function returns or raises, in a thread that would be left behind if it hung."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(HANGS)
    assert outcome, "it hangs"
    return outcome[0]


def test_a_loader_that_asks_for_another_key(make: Make, store: Counting) -> None:
    def one(key: int) -> int:
        return 0 if key == 0 else 1 + cache.get(key - 1)

    cache = make(loader=one, tiers=[store])
    assert ends(lambda: cache.get(20)) == 20
    assert cache.get_many(range(21)) == list(range(21))
    assert cache.stats().loads == 21


def test_a_coroutine_loader_that_asks_for_another_key(make: Make, store: Counting) -> None:
    async def one(key: int) -> int:
        return 0 if key == 0 else 1 + await cache.aget(key - 1)

    cache = make(loader=one, tiers=[store])
    assert ends(lambda: asyncio.run(cache.aget(20))) == 20
    assert cache.stats().loads == 21


@pytest.mark.parametrize("many", [False, True])
def test_a_loader_that_asks_for_the_same_key(make: Make, many: bool) -> None:
    def one(key: str) -> Any:
        return cache.get(key)

    def several(keys: list[str]) -> Any:
        return cache.get_many(keys)

    cache: TieredCache = make(loader_many=several) if many else make(loader=one)
    assert isinstance(ends(lambda: cache.get("key")), RecursionError)
    assert isinstance(ends(lambda: asyncio.run(cache.aget("key"))), RecursionError)
    assert not cache.flights
    assert len(cache.l0) == 0


def test_a_coroutine_loader_that_asks_for_the_same_key(make: Make) -> None:
    async def one(key: str) -> Any:
        return await cache.aget(key)

    cache = make(loader=one)
    assert isinstance(ends(lambda: asyncio.run(cache.aget("key"))), RecursionError)
    assert not cache.flights


def test_a_loader_that_asks_for_the_same_key_once(make: Make) -> None:
    asked = 0

    def one(key: str) -> Any:
        nonlocal asked
        asked += 1
        return cache.get(key) if asked == 1 else "value"

    cache = make(loader=one)
    assert ends(lambda: cache.get("key")) == "value"
    assert asked == 2


def test_a_cycle_of_keys(make: Make) -> None:
    cache: TieredCache = make(loader=lambda key: cache.get((key + 1) % 3))
    assert isinstance(ends(lambda: cache.get(0)), RecursionError)
    assert not cache.flights


@pytest.mark.parametrize("awaits", [False, True])
def test_cycles_across_threads_end(make: Make, awaits: bool) -> None:
    meet = threading.Barrier(3)
    depth = threading.local()

    def one(key: int) -> Any:
        if getattr(depth, "met", False) is False:
            depth.met = True
            meet.wait(HANGS)
        return cache.get((key + 1) % 3)

    cache = make(loader=one)

    def work(at: int) -> Any:
        with pytest.raises(RecursionError):
            asyncio.run(cache.aget(at)) if awaits else cache.get(at)

    in_threads(3, work)
    assert not cache.flights


def test_a_loader_that_sets_its_key(make: Make, store: Counting) -> None:
    def one(key: str) -> str:
        cache.set(key, "set")
        return "loaded"

    cache = make(loader=one, tiers=[store])
    assert ends(lambda: cache.get("key")) == "loaded"
    assert cache.get("key") == "set"
    cache.l0.clear()
    assert cache.get("key") == "set"


def test_a_loader_that_sets_other_keys(make: Make, store: Counting) -> None:
    def one(key: int) -> int:
        cache.set_many({other: other for other in range(10) if other != key})
        return key

    cache = make(loader=one, tiers=[store])
    assert ends(lambda: cache.get(5)) == 5
    assert cache.get_many(range(10)) == list(range(10))
    assert cache.stats().loads == 1


@pytest.mark.parametrize("method", ["delete", "invalidate"])
def test_a_loader_that_forgets_its_key(make: Make, store: Counting, method: str) -> None:
    def one(key: str) -> str:
        getattr(cache, method)(key)
        return "loaded"

    cache = make(loader=one, tiers=[store], namespace="key")
    assert ends(lambda: cache.get("key")) == "loaded"
    assert len(cache.l0) == 0
    assert store.tier.get_many([b"key:key"]) == [None]


def test_a_hook_that_asks_for_the_key_it_is_told_of(make: Make, store: Counting) -> None:
    found: list[Any] = []

    def on_event(*event: Any) -> None:
        if not found:
            found.append(None)
            found.append(cache.get("key"))

    cache = make(loader=lambda key: "value", tiers=[store], on_event=on_event)
    assert ends(lambda: cache.get("key")) == "value"
    assert found == [None, "value"]


class Asking:
    """A value that asks for a key, or sets it, when it is released."""

    def __init__(self, act: Any) -> None:
        self.act = act

    def __del__(self) -> None:
        self.act()


def test_a_finaliser_that_asks_for_the_key_that_is_loaded(make: Make) -> None:
    found: list[Any] = []

    def hook(*event: Any) -> None:
        held.clear()

    cache = make(loader=lambda key: "value", on_event=hook)
    held = [Asking(lambda: found.append(cache.get("key")))]
    assert ends(lambda: cache.get("key")) == "value"
    assert found == ["value"]


def test_a_finaliser_amid_a_write(make: Make, store: Counting) -> None:
    """The first value is released while the second takes its place."""
    done: list[str] = []

    def act() -> None:
        cache.get("key")
        cache.set("other", 1)
        done.append("done")

    cache = make()
    cache.set("key", Asking(act))
    assert ends(lambda: cache.set("key", 2)) is None
    assert done == ["done"]
    assert cache.get_many(["key", "other"]) == [2, 1]


def test_a_signal_handler_amid_a_load(make: Make, store: Counting) -> None:
    found: list[Any] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        found.append(cache.get("key"))

    class Interrupted(Wrapper):
        sent = False

        def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
            if not self.sent:
                self.sent = True
                signal.raise_signal(signal.SIGUSR1)
            return self.tier.get_many(keys)

    cache = make(loader=lambda key: "value", tiers=[Interrupted(store)])
    before = signal.signal(signal.SIGUSR1, on_signal)
    timer = threading.Timer(HANGS, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    try:
        assert cache.get("key") == "value"
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR1, before)
    assert found == ["value"]


def test_a_signal_handler_amid_a_write(make: Make, store: Counting) -> None:
    raised: list[Any] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        try:
            cache.set("key", "of the handler")
        except RecursionError as error:
            raised.append(error)

    class Interrupted(Slow):
        def hold(self) -> None:
            if self.holds:
                self.holds = False
                signal.raise_signal(signal.SIGUSR1)

    tier = Interrupted(store)
    cache = make(tiers=[tier])
    tier.holds = True
    before = signal.signal(signal.SIGUSR1, on_signal)
    timer = threading.Timer(HANGS, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    try:
        cache.set("key", "of the program")
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR1, before)
    assert len(raised) == 1
    assert cache.get("key") == "of the program"
