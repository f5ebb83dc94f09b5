"""Hits and misses: 10,000 look-ups of one key each."""

from __future__ import annotations

from typing import Any

from cachecore import Cache
from workloads import KeyKind, copies, draws, make_keys

from .common import KINDS, LOOKUPS, SIZES, Topic, next_seed, population

OBJECTS = ["same", "equal"]  # the stored key objects, or equal ones


class Hit(Topic):
    """Str keys, all resident, drawn at random."""

    params = (SIZES, OBJECTS)
    param_names = ("entries", "key_objects")

    def setup(self, entries: int, key_objects: str) -> None:
        """Draw other keys for each call."""
        self.cache, keys = population("str", entries)
        self.keys = draws(keys, LOOKUPS, next_seed())
        if key_objects == "equal":
            self.keys = copies(self.keys)

    def time_item(self, *_: object) -> None:
        """`c[k]`."""
        cache = self.cache
        for key in self.keys:
            cache[key]

    def time_get(self, *_: object) -> None:
        """`c.get(k)`."""
        cache = self.cache
        for key in self.keys:
            cache.get(key)


class HitByKey(Topic):
    """Other key types, 10^4 entries."""

    params = (KINDS, OBJECTS)
    param_names = ("keys", "key_objects")

    def setup(self, kind: KeyKind, key_objects: str) -> None:
        """Draw other keys for each call."""
        self.cache, keys = population(kind, 10**4)
        self.keys = draws(keys, LOOKUPS, next_seed())
        if key_objects == "equal":
            self.keys = copies(self.keys)

    def time_item(self, *_: object) -> None:
        """`c[k]`."""
        cache = self.cache
        for key in self.keys:
            cache[key]


class HitWithTTL(Topic):
    """Every entry has a time to live; 10^4 entries."""

    def setup(self) -> None:
        """Fill the cache: few enough entries to do it each time."""
        self.keys = make_keys("str", LOOKUPS)
        self.cache: Cache[Any, Any] = Cache(LOOKUPS, ttl=3600)
        self.cache.update(zip(self.keys, self.keys, strict=True))

    def time_item(self) -> None:
        """`c[k]`."""
        cache = self.cache
        for key in self.keys:
            cache[key]


class Miss(Topic):
    """Keys that were never stored."""

    params = (SIZES, KINDS)
    param_names = ("entries", "keys")

    def setup(self, entries: int, kind: KeyKind) -> None:
        """Make keys beyond the stored ones."""
        if entries > 10**6 and kind != "str":
            raise NotImplementedError  # a population of 10^7 for each key type takes too long
        self.cache, _ = population(kind, entries)
        self.keys = make_keys(kind, LOOKUPS, start=entries)

    def time_get(self, *_: object) -> None:
        """`c.get(absent)`."""
        cache = self.cache
        for key in self.keys:
            cache.get(key)
