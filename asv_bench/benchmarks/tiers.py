"""TieredCache: 10,000 hits; 1,000 misses served by an MmapTier or a RedisTier; batches."""

from __future__ import annotations

import atexit
import functools
from contextlib import ExitStack
from typing import Any

from cachecore import TieredCache
from cachecore.tiers import MmapTier, RedisTier
from tier_servers import redis_server
from tier_world import DISK, ROOM, folder, keys, values
from workloads import draws

from .common import LOOKUPS, WRITES, Topic, next_seed

BATCH, MISSING = 1_000, 150


@functools.lru_cache(maxsize=1)
def world(kind: str) -> TieredCache:
    """Return a cache whose 4 KB arrays are in a tier of that kind, until this process ends."""
    stack = ExitStack()
    atexit.register(stack.close)
    tier: Any
    if kind == "mmap":
        tier = MmapTier(stack.enter_context(folder()), max_bytes=DISK)
    else:
        tier = RedisTier(stack.enter_context(redis_server()).url, timeout=5)
    cache = stack.enter_context(TieredCache(ROOM, tiers=[tier]))
    cache.set_many(zip(keys(), values(), strict=True))
    return cache


class Tiers(Topic):
    """Keys that are in the tier, drawn at random, and which of them the process holds."""

    params = (["mmap", "redis"],)
    param_names = ("tier",)

    def setup(self, kind: str) -> None:
        """Draw other keys for each call."""
        self.cache = world(kind)
        self.cache.get_many(keys())
        seed = next_seed()
        self.many = draws(keys(), LOOKUPS, seed)
        self.some = list(dict.fromkeys(draws(keys(), 2 * BATCH, seed)))[:BATCH]


class Hit(Tiers):
    """What the process holds."""

    def time_get(self, *_: object) -> None:
        """`t.get(k)`, 10,000 of them."""
        get = self.cache.get
        for key in self.many:
            get(key)

    def time_get_many(self, *_: object) -> None:
        """`t.get_many(keys)` of 1,000."""
        self.cache.get_many(self.some)


class Miss(Tiers):
    """What only the tier holds."""

    def setup(self, kind: str) -> None:
        """Forget what was read before."""
        super().setup(kind)
        self.cache.l0.clear()

    def time_get(self, *_: object) -> None:
        """`t.get(k)`, 1,000 of them."""
        get = self.cache.get
        for key in self.some:
            get(key)


class Batch(Tiers):
    """1,000 keys of which the process holds 850."""

    def setup(self, kind: str) -> None:
        """Forget 150 of the keys."""
        super().setup(kind)
        self.cache.l0.delete_many(self.some[::-1][:MISSING])

    def time_get_many(self, *_: object) -> None:
        """`t.get_many(keys)`."""
        self.cache.get_many(self.some)


class Write(Tiers):
    """1,000 arrays that are there already."""

    def time_set_many(self, *_: object) -> None:
        """`t.set_many(pairs)`, through to the tier."""
        self.cache.set_many(zip(self.some[:WRITES], values(), strict=False))
