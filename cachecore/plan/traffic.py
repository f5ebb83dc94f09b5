"""`Traffic`: what the requests of a trace are like: skew, keys seen once, working set over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cachecore.plan.trace import Trace

SLICES = 40  # of the working set over time
RANKS = 60  # points of the curve of popularity
FITTED = 8  # requests that a key needs to take part in the fit
LEAST_FITTED = 20  # keys
SKIPPED = 100  # of the first keys of a sample


@dataclass(frozen=True)
class Slice:
    """A part of the trace: where it starts, its distinct keys, and those never seen before."""

    start: float
    distinct_keys: int
    new_keys: int


@dataclass(frozen=True)
class Zipf:
    """The n-th most popular key gets `first` * n^-exponent requests, from 1 to `keys`."""

    exponent: float
    first: float
    keys: int


@dataclass(frozen=True)
class Traffic:
    """Statistics of a trace; what sampling scaled is scaled back.

    Attributes:
        distinct_keys: how many different keys were asked for.
        one_hit_keys: share of the keys that were asked for only once.
        one_hit_requests: share of the requests that are those.
        top_1_percent, top_10_percent: share of the requests for the most popular keys.
        zipf: the law fitted to the popular keys; None if too few are asked for repeatedly.
        object_bytes: mean size of the keys' objects, each in its last request; None: not known.
        working_set_bytes: of all of them.
        seconds: from the first request to the last; None without times.
        requests_per_second: on average; None without times.
        slices: parts of equal length, in seconds from the first request or, without times,
            in requests.
        popularity: rank and number of requests of some keys, the most popular first.
    """

    distinct_keys: int
    one_hit_keys: float
    one_hit_requests: float
    top_1_percent: float
    top_10_percent: float
    zipf: Zipf | None
    object_bytes: float | None
    working_set_bytes: float | None
    seconds: float | None
    requests_per_second: float | None
    slices: tuple[Slice, ...]
    popularity: tuple[tuple[float, int], ...]


def traffic(trace: Trace) -> Traffic:
    """Statistics of a trace with requests; a few seconds for 10^7."""
    counts = np.bincount(trace.keys)
    ranked = np.sort(counts)[::-1]
    keys, expected = len(counts), trace.requests * trace.rate
    # What a sample has too much or too little are requests of the hottest keys.
    upto = np.clip((np.cumsum(ranked) + expected - len(trace.keys)) / expected, 0, 1)
    object_bytes = None
    if trace.sizes is not None:
        last = np.empty(keys, np.int64)
        last[trace.keys] = trace.sizes  # of equal places the last one stays
        object_bytes = float(last.mean())
    seconds = None
    if trace.times is not None and trace.times[-1] > trace.times[0]:
        seconds = float(trace.times[-1] - trace.times[0])
    ranks = np.unique(np.geomspace(1, keys, RANKS).astype(int))
    fitted = fit_zipf(ranked, SKIPPED if trace.rate < 1 else 0)
    if fitted is not None:  # in the whole log, of 1 / rate as many keys
        first = fitted.first * trace.rate**-fitted.exponent
        fitted = Zipf(fitted.exponent, first, round(fitted.keys / trace.rate))
    return Traffic(
        distinct_keys=round(keys / trace.rate),
        one_hit_keys=float((counts == 1).mean()),
        one_hit_requests=float((counts == 1).sum() / expected),
        top_1_percent=float(upto[max(1, round(keys * 0.01)) - 1]),
        top_10_percent=float(upto[max(1, round(keys * 0.1)) - 1]),
        zipf=fitted,
        object_bytes=object_bytes,
        working_set_bytes=None if object_bytes is None else object_bytes * keys / trace.rate,
        seconds=seconds,
        requests_per_second=None if seconds is None else trace.requests / seconds,
        slices=_slices(trace, seconds),
        popularity=tuple((rank / trace.rate, int(ranked[rank - 1])) for rank in ranks.tolist()),
    )


def fit_zipf(ranked: npt.NDArray[np.int64], skipped: int = 0) -> Zipf | None:
    """The finite Zipf law that makes the counts, falling, most likely.

    Maximum likelihood over the ranks (as Clauset et al., "Power-law distributions in empirical
    data", 2009, for values), because least squares on log-log axes is biased. Of keys asked for
    less than 8 times the order is mostly chance: only those before them are fitted, as a law cut
    off there. In a sample of the keys the ranks of the first are chance as well: `skipped`.
    """
    head = ranked[skipped:][ranked[skipped:] >= FITTED].astype(float)
    if len(head) < LEAST_FITTED:
        return None
    log_rank = np.log(np.arange(skipped + 1, skipped + len(head) + 1))
    wanted = float((head @ log_rank) / head.sum())
    low, high = -1.0, 8.0
    while high - low > 1e-6:  # the law's mean logarithm falls as its exponent rises
        exponent = (low + high) / 2
        weights = np.exp(-exponent * log_rank)
        if (weights @ log_rank) / weights.sum() > wanted:
            low = exponent
        else:
            high = exponent
    exponent = max(exponent, 0.0)
    first = float(head.sum() / np.exp(-exponent * log_rank).sum())
    return Zipf(exponent, first, skipped + len(head))


def _slices(trace: Trace, seconds: float | None) -> tuple[Slice, ...]:
    held, keys = len(trace.keys), int(trace.keys.max()) + 1
    count = min(SLICES, held)
    if seconds is None or trace.times is None:
        at = np.arange(held) * count // held
        length = trace.requests / count
    else:
        at = ((trace.times - trace.times[0]) * (count / seconds)).astype(np.int64)
        np.minimum(at, count - 1, out=at)
        length = seconds / count
    seen = np.zeros(keys, bool)
    slices = []
    ends = np.searchsorted(at, np.arange(count + 1))
    for number in range(count):
        present = np.unique(trace.keys[ends[number] : ends[number + 1]])
        new = int((~seen[present]).sum())
        seen[present] = True
        scaled = (round(n / trace.rate) for n in (len(present), new))
        slices.append(Slice(number * length, *scaled))
    return tuple(slices)
