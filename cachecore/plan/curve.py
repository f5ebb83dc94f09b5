"""`simulate_curve`: hit ratio against cache size, of long traces by spatial sampling."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cachecore.plan.simulation import integers, simulate
from cachecore.settings import positive_int, share

SAMPLED_FROM = 10_000_000  # requests: longer traces are sampled, down to about so many
SAMPLES = 4  # disjoint samples, whose spread tells the error
LEAST_ENTRIES = 64  # of a simulated cache in a sample: smaller ones say little


@dataclass(frozen=True, eq=False)
class Curve:
    """Hit ratios by cache size.

    Attributes:
        sizes: int64 array, entries.
        hit_ratio: float64 array.
        error: float64 array, the standard error by sampling; 0 where all was simulated.
        rate: share of the keys in one sample; 1: all.
    """

    sizes: npt.NDArray[np.int64]
    hit_ratio: npt.NDArray[np.float64]
    error: npt.NDArray[np.float64]
    rate: float


def simulate_curve(
    keys: npt.ArrayLike,
    sizes: Sequence[int],
    *,
    rate: float | None = None,
    seed: int = 0,
) -> Curve:
    """The hit ratio of the shipped policy for each of several cache sizes.

    A sampled curve takes the keys whose hash falls under a threshold, in caches as much smaller,
    and corrects for samples that hold more or fewer requests than their share (SHARDS-adj:
    Waldspurger et al., "Efficient MRC construction with SHARDS", FAST 2015; smaller caches in place
    of stacks: the same, "Cache modeling and optimization using miniature simulations", ATC 2017).
    Four disjoint samples are taken; their mean is the result and their spread its error. Sizes
    that would leave a cache of fewer than 64 entries in a sample are simulated in full.

    Args:
        keys: n integers.
        sizes: cache sizes in entries.
        rate: share of the keys in a sample, up to 0.25; None: all of a trace of up to 10^7
            requests, a tenth of a percent or more of longer ones. 1: all.
        seed: as for `simulate`.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong kind; it is named.
    """
    trace = integers(keys, "keys", None)
    entries = [positive_int(size, "sizes") for size in sizes]
    if rate is None:
        rate = 1.0 if len(trace) <= SAMPLED_FROM else max(SAMPLED_FROM / len(trace) / SAMPLES, 1e-3)
    elif not (rate == 1 or 0 < share(rate, "rate") <= 1 / SAMPLES):
        raise ValueError(f"rate must be 1, or above 0 and at most {1 / SAMPLES}, not {rate}")
    whole = [size for size in entries if rate == 1 or size * rate < LEAST_ENTRIES]
    parts = [] if len(whole) == len(entries) else _samples(trace, rate, seed)
    found: dict[int, tuple[float, float]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        full = pool.map(lambda size: simulate(trace, size, seed=seed).hit_ratio, whole)
        found.update((size, (ratio, 0.0)) for size, ratio in zip(whole, full, strict=True))
        for size in set(entries) - set(whole):
            small = max(1, round(size * rate))
            hits = pool.map(lambda part, small=small: simulate(part, small, seed=seed).hits, parts)
            expected = len(trace) * rate
            # What a sample has too much or too little are requests of its hottest keys: hits.
            ratios = [
                (hit + expected - len(part)) / expected
                for hit, part in zip(hits, parts, strict=True)
            ]
            mean = float(np.clip(np.mean(ratios), 0, 1))
            found[size] = (mean, float(np.std(ratios, ddof=1) / np.sqrt(SAMPLES)))
    return Curve(
        np.array(entries, np.int64),
        np.array([found[size][0] for size in entries]),
        np.array([found[size][1] for size in entries]),
        rate,
    )


def _samples(trace: npt.NDArray[np.int64], rate: float, seed: int) -> list[npt.NDArray[np.int64]]:
    """The requests of the keys whose hash lies in the i-th interval of length `rate`."""
    salt = (seed * 2 + 1) * 0x9E3779B97F4A7C15 % 2**64
    mixed = trace.astype(np.uint64) + np.uint64(salt)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    place = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return [trace[(place >= i * rate) & (place < (i + 1) * rate)] for i in range(SAMPLES)]
