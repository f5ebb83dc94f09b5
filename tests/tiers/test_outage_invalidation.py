"""Invalidations while something is under way: the older value never comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from cachecore import TieredCache
from cachecore.tiers import Item, MmapTier, RedisTier
from cachecore.tiers.base import Wrapper
from cachecore.tiers.invalidation import PubSub, Streams, Tracking
from cachecore.tiers.testing import eventually
from servers import Server
from support import Clock
from tiers.proxy import Proxy


@pytest.fixture
def server(running: Server) -> Server:
    """Nothing here stops it."""
    return running


class Gate(Wrapper):
    """A tier that can be made to wait before its next write, or after it."""

    def __init__(self, tier: Any) -> None:
        super().__init__(tier)
        self.quick = False
        self.before, self.after = threading.Event(), threading.Event()
        self.reached = threading.Event()
        self.open()

    def open(self) -> None:
        self.before.set()
        self.after.set()

    def shut(self, when: str) -> None:
        self.reached.clear()
        getattr(self, when).clear()

    def set_many(self, items: Sequence[Item]) -> None:
        if not self.before.is_set():
            self.reached.set()
            self.before.wait(10)
        super().set_many(items)
        if not self.after.is_set():
            self.reached.set()
            self.after.wait(10)


class Forgetting(TieredCache):
    """A cache that writes down the keys that it was told to forget, once it has."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.forgot: list[bytes] = []
        super().__init__(*args, **settings)

    def forget(self, keys: Sequence[bytes]) -> None:
        super().forget(keys)
        self.forgot += keys


class Setting:
    """A cache over a mapped file and a Redis, with a source of invalidations and a slow loader."""

    def __init__(self, kind: str, server: Server, port: int, folder: Path) -> None:
        url = f"redis://127.0.0.1:{port}"
        self.kind, self.client = kind, redis.Redis(port=server.port)
        self.mmap = MmapTier(folder, max_bytes="4MB")
        self.above, self.below = Gate(self.mmap), Gate(RedisTier(url, timeout=5))
        self.truth: dict[str, str] = {}
        self.loads: list[str] = []
        self.loading, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.source: Any = {
            "tracking": lambda: Tracking(url, prefix="a:", heartbeat=0.2),
            "pubsub": lambda: PubSub(url, "changes", heartbeat=0.2),
            "streams": lambda: Streams(url, "changes", heartbeat=0.2),
        }[kind]()
        if kind == "tracking":  # which names keys without their prefix
            self.source = Tracking(url, heartbeat=0.2)
        self.cache = Forgetting(
            100, tiers=[self.above, self.below], loader=self.load, namespace="a",
            invalidation=[self.source],
        )  # fmt: skip
        eventually(lambda: not self.cache.distrusted)

    def load(self, key: str) -> str | None:
        value = self.truth.get(key)
        self.loads.append(key)
        self.loading.set()
        self.go_on.wait(10)
        return value

    def change(self, key: str, value: str) -> None:
        """What another process does: it changes the truth, and tells of it."""
        self.truth[key] = value
        count = self.cache.forgot.count(b"a:" + key.encode())
        if self.kind == "tracking":
            self.client.set(f"a:{key}", "something else")
            self.client.delete(f"a:{key}")
        else:
            self.client.delete(f"a:{key}")
            if self.kind == "pubsub":
                self.client.publish("changes", f"a:{key}")
            else:
                self.client.xadd("changes", {"key": f"a:{key}"})
        eventually(lambda: self.cache.forgot.count(b"a:" + key.encode()) > count)

    def settle(self) -> None:
        """Know the generations, and have heard of our own writes: news come in their order."""
        self.cache.get("other")
        self.change("other", "")

    def nowhere(self, key: str, value: str) -> None:
        """It is in no tier, and never found."""
        for _ in range(3):
            assert self.cache.get(key) != value
            self.cache.l0.clear()
        self.mmap.delete_many([b"a:" + key.encode()])
        assert self.cache.get(key) != value
        self.cache.l0.clear()
        other = TieredCache(10, tiers=[RedisTier(f"redis://127.0.0.1:{self.port}")], namespace="a")
        assert other.get(key) != value
        other.close()

    @property
    def port(self) -> int:
        port: int = self.client.connection_pool.connection_kwargs["port"]
        return port


@contextmanager
def in_thread(call: Callable[..., Any], *args: Any) -> Iterator[list[Any]]:
    """A call that goes on beside the block, and what it returned at its end."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call(*args)))
    thread.start()
    try:
        yield results
    finally:
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(params=["tracking", "pubsub", "streams"])
def setting(
    request: pytest.FixtureRequest, server: Server, proxy: Proxy, tmp_path: Path
) -> Iterator[Setting]:
    setting = Setting(request.param, server, proxy.port, tmp_path / "mmap")
    yield setting
    for gate in (setting.above, setting.below):
        gate.open()
    setting.go_on.set()
    eventually(lambda: setting.cache.flights == {})
    setting.cache.close()
    setting.client.close()


def test_another_changes_a_key(setting: Setting) -> None:
    setting.truth["k"] = "old"
    for _ in range(3):
        assert setting.cache.get("k") == "old"
    eventually(lambda: setting.cache.get("k") == "old" and "k" in setting.cache.l0)
    setting.change("k", "new")
    assert setting.cache.get("k") == "new"
    setting.nowhere("k", "old")


def test_while_it_is_being_loaded(setting: Setting) -> None:
    setting.truth["k"] = "old"
    setting.go_on.clear()
    with in_thread(setting.cache.get, "k") as results:
        setting.loading.wait(10)
        setting.change("k", "new")
        setting.go_on.set()
        with in_thread(setting.cache.get, "k") as later:
            pass
        assert later == ["new"]
    assert results == ["old"]  # who asked before
    setting.nowhere("k", "old")


@pytest.mark.parametrize(
    ("when", "tier"),
    [("before", "above"), ("after", "above"), ("before", "below"), ("after", "below")],
)
def test_while_it_is_being_stored(setting: Setting, tier: str, when: str) -> None:
    setting.truth["k"] = "old"
    setting.settle()
    gate = getattr(setting, tier)
    gate.shut(when)
    with in_thread(setting.cache.get, "k"):
        assert gate.reached.wait(10)
        setting.change("k", "new")
        with in_thread(setting.cache.get, "k") as later:
            gate.open()
        assert later == ["new"]
    setting.nowhere("k", "old")


def test_while_it_climbs(setting: Setting) -> None:
    """From Redis into the mapped file."""
    setting.truth["k"] = "old"
    setting.cache.get("k")
    setting.settle()
    setting.cache.l0.clear()
    setting.mmap.delete_many([b"a:k"])
    setting.above.shut("before")
    with in_thread(setting.cache.get, "k"):
        assert setting.above.reached.wait(10)
        setting.change("k", "new")
        setting.above.open()
    assert setting.cache.get("k") == "new"
    setting.nowhere("k", "old")


@pytest.mark.parametrize("name", ["a", "red"])
def test_a_namespace_and_a_tag(setting: Setting, server: Server, name: str) -> None:
    """Another process invalidates it: this one hears of it at once."""
    if setting.kind != "tracking":
        return  # they tell what they are told
    other = TieredCache(10, tiers=[RedisTier(f"redis://127.0.0.1:{server.port}")], namespace="a")
    setting.cache.set("k", "old", tags=["red"])
    time.sleep(0.1)
    for _ in range(2):
        assert setting.cache.get("k") == "old"
    begin = time.monotonic()
    other.invalidate(name)
    eventually(lambda: setting.cache.get("k") != "old")
    assert time.monotonic() - begin < 0.6  # not when the generation is read anew, in a second
    other.close()


def test_a_lost_connection(setting: Setting, proxy: Proxy) -> None:
    setting.truth["k"] = "old"
    cache = setting.cache
    eventually(lambda: cache.get("k") == "old" and "k" in cache.l0)
    proxy.refuse()
    eventually(lambda: cache.distrusted)
    setting.truth["k"] = "new"  # nobody can tell
    for _ in range(3):
        count = len(setting.loads)
        assert cache.get("k") == "new"
        assert len(setting.loads) == count + 1  # nothing here is believed
        assert len(cache.l0) == 0
    setting.client.delete("a:k")
    if setting.kind == "streams":  # what was appended meanwhile is told, and nothing else forgotten
        setting.client.xadd("changes", {"key": "a:k"})
    proxy.pass_on()
    eventually(lambda: not cache.distrusted)
    assert cache.get("k") == "new"
    setting.nowhere("k", "old")
    eventually(lambda: cache.get("k") == "new" and "k" in cache.l0)
    count = len(setting.loads)
    for _ in range(3):
        assert cache.get("k") == "new"
    assert len(setting.loads) == count
    assert cache.stats().distrusts >= 2  # the first: before it was connected


def test_absence_is_not_believed_either(server: Server, proxy: Proxy) -> None:
    source = Tracking(f"redis://127.0.0.1:{proxy.port}", heartbeat=0.2)
    tier = RedisTier(f"redis://127.0.0.1:{server.port}")
    with TieredCache(10, tiers=[tier], negative_ttl=60, invalidation=[source]) as cache:
        eventually(lambda: not cache.distrusted)
        proxy.refuse()
        eventually(lambda: cache.distrusted)
        assert cache.get("k") is None
        with TieredCache(10, tiers=[RedisTier(f"redis://127.0.0.1:{server.port}")]) as other:
            other.set("k", "new")
        assert cache.get("k") == "new"


def test_the_echo_of_our_own_writes(server: Server) -> None:
    """What this process writes Redis tells it of, too: it forgets it, and reads it once more."""
    url = f"redis://127.0.0.1:{server.port}"
    with TieredCache(10, tiers=[RedisTier(url)], invalidation=[Tracking(url)]) as cache:
        eventually(lambda: not cache.distrusted)
        cache.set("k", "value")
        eventually(lambda: cache.stats().invalidations >= 1)
        time.sleep(0.05)
        hits = cache.stats().tiers[0].hits
        for _ in range(5):
            assert cache.get("k") == "value"
        assert cache.stats().tiers[0].hits == hits + 1


def test_two_processes_on_one_file(server: Server, tmp_path: Path, clock: Clock) -> None:
    """One invalidates: the other notices, and they do not go on telling each other."""
    url = f"redis://127.0.0.1:{server.port}"
    caches = [
        TieredCache(
            100, namespace="a", timer=clock,
            tiers=[MmapTier(tmp_path / "mmap", max_bytes="4MB"), RedisTier(url)],
        )
        for _ in range(2)
    ]  # fmt: skip
    first, second = caches
    first.set("k", "old")
    assert second.get("k") == "old"
    first.invalidate("a")
    clock.advance(1.05)
    second.get("other")
    assert second.get("k") is None
    for _ in range(3):
        for cache in caches:
            cache.get("other")
        clock.advance(1.05)
    first.set("k", "new")
    generations = [level.generation for cache in caches for level in cache.levels]
    for _ in range(2):
        for cache in caches:
            cache.get("other")
            assert cache.get("k") == "new"
        clock.advance(1.05)
    assert [level.generation for cache in caches for level in cache.levels] == generations
    for cache in caches:
        cache.close()
