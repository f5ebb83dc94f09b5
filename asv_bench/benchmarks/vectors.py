"""VectorCache: 1,000 rows gathered, put or viewed, 10,000 ids found."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from cachecore import VectorCache
from vector_tables import Ids, Rows, filled
from workloads import make_ids

from .common import LOOKUPS, WRITES, Topic, next_seed

DIMS = [64, 256, 1024]
ROWS = [10**4, 10**5, 10**6]
MOST_BYTES = 1 << 30


@functools.lru_cache(maxsize=1)
def table(rows: int, dim: int) -> tuple[VectorCache, Ids, Rows, Iterator[Ids]]:
    """Return a full table, its ids, 1,000 rows, and a supply of ids it has not seen."""
    if rows * dim * 4 > MOST_BYTES:
        raise NotImplementedError
    cache, ids = VectorCache(dim, capacity=rows), make_ids(rows)
    some = filled(np.empty((WRITES, dim), np.float32))
    for start in range(0, rows, WRITES):
        cache.put(ids[start : start + WRITES], some)
    starts = range(rows, 2**39, WRITES)
    return cache, ids, some, (make_ids(WRITES, start) for start in starts)


class Table(Topic):
    """What the benchmarks of all shapes share."""

    params = (ROWS, DIMS)
    param_names = ("rows", "dim")

    def setup(self, rows: int, dim: int) -> None:
        """Draw other ids for each call."""
        self.cache, ids, self.rows, supply = table(rows, dim)
        self.out = np.ones_like(self.rows)
        random = np.random.RandomState(next_seed())
        self.ids = ids[random.randint(rows, size=WRITES)]
        self.many = ids[random.randint(rows, size=LOOKUPS)]
        self.fresh = next(supply)


class Read(Table):
    """Ids that are there, drawn at random."""

    def time_gather(self, *_: object) -> None:
        """`v.gather(ids, out)`."""
        self.cache.gather(self.ids, self.out)

    def time_find(self, *_: object) -> None:
        """`v.find(ids)`, 10,000 of them."""
        self.cache.find(self.many)

    def time_view(self, *_: object) -> None:
        """`v.view(id)`, one by one."""
        view = self.cache.view
        for key in self.ids.tolist():
            view(key)


class Write(Table):
    """1,000 rows into a full table."""

    def time_put_new(self, *_: object) -> None:
        """`v.put(ids, rows)` of ids that no call has seen: each evicts or is rejected."""
        self.cache.put(self.fresh, self.rows)

    def time_put_existing(self, *_: object) -> None:
        """`v.put(ids, rows)` of ids that were there in the beginning; most still are."""
        self.cache.put(self.ids, self.rows)
