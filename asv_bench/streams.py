"""Generated request streams of any length, and what W-TinyLFU hits on them.

Unlike `workloads.py` these make arrays of int64 keys, millions of requests at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.int64]

SKEW = 0.9
BLOCKS = 30  # of requests, for as many requests as there are keys; between two of them keys drift
DRIFT = 0.005  # share of the ranks whose keys change places


def ranks(rng: np.random.RandomState, keys: int, count: int) -> npt.NDArray[np.int64]:
    """Return draws of 0 ... keys - 1, r with a probability of about (r + 1)**-SKEW.

    By the inverse of the continuous distribution's sum, which needs no table of all keys.
    """
    power = 1 - SKEW
    first, last = 0.5**power, (keys + 0.5) ** power
    points = first + rng.random_sample(count) * (last - first)
    found: npt.NDArray[np.int64] = (points ** (1 / power) - 0.5).astype(np.int64)
    return np.minimum(found, keys - 1)


def drifting(keys: int, requests: int, seed: int) -> Iterator[Keys]:
    """Yield a stream of requests for some of 0 ... keys - 1 in blocks; popularity wanders."""
    rng = np.random.RandomState(seed)
    key_of = rng.permutation(keys)
    block = max(1, keys // BLOCKS)
    for start in range(0, requests, block):
        yield key_of[ranks(rng, keys, min(block, requests - start))]
        moving = np.unique(rng.randint(0, keys, round(keys * DRIFT)))
        key_of[moving] = key_of[rng.permutation(moving)]


def replaced(keys: int, requests: int, seed: int) -> Keys:
    """Return a stream whose keys are others, all at once, in its second half."""
    rng = np.random.RandomState(seed)
    old, new = rng.permutation(2 * keys).reshape(2, keys)
    half = requests // 2
    return np.concatenate(
        [old[ranks(rng, keys, half)], new[ranks(rng, keys, requests - half)]]
    ).astype(np.int64)


def tiny_lfu_hits(stream: Iterator[Keys], capacity: int) -> int:
    """Return the hits of theine's W-TinyLFU, which has Caffeine's window and climber."""
    from theine_core import TlfuCore, spread

    core = TlfuCore(capacity)
    access, put = core.access, core.set
    resident: set[int] = set()
    hits = 0
    for block in stream:
        for key in map(spread, block.tolist()):
            if key in resident:
                hits += 1
                access([key])
            else:
                resident.add(key)
                resident.difference_update(put([(key, 0)]))
    return hits
