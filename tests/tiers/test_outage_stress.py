"""Threads at work while Redis comes and goes: nobody ever sees less than what was last set."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cachecore import TieredCache
from cachecore.tiers import Breaker, MmapTier, RedisTier, WriteBehind
from cachecore.tiers.testing import eventually
from servers import Server
from support import LONG
from tiers.children import in_child
from tiers.outages import redis_cache
from tiers.proxy import Proxy

SECONDS = 30.0 if LONG else 3.0
THREADS, KEYS = 6, 12


class History:
    """What was set under each key, in order, by the one thread that writes it."""

    def __init__(self) -> None:
        self.begun = [0] * KEYS
        self.done = [0] * KEYS  # the last write that has returned
        self.wrong: list[Any] = []


def write(cache: TieredCache, history: History, keys: list[int], end: float, seed: int) -> None:
    """Write keys of one's own; every value tells its number. Absence is always allowed."""
    turns = random.Random(seed)
    try:
        while time.monotonic() < end:
            key = turns.choice(keys)
            number = history.begun[key] = history.begun[key] + 1
            kind = turns.random()
            if kind < 0.5:
                cache.set(key, b"%d" % number)
            elif kind < 0.7:
                cache.set_many({key: number})
            elif kind < 0.8:
                cache.set(key, number, tags=[f"tag {key % 3}"])
            else:
                cache.delete(key)
            history.done[key] = number
            if turns.random() < 0.02:
                cache.invalidate(f"tag {turns.randrange(3)}")
    except BaseException as error:
        history.wrong.append(error)


def read(cache: TieredCache, history: History, end: float, seed: int) -> None:
    turns = random.Random(seed)
    try:
        while time.monotonic() < end:
            keys = turns.sample(range(KEYS), 3)
            least = [history.done[key] for key in keys]
            if turns.random() < 0.3:
                for key in keys:
                    cache.l0.delete(key)
            values = cache.get_many(keys)
            for key, value, done in zip(keys, values, least, strict=True):
                if value is not None and not done <= int(value) <= history.begun[key]:
                    history.wrong.append((key, value, done))
    except BaseException as error:
        history.wrong.append(error)


@contextmanager
def working(cache: TieredCache) -> Iterator[History]:
    history, end = History(), time.monotonic() + SECONDS
    threads = []
    for at in range(THREADS):
        keys = list(range(at, KEYS, THREADS))
        threads.append(threading.Thread(target=write, args=(cache, history, keys, end, at)))
        threads.append(threading.Thread(target=read, args=(cache, history, end, at)))
    for thread in threads:
        thread.start()
    try:
        yield history
    finally:
        for thread in threads:
            thread.join(SECONDS + 10)
            assert not thread.is_alive()
    assert history.wrong == []
    assert sum(history.done) > 200
    eventually(lambda: not cache.flights)  # what left is handed down in the background


def agrees(cache: TieredCache, history: History) -> None:
    """When all is quiet, here and below there is what was written last, or nothing."""
    for _ in range(2):
        for key, value in enumerate(cache.get_many(range(KEYS))):
            assert value is None or int(value) == history.done[key]
        cache.l0.clear()


def test_all_is_well(server: Server, tmp_path: Path) -> None:
    mmap = MmapTier(tmp_path / "mmap", max_bytes="4MB")
    with redis_cache(server.port, above=[mmap], maxsize=6) as calls:
        with working(calls.cache) as history:
            pass
        agrees(calls.cache, history)


FAULTS: list[Callable[[Proxy], object]] = [
    Proxy.refuse, Proxy.reset, lambda proxy: proxy.cut(random.randrange(50)),
    lambda proxy: proxy.reset(random.randrange(50)),
]  # fmt: skip


@pytest.mark.parametrize("above", [True, False])
def test_redis_comes_and_goes(server: Server, proxy: Proxy, tmp_path: Path, above: bool) -> None:
    tiers = [MmapTier(tmp_path / "mmap", max_bytes="4MB")] if above else []
    with redis_cache(proxy.port, above=tiers, maxsize=6) as calls:
        with working(calls.cache) as history:
            end = time.monotonic() + SECONDS - 1
            while time.monotonic() < end:
                random.choice(FAULTS)(proxy)
                time.sleep(random.uniform(0.0, 0.3))
                proxy.pass_on()
                time.sleep(random.uniform(0.0, 0.5))
        eventually(lambda: all(tier.owed == 0 for tier in calls.cache.stats().tiers))
        agrees(calls.cache, history)
        assert calls.tier.errors > 0


def test_redis_is_stopped_and_goes_on(server: Server) -> None:
    with redis_cache(server.port, maxsize=6) as calls:
        with working(calls.cache) as history:
            end = time.monotonic() + SECONDS - 1
            while time.monotonic() < end:
                server.send(signal.SIGSTOP)
                time.sleep(random.uniform(0.05, 0.4))
                server.send(signal.SIGCONT)
                time.sleep(random.uniform(0.0, 0.5))
        eventually(lambda: calls.tier.owed == 0)
        agrees(calls.cache, history)


# --- write-behind below a cache


def test_write_behind(server: Server, proxy: Proxy) -> None:
    tier = Breaker(RedisTier(f"redis://127.0.0.1:{proxy.port}"), pause=0.05, most=0.05)
    behind = WriteBehind(tier, max_items=500, delay=0.02)
    cache = TieredCache(100, tiers=[behind], namespace="test")
    with redis_cache(server.port) as other:
        cache.set("a", b"1")
        eventually(lambda: other.fresh("a") == b"1")
        proxy.stall()
        begin = time.monotonic()
        for at in range(300):
            cache.set(f"key {at}", b"%d" % at)
        cache.set("a", b"2")
        cache.delete("key 0")
        assert time.monotonic() - begin < 0.5  # nobody waited for a server
        cache.l0.clear()
        assert cache.get_many(["a", "key 0", "key 299"]) == [b"2", None, b"299"]
        assert cache.stats().tiers[0].own["waiting"] >= 300
        proxy.pass_on()
        eventually(lambda: cache.stats().tiers[0].own["waiting"] == 0)
        other.cache.l0.clear()
        assert other.get_many(["a", "key 0", "key 299"]) == [b"2", None, b"299"]
        server.kill()
        for at in range(1000):
            cache.set(f"many {at}", b"%d" % at)
        own = cache.stats().tiers[0].own
        assert own["waiting"] <= 500
        assert own["lost"] >= 500
        server.start()
        cache.set("last", b"1")
        cache.close()  # which has it all written
        other.cache.levels[-1].generation_read = 0
        assert other.get("last") is None or other.get("last") == b"1"
        with RedisTierOf(server.port) as below:
            assert below.get_many([b"test:last", b"test:many 999"]).count(None) == 0


@contextmanager
def RedisTierOf(port: int) -> Iterator[RedisTier]:  # noqa: N802
    tier = RedisTier(f"redis://127.0.0.1:{port}")
    yield tier
    tier.close()


def test_write_behind_is_closed_while_its_server_is_away(proxy: Proxy) -> None:
    tier = RedisTier(f"redis://127.0.0.1:{proxy.port}")
    behind = WriteBehind(Breaker(tier, pause=0.05), close_timeout=0.2)
    cache = TieredCache(100, tiers=[behind])
    cache.set("a", b"1")
    behind.flush()
    proxy.refuse()
    cache.levels[-1].generation_read += 60_000  # ms: no need to ask anew, however slow this is
    cache.set("a", b"2")
    begin = time.monotonic()
    with pytest.warns(RuntimeWarning, match="lost"):
        cache.close()
    assert time.monotonic() - begin < 2


# --- a full disk


def test_a_full_disk(tmp_path: Path, server: Server) -> None:
    """The mapped tier turns its writes off and counts it; the cache goes on."""

    def child() -> bool:
        mmap = MmapTier(tmp_path / "mmap", max_bytes="64MB")
        with redis_cache(server.port, timeout=2, above=[mmap], loader=lambda key: key) as calls:
            cache = calls.cache
            cache.set("before", b"kept")
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
            for at in range(100):
                cache.set(f"key {at}", os.urandom(50_000))
            above, below = cache.stats().tiers
            right = above.own["write_errors"] > 0 and above.own["writes_off"] == 1
            right &= above.errors > 0 and above.owed > 0 and below.owed == 0
            cache.l0.clear()
            right &= cache.get("before") == b"kept"
            right &= all(len(cache.get(f"key {at}")) == 50_000 for at in range(100))
            right &= cache.get("loaded") == "loaded"
            resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
            mmap._off_until = 0.0  # or half a minute later
            eventually(lambda: cache.stats().tiers[0].owed == 0)
            cache.set("key 7", b"new")
            cache.l0.clear()
            hits = cache.stats().tiers[0].hits
            right &= cache.get("key 7") == b"new" and cache.stats().tiers[0].hits == hits + 1
            return bool(right)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert in_child(child) == 0
