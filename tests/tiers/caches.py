"""What the tests of TieredCache share: a source of values, tiers that count, a clock, callers."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cachecore import MISSING, TieredCache
from cachecore._envelope import peek_written
from cachecore.tiers import Item, Tier, Wrapper
from support import Clock

NOW = 1_800_000_000.0  # Unix seconds at which the clocks of tests begin
LONG = 10_000.0  # seconds; real lifetimes that do not end within a test
HANGS = 30.0  # seconds: what takes so long does not end

Make = Callable[..., TieredCache]  # the fixture `make`


def clock() -> Clock:
    return Clock(NOW)


class Source:
    """Where values come from: `one` and `many` are loaders, which note what they are asked."""

    def __init__(self, *absent: Any) -> None:
        self.absent = set(absent)
        self.version = 0
        self.failing: Exception | None = None
        self.asked: list[Any] = []
        self.calls = 0

    def value(self, key: Any) -> Any:
        return MISSING if key in self.absent else f"{key!r} v{self.version}"

    def one(self, key: Any) -> Any:
        return self.many([key])[0]

    def many(self, keys: list[Any]) -> list[Any]:
        self.calls += 1
        self.asked += keys
        if self.failing is not None:
            raise self.failing
        return [self.value(key) for key in keys]

    async def aone(self, key: Any) -> Any:
        await asyncio.sleep(0)
        return self.one(key)

    async def amany(self, keys: list[Any]) -> list[Any]:
        await asyncio.sleep(0)
        return self.many(keys)


class Gate:
    """A loader that says when it is asked, and answers when it is let."""

    def __init__(self, value: Any = "loaded") -> None:
        self.value = value
        self.asked = 0
        self.inside = threading.Semaphore(0)
        self.open = threading.Semaphore(0)

    def one(self, key: Any) -> Any:
        value = self.value
        self.asked += 1
        self.inside.release()
        assert self.open.acquire(timeout=HANGS), "nobody has opened the gate"
        return value

    def many(self, keys: list[Any]) -> list[Any]:
        return [self.one(keys[0])] * len(keys)

    async def aone(self, key: Any) -> Any:
        return await asyncio.to_thread(self.one, key)

    def wait(self) -> None:
        """Until somebody is inside."""
        assert self.inside.acquire(timeout=HANGS), "nobody came"

    async def await_(self) -> None:
        await asyncio.to_thread(self.wait)

    def let(self, count: int = 1) -> None:
        self.open.release(count)


class Counting(Wrapper):
    """A tier that notes its calls, with the keys that are the caller's."""

    def __init__(self, tier: Tier) -> None:
        super().__init__(tier)
        self.calls: list[tuple[str, list[bytes]]] = []

    def note(self, call: str, keys: Iterable[bytes]) -> None:
        self.calls.append((call, [key for key in keys if b"\0" not in key]))

    def told(self) -> list[tuple[str, list[bytes]]]:
        """The calls about keys of the caller's since the last time."""
        calls, self.calls = self.calls, []
        return [call for call in calls if call[1]]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.note("get", keys)
        return self.tier.get_many(keys)

    def set_many(self, items: Sequence[Item]) -> None:
        self.note("set", [item.key for item in items])
        self.tier.set_many(items)

    def delete_many(self, keys: Sequence[bytes]) -> int:
        self.note("delete", keys)
        return self.tier.delete_many(keys)

    def add(self, item: Item) -> bool:
        self.note("add", [item.key])
        return self.tier.add(item)

    def demote_many(self, items: Sequence[Item], frequencies: Sequence[int]) -> None:
        self.note("demote", [item.key for item in items])
        self.tier.demote_many(items, frequencies)

    async def aget_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.note("get", keys)
        return await self.tier.aget_many(keys)

    async def aset_many(self, items: Sequence[Item]) -> None:
        self.note("set", [item.key for item in items])
        await self.tier.aset_many(items)

    async def adelete_many(self, keys: Sequence[bytes]) -> int:
        self.note("delete", keys)
        return await self.tier.adelete_many(keys)


Open = Callable[..., Counting]  # the fixture `store_at`


class Slow(Wrapper):
    """A tier whose writes wait until they are let."""

    def __init__(self, tier: Tier) -> None:
        super().__init__(tier)
        self.quick = False
        self.holds = False
        self.gate = Gate()

    def set_many(self, items: Sequence[Item]) -> None:
        self.hold()
        self.tier.set_many(items)

    def delete_many(self, keys: Sequence[bytes]) -> int:
        self.hold()
        return self.tier.delete_many(keys)

    async def aset_many(self, items: Sequence[Item]) -> None:
        await asyncio.to_thread(self.set_many, items)

    async def adelete_many(self, keys: Sequence[bytes]) -> int:
        return await asyncio.to_thread(self.delete_many, keys)

    def hold(self) -> None:
        if self.holds:
            self.gate.one(None)


def call(mode: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a method returns; in mode "async" its asynchronous twin, in an event loop of its own."""
    if mode == "sync":
        return method(*args, **kwargs)
    cache = method.__self__  # type: ignore[attr-defined]
    return asyncio.run(getattr(cache, f"a{method.__name__}")(*args, **kwargs))


def in_threads(count: int, function: Callable[[int], Any]) -> list[Any]:
    """What function(0) ... function(count - 1) return, called by so many threads at a time."""
    start = threading.Barrier(count)

    def work(at: int) -> Any:
        start.wait(HANGS)
        return function(at)

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(work, at) for at in range(count)]
        return [future.result(HANGS) for future in futures]


def callers(cache: TieredCache, key: Any) -> int:
    """How many calls wait for what is under way for a key, the one that sees to it among them."""
    load = cache.flights.get(key)
    return 0 if load is None else len(load.waiters or ()) + (load.loop is None)


def settle(cache: TieredCache) -> None:
    """Wait until nothing is loaded or written, and the background has nothing to do just now."""
    from cachecore.tiers.testing import eventually

    background = cache.background

    def idle() -> bool:
        return not cache.flights and not background._jobs and not background._running

    eventually(idle)


def written(tier: Tier, *keys: bytes) -> list[bool]:
    """Whether a tier holds an envelope under each key."""
    return [
        data is not None and peek_written(data) is not None for data in tier.get_many(list(keys))
    ]


def counts(cache: TieredCache, *names: str) -> tuple[int, ...]:
    """Some of stats(), by name."""
    stats: dict[str, Any] = cache.stats()._asdict()
    return tuple(stats[name] for name in names)


def refused(cache: TieredCache) -> Counter[str]:
    """Why values of tiers were not taken, over all tiers."""
    total: Counter[str] = Counter()
    for tier in cache.stats().tiers:
        total.update(tier.refused)
    return total
