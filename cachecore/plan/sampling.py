"""Spatial sampling: the requests of those keys whose hash falls under a threshold.

Waldspurger et al., "Efficient MRC construction with SHARDS", FAST 2015.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]


def mixed(values: Hashes) -> Hashes:
    """A bijection under which all bits depend on all: the end of splitmix64 (Steele, 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))


def places(keys: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.float64]:
    """A pseudo-random place in [0, 1) for each key, the same for the same key."""
    salt = (seed * 2 + 1) * 0x9E3779B97F4A7C15 % 2**64
    found = mixed(keys.view(np.uint64) + np.uint64(salt)) >> np.uint64(11)
    return found.astype(np.float64) * 2.0**-53


def hashes(keys: list[Any]) -> Hashes:
    """64 bits for each key, all of them int or all str; the same for equal keys in a process."""
    if keys and isinstance(keys[0], int):
        return mixed(np.array(keys, np.int64).view(np.uint64))
    return np.fromiter(map(hash, keys), np.int64, len(keys)).view(np.uint64)


class DistinctCounter:
    """Counts distinct keys in constant memory: the k-minimum-values sketch over their hashes.

    Exact up to `kept` keys; above, an estimate with a standard error of 1/sqrt(kept), 0.2 %.
    Bar-Yossef et al., "Counting distinct elements in a data stream", RANDOM 2002.
    """

    def __init__(self, kept: int = 1 << 18) -> None:
        self._kept = kept
        self._buffer = np.arange(2 * kept, dtype=np.uint64)
        self._used = 2 * kept
        self._merge()  # in vain: so that no later measurement finds this memory growing
        self._used, self._cut = 0, np.uint64(2**64 - 1)

    def add(self, keys: list[Any]) -> None:
        found = hashes(keys)
        found = found[found < self._cut]
        for part in np.array_split(found, 1 + len(found) // self._kept):
            if self._used + len(part) > len(self._buffer):
                self._merge()
            self._buffer[self._used : self._used + len(part)] = part
            self._used += len(part)

    def count(self) -> tuple[int, bool]:
        """The number of distinct keys, and whether it is exact."""
        self._merge()
        if self._used < self._kept:
            return self._used, True
        return round((self._kept - 1) * 2.0**64 / float(self._cut)), False

    def _merge(self) -> None:
        lowest = np.unique(self._buffer[: self._used])[: self._kept]
        self._used = len(lowest)
        self._buffer[: self._used] = lowest
        if self._used == self._kept:
            self._cut = lowest[-1]
