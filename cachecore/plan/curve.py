"""`simulate_curve`: hit ratio against cache size, of long traces by spatial sampling."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cachecore.plan.sampling import places
from cachecore.plan.simulation import integers, simulate
from cachecore.settings import positive_int, share

SAMPLED_FROM = 10_000_000  # requests: longer traces are sampled, down to about so many
SAMPLES = 4  # disjoint samples, whose spread tells the error
LEAST_ENTRIES = 64  # of a simulated cache in a sample: smaller ones say little

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Curve:
    """Hit ratios by cache size.

    Attributes:
        sizes: int64 array, entries.
        hit_ratio: float64 array.
        error: float64 array, the standard error by sampling; 0 where all was simulated.
        rate: share of the keys in one sample; 1: all.
    """

    sizes: Integers
    hit_ratio: npt.NDArray[np.float64]
    error: npt.NDArray[np.float64]
    rate: float


class Simulated(NamedTuple):
    """What a cache of one size does; the ratios of bytes and costs are None where not known."""

    hit_ratio: float
    error: float
    byte_hit_ratio: float | None
    cost_saved: float | None


class _Part(NamedTuple):
    """Requests of some keys."""

    keys: Integers
    sizes: Integers | None
    costs: npt.NDArray[np.float64] | None

    def where(self, chosen: npt.NDArray[np.bool_]) -> _Part:
        sizes = None if self.sizes is None else self.sizes[chosen]
        costs = None if self.costs is None else self.costs[chosen]
        return _Part(self.keys[chosen], sizes, costs)


class Miniatures:
    """Simulates caches of any size over one trace, on four disjoint samples of it or in full.

    The samples take the keys whose hash falls in an interval of length `rate`, in caches as much
    smaller; what they hold of requests beyond or below their share is corrected for (SHARDS-adj).
    Waldspurger et al., "Cache modeling and optimization using miniature simulations", ATC 2017.
    Sizes that would leave a cache of fewer than 64 entries in a sample are simulated in full. The
    trace may itself be such a sample, of a rate `held` and of a trace of `requests`; then all sizes
    are simulated on samples of it, whose spread is the error.
    """

    def __init__(
        self,
        keys: Integers,
        rate: float,
        seed: int = 0,
        *,
        sizes: Integers | None = None,
        costs: npt.NDArray[np.float64] | None = None,
        held: float = 1.0,
        requests: int | None = None,
    ) -> None:
        self._whole = _Part(keys, sizes, costs)
        self._rate, self._seed, self._held = rate, seed, held
        self._expected = len(keys) if requests is None else requests * held
        self._mean_size = 1.0 if sizes is None or not len(sizes) else float(sizes.mean())
        self._parts = []
        if rate < 1:
            place = places(keys, seed)
            self._parts = [
                self._whole.where((place >= n * rate) & (place < (n + 1) * rate))
                for n in range(SAMPLES)
            ]

    def at(self, maxsize: int | None = None, max_bytes: int | None = None) -> Simulated:
        """A cache of so many entries or bytes, for the whole trace."""
        entries = maxsize if maxsize is not None else (max_bytes or 0) / self._mean_size
        small = entries * self._rate < LEAST_ENTRIES
        in_full = self._rate == 1 or (small and self._held == 1)
        parts, rate = ([self._whole], 1.0) if in_full else (self._parts, self._rate)
        ratios = np.array([self._ratios(part, maxsize, max_bytes, rate) for part in parts])
        mean = np.clip(ratios.mean(axis=0), 0, 1).tolist()
        error = 0.0 if in_full else float(ratios[:, 0].std(ddof=1) / np.sqrt(SAMPLES))
        return Simulated(
            mean[0],
            error,
            None if self._whole.sizes is None else mean[1],
            None if self._whole.costs is None else mean[2],
        )

    def _ratios(
        self, part: _Part, maxsize: int | None, max_bytes: int | None, rate: float
    ) -> list[float]:
        """Hit ratio, byte hit ratio and cost saved in a sample of a rate."""
        scale = rate * self._held
        result = simulate(
            part.keys,
            None if maxsize is None else max(1, round(maxsize * scale)),
            sizes=part.sizes,
            max_bytes=None if max_bytes is None else max(1, round(max_bytes * scale)),
            costs=part.costs,
            seed=self._seed,
        )
        # What a sample has too much or too little are requests of its hottest keys: hits.
        return [
            adjusted(ratio, got, expected)
            for ratio, got, expected in (
                (result.hit_ratio, len(part.keys), self._expected * rate),
                (result.byte_hit_ratio, _sum(part.sizes), _sum(self._whole.sizes) * rate),
                (result.cost_saved, _sum(part.costs), _sum(self._whole.costs) * rate),
            )
        ]


def adjusted(ratio: float | None, got: float, expected: float) -> float:
    """A hit ratio of a sample with `got` requests where `expected` ones are its share."""
    return 0.0 if ratio is None or not expected else (ratio * got + expected - got) / expected


def _sum(values: npt.NDArray[np.int64] | npt.NDArray[np.float64] | None) -> float:
    return 0.0 if values is None else float(values.sum())


def sampling_rate(requests: int) -> float:
    """The rate of each of the samples that a trace of so many requests needs; 1: none."""
    return 1.0 if requests <= SAMPLED_FROM else max(SAMPLED_FROM / requests / SAMPLES, 1e-3)


def simulate_curve(
    keys: npt.ArrayLike,
    sizes: Sequence[int],
    *,
    rate: float | None = None,
    seed: int = 0,
) -> Curve:
    """The hit ratio of the shipped policy for each of several cache sizes.

    A sampled curve takes the keys whose hash falls under a threshold, in caches as much smaller
    (Waldspurger et al., "Efficient MRC construction with SHARDS", FAST 2015). Four disjoint
    samples are taken; their mean is the result and their spread its error. Sizes that would leave
    a cache of fewer than 64 entries in a sample are simulated in full.

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
        rate = sampling_rate(len(trace))
    elif not (rate == 1 or 0 < share(rate, "rate") <= 1 / SAMPLES):
        raise ValueError(f"rate must be 1, or above 0 and at most {1 / SAMPLES}, not {rate}")
    miniatures = Miniatures(trace, rate, seed)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(miniatures.at, entries))
    return Curve(
        np.array(entries, np.int64),
        np.array([point.hit_ratio for point in found]),
        np.array([point.error for point in found]),
        rate,
    )
