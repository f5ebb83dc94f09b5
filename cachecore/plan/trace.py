"""`Trace`: the requests of a log as arrays, of which a log that is too long leaves a sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cachecore.plan.logs import UNKNOWN, Chunk
from cachecore.plan.sampling import Hashes, hashes, mixed
from cachecore.plan.simulation import integers, numbers

MOST_HELD = 20_000_000  # requests: 160 MB of keys, and as much of sizes and of times
LEAST_KEYS = 4096  # that a sample must hold
STR_BYTES, INT_BYTES = 49, 28  # of a key object, beside a str's characters


@dataclass(frozen=True, eq=False)
class Trace:
    """Requests in the order of their times.

    Attributes:
        keys: int64 array, 0, 1, 2 ... in the order of their first requests.
        sizes: int64 array, bytes of each request's object, at least 1; None: not known.
        times: float64 array, seconds, never falling; None: not known.
        costs: float64 array, relative costs of a miss, above 0; None: not known.
        requests: how many were read; all of them are held where `rate` is 1.
        rate: share of the keys whose requests are held.
        complete: whether the log was read to its end. A log of few keys and very many requests is
            not: a sample of its keys would say little.
        key_bytes: mean size of a key object.
        sizes_known: share of the requests held whose size the log tells; others have the size
            that their key has elsewhere, or the mean.
    """

    keys: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64] | None
    times: npt.NDArray[np.float64] | None
    costs: npt.NDArray[np.float64] | None
    requests: int
    rate: float
    complete: bool
    key_bytes: float
    sizes_known: float


def trace_of(
    keys: npt.ArrayLike,
    *,
    sizes: npt.ArrayLike | None = None,
    times: npt.ArrayLike | None = None,
    costs: npt.ArrayLike | None = None,
) -> Trace:
    """A trace of arrays: n integer keys and what is known of each request, as for `simulate`.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong kind; it is named.
    """
    whole = integers(keys, "keys", None)
    collector = Collector(most=max(len(whole), 1))
    columns = (
        None if sizes is None else integers(sizes, "sizes", len(whole)),
        None if times is None else numbers(times, "times", len(whole)),
        None if costs is None else numbers(costs, "costs", len(whole)),
    )
    for name, column, least in (("sizes", columns[0], 0), ("costs", columns[2], 1e-300)):
        if column is not None and len(column) and column.min() < least:
            raise ValueError(f"{name} must not be {column.min()}")
    collector.hold(mixed(whole.view(np.uint64)), columns, INT_BYTES * len(whole))
    return collector.trace()


class Collector:
    """Takes chunks of requests in memory that does not grow with their number."""

    def __init__(self, most: int = MOST_HELD) -> None:
        self._most = most
        self._held: list[tuple[Hashes, tuple[Any, ...]]] = []
        self._count = self._requests = self._halvings = self._key_bytes = 0
        self.full = False

    def add(self, chunk: Chunk) -> None:
        """Take more requests, unless `full`."""
        keys, count = chunk.keys, len(chunk.keys)
        is_text = isinstance(keys[0], str)
        key_bytes = sum(map(len, keys)) + STR_BYTES * count if is_text else INT_BYTES * count
        sizes = None if chunk.sizes is None else np.array(chunk.sizes, np.int64)
        times = None if chunk.times is None else np.array(chunk.times, np.float64)
        costs = None if chunk.costs is None else np.array(chunk.costs, np.float64)
        self.hold(mixed(hashes(keys)), (sizes, times, costs), key_bytes)

    def hold(self, keys: Hashes, columns: tuple[Any, ...], key_bytes: int) -> None:
        """Take requests by the hashes of their keys, with sizes, times and costs."""
        self._requests += len(keys)
        self._key_bytes += key_bytes
        piece = _below(self._halvings, keys, columns)
        self._held.append(piece)
        self._count += len(piece[0])
        while self._count > self._most and not self.full:
            self._halve()

    def _halve(self) -> None:
        """Let go of half of the keys, if enough are left."""
        fewer = [_below(self._halvings + 1, *piece) for piece in self._held]
        if len(np.unique(np.concatenate([keys for keys, _ in fewer]))) < LEAST_KEYS:
            self.full = True
            return
        self._halvings += 1
        self._held, self._count = fewer, sum(len(keys) for keys, _ in fewer)

    def trace(self) -> Trace:
        """What was taken; the collector is empty afterwards."""
        keys = np.concatenate([keys for keys, _ in self._held] or [np.empty(0, np.uint64)])
        sizes, times, costs = (
            _joined([columns[at] for _, columns in self._held], [len(k) for k, _ in self._held])
            for at in range(3)
        )
        self._held = []
        if times is not None and (np.diff(times) < 0).any():  # written by several processes
            order = np.argsort(times, kind="stable")
            keys, times = keys[order], times[order]
            sizes, costs = (None if column is None else column[order] for column in (sizes, costs))
        dense = _numbered(keys)
        known = 0.0
        if sizes is not None:
            sizes = sizes.astype(np.int64)
            known = float((sizes > UNKNOWN).mean()) if len(sizes) else 0.0
            sizes = None if known == 0 else _completed(sizes, dense)
        return Trace(
            keys=dense,
            sizes=sizes,
            times=times,
            costs=costs,
            requests=self._requests,
            rate=0.5**self._halvings,
            complete=not self.full,
            key_bytes=self._key_bytes / max(self._requests, 1),
            sizes_known=known,
        )


def collect(chunks: Iterable[Chunk], most: int = MOST_HELD) -> Trace:
    """A trace of a log's chunks: all of up to `most` requests, or a sample of the keys."""
    collector = Collector(most)
    for chunk in chunks:
        collector.add(chunk)
        if collector.full:
            break
    return collector.trace()


def _below(halvings: int, keys: Hashes, columns: tuple[Any, ...]) -> tuple[Hashes, tuple[Any, ...]]:
    """The requests of keys under a threshold of 2^-halvings."""
    if not halvings:
        return keys, columns
    chosen = keys < np.uint64(2 ** (64 - halvings))
    return keys[chosen], tuple(None if column is None else column[chosen] for column in columns)


def _joined(columns: list[Any], lengths: list[int]) -> Any:
    """A column of all pieces; UNKNOWN where a piece does not have it."""
    if all(column is None for column in columns):
        return None
    return np.concatenate(
        [
            np.full(length, UNKNOWN) if column is None else column
            for column, length in zip(columns, lengths, strict=True)
        ]
    )


def _numbered(keys: Hashes) -> npt.NDArray[np.int64]:
    """Equal keys as equal numbers, from 0 on in the order in which they come."""
    order = np.argsort(keys, kind="stable")
    begins = np.empty(len(keys), bool)
    begins[:1] = True
    np.not_equal(keys[order[1:]], keys[order[:-1]], out=begins[1:])
    firsts = order[begins]
    number = np.empty(len(firsts), np.int64)
    number[np.argsort(firsts)] = np.arange(len(firsts))
    dense = np.empty(len(keys), np.int64)
    dense[order] = number[np.cumsum(begins) - 1]
    return dense


def _completed(sizes: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Sizes of at least 1, those not known by the same key's largest, or the mean of all keys'."""
    largest = np.full(int(keys.max()) + 1, UNKNOWN, np.int64)
    np.maximum.at(largest, keys, sizes)
    largest[largest == UNKNOWN] = round(float(largest[largest > UNKNOWN].mean()))
    return np.maximum(np.where(sizes == UNKNOWN, largest[keys], sizes), 1)
