"""Tasks that are cancelled at any moment: nobody reads another's reply, no write is forgotten."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest

from cachecore import TieredCache
from cachecore.tiers import RedisTier, waiting
from cachecore.tiers.testing import eventually
from servers import Server
from tiers.outages import redis_cache
from tiers.proxy import Proxy

KEYS = [f"key {at}" for at in range(20)]


async def cut_short(work: Coroutine[Any, Any, Any], after: float) -> bool:
    """Whether it ended before it was cancelled."""
    task = asyncio.ensure_future(work)
    for _ in range(random.randrange(4)):
        await asyncio.sleep(0)
    if after:
        await asyncio.sleep(after)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
        return True
    return False


async def worker(cache: TieredCache, keys: list[str]) -> None:
    """Begin calls of keys that are its own, cancel them, and look at what others find."""
    calls = [cache.aget, cache.aset, cache.adelete, cache.aget_many]
    for turn in range(60):
        key, after = random.choice(keys), random.choice([0, 0.001])
        call: Any = random.choice(calls)
        if call == cache.aset:
            last = f"{key} = {turn}"
            if await cut_short(cache.aset(key, last), after):
                assert await cache.aget(key) == last
        else:
            await cut_short(call(keys if call == cache.aget_many else key), after)
        if turn % 7 == 0:
            cache.l0.clear()
        for name, value in zip(keys, await cache.aget_many(keys), strict=True):
            assert value.startswith(f"{name} = ")  # and not another's


@pytest.mark.parametrize("delay", [0.0, 0.002])
def test_at_random_moments(proxy: Proxy, server: Server, delay: float) -> None:
    async def load(key: str) -> str:
        await asyncio.sleep(random.choice([0, 0, 0.001]))
        return f"{key} = loaded"

    proxy.delay(delay)
    with (
        redis_cache(proxy.port, loader=load, timeout=5) as calls,
        redis_cache(server.port) as other,
    ):

        async def go() -> None:
            await asyncio.gather(
                *(worker(calls.cache, KEYS[at : at + 4]) for at in range(0, 20, 4))
            )

        asyncio.run(go())
        proxy.pass_on()
        eventually(lambda: calls.tier.owed == 0)
        # What this cache says of each key is what Redis says.
        here = {key: calls.cache.l0.get(key) for key in KEYS}
        for key, value in here.items():
            if value is not None and not value.endswith("loaded"):
                assert other.get(key) == value
        assert calls.tier.refused.keys() <= {"other generation"}


@pytest.mark.parametrize("operation", ["set", "delete"])
def test_a_write_is_made_up_for(proxy: Proxy, server: Server, operation: str) -> None:
    """It was cancelled after it was sent, and before it was answered."""

    async def go(cache: TieredCache) -> None:
        await cache.aset("a", 1)
        proxy.stall()
        task = asyncio.ensure_future(
            cache.aset("a", 2) if operation == "set" else cache.adelete("a")
        )
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cache.flights == {}
        assert cache.stats().tiers[0].owed == 1
        proxy.reset()  # what was sent is lost
        proxy.pass_on()

    with redis_cache(proxy.port) as calls, redis_cache(server.port) as other:
        asyncio.run(go(calls.cache))
        eventually(lambda: calls.tier.owed == 0)
        assert other.get("a") == (2 if operation == "set" else None)


def test_the_tiers_that_it_had_not_come_to(tmp_path: Any, proxy: Proxy, server: Server) -> None:
    """A write that is cancelled in the first tier is made up for in the second, too."""
    second = RedisTier(f"redis://127.0.0.1:{server.port}/1")

    async def go(cache: TieredCache) -> None:
        for name in ("set", "delete"):
            await cache.aset(name, 1)
        proxy.stall()
        tasks = [
            asyncio.ensure_future(cache.aset("set", 2)),
            asyncio.ensure_future(cache.adelete("delete")),
            asyncio.ensure_future(cache.ainvalidate("tag")),
        ]
        await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for owed in cache.stats().tiers[:1]:
            assert owed.owed >= 2
        proxy.pass_on()

    first = RedisTier(f"redis://127.0.0.1:{proxy.port}", name="first")
    cache = TieredCache(100, tiers=[first, second])
    asyncio.run(go(cache))
    eventually(lambda: all(tier.owed == 0 for tier in cache.stats().tiers))
    cache.close()
    below = TieredCache(100, tiers=[RedisTier(f"redis://127.0.0.1:{server.port}/1")])
    assert below.get_many(["set", "delete"]) == [2, None]
    below.close()


def test_a_loop_that_ends(server: Server) -> None:
    """What its tasks were loading and writing is free again, for other loops and for threads."""
    begun: list[str] = []

    async def load(key: str) -> str:
        begun.append(key)
        if len(begun) < 3:
            await asyncio.sleep(60)
        return key

    with redis_cache(server.port, loader=load) as calls:
        cache = calls.cache

        async def leave() -> None:
            left = [asyncio.ensure_future(cache.aget(key)) for key in "ab"]
            await asyncio.to_thread(eventually, lambda: len(begun) == 2)
            assert len(cache.flights) == len(left)

        asyncio.run(leave())
        assert cache.flights == {}
        assert asyncio.run(cache.aget("a")) == "a"


def test_a_refresh_whose_loop_ends_before_it_begins(server: Server) -> None:
    async def load(key: str) -> int:
        return next(numbers)

    numbers = iter(range(100))
    with redis_cache(server.port, loader=load, ttl=0.05, stale_ttl=60) as calls:
        assert asyncio.run(calls.cache.aget("a")) == 0
        for _ in range(3):
            asyncio.run(asyncio.sleep(0.06))
            asyncio.run(calls.cache.aget("a"))  # begins a refresh, and ends
            assert calls.cache.flights == {}


def test_a_loop_that_stands_still(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load of a loop that nobody runs holds up no thread, nor another loop."""
    monkeypatch.setattr(waiting, "PATIENCE", 0.05)
    first = True

    async def load(key: str) -> str:
        nonlocal first
        if first:
            first = False
            await asyncio.sleep(60)
        return key

    with redis_cache(server.port, loader=load) as calls:
        loop = asyncio.new_event_loop()
        task = loop.create_task(calls.cache.aget("a"))
        while first:
            loop.run_until_complete(asyncio.sleep(0.001))
        assert calls.cache.flights
        assert asyncio.run(asyncio.wait_for(calls.cache.aget("a"), 5)) == "a"
        calls.cache.set("a", "set")
        task.cancel()
        for each in asyncio.all_tasks(loop):
            each.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        assert calls.cache.get("a") == "set"


def test_a_call_that_would_wait_for_its_own_loop(proxy: Proxy) -> None:
    """While a task writes a key a sync call of the same loop cannot wait for it."""

    async def go(cache: TieredCache) -> None:
        await cache.aset("a", 1)
        proxy.delay(0.02)
        for write in (cache.aset("a", 2), cache.adelete("a")):
            task = asyncio.ensure_future(write)
            await asyncio.sleep(0.005)
            for call in (cache.set, lambda key, _: cache.delete(key)):
                with pytest.raises(RuntimeError, match="asynchronous"):
                    call("a", 3)
            await task
        await cache.aset("a", 4)
        assert cache.get("a") == 4

    with redis_cache(proxy.port) as calls:
        asyncio.run(go(calls.cache))
