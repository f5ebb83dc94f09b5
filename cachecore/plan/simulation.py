"""`simulate`: what a cache of a given size would have hit, by the policy that `Cache` runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cachecore._simulate import run
from cachecore.settings import bounds, seconds, sketch_size

MOST_SAMPLES = 500  # of the window
LATEST = 2**30  # of the simulator's 32-bit times; a lifetime may take it as far again


@dataclass(frozen=True, eq=False)
class SimulationResult:
    """What became of the requests of a trace.

    `hits + misses` are the requests, and `misses - refused` the insertions, which are `entries +
    evictions + rejections + expirations`.

    Attributes:
        requests: how many there were.
        hits: how many the cache would have answered.
        byte_hit_ratio: share of the bytes asked for that were hits; None without sizes.
        cost_saved: share of the cost of all requests that hits saved; None without costs.
        evictions, rejections, expirations: entries that left main, the window, or in time.
        refused: requests for what is larger than `max_bytes`.
        entries, bytes: what the cache holds in the end; bytes is None without sizes.
        window: float64 array, the window's share after each of equal parts of the trace.
    """

    requests: int
    hits: int
    byte_hit_ratio: float | None
    cost_saved: float | None
    evictions: int
    rejections: int
    expirations: int
    refused: int
    entries: int
    bytes: int | None
    window: npt.NDArray[np.float64]

    @property
    def misses(self) -> int:
        """Requests that the cache would not have answered."""
        return self.requests - self.hits

    @property
    def hit_ratio(self) -> float:
        """Share of the requests that were hits; 0 without requests."""
        return self.hits / self.requests if self.requests else 0.0


def simulate(
    keys: npt.ArrayLike,
    maxsize: int | None = None,
    *,
    sizes: npt.ArrayLike | None = None,
    max_bytes: int | str | None = None,
    costs: npt.ArrayLike | None = None,
    times: npt.ArrayLike | None = None,
    ttl: float | None = None,
    seed: int = 0,
    sketch_bytes: int | str | None = None,
) -> SimulationResult:
    """Run a trace through the policy of `Cache`: look each key up and, on a miss, set it.

    The same compiled code decides as in `Cache`, on integer keys and without objects; a `Cache`
    driven over the same trace differs by its random choices only. Releases the GIL; deterministic
    for a seed; memory is that of the simulated cache without its objects, 46 bytes an entry.

    Args:
        keys: n integers.
        maxsize: most entries; None: no bound of their number. One bound is required.
        sizes: bytes of each request's object, n integers of at least 1. An entry counts as large as
            that, with no overhead added.
        max_bytes: most bytes, an int or a size like "4GB"; needs `sizes`.
        costs: price of each request's object if it is missed, n numbers above 0.
        times: seconds at which the requests were made, n numbers that never fall.
        ttl: seconds that an entry lives; needs `times`. Kept to a 2^-30th of the trace's span.
        seed: of the policy's random choices, 0 ... 2^64 - 1.
        sketch_bytes: as of `Cache`.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong kind; it is named.
        MemoryError: the simulated cache does not fit.
    """
    maxsize, most_bytes = bounds(maxsize, max_bytes)
    if most_bytes is not None and sizes is None:
        raise ValueError("sizes are required for a bound by max_bytes")
    if ttl is not None and times is None:
        raise ValueError("times are required for a ttl")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an int, not {type(seed).__name__}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be between 0 and 2**64 - 1, not {seed}")
    all_keys = integers(keys, "keys", None)
    count = len(all_keys)
    all_sizes = None if sizes is None else integers(sizes, "sizes", count)
    if all_sizes is not None and count and all_sizes.min() < 1:
        raise ValueError(f"sizes must be at least 1, not {all_sizes.min()}")
    all_costs = None if costs is None else numbers(costs, "costs", count)
    if all_costs is not None and count and not all_costs.min() > 0:
        raise ValueError(f"costs must be above 0, not {all_costs.min()}")
    ticks, lifetime = _ticks(times, ttl, count)
    counts = run(
        all_keys,
        all_sizes,
        all_costs,
        ticks,
        maxsize,
        most_bytes,
        lifetime,
        seed,
        sketch_size(sketch_bytes),
        min(count, MOST_SAMPLES),
    )
    bytes_hit, cost_hit = counts.pop("bytes_hit"), counts.pop("cost_hit")
    if all_sizes is None:
        counts["bytes"] = None
    return SimulationResult(
        requests=count,
        byte_hit_ratio=None if all_sizes is None else bytes_hit / max(int(all_sizes.sum()), 1),
        cost_saved=None if all_costs is None else cost_hit / (all_costs.sum() or 1.0),
        **counts,
    )


def integers(values: npt.ArrayLike, name: str, count: int | None) -> npt.NDArray[np.int64]:
    """A contiguous int64 array of `count` items; ValueError or TypeError naming the argument."""
    array = np.asarray(values)
    if array.size and (array.dtype.kind not in "iu" or array.dtype == np.uint64):
        raise TypeError(f"{name} must be integers of 64 bits at most, not {array.dtype}")
    line: npt.NDArray[np.int64] = _in_line(array, name, count, np.dtype(np.int64))
    return line


def numbers(values: npt.ArrayLike, name: str, count: int | None) -> npt.NDArray[np.float64]:
    """A contiguous float64 array of `count` finite items; errors as above."""
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be numbers, not {array.dtype}")
    line: npt.NDArray[np.float64] = _in_line(array, name, count, np.dtype(np.float64))
    if not np.isfinite(line).all():
        raise ValueError(f"{name} must be finite")
    return line


def _in_line(array: Any, name: str, count: int | None, dtype: Any) -> Any:
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not shape {array.shape}")
    if count is not None and len(array) != count:
        raise ValueError(f"{name} must be as many as the keys, {count}, not {len(array)}")
    return np.ascontiguousarray(array, dtype)


def _ticks(
    times: npt.ArrayLike | None, ttl: float | None, count: int
) -> tuple[npt.NDArray[np.uint32] | None, int]:
    """Times as integers from 1 on, and the lifetime in their unit; 0: for ever."""
    if times is None:
        return None, 0
    clock = numbers(times, "times", count)
    if (np.diff(clock) < 0).any():
        raise ValueError("times must not fall")
    lifetime = np.inf if ttl is None else seconds(ttl, "ttl")
    span = float(clock[-1] - clock[0]) if count else 0.0
    if count == 0 or lifetime > span:
        return None, 0  # nothing expires
    unit = max(span / LATEST, 1e-6)
    ticks = ((clock - clock[0]) / unit).astype(np.uint32) + np.uint32(1)
    return ticks, max(1, round(lifetime / unit))
