"""Nothing leaks: cycles, a million operations, and operations whose allocations fail one by one."""

from __future__ import annotations

import contextlib
import gc
import importlib
import math
import random
import resource
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachecore import Cache
from support import Clock, Key, check


class Holder:
    """Something that can be referred to weakly and hold anything."""

    def __init__(self, *held: object) -> None:
        self.held = held


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


CYCLES: dict[str, Callable[[Holder], Cache[Any, Any]]] = {}


def cycle(build: Callable[[Holder], Cache[Any, Any]]) -> None:
    CYCLES[build.__name__] = build


@cycle
def through_a_value(holder: Holder) -> Cache[Any, Any]:
    cache: Cache[Any, Any] = Cache(8)
    holder.held = (cache,)
    cache["k"] = holder
    return cache


@cycle
def through_a_key(holder: Holder) -> Cache[Any, Any]:
    cache: Cache[Any, Any] = Cache(8)
    holder.held = (cache,)
    cache[holder] = 1
    return cache


@cycle
def through_itself(holder: Holder) -> Cache[Any, Any]:
    cache: Cache[Any, Any] = Cache(8)
    cache["holder"], cache["self"] = holder, cache
    return cache


@cycle
def through_main_and_window(holder: Holder) -> Cache[Any, Any]:
    cache: Cache[Any, Any] = Cache(100)
    for n in range(300):
        cache[n] = Holder(cache, holder)
    return cache


@cycle
def through_on_evict(holder: Holder) -> Cache[Any, Any]:
    cache: Cache[Any, Any] = Cache(8, on_evict=lambda *leaver: (cache, holder))
    return cache


@cycle
def through_the_timer(holder: Holder) -> Cache[Any, Any]:
    cache: Cache[Any, Any] = Cache(8, timer=lambda: len((cache, holder)))
    return cache


@cycle
def through_getsizeof(holder: Holder) -> Cache[Any, Any]:
    cache: Cache[Any, Any] = Cache(8, getsizeof=lambda value: len((cache, holder)))
    cache["k"] = 1
    return cache


@cycle
def through_a_view(holder: Holder) -> Cache[Any, Any]:
    cache: Cache[Any, Any] = Cache(8)
    cache["items"], cache["holder"] = cache.items(), holder
    return cache


@cycle
def through_an_iterator(holder: Holder) -> Cache[Any, Any]:
    cache: Cache[Any, Any] = Cache(8)
    cache["holder"] = holder
    for n in range(3):
        cache[n] = 0
    iterators = [iter(cache), iter(cache.items()), iter(cache.values())]
    for iterator in iterators:
        next(iterator)
    cache["holder"] = Holder(holder, iterators)
    return cache


@cycle
def through_a_subclass(holder: Holder) -> Cache[Any, Any]:
    class Odd(Cache[Any, Any]):
        pass

    cache = Odd(8)
    cache.friend = (cache, holder)  # type: ignore[attr-defined]
    return cache


@cycle
def through_a_factory(holder: Holder) -> Cache[Any, Any]:
    cache: Cache[Any, Any] = Cache(8)
    cache.get_or_set("k", lambda: Holder(cache, holder))
    return cache


@cycle
def through_an_object_array(holder: Holder) -> Cache[Any, Any]:
    cache: Cache[Any, Any] = Cache(8)
    cache["k"] = Holder(np.array([cache, holder, None], dtype=object).tolist())
    return cache


@pytest.mark.parametrize("name", list(CYCLES))
def test_cycles_through_a_cache_are_collected(name: str) -> None:
    gc.collect()
    gc.disable()
    holder = Holder()
    cache = CYCLES[name](holder)
    dead = weakref.ref(holder), weakref.ref(cache)
    assert cache in gc.get_referrers(*cache.values()) or not len(cache)
    del holder, cache
    gc.collect()
    assert [reference() for reference in dead] == [None, None]


def test_a_cache_that_is_alive_keeps_its_values_through_a_collection() -> None:
    cache: Cache[Any, Any] = Cache(1000)
    for n in range(3000):
        cache[n] = Holder(cache)
    before = dict(cache)
    gc.collect()
    assert dict(cache) == before
    check(cache)


def test_a_million_mixed_operations_leak_nothing() -> None:
    rng = random.Random(1)
    clock = Clock()
    fixed = [object() for _ in range(100)]
    array = np.zeros(100)

    def mix(operations: int) -> None:
        """As many operations on a cache with everything turned on; it is gone at the end."""
        cache: Cache[Any, Any] = Cache(
            500, max_bytes="200KB", timer=clock, on_evict=lambda *leaver: None
        )
        for n in range(operations // 12):
            key = rng.randrange(2000)
            cache.get(key)
            cache[key] = fixed[key % 100]
            cache.set((key, n % 5), array, ttl=rng.choice([0.5, 50, math.inf, 4e6]))
            cache.set(f"{key}", b"x" * rng.choice([10, 1000, 300_000]))
            cache.setdefault(key + 1, fixed[0])
            cache.get_or_set(key + 2, lambda: Holder(fixed[1]))
            cache.pop(key + 3, None)
            cache.delete((key, 1))
            cache.touch(key, 1)
            cache.get_many([key, f"{key}", (key, 2), b"absent"])
            cache[Key(key, hash=key % 50)] = fixed[2]
            with contextlib.suppress(KeyError):
                cache[Key("absent")]
            clock.advance(0.01)
            if n % 1000 == 0:
                cache.expire()
                cache.copy()
                list(cache.items())
                cache.hottest(5)
                cache.resize(rng.choice([100, 500]))
            if n % 20_000 == 0:
                cache.clear()
        check(cache)

    mix(200_000)  # what is allocated once and kept is now
    gc.collect()
    counts = [sys.getrefcount(item) for item in [*fixed, array, array.dtype, None.__class__]]
    blocks, resident = sys.getallocatedblocks(), resident_bytes()
    for _ in range(5):
        mix(200_000)
    gc.collect()
    assert counts == [
        sys.getrefcount(item) for item in [*fixed, array, array.dtype, None.__class__]
    ]
    assert sys.getallocatedblocks() - blocks < 1000  # free lists; a leak is a block each 12 or so
    assert resident_bytes() - resident < 8 * 2**20


def test_memory_comes_back_when_a_large_cache_goes() -> None:
    warm: Cache[Any, Any] = Cache(10)
    warm[1] = 1
    gc.collect()
    before = resident_bytes()
    for _ in range(3):
        cache: Cache[Any, Any] = Cache(10**6)
        cache.update((n, None) for n in range(10**6))
        assert resident_bytes() - before > 30 * 2**20
        cache.clear()
        check(cache)
        cache.update((n, None) for n in range(10**6))
        del cache
        gc.collect()
    assert resident_bytes() - before < 8 * 2**20


# --- failing allocations ---------------------------------------------------------------------


class Stage:
    """A cache in the middle of its life, and objects whose references are counted."""

    def __init__(self, bounds: dict[str, Any]) -> None:
        self.cache: Cache[Any, Any] = Cache(timer=Clock(), on_evict=lambda *leaver: None, **bounds)
        self.watched = self.old, self.new, self.array = Holder(), Holder(), np.arange(100.0)
        self.out = np.empty((2, 4))
        self.unheld = self.references()
        for n in range(12):  # a few more and the records, the queue and the index must grow
            self.cache[n] = Holder(n)
        self.cache["rows"] = np.zeros(4)
        self.cache["k"] = self.old

    def references(self) -> list[int]:
        return [sys.getrefcount(item) for item in self.watched]


FAILING: dict[str, Callable[[Stage, Cache[Any, Any]], object]] = {
    "c[k]": lambda s, c: c["k"],
    "get": lambda s, c: c.get(("a key", "of Python")),
    "overwrite": lambda s, c: c.set("k", s.new),
    "overwrite with a far ttl": lambda s, c: c.set("k", s.new, ttl=1e9),
    "overwrite with an array": lambda s, c: c.set("k", s.array),
    "insert": lambda s, c: c.set("new", s.new),
    "insert with ttl": lambda s, c: c.set("new", s.new, ttl=1),
    "insert with a far ttl": lambda s, c: c.set("new", s.new, ttl=1e9),
    "insert an array": lambda s, c: c.set("new", s.array),
    "setdefault": lambda s, c: c.setdefault("new", s.new),
    "get_or_set": lambda s, c: c.get_or_set("new", lambda: s.new),
    "insert many": lambda s, c: c.update({("many", n): s.new for n in range(100)}),
    "get_many": lambda s, c: c.get_many(["k", "absent", "rows"] * 20),
    "gather": lambda s, c: c.gather(["rows", "absent"], s.out),
    "pop": lambda s, c: c.pop("k"),
    "popitem": lambda s, c: c.popitem(),
    "delete": lambda s, c: c.delete("k"),
    "delete_many": lambda s, c: c.delete_many(["k", "rows"]),
    "touch": lambda s, c: c.touch("k", 1e9),
    "resize": lambda s, c: c.resize(5),
    "resize to bytes": lambda s, c: c.resize(max_bytes=2000),
    "grow": lambda s, c: c.resize(10**6),
    "expire": lambda s, c: c.expire(),
    "clear": lambda s, c: c.clear(),
    "copy": lambda s, c: c.copy(),
    "items": lambda s, c: list(c.items()),
    "repr": lambda s, c: repr(c),
    "==": lambda s, c: c == {},
    "hottest": lambda s, c: c.hottest(3),
    "stats": lambda s, c: c.stats(),
}
IN_STEPS = {"insert many", "delete_many", "resize", "resize to bytes"}  # may end halfway
# CPython says RuntimeError when it cannot make a lock, NumPy SystemError in places.
FAILURES = (MemoryError, RuntimeError, SystemError)


def succeeds_while_allocations_fail(
    operation: str, bounds: dict[str, Any], first: int, end: int
) -> bool:
    """Try the operation while allocations first ... end - 1 (end 0: all from first on) fail."""
    stage = Stage(bounds)
    cache = stage.cache
    before = dict(cache.items())
    testcapi = importlib.import_module("_testcapi")
    testcapi.set_nomemory(first, end)
    try:
        FAILING[operation](stage, cache)
        done = True
    except FAILURES:
        done = False
    finally:
        testcapi.remove_mem_hooks()
    check(cache)
    if not done and operation not in IN_STEPS:
        # The set may have made room already, but the old value stays and nothing new came in.
        assert cache.peek("k") is stage.old
        assert dict(cache.items()).items() <= before.items()
        assert len(cache) >= len(before) - (operation in ("insert", "setdefault"))
    cache["afterwards"] = 1
    assert cache["afterwards"] == 1
    cache.clear()
    before.clear()
    check(cache)
    assert stage.references() == stage.unheld
    return done


@pytest.mark.parametrize("operation", FAILING)
def test_the_nth_allocation_fails(operation: str) -> None:
    """For N = 1, 2, 3 ... until the operation succeeds: it alone, and it and all that follow."""
    sys.unraisablehook = lambda caught: None  # of on_evict
    for bounds in ({"maxsize": 16}, {"maxsize": 14}, {"max_bytes": 2500}):
        stage = Stage(bounds)
        FAILING[operation](stage, stage.cache)  # what is made once and kept is made
        for lasting in (False, True):
            successes, nth = 0, 0
            while successes < 10:  # one that does no harm may come before one that does
                nth += 1
                end = 0 if lasting else nth + 1
                done = succeeds_while_allocations_fail(operation, bounds, nth, end)
                successes = successes + 1 if done else 0
                assert nth < 10_000


def test_no_memory_for_the_table_itself() -> None:
    """The address space is limited, so that records, queue and index cannot grow any more."""
    if "libasan" in Path("/proc/self/maps").read_text():
        pytest.skip("AddressSanitizer reserves terabytes of addresses")
    cache: Cache[int, int] = Cache(10**9)
    numbers = list(range(3_000_000))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20, resource.RLIM_INFINITY))
    with pytest.raises(MemoryError):
        cache.update((n, n) for n in numbers)
    check(cache)
    held = len(cache)
    assert held > 100_000
    for _ in range(3):  # it fails again, and again nothing is lost
        with pytest.raises(MemoryError):
            cache[-1] = -1
        assert len(cache) == held
    assert -1 not in cache
    assert all(cache[n] == n for n in numbers[:held])
    cache[5] = 6  # an overwrite needs no memory
    assert cache[5] == 6
    assert cache.delete_many(numbers[: held // 2]) == held // 2
    for n in numbers[:1000]:  # and there is room again
        cache[n] = n
    check(cache)
