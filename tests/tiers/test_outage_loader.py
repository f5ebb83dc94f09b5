"""A loader in trouble: what it raises, how long it takes, what it calls, and Ctrl-C."""

from __future__ import annotations

import asyncio
import itertools
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from cachecore import MISSING, TieredCache
from cachecore.tiers import Policy
from cachecore.tiers.testing import eventually
from servers import Server
from tiers.outages import redis_cache
from tiers.proxy import Proxy


@pytest.fixture
def server(running: Server) -> Server:
    """Nothing here stops it."""
    return running


class LoaderError(Exception):
    pass


def test_raising(server: Server, runner: asyncio.Runner | None) -> None:
    bad = True

    def load(key: str) -> str:
        if bad and key.startswith("bad"):
            raise LoaderError(key)
        return key

    with redis_cache(server.port, runner, loader=load, negative_ttl=60) as calls:
        with pytest.raises(LoaderError):
            calls.get("bad")
        with pytest.raises(LoaderError):
            calls.get_many(["a", "bad", "b"])
        assert calls.cache.stats().load_errors == 2
        assert sorted(calls.cache.l0) == ["a", "b"]  # the others were kept
        bad = False
        assert calls.get_many(["bad", "a"]) == ["bad", "a"]  # and nobody remembers an absence
        assert calls.cache.stats().loads == 5


WRONG: dict[str, tuple[Callable[[list[str]], Any], type[Exception]]] = {
    "too few": (lambda keys: keys[1:], ValueError),
    "too many": (lambda keys: [*keys, "x"], ValueError),
    "nothing": (lambda keys: None, TypeError),
    "text": (lambda keys: "ab", TypeError),
    "a generator": (lambda keys: (key for key in keys), TypeError),
    "what no codec can write": (lambda keys: [object() for _ in keys], TypeError),
}


@pytest.mark.parametrize("what", WRONG)
def test_returning_what_it_must_not(
    server: Server, runner: asyncio.Runner | None, what: str
) -> None:
    wrong, kind = WRONG[what]
    right = False

    def load(keys: list[str]) -> Any:
        return keys if right else wrong(keys)

    with redis_cache(server.port, runner, loader_many=load) as calls:
        with pytest.raises(kind):
            calls.get_many(["a", "b"])
        assert calls.cache.flights == {}
        right = True
        calls.cache.l0.clear()
        assert calls.get_many(["a", "b"]) == ["a", "b"]


def test_a_mapping_without_some(server: Server, runner: asyncio.Runner | None) -> None:
    with redis_cache(
        server.port, runner, loader_many=lambda keys: {"a": 1, "c": MISSING, "z": 2}
    ) as calls:
        assert calls.get_many(["a", "b", "c"], default="none") == [1, "none", "none"]


def test_hanging(server: Server, runner: asyncio.Runner | None) -> None:
    free = threading.Event()
    hangs = True

    def load(key: str) -> str:
        if hangs:
            free.wait(10)
        return f"{key}, late" if hangs else key

    policy = Policy(load_timeout=0.1, ttl=0.05, stale_if_error=60)
    with redis_cache(server.port, runner, loader=load, policy=policy) as calls:
        with pytest.raises(TimeoutError, match=r"0\.1"):
            calls.get("a")
        hangs = False
        assert calls.get("a") == "a"
        time.sleep(0.06)
        hangs = True
        assert calls.get("a") == "a"  # stale is better than nothing
        assert calls.cache.stats().stale_if_error == 1
        free.set()
        eventually(lambda: "cachecore-load" not in {each.name for each in threading.enumerate()})
        assert calls.get("a") == "a"  # what comes too late is not kept


def test_a_coroutine_hangs(server: Server) -> None:
    async def load(key: str) -> None:
        await asyncio.sleep(60)

    async def go(cache: TieredCache) -> None:
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match=r"0\.1"):
            await cache.aget("a")
        assert time.monotonic() - begin < 1
        assert cache.flights == {}

    with redis_cache(server.port, loader=load, policy=Policy(load_timeout=0.1)) as calls:
        asyncio.run(go(calls.cache))


def test_a_coroutine_is_cancelled(server: Server) -> None:
    """By its own code: that is an error of the load, not of those who wait."""

    async def load(key: str) -> str:
        if key == "cancelled":
            raise asyncio.CancelledError
        return key

    async def go(cache: TieredCache) -> None:
        tasks = [asyncio.ensure_future(cache.aget("cancelled")) for _ in range(3)]
        _, waiting = await asyncio.wait(tasks, timeout=5)
        assert not waiting
        assert cache.flights == {}
        assert await cache.aget("fine") == "fine"

    with redis_cache(server.port, loader=load) as calls:
        asyncio.run(go(calls.cache))


def test_calling_back_for_the_same_key(server: Server, runner: asyncio.Runner | None) -> None:
    def load(key: str) -> Any:
        return cache.get(key) if key == "round" else cache.get("round")

    with redis_cache(server.port, runner, loader=load) as calls:
        cache = calls.cache
        for key in ("round", "and round"):
            with pytest.raises(RecursionError):
                calls.get(key)
        assert cache.flights == {}
        assert len(cache.l0) == 0


def test_a_coroutine_calls_back_for_the_same_key(server: Server) -> None:
    async def load(key: str) -> Any:
        return await cache.aget(key)

    with redis_cache(server.port, loader=load) as calls:
        cache = calls.cache
        with pytest.raises(RecursionError):
            asyncio.run(cache.aget("round"))


def test_calling_back_to_write(server: Server, runner: asyncio.Runner | None) -> None:
    """What the loader sets itself is newer than what it returns."""

    def load(key: str) -> str:
        cache.set(key, "set")
        cache.delete("other")
        return "loaded"

    with redis_cache(server.port, runner, loader=load) as calls:
        cache = calls.cache
        calls.get("a")
        assert calls.get("a") == "set"
        assert calls.fresh("a") == "set"


def test_two_that_load_through_each_other(server: Server) -> None:
    def load(key: str) -> Any:
        if next(begun) < 2:
            both.wait()
        return (key, cache.get("b" if key == "a" else "a"))

    both, begun = threading.Barrier(2, timeout=5), itertools.count()
    with redis_cache(server.port, loader=load) as calls:
        cache = calls.cache
        errors: list[BaseException] = []

        def get(key: str) -> None:
            try:
                cache.get(key)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=get, args=(key,)) for key in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        assert errors


# --- Ctrl-C, in the main thread


def interrupted(call: Callable[[], object], after: float) -> bool:
    """Whether a real SIGINT ended the call."""

    def interrupt() -> None:
        time.sleep(after)
        signal.pthread_kill(main, signal.SIGINT)
        done.set()

    main, done = threading.get_ident(), threading.Event()
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()  # it may come that early
        call()
        done.wait()
        time.sleep(0.001)
    except KeyboardInterrupt:
        return True
    finally:
        thread.join()
    return False


def test_interrupted_while_loading(server: Server) -> None:
    def load(key: str) -> str:
        if slow:
            time.sleep(10)
        return key

    slow = True
    with redis_cache(server.port, loader=load) as calls:
        assert interrupted(lambda: calls.cache.get("a"), 0.1)
        assert calls.cache.flights == {}
        slow = False
        assert calls.get("a") == "a"


def test_interrupted_while_another_loads(server: Server) -> None:
    def load(key: str) -> str:
        begun.set()
        free.wait(10)
        return key

    begun, free = threading.Event(), threading.Event()
    with redis_cache(server.port, loader=load) as calls:
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(calls.cache.get("a")))
        thread.start()
        begun.wait()
        for call in (lambda: calls.cache.get("a"), lambda: calls.cache.get_many(["a", "a"])):
            assert interrupted(call, 0.1)
        assert list(calls.cache.flights) == ["a"]  # the other's
        free.set()
        thread.join(10)
        assert results == ["a"]


@pytest.mark.parametrize("operation", ["get", "set", "delete", "invalidate", "set_many"])
def test_interrupted_in_a_call_of_redis(proxy: Proxy, operation: str) -> None:
    with redis_cache(proxy.port, loader=lambda key: "loaded") as calls:
        cache = calls.cache
        calls.breaker.tier._timeout = 5.0
        cache.set("k", "old")
        cache.l0.clear()
        proxy.stall()
        call: Callable[[], object] = {
            "get": lambda: cache.get("k"),
            "set": lambda: cache.set("k", b"new"),
            "set_many": lambda: cache.set_many({"k": "new", "l": "new"}),
            "delete": lambda: cache.delete("k"),
            "invalidate": lambda: cache.invalidate("test"),
        }[operation]
        assert interrupted(call, 0.1)
        assert cache.flights == {}
        if operation != "get":
            assert calls.tier.owed == {"set_many": 2}.get(operation, 1)
        proxy.reset()
        proxy.pass_on()
        eventually(lambda: calls.tier.owed == 0)
        cache.l0.clear()
        expected = {"get": "old", "set": b"new", "set_many": "new"}
        assert cache.get("k") == expected.get(operation, "loaded")


def test_interrupted_at_random_moments(server: Server) -> None:
    """Whatever the main thread was doing, nothing stays claimed, and writes are made up for."""
    last: dict[int, Any] = {}

    def work() -> None:
        for turn in range(10_000):
            key = turn % 10
            last.pop(key, None)
            if turn % 3 == 0:
                cache.set(key, turn if turn % 2 else b"%d" % turn)
                last[key] = turn if turn % 2 else b"%d" % turn
            elif turn % 3 == 1:
                cache.delete(key)
            else:
                cache.l0.delete(key)
                cache.get_many([key, (key + 1) % 10])

    with redis_cache(server.port, loader=lambda key: ("loaded", key)[0]) as calls:
        cache = calls.cache
        count = 0
        for at in range(150):
            count += interrupted(work, 0.002 + at * 0.00005)
            assert cache.flights == {}
            for key, value in last.items():
                assert cache.get(key) == value
        assert count > 100
        eventually(lambda: calls.tier.owed == 0)
