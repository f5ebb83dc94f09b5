"""What the rows of tiers share: 4 KB arrays under str keys, caches over tiers, and turns.

A look-up that is to miss the process's own memory finds it emptied, which is not timed. Nothing is
demoted: caches have room for every key. What is compared takes turns, of parts of the same keys.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from cachecore import TieredCache
from timing import Contender, compile_loop
from workloads import make_keys, rows, shuffled, slices

KEYS = 2_000
ROOM = 100_000  # entries, which nothing here reaches
DISK = 512 << 20  # bytes of a database


@functools.cache
def values(count: int = KEYS) -> list[np.ndarray]:
    """Return arrays of 4 KB, each one's own memory."""
    return [row.copy() for row in rows(count)]


@functools.cache
def keys(count: int = KEYS) -> list[str]:
    """Return str keys."""
    return make_keys("str", count)


def parts(size: int, count: int = KEYS) -> list[Sequence[str]]:
    """Return the keys in a random order, cut into parts."""
    return slices(shuffled(keys(count)), size)


@contextmanager
def folder() -> Iterator[str]:
    """Yield a folder for a database; in memory if the folder of temporary files is."""
    with tempfile.TemporaryDirectory(prefix="cachecore-bench-") as name:
        yield name


@contextmanager
def cache_over(*tiers: Any, maxsize: int = ROOM, **options: Any) -> Iterator[TieredCache]:
    """Yield a cache with tiers, which is closed at the end."""
    with TieredCache(maxsize, tiers=tiers, **options) as cache:
        yield cache


def prepared(
    name: str,
    body: str,
    c: Any,
    parts: Sequence[Sequence[Any]],
    prepare: Callable[[], object] = lambda: None,
    per_item: int = 1,
) -> Contender:
    """Loop over another part in each turn, after `prepare()`, which is not timed."""
    timed = compile_loop(body)
    prepare()
    timed(c, parts[-1], 1)

    def turn(i: int) -> float:
        part = parts[i % len(parts)]
        prepare()
        return timed(c, part, 1)[0] / (len(part) * per_item)

    return Contender(name, turn)
