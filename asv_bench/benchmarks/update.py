"""Writes: 1,000 of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from cachecore import Cache
from workloads import KeyKind, draws, fresh_keys, make_keys

from .common import KINDS, SIZES, WRITES, Topic, next_seed, population


@functools.cache
def never_seen(kind: KeyKind, entries: int) -> Iterator[list[Any]]:
    """Return the process' supply of keys beyond the population."""
    return fresh_keys(WRITES, entries, kind)


class Fill(Topic):
    """New keys into a cache with room: growth included."""

    params = (KINDS,)
    param_names = ("keys",)

    def setup(self, kind: KeyKind) -> None:
        """Start empty."""
        self.keys = make_keys(kind, WRITES)
        self.cache: Cache[Any, Any] = Cache(10 * WRITES)

    def time_set(self, *_: object) -> None:
        """`c[k] = v`."""
        cache = self.cache
        for key in self.keys:
            cache[key] = key


class AtCapacity(Topic):
    """New keys into a full cache: each evicts or is rejected."""

    params = (SIZES, KINDS)
    param_names = ("entries", "keys")

    def setup(self, entries: int, kind: KeyKind) -> None:
        """Take keys that no call has seen."""
        if entries > 10**6 and kind != "str":
            raise NotImplementedError  # a population of 10^7 for each key type takes too long
        self.cache, _ = population(kind, entries)
        self.keys = next(never_seen(kind, entries))

    def time_set(self, *_: object) -> None:
        """`c[k] = v`."""
        cache = self.cache
        for key in self.keys:
            cache[key] = key


class Existing(Topic):
    """Keys that are there."""

    params = (SIZES,)
    param_names = ("entries",)

    def setup(self, entries: int) -> None:
        """Draw keys, and put back those an earlier call has deleted."""
        self.cache, keys = population("str", entries)
        self.keys = draws(keys, WRITES, next_seed())
        self.cache.update(zip(self.keys, self.keys, strict=True))

    def time_overwrite(self, _: int) -> None:
        """`c[k] = v`."""
        cache = self.cache
        for key in self.keys:
            cache[key] = key

    def time_delete(self, _: int) -> None:
        """`c.delete(k)`; few of the keys are drawn twice, except at 10^3."""
        cache = self.cache
        for key in self.keys:
            cache.delete(key)
