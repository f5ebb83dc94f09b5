"""Frozen workloads: the keys, orders and request streams every benchmark draws from.

Only ever appended to: a changed workload makes old results incomparable. `RandomState` is used
because NumPy promises that its stream never changes, which it does not promise of `Generator`.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

KeyKind = Literal["str", "int", "bytes"]


def make_ids(n: int, start: int = 0) -> npt.NDArray[np.int64]:
    """Return distinct 40-bit ids without a pattern: each step is a bijection of 40 bits.

    A pattern would decide the result: consecutive or evenly spaced ints are a dict's best or worst.
    """
    ids = np.arange(start, start + n, dtype=np.uint64) + np.uint64(0x5DEECE66D)
    for _ in range(3):
        ids = (ids ^ ids >> np.uint64(20)) * np.uint64(0x9E3779B97F) & np.uint64((1 << 40) - 1)
    return (ids ^ ids >> np.uint64(20)).astype(np.int64)


def make_keys(kind: KeyKind, n: int, start: int = 0) -> list[Any]:
    """Return `n` distinct keys from number `start` on: new objects each time, hashes cached."""
    if kind == "int":
        numbers: list[Any] = make_ids(n, start).tolist()
        return numbers
    keys: list[Any] = [f"item:{i:08d}" for i in range(start, start + n)]
    if kind == "bytes":
        keys = [key.encode() for key in keys]
    for key in keys:
        hash(key)
    return keys


def shuffled(items: Sequence[Any], seed: int = 1) -> list[Any]:
    """Return the items in a random order that depends on the seed only."""
    return [items[i] for i in np.random.RandomState(seed).permutation(len(items))]


def slices(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Cut the items into consecutive slices of `size`; a shorter rest is dropped."""
    return [items[i : i + size] for i in range(0, len(items) - size + 1, size)]


def copies(keys: Sequence[Any]) -> list[Any]:
    """Return equal but distinct key objects, their hashes cached."""
    equal: list[Any] = pickle.loads(pickle.dumps(list(keys)))
    for key in equal:
        hash(key)
    return equal


def draws(keys: Sequence[Any], size: int, seed: int) -> list[Any]:
    """Return `size` of the keys drawn at random, with replacement: cheap for any number of keys."""
    return [keys[i] for i in np.random.RandomState(seed).randint(len(keys), size=size)]


def fresh_keys(size: int, start: int, kind: KeyKind = "str") -> Iterator[list[Any]]:
    """Yield lists of `size` keys nobody has seen, owned by the caller alone, without end."""
    while True:
        yield make_keys(kind, size, start)
        start += size


def zipf(alpha: float, keys: Sequence[Any], requests: int, seed: int = 1) -> list[Any]:
    """Return independent requests; the key of rank r comes with a probability ~ r**-alpha."""
    weights = np.cumsum(np.arange(1, len(keys) + 1) ** -alpha)
    points = np.random.RandomState(seed).random_sample(requests) * weights[-1]
    ranked = shuffled(keys, seed)  # popularity must not follow the order of creation
    return [ranked[i] for i in np.searchsorted(weights, points)]


def rows(n: int, seed: int = 1) -> np.ndarray:
    """Return `n` rows of 4 KB: 1,024 float32 each."""
    block = np.random.RandomState(seed).random_sample((256, 1024)).astype(np.float32)
    return np.tile(block, (-(-n // 256), 1))[:n]
