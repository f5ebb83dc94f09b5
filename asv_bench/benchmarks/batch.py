"""Batches of 1,000 keys: 10 `get_many`, one `set_many` or `delete_many`, one `gather`."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from cachecore import Cache
from workloads import draws, make_keys, rows

from .common import LOOKUPS, SIZES, WRITES, Topic, next_seed, population


class Many(Topic):
    """Str keys, all resident, drawn at random."""

    params = (SIZES,)
    param_names = ("entries",)

    def setup(self, entries: int) -> None:
        """Draw keys, and put back those an earlier call has deleted."""
        self.cache, keys = population("str", entries)
        drawn = draws(keys, LOOKUPS, next_seed())
        self.batches = [drawn[i : i + 1000] for i in range(0, LOOKUPS, 1000)]
        self.pairs = [(key, key) for key in self.batches[0]]
        self.cache.set_many(self.pairs)

    def time_get_many(self, _: int) -> None:
        """`c.get_many(keys)`, 10 batches."""
        for batch in self.batches:
            self.cache.get_many(batch)

    def time_set_many(self, _: int) -> None:
        """`c.set_many(pairs)` of resident keys."""
        self.cache.set_many(self.pairs)

    def time_delete_many(self, _: int) -> None:
        """`c.delete_many(keys)`."""
        self.cache.delete_many(self.batches[0])


@functools.lru_cache(maxsize=1)
def vectors(entries: int) -> tuple[Cache[str, Any], list[str], np.ndarray]:
    """Return a full cache of rows of 4 KB, its keys, and an array to gather into."""
    keys = make_keys("str", entries)
    cache: Cache[str, Any] = Cache(entries)
    cache.update(zip(keys, rows(entries), strict=True))
    return cache, keys, np.ones((WRITES, 1024), np.float32)


class Gather(Topic):
    """1,000 rows of 4 KB into an array that exists."""

    params = ([10**3, 10**4, 10**5],)  # 10^6 rows would be 4 GB
    param_names = ("entries",)

    def setup(self, entries: int) -> None:
        """Draw other keys for each call."""
        self.cache, keys, self.out = vectors(entries)
        self.keys = draws(keys, WRITES, next_seed())

    def time_gather(self, _: int) -> None:
        """`c.gather(keys, out)`."""
        self.cache.gather(self.keys, self.out)
