"""What the tests of Cache share: a clock they move, invariants, and objects that misbehave."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from cachecore import Cache, _flight

LONG = os.environ.get("CACHECORE_TESTS") == "long"
ENTRY_OVERHEAD = 64

MakeCache = Callable[..., Cache[Any, Any]]  # the fixture `make`


class Clock:
    """A timer that stands still until it is moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        # In whole milliseconds, so that a thousand small steps add up to what they should.
        self.now = round(self.now + seconds, 3)


def check_shared(cache: Cache[Any, Any]) -> None:
    """Check what holds of every cache at every moment, also while other threads use it."""
    cache._check()
    stats = cache.stats()
    gone = stats.evictions + stats.rejections + stats.expirations + stats.deletions
    assert stats.inserts == stats.entries + gone, stats


def check(cache: Cache[Any, Any]) -> None:
    """Check what holds of every cache that nobody else is using."""
    check_shared(cache)
    assert cache.stats().entries == len(cache)
    assert cache.maxsize is None or len(cache) <= cache.maxsize
    assert cache.max_bytes is None or cache.stats().bytes <= cache.max_bytes


class Key:
    """A key that does `act(self)` in its comparisons, or in its hash, before the honest answer."""

    def __init__(
        self,
        name: object,
        *,
        hash: int = 7,
        on_eq: Callable[[Key], object] | None = None,
        on_hash: Callable[[Key], object] | None = None,
    ) -> None:
        self.name, self.hash, self.on_eq, self.on_hash = name, hash, on_eq, on_hash

    def __hash__(self) -> int:
        if self.on_hash is not None:
            self.on_hash(self)
        return self.hash

    def __eq__(self, other: object) -> bool:
        if self.on_eq is not None:
            self.on_eq(self)
        return isinstance(other, Key) and self.name == other.name

    def __repr__(self) -> str:
        return f"Key({self.name!r})"


class Value:
    """A value that does `act()` when it is released."""

    def __init__(self, payload: object = None, act: Callable[[], object] | None = None) -> None:
        self.payload, self.act = payload, act

    def __del__(self) -> None:
        if self.act is not None:
            self.act()


def yield_to_others(*_: object) -> None:
    """Make a system call that lets go of the GIL."""
    os.stat("/")


def wait_for_waiters(count: int) -> None:
    """Return when `count` threads wait for what others compute."""
    while _flight._waiters() < count:
        yield_to_others()
