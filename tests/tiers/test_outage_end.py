"""The end of a cache, or the beginning of another process, in the middle of something."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from cachecore import TieredCache
from cachecore.tiers import MmapTier, RedisTier
from cachecore.tiers.invalidation import Tracking
from cachecore.tiers.testing import eventually
from servers import Server
from tiers.children import exit_code, fork, in_child
from tiers.outages import redis_cache
from tiers.proxy import Proxy


def test_close_while_threads_load(server: Server) -> None:
    def load(key: str) -> str:
        begun.release()
        free.wait(10)
        return key

    begun, free = threading.Semaphore(0), threading.Event()
    with redis_cache(server.port, loader=load) as calls:
        cache, results = calls.cache, []
        threads = [
            threading.Thread(target=lambda at=at: results.append(cache.get(f"key {at % 4}")))
            for at in range(8)
        ]
        for thread in threads:
            thread.start()
        for _ in range(4):
            begun.acquire()
        begin = time.monotonic()
        cache.close()
        assert time.monotonic() - begin < 1
        with pytest.raises(ValueError, match="closed"):
            cache.get("key 0")
        free.set()
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()
        assert sorted(results) == sorted(f"key {at % 4}" for at in range(8))
        assert cache.flights == {}
        assert len(cache.l0) == 0
        assert calls.tier.own["open"] == 0


def test_close_while_tasks_load(server: Server) -> None:
    async def load(key: str) -> str:
        begun.append(key)
        await asyncio.wait_for(free.wait(), 10)
        return key

    async def go(cache: TieredCache) -> None:
        tasks = [asyncio.ensure_future(cache.aget(key)) for key in "abca"]
        await asyncio.to_thread(eventually, lambda: len(begun) == 3)
        await cache.aclose()
        free.set()
        assert await asyncio.gather(*tasks) == list("abca")
        with pytest.raises(ValueError, match="closed"):
            await cache.aget("a")
        with pytest.raises(ValueError, match="closed"):
            await cache.aset("a", 1)
        await cache.aclose()
        assert cache.flights == {}

    begun: list[str] = []
    free = asyncio.Event()
    with redis_cache(server.port, loader=load) as calls:
        asyncio.run(go(calls.cache))
        assert calls.tier.own["open"] == 0


def until_closed(cache: TieredCache, name: int, wrong: list[Any]) -> None:
    try:
        for turn in range(1_000_000):
            key = f"{name}, {turn % 50}"
            cache.set(key, key)
            if cache.get(key) != key:
                wrong.append(key)
            cache.delete(key)
        wrong.append("it was not closed")
    except ValueError:
        pass
    except BaseException as error:
        wrong.append(error)


def test_close_while_threads_work(server: Server, tmp_path: Path) -> None:
    for turn in range(5):
        above = MmapTier(tmp_path / f"{turn}", max_bytes="4MB")
        with redis_cache(server.port, above=[above], loader=lambda key: key) as calls:
            cache, wrong = calls.cache, list[Any]()
            threads = [
                threading.Thread(target=until_closed, args=(cache, name, wrong))
                for name in range(8)
            ]
            for thread in threads:
                thread.start()
            eventually(lambda: cache.stats().l0.inserts > 100)  # noqa: B023
            cache.close()
            for thread in threads:
                thread.join(5)
                assert not thread.is_alive()
            assert wrong == []
            assert cache.flights == {}


# --- fork


def works(cache: TieredCache, mark: str) -> bool:
    """Whether it does everything within a second."""
    begin = time.monotonic()
    cache.set(f"by {mark}", mark)
    cache.l0.clear()
    right = cache.get(f"by {mark}") == mark
    right &= cache.get(f"loaded by {mark}") == f"loaded by {mark}"
    cache.delete(f"by {mark}")
    right &= asyncio.run(cache.aget(f"async by {mark}")) == f"async by {mark}"
    return right and time.monotonic() - begin < 1


@pytest.fixture
def busy(server: Server, tmp_path: Path) -> Any:
    """A cache with threads that use it, a load that hangs, and a source of invalidations."""

    def load(key: str) -> str:
        if key == "hangs":
            begun.set()
            free.wait(20)
        return key

    def work(name: int) -> None:
        turn = 0
        while not stop.is_set():
            key = f"{name}, {turn % 20}"
            turn += 1
            try:
                cache.set(key, str(turn))
                if cache.get(key) != str(turn):
                    wrong.append(key)
                cache.l0.delete(key)
                if cache.get(key) != str(turn):
                    wrong.append(key)
            except BaseException as error:
                wrong.append(error)

    url = f"redis://127.0.0.1:{server.port}"
    begun, free, stop = threading.Event(), threading.Event(), threading.Event()
    wrong: list[Any] = []
    source = Tracking(url, prefix="nobody's:")
    cache = TieredCache(
        1000, namespace="test", loader=load, invalidation=[source],
        tiers=[MmapTier(tmp_path / "mmap", max_bytes="4MB"), RedisTier(url, timeout=2)],
    )  # fmt: skip
    eventually(lambda: not cache.distrusted)
    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    threads.append(threading.Thread(target=cache.get, args=("hangs",)))
    for thread in threads:
        thread.start()
    begun.wait()
    yield cache
    stop.set()
    free.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert wrong == []
    assert cache.flights == {}
    cache.close()


def test_fork_in_the_middle_of_everything(busy: TieredCache, server: Server) -> None:
    def child() -> bool:
        assert busy.flights == {}
        right = works(busy, "child")
        eventually(lambda: not busy.distrusted)  # it listens on its own
        busy.close()
        return right

    assert in_child(child) == 0
    assert works(busy, "parent")
    assert busy.sources[0].connected


def test_many_forks(busy: TieredCache) -> None:
    for _ in range(20):
        assert in_child(lambda: works(busy, f"child {os.getpid()}")) == 0
    assert works(busy, "parent")


def test_fork_of_a_fork(busy: TieredCache) -> None:
    assert in_child(lambda: works(busy, "child") and in_child(lambda: works(busy, "its")) == 0) == 0


def test_a_child_asks_what_its_parent_is_loading(busy: TieredCache) -> None:
    """Nobody ends that load there: it begins one of its own."""

    def child() -> bool:
        busy.loader._one = lambda key: "of the child"  # type: ignore[union-attr]
        return bool(busy.get("hangs") == "of the child")

    assert in_child(child) == 0


def test_fork_while_values_wait_to_be_handed_down(tmp_path: Path) -> None:
    """The child hands down its own: the thread that would have is its parent's."""

    def heat(cache: TieredCache, name: str) -> None:
        for at in range(200):
            cache.set(f"{name} {at}", b"value")
            for _ in range(4):
                cache.get(f"{name} {at}")

    store = MmapTier(tmp_path / "mmap", max_bytes="4MB")
    with TieredCache(4, tiers=[store], exclusive=True) as cache:
        heat(cache, "parent's")
        assert cache.handing_down

        def child() -> bool:
            before = cache.stats().demotions
            heat(cache, "child's")
            eventually(lambda: cache.stats().demotions > before)
            return True

        assert in_child(child) == 0


def test_fork_with_owed_writes(server: Server, proxy: Proxy) -> None:
    """Both make up for them; neither puts an older value over a newer one."""
    with redis_cache(proxy.port) as calls, redis_cache(server.port) as other:
        calls.set_many({"a": "old", "b": "old"})
        proxy.refuse()
        calls.set("a", "missed")
        calls.delete("b")

        def child() -> bool:
            assert calls.tier.owed == 2
            assert calls.fresh("a") == "missed"  # what is owed is known
            os.read(reader, 1)  # the proxy is back
            eventually(lambda: calls.tier.owed == 0)
            eventually(lambda: calls.fresh("a") in ("missed", "newer"))
            return calls.fresh("b") is None

        reader, writer = os.pipe()
        pid = fork(child)
        proxy.pass_on()
        eventually(lambda: calls.tier.owed == 0)
        calls.set("a", "newer")
        os.write(writer, b"x")
        assert exit_code(pid) == 0
        assert other.get_many(["a", "b"]) == ["newer", None]
        os.close(reader)
        os.close(writer)


def test_the_childs_sockets_are_its_own(server: Server) -> None:
    with redis_cache(server.port) as calls, redis.Redis(port=server.port) as client:
        calls.set("a", 1)
        before = {each["addr"] for each in client.client_list()}

        def child() -> bool:
            for turn in range(100):
                calls.cache.set("child", turn)
                if calls.fresh("child") != turn:
                    return False
            calls.cache.close()
            return True

        pid = fork(child)
        for turn in range(300):
            calls.cache.set("parent", turn)
            assert calls.fresh("parent") == turn
        assert exit_code(pid) == 0
        assert before <= {each["addr"] for each in client.client_list()}  # and still there
        calls.set("a", 2)
