"""Which caches are watched, under which names, and for how long; also amid threads and forks."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from cachecore import Cache, TieredCache, VectorCache
from cachecore.integrations.prometheus import CacheCollector
from cachecore.tiers import MmapTier, Tier
from integrations.watched import Caches, scrape, value
from tiers.children import in_child

# --- who is watched


def test_it_keeps_no_cache_alive() -> None:
    collector = CacheCollector(None)
    plain: Cache[Any, Any] = Cache(10, name="plain")
    vectors = VectorCache(4, capacity=10)
    tiered = TieredCache(10, namespace="tiered")
    collector.add(plain)
    collector.add(vectors, "vectors")
    collector.add(tiered)
    references = [weakref.ref(cache) for cache in (plain, vectors, tiered)]
    assert {name for name, _ in collector.caches()} == {"plain", "vectors", "tiered"}
    scrape(collector)
    tiered.close()
    del plain, vectors, tiered
    gc.collect()
    assert [reference() for reference in references] == [None] * 3
    assert scrape(collector) == {}


def test_a_name_is_free_again_when_its_cache_is_gone() -> None:
    collector = CacheCollector(None)
    first: Cache[str, int] = Cache(10, name="one")
    collector.add(first)
    collector.add(first)  # again
    second: Cache[str, int] = Cache(20, name="one")
    with pytest.raises(ValueError, match="name must be of one cache only: 'one'"):
        collector.add(second)
    assert value(scrape(collector), "max_entries", cache="one") == 10
    del first
    collector.add(second)
    assert value(scrape(collector), "max_entries", cache="one") == 20
    collector.remove("one")
    assert scrape(collector) == {}
    with pytest.raises(KeyError):
        collector.remove("one")


@pytest.mark.parametrize(
    ("cache", "name", "error", "text"),
    [
        (Cache(10), None, ValueError, "name is required"),
        (Cache(10), "", ValueError, "name is required"),
        (Cache(10), 7, TypeError, "name must be a str, not int"),
        (Cache(10), b"x", TypeError, "name must be a str, not bytes"),
        ({}, "x", TypeError, "cache must be a cache or a Source, not dict"),
        (None, "x", TypeError, "cache must be a cache or a Source, not NoneType"),
        (Cache, "x", TypeError, "cache must be a cache or a Source, not type"),
        (np.zeros(3), "x", TypeError, "cache must be a cache or a Source, not ndarray"),
    ],
)
def test_what_is_no_cache_is_refused(cache: Any, name: Any, error: Any, text: str) -> None:
    collector = CacheCollector(None)
    with pytest.raises(error, match=text):
        collector.add(cache, name)
    assert collector.caches() == []


def test_a_cache_without_weak_references_is_refused() -> None:
    class Slotted:
        __slots__ = ()

        def stats(self) -> Any:
            return Cache(10).stats()

    with pytest.raises(TypeError, match="cache must allow weak references, which Slotted does not"):
        CacheCollector(None).add(Slotted(), "x")


def test_closed_caches_are_left_out() -> None:
    collector = CacheCollector(None)
    vectors = VectorCache(4, capacity=10)
    tiered = TieredCache(10, namespace="tiered")
    collector.add(vectors, "vectors")
    collector.add(tiered)
    vectors.close()
    tiered.close()
    assert scrape(collector) == {}
    with pytest.raises(ValueError, match="closed"):
        collector.add(vectors, "again")


def test_a_cache_that_raises_is_counted_and_the_others_are_told() -> None:
    class Broken(Cache[str, int]):
        broken = False

        def stats(self) -> Any:
            if self.broken:
                raise RuntimeError("no")
            return super().stats()

    collector, broken = CacheCollector(None), Broken(10)
    good: Cache[str, int] = Cache(10)
    collector.add(broken, "broken")
    collector.add(good, "good")
    assert ("cachecore_unread_total", frozenset({("cache", "broken")})) not in scrape(collector)
    broken.broken = True
    for times in (1, 2):
        found = scrape(collector)
        assert value(found, "entries", cache="good") == 0
        assert value(found, "unread_total", cache="broken") == times
        assert ("cachecore_entries", frozenset({("cache", "broken")})) not in found


class Odd(Tier):
    """A tier with a strange name, that tells strange things of itself."""

    quick = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_many(self, keys: Any) -> Any:
        return [None] * len(keys)

    def set_many(self, items: Any) -> None:
        pass

    def close(self) -> None:
        pass

    def stats(self) -> Any:
        return {'"\\\n': 1, "text": "no number", "none": None, "nan": float("nan"), "ok": 2.5}


STRANGE = ['"quoted"', "back\\slash", "new\nline", "\0", "\ud800", "l0", "loader", "é", "x" * 1000]


def test_strange_names_are_told_as_they_are() -> None:
    collector = CacheCollector(None)
    tiers = [Odd(name) for name in STRANGE]
    with TieredCache(10, tiers=tiers, namespace='a"\n\\') as cache:
        collector.add(cache)
        found = scrape(collector)
        told = [name.replace("\ud800", "\\ud800") for name in STRANGE]
        told[5:7] = ["l0 2", "loader 2"]
        for name in told:
            place = {"cache": 'a"\n\\', "tier": name}
            assert value(found, "requests_total", **place, result="hit") == 0
            assert value(found, "events_total", **place, event='"\\\n') == 1
            assert value(found, "events_total", **place, event="ok") == 2.5
    events = {dict(labels).get("event") for _, labels in found}
    assert events.isdisjoint({"text", "none", "nan"})


def test_tiers_of_one_name_are_told_apart(tmp_path: Path) -> None:
    tiers = [MmapTier(tmp_path / str(at), max_bytes="4MB", name="disk") for at in range(3)]
    collector = CacheCollector(None)
    with TieredCache(1, tiers=tiers, loader=str.upper, namespace="c") as cache:
        collector.add(cache)
        cache.get("a")
        found = scrape(collector)
        for name in ("disk", "disk 2", "disk 3"):
            assert value(found, "requests_total", cache="c", tier=name, result="miss") == 1


def test_a_registry_finds_what_is_registered_twice() -> None:
    registry = CollectorRegistry()
    CacheCollector(registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        CacheCollector(registry)


# --- threads, and processes


def come_and_go(collector: CacheCollector, folder: Path, name: str, turn: int) -> None:
    """A cache with a tier and one of rows are made, watched, used and closed."""
    tiers = [MmapTier(folder / f"{name}{turn % 3}", max_bytes="4MB")]
    with TieredCache(10, tiers=tiers, loader=str, namespace=name) as cache:
        collector.add(cache)
        cache.get_many(list(range(20)))
    collector.remove(name)
    vectors = VectorCache(2, capacity=10)
    collector.add(vectors, f"rows {name}")
    vectors.close()


def test_scrapes_amid_everything(tmp_path: Path) -> None:
    """Caches are used, made, closed and dropped while others scrape: every scrape is whole."""
    collector, stop = CacheCollector(None), threading.Event()
    steady: Cache[int, int] = Cache(100, name="steady")
    collector.add(steady)

    def use(at: int) -> None:
        steady[at] = at
        steady.get(at - 50)

    def until_the_end(work: Callable[[int], None]) -> None:
        for at in itertools.count():
            if stop.is_set():
                return
            work(at)

    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(until_the_end, use)]
        jobs += [
            pool.submit(until_the_end, partial(come_and_go, collector, tmp_path, name))
            for name in ("a", "b")
        ]
        last = 0.0
        for _ in range(200):
            found = scrape(collector)
            hits = value(found, "requests_total", cache="steady", tier="l0", result="hit")
            assert hits >= last
            last = hits
        stop.set()
        for job in jobs:
            job.result()
    assert "steady" not in collector.unread  # others may be, if closed in the midst of a reading


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_counts_for_itself(made: Caches, collector: CacheCollector) -> None:
    def misses() -> float:
        found = scrape(collector)
        return value(found, "requests_total", cache="sessions", tier="l0", result="miss")

    def look() -> bool:
        made.sessions.get("none")
        return misses() == before + 1

    made.use(10)
    before = misses()
    assert in_child(look) == 0
    assert misses() == before
