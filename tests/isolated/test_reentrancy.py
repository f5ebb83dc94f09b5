"""Keys, values and callbacks that use, empty or break the cache in the middle of each operation."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cachecore import Cache
from support import Clock, Key, Value, check

MAXSIZE = 20


def raise_error(cache: Cache[Any, Any]) -> None:
    raise ArithmeticError("planned")


serial = itertools.count()

ACTIONS: dict[str, Callable[[Cache[Any, Any]], object]] = {
    "look up": lambda c: [c.get(n) for n in range(8)],
    "insert": lambda c: c.set(next(serial), Value()),
    "insert many": lambda c: c.update({next(serial): Value() for _ in range(50)}),
    "delete": lambda c: c.delete_many(list(c)[::2]),
    "drain": lambda c: [c.popitem() for _ in range(len(c) // 2)],
    "clear": lambda c: c.clear(),
    "clear and refill": lambda c: (c.clear(), c.update({next(serial): 1 for _ in range(30)})),
    "shrink": lambda c: c.resize(3),
    "grow": lambda c: (c.resize(5000), c.update({next(serial): 1 for _ in range(3000)})),
    "count bytes": lambda c: c.resize(max_bytes=2000),
    "iterate": lambda c: list(c.items()),
    "copy": lambda c: c.copy(),
    "collect": lambda c: gc.collect(),
    "raise": raise_error,
}


class Scene:
    """A full cache of which every part carries `action` out, three times at most per operation."""

    def __init__(self, action: str, **bounds: Any) -> None:
        self.action = ACTIONS[action]
        self.left = 0
        self.clock = Clock()
        self.cache: Cache[Any, Any] = Cache(
            MAXSIZE, timer=self.timer, on_evict=self.act, getsizeof=self.sizeof, **bounds
        )

    def act(self, *_: object) -> None:
        if self.left > 0:
            self.left -= 1
            self.action(self.cache)

    def timer(self) -> float:
        self.act()
        return self.clock.now

    def sizeof(self, value: object) -> int:
        self.act()
        return 8

    def key(self, name: object) -> Key:
        return Key(name, on_eq=self.act, on_hash=self.act)

    def fill(self) -> None:
        self.left = 0
        self.cache.resize(MAXSIZE, max_bytes=10**6)
        self.cache.clear()
        for n in range(MAXSIZE // 2):
            self.cache.set(self.key(n), Value((n,), self.act), ttl=[None, 1, math.inf][n % 3])
            self.cache[n] = Value(n, self.act)


OPERATIONS: dict[str, Callable[[Scene, Cache[Any, Any], Any], object]] = {
    "c[k]": lambda s, c, k: c[k],
    "get": lambda s, c, k: c.get(k),
    "peek": lambda s, c, k: c.peek(k),
    "in": lambda s, c, k: k in c,
    "set": lambda s, c, k: c.set(k, Value("new", s.act)),
    "set with ttl": lambda s, c, k: c.set(k, Value("new", s.act), ttl=5),
    "set fresh keys": lambda s, c, k: c.update({next(serial): Value(1, s.act) for _ in range(9)}),
    "set a large value": lambda s, c, k: (c.resize(max_bytes=2000), c.set(k, Value(1, s.act))),
    "setdefault": lambda s, c, k: c.setdefault(k, Value("new", s.act)),
    "get_or_set": lambda s, c, k: c.get_or_set(k, lambda: (s.act(), Value("new", s.act))[1]),
    "get_many": lambda s, c, k: c.get_many([k, 1, k, 2] * 10),
    "gather": lambda s, c, k: c.gather([s.key("absent"), 99] * 5, np.empty((10, 2))),
    "pop": lambda s, c, k: c.pop(k, None),
    "popitem": lambda s, c, k: c.popitem(),
    "delete": lambda s, c, k: c.delete(k),
    "delete_many": lambda s, c, k: c.delete_many([k, 1, 2]),
    "clear": lambda s, c, k: c.clear(),
    "touch": lambda s, c, k: c.touch(k, 9),
    "get_ttl": lambda s, c, k: c.get_ttl(k),
    "expire": lambda s, c, k: (s.clock.advance(2), c.expire()),
    "resize": lambda s, c, k: c.resize(2),
    "resize to bytes": lambda s, c, k: c.resize(max_bytes=1000),
    "iterate": lambda s, c, k: list(c.items()),
    "iterate and act": lambda s, c, k: [s.act() for _ in c],
    "==": lambda s, c, k: c == {k: 1},
    "items contain": lambda s, c, k: (k, 1) in c.items(),
    "repr": lambda s, c, k: repr(c),
    "copy": lambda s, c, k: c.copy(),
    "hottest": lambda s, c, k: c.hottest(5),
    "collect": lambda s, c, k: gc.collect(),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_any_action_in_the_middle_of_any_operation(action: str) -> None:
    unraisable: list[type[BaseException]] = []
    sys.unraisablehook = lambda caught: unraisable.append(caught.exc_type)
    # A key is absent, a cache empty, or changed while it was walked; else only what was planned.
    expected = {KeyError, RuntimeError} | ({ArithmeticError} if action == "raise" else set())
    for bounds in ({}, {"max_bytes": 10**6}):
        scene = Scene(action, **bounds)
        for operation in OPERATIONS.values():
            for target in (3, "absent"):
                for budget in (1, 3):
                    scene.fill()
                    scene.left = budget
                    with contextlib.suppress(*expected):
                        operation(scene, scene.cache, scene.key(target))
                    scene.left = 0
                    check(scene.cache)
                    for key, value in scene.cache.items():
                        assert scene.cache.peek(key) is value
        scene.left = 0
        del scene
    gc.collect()
    assert set(unraisable) <= expected


def test_a_comparison_that_always_changes_the_cache_ends() -> None:
    cache: Cache[Any, Any] = Cache(100)
    keys = [Key(n, on_eq=lambda _: cache.set(next(serial), 1)) for n in range(3)]
    for key in keys:
        with contextlib.suppress(RuntimeError):
            cache[key] = 1
    for act in (cache.get, cache.delete, cache.__contains__):
        with contextlib.suppress(RuntimeError):
            act(Key(9))
        check(cache)
    for key in list(cache):
        if isinstance(key, Key):
            key.on_eq = None
    cache.update({n: n for n in range(1000)})
    assert len(cache) == 100
    check(cache)


@pytest.mark.parametrize("act", ["delete", "replace", "move"])
def test_a_key_that_goes_or_moves_as_it_is_found(act: str) -> None:
    """Its comparison says yes, but what was found is no longer there."""
    for find in ("get", "peek", "pop", "setdefault", "get_or_set", "get_many", "touch", "delete"):
        cache: Cache[Any, Any] = Cache(5000)
        cache.update(dict.fromkeys(range(1000)))
        armed: list[int] = []

        def meddle(key: Key, cache: Cache[Any, Any] = cache, armed: list[int] = armed) -> None:
            if armed:
                armed.clear()
                if act == "move":  # to a lower slot: few are left when something comes in
                    cache.delete_many(range(1000))
                    cache["new"] = 1
                else:
                    cache.delete(key)
                    cache.update({("in its slot", n): 1 for n in range(act == "replace" and 40)})

        cache[Key("k", on_eq=meddle)] = "value"
        armed.append(1)
        found = {
            "get": lambda c, k: c.get(k),
            "peek": lambda c, k: c.peek(k),
            "pop": lambda c, k: c.pop(k, None),
            "setdefault": lambda c, k: c.setdefault(k),
            "get_or_set": lambda c, k: c.get_or_set(k, lambda: None),
            "get_many": lambda c, k: c.get_many([k])[0],
            "touch": lambda c, k: "value" if c.touch(k, 5) else None,
            "delete": lambda c, k: "value" if c.delete(k) else None,
        }[find](cache, Key("k"))
        assert found == ("value" if act == "move" else None), find
        assert ("in its slot", 0) in cache or act != "replace"
        check(cache)


def test_the_same_error_from_every_operation() -> None:
    scene = Scene("raise")
    compared = [
        "c[k]", "get", "peek", "in", "set", "setdefault", "get_or_set", "get_many", "pop", "delete",
        "delete_many", "touch", "get_ttl", "items contain",
    ]  # fmt: skip
    for name in compared:
        for target in (3, "absent"):
            scene.fill()
            before = len(scene.cache)
            key = scene.key(target)
            scene.left = 1
            with pytest.raises(ArithmeticError, match="planned"):
                OPERATIONS[name](scene, scene.cache, key)
            assert len(scene.cache) == before, name
            check(scene.cache)


def test_a_key_whose_hash_changed_is_still_evicted() -> None:
    cache: Cache[Any, Any] = Cache(10)
    wandering = [Key(n, hash=n) for n in range(10)]
    for key in wandering:
        cache[key] = key
    for key in wandering:
        key.hash += 1000
    check(cache)
    assert cache.get_many(wandering) == [None] * 10
    assert len(list(cache)) == 10
    for n in range(1000):
        cache[n] = n
        cache.get_many([n] * 5)
    assert len(cache) == 10
    assert not any(isinstance(key, Key) for key in cache)
    check(cache)


def test_hash_is_asked_once_and_equality_only_when_hashes_agree() -> None:
    cache: Cache[Any, Any] = Cache(1000)
    calls = {"hash": 0, "eq": 0}

    def count(name: str) -> Callable[[Key], None]:
        return lambda _: calls.__setitem__(name, calls[name] + 1)

    def key(n: int) -> Key:
        return Key(n, hash=n, on_eq=count("eq"), on_hash=count("hash"))

    for n in range(500):
        cache[key(n)] = n
    assert calls == {"hash": 500, "eq": 0}
    for n in range(1000):
        cache.get(key(n))
    assert calls == {"hash": 1500, "eq": 500}
    cache.update({str(n): n for n in range(3000)})  # growth and eviction ask nothing of a key
    cache.copy()
    assert calls["eq"] == 500


def test_on_evict_may_put_back_what_was_evicted() -> None:
    failures: list[Any] = []
    sys.unraisablehook = lambda caught: failures.append(caught.exc_type)
    depth = 0

    def put_back(key: Any, value: Any, reason: str) -> None:
        nonlocal depth
        if depth < 5:
            depth += 1
            cache[key] = value
            depth -= 1

    cache: Cache[Any, Any] = Cache(30, max_bytes=5000, on_evict=put_back)
    for n in range(500):
        cache[n] = b"x" * (n % 50)
    with contextlib.suppress(RuntimeError):
        cache["large"] = b"x" * 4800  # room for it means that all others leave
    assert cache.stats().bytes <= 5000
    assert failures == []
    check(cache)


def test_on_evict_that_always_puts_back_ends() -> None:
    """Each thing put back pushes another out, until the stack is used up."""
    sys.unraisablehook = lambda caught: None
    calls = 0

    def put_back(key: Any, value: Any, reason: str) -> None:
        nonlocal calls
        calls += 1
        cache[key] = value

    cache: Cache[Any, Any] = Cache(10, on_evict=put_back)
    for n in range(12):
        cache[n] = n
    assert calls > 100
    check(cache)


def test_setdefault_returns_what_a_callback_put_there_first() -> None:
    """More leave than fit one round, and on_evict sets the very key in between."""
    cache: Cache[Any, Any] = Cache(
        max_bytes=20_000,
        on_evict=lambda k, v, reason: "mine" in cache or cache.set("mine", "first"),
    )
    cache.update(dict.fromkeys(range(150), b""))
    kept = cache.setdefault("mine", b"x" * 19_000)
    assert kept is cache["mine"]
    check(cache)


@pytest.mark.parametrize("operation", ["items", "hottest", "copy", "repr", "popitem", "==", "keys"])
def test_a_collection_in_the_middle_of_a_walk(operation: str) -> None:
    """The collector runs at any allocation, and with it finalizers that empty the cache."""
    cache: Cache[Any, Any] = Cache(64)
    acts: dict[str, Callable[[], object]] = {
        "items": lambda: list(cache.items()),
        "keys": lambda: list(cache),
        "hottest": lambda: cache.hottest(20),
        "copy": cache.copy,
        "repr": lambda: repr(cache),
        "popitem": cache.popitem,
        "==": lambda: cache == {},
    }

    def litter() -> None:
        loop: list[Any] = [Value(act=lambda: (cache.clear(), [object() for _ in range(200)]))]
        loop.append(loop)

    for threshold in range(1, 60):
        for _ in range(10):
            gc.disable()
            cache.clear()
            cache.update({("key", n): ["value", n] for n in range(64)})
            litter()
            gc.set_threshold(gc.get_count()[0] + threshold)
            gc.enable()
            with contextlib.suppress(RuntimeError, KeyError):
                acts[operation]()
            gc.disable()
            check(cache)


def test_values_that_free_a_long_chain_of_caches() -> None:
    """A cache in a cache in a cache: releasing the outermost must not exhaust the stack."""
    innermost: Cache[Any, Any] = Cache(1)
    for _ in range(200_000):
        outer: Cache[Any, Any] = Cache(1)
        outer["inner"] = innermost
        innermost = outer
    del outer
    del innermost
    gc.collect()
