"""What the topics share: sizes, and populations that are built once per process.

asv calls `setup` before every timed call, so `setup` only draws keys; each timed function does
1,000 or 10,000 operations, and its time is that of all of them.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

from cachecore import Cache
from workloads import KeyKind, make_keys

SIZES = [10**3, 10**4, 10**6, 10**7]
KINDS: list[KeyKind] = ["str", "int", "bytes"]
LOOKUPS, WRITES = 10_000, 1_000


class Topic:
    """Settings of every topic: one call per sample, and time to build 10^7 keys."""

    number = 1
    timeout = 300.0


@functools.lru_cache(maxsize=1)
def population(kind: KeyKind, size: int) -> tuple[Cache[Any, Any], list[Any]]:
    """Return a full cache and its keys, each its own value; one at a time: 10^7 take over 1 GB."""
    keys = make_keys(kind, size)
    cache: Cache[Any, Any] = Cache(size)
    for key in keys:
        cache[key] = key
    return cache, keys


_seeds = itertools.count(1)


def next_seed() -> int:
    """Return another seed for each call, so that a large population stays cold."""
    return next(_seeds)
