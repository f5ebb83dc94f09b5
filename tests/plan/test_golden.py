"""Exact hit counts of the policy on generated traces: a change of it changes them, knowingly.

In tests/, `python -m plan.test_golden` prints the new ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cachecore.plan import simulate
from plan.traces import Keys, drifting, loop, randoms, replaced, scanned, skewed

COUNT = 200_000
TRACES: dict[str, Callable[[], Keys]] = {
    "skewed": lambda: skewed(COUNT, 1 << 16, 1),
    "loop": lambda: loop(COUNT, 3000),
    "scanned": lambda: scanned(COUNT, 1 << 14, 2),
    "drifting": lambda: drifting(COUNT, 1 << 13, 3),
    "replaced": lambda: replaced(COUNT, 1 << 14, 4),
}
SIZES = randoms(1 << 16, 5) % np.uint64(4000) + np.uint64(1)
COSTS = 10.0 ** (randoms(1 << 16, 6) % np.uint64(3)).astype(np.float64)


def settings(kind: str, keys: Keys) -> dict[str, Any]:
    place = keys % (1 << 16)
    known: dict[str, dict[str, Any]] = {
        "20": {"maxsize": 20},
        "1000": {"maxsize": 1000},
        "1 MB": {"max_bytes": 10**6, "sizes": SIZES[place].astype(np.int64)},
        "dear": {"maxsize": 1000, "costs": COSTS[place]},
        "1 KB sketch": {"maxsize": 1000, "sketch_bytes": 1024},
        "ttl": {"maxsize": 1000, "times": np.arange(COUNT) / 1000, "ttl": 10.0},
    }
    return known[kind]


GOLDEN = {
    ("skewed", "20"): 72291,
    ("skewed", "1000"): 136859,
    ("skewed", "1 MB"): 128471,
    ("skewed", "dear"): 120360,
    ("skewed", "1 KB sketch"): 129678,
    ("skewed", "ttl"): 129068,
    ("loop", "20"): 0,
    ("loop", "1000"): 62247,
    ("loop", "1 MB"): 49638,
    ("loop", "dear"): 64946,
    ("loop", "1 KB sketch"): 55491,
    ("loop", "ttl"): 47235,
    ("scanned", "20"): 61344,
    ("scanned", "1000"): 115830,
    ("scanned", "1 MB"): 108326,
    ("scanned", "dear"): 101366,
    ("scanned", "1 KB sketch"): 109028,
    ("scanned", "ttl"): 108209,
    ("drifting", "20"): 48347,
    ("drifting", "1000"): 136998,
    ("drifting", "1 MB"): 120165,
    ("drifting", "dear"): 107137,
    ("drifting", "1 KB sketch"): 137072,
    ("drifting", "ttl"): 137017,
    ("replaced", "20"): 69041,
    ("replaced", "1000"): 153388,
    ("replaced", "1 MB"): 144862,
    ("replaced", "dear"): 135206,
    ("replaced", "1 KB sketch"): 148921,
    ("replaced", "ttl"): 146233,
}


def hits(trace: str, kind: str) -> int:
    keys = TRACES[trace]()
    return simulate(keys, **settings(kind, keys)).hits


@pytest.mark.parametrize(("trace", "kind"), GOLDEN)
def test_hits_are_what_they_were(trace: str, kind: str) -> None:
    assert hits(trace, kind) == GOLDEN[trace, kind]


if __name__ == "__main__":
    for trace in TRACES:
        for kind in ("20", "1000", "1 MB", "dear", "1 KB sketch", "ttl"):
            print(f'    ("{trace}", "{kind}"): {hits(trace, kind)},')
