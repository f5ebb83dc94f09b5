"""Keys and values that turn on the cache that holds them, in long random sequences.

Comparisons, hashes, releases of values, on_evict, getsizeof and the timer do what was planned for
them: use the cache, clear it, collect garbage, raise. Which outcome is right cannot be told then;
that the structure is sound, the counts add up and no key yields another key's value can.
"""

from __future__ import annotations

import gc
import math
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cachecore import Cache
from support import LONG, Clock, Key, Value, check

NAMES = range(12)
DEPTH = 3  # plans are carried out within plans, so far


class PlannedError(Exception):
    """What a plan raised; it may come out of any operation."""


# RuntimeError: the cache changed in an iteration or kept changing; KeyError: popitem was overtaken.
EXPECTED = (PlannedError, RuntimeError, KeyError)


ACTIONS: dict[str, Callable[[Hostile, int], object]] = {
    "nothing": lambda m, n: None,
    "get": lambda m, n: m.cache.get(m.key(n)),
    "get_many": lambda m, n: m.cache.get_many([m.key(n), n, m.key(n + 1)]),
    "set": lambda m, n: m.cache.set(m.key(n), m.value(n)),
    "set with ttl": lambda m, n: m.cache.set(m.key(n), m.value(n), ttl=1),
    "set a hundred": lambda m, n: m.cache.update({i: m.value(i) for i in range(100)}),
    "delete": lambda m, n: m.cache.delete(m.key(n)),
    "delete each": lambda m, n: m.cache.delete_many(list(m.cache)),
    "pop": lambda m, n: m.cache.pop(m.key(n), None),
    "popitem": lambda m, n: m.cache.popitem() if m.cache else None,
    "clear": lambda m, n: m.cache.clear(),
    "setdefault": lambda m, n: m.cache.setdefault(m.key(n), m.value(n)),
    "get_or_set": lambda m, n: m.cache.get_or_set(m.key(n), lambda: m.value(n)),
    "touch": lambda m, n: m.cache.touch(m.key(n), 5),
    "expire": lambda m, n: m.cache.expire(),
    "wait": lambda m, n: m.clock.advance(2 if n % 2 else 3e6),
    "shrink": lambda m, n: m.cache.resize(1 + n // 4),
    "grow": lambda m, n: m.cache.resize(50),
    "few bytes": lambda m, n: m.cache.resize(max_bytes=500 + 100 * n),
    "iterate": lambda m, n: dict(m.cache.items()),
    "copy": lambda m, n: check(m.cache.copy()),
    "repr": lambda m, n: repr(m.cache),
    "hottest": lambda m, n: m.cache.hottest(3),
    "check": lambda m, n: check(m.cache),
    "collect": lambda m, n: gc.collect(0),
    "raise": lambda m, n: m.fail(),
}

plans = st.lists(st.tuples(st.sampled_from(sorted(ACTIONS)), st.sampled_from(NAMES)), max_size=4)
names = st.sampled_from(NAMES)


class Hostile(RuleBasedStateMachine):
    cache: Cache[Any, Any]
    clock: Clock

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.plan: deque[tuple[str, int]] = deque()
        self.depth = 0
        self.surprises: list[BaseException | None] = []

    @initialize(
        maxsize=st.sampled_from([1, 3, 10, 40]),
        max_bytes=st.sampled_from([None, 800, 5000]),
        ttl=st.sampled_from([None, 1]),
    )
    def make(self, maxsize: int, max_bytes: int | None, ttl: float | None) -> None:
        def timer() -> float:
            self.act()
            return self.clock.now

        self.cache = Cache(
            maxsize,
            max_bytes=max_bytes,
            ttl=ttl,
            timer=timer,
            getsizeof=None if max_bytes is None else lambda value: self.act() or 50,
            on_evict=self.act,
        )

    # --- misbehaviour

    def act(self, *_: object) -> None:
        if not self.plan or self.depth == DEPTH:
            return
        action, name = self.plan.popleft()
        self.depth += 1
        try:
            ACTIONS[action](self, name)
        finally:
            self.depth -= 1

    def fail(self) -> None:
        raise PlannedError

    def key(self, name: int) -> Any:
        # All hostile keys collide, so that each comparison is made.
        return name if name % 4 == 3 else Key(name, on_eq=self.act, on_hash=self.act)

    def value(self, name: int) -> Value:
        return Value(name, self.act)

    @contextmanager
    def planned(self, plan: list[tuple[str, int]]) -> Iterator[None]:
        """Carry the plan out in whatever the block runs; only what it raises may come out."""
        self.plan.extend(plan)
        hook = sys.unraisablehook
        sys.unraisablehook = self.unraisable
        try:
            yield
        except EXPECTED as error:
            self.expect(error)
        finally:
            self.plan.clear()
            gc.collect(0)
            sys.unraisablehook = hook

    def expect(self, error: BaseException | None) -> None:
        if not isinstance(error, EXPECTED) or isinstance(error, RecursionError):
            self.surprises.append(error)

    def unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        self.expect(unraisable.exc_value)

    def rightful(self, name: int, value: object) -> None:
        assert value is None or (isinstance(value, Value) and value.payload == name)

    # --- the operations

    @rule(plan=plans, name=names, ttl=st.sampled_from([None, 1, math.inf]))
    def put(self, plan: list[tuple[str, int]], name: int, ttl: float | None) -> None:
        with self.planned(plan):
            self.cache.set(self.key(name), self.value(name), ttl=ttl)

    @rule(names=st.lists(names, max_size=8))
    def fill(self, names: list[int]) -> None:
        self.cache.update({self.key(name): self.value(name) for name in names})

    @rule(plan=plans, name=names)
    def look_up(self, plan: list[tuple[str, int]], name: int) -> None:
        with self.planned(plan):
            self.rightful(name, self.cache.get(self.key(name)))
            self.rightful(name, self.cache.peek(self.key(name)))

    @rule(plan=plans, asked=st.lists(names, max_size=20))
    def get_many(self, plan: list[tuple[str, int]], asked: list[int]) -> None:
        with self.planned(plan):
            found = self.cache.get_many([self.key(name) for name in asked])
            for name, value in zip(asked, found, strict=True):
                self.rightful(name, value)

    @rule(plan=plans, asked=st.lists(names, max_size=8))
    def gather(self, plan: list[tuple[str, int]], asked: list[int]) -> None:
        out = np.ones((len(asked), 2))
        with self.planned(plan):
            try:
                assert not self.cache.gather([self.key(name) for name in asked], out).any()
            except TypeError:
                assert (out == 1).all()

    @rule(plan=plans, name=names, pop=st.booleans())
    def remove(self, plan: list[tuple[str, int]], name: int, pop: bool) -> None:
        with self.planned(plan):
            if pop:
                self.rightful(name, self.cache.pop(self.key(name), None))
            else:
                self.cache.delete(self.key(name))

    @rule(plan=plans, name=names, default=st.booleans())
    def ensure(self, plan: list[tuple[str, int]], name: int, default: bool) -> None:
        with self.planned(plan):
            if default:
                self.rightful(name, self.cache.setdefault(self.key(name), self.value(name)))
            else:
                self.rightful(name, self.cache.get_or_set(self.key(name), lambda: self.value(name)))

    @rule(plan=plans, action=st.sampled_from(sorted(set(ACTIONS) - {"raise", "check"})), name=names)
    def anything(self, plan: list[tuple[str, int]], action: str, name: int) -> None:
        with self.planned(plan):
            ACTIONS[action](self, name)

    @rule(plan=plans)
    def iterate(self, plan: list[tuple[str, int]]) -> None:
        with self.planned(plan):
            for key, value in self.cache.items():
                self.rightful(getattr(key, "name", key), value)
                self.act()

    @rule(plan=plans)
    def compare(self, plan: list[tuple[str, int]]) -> None:
        with self.planned(plan):
            assert self.cache != {self.key(1): 5, 7: 3, "other": 1}

    @rule(seconds=st.sampled_from([0.5, 2, 3e6]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def is_sound(self) -> None:
        if not hasattr(self, "cache"):
            return
        assert self.surprises == []
        check(self.cache)
        for key, value in self.cache.items():
            self.rightful(getattr(key, "name", key), value)
            assert self.cache.peek(key) is value

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.cache.clear()
            assert len(self.cache) == 0
            check(self.cache)


TestHostile = Hostile.TestCase
TestHostile.settings = settings(
    max_examples=20_000 if LONG else 800, stateful_step_count=60, deadline=None
)
