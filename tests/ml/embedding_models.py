"""A small real embedding model for tests: hashed character trigrams, projected; it notes calls."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from cachecore.ml import EmbeddingCache

DIM = 16


class Trigrams:
    """Texts (or bytes, or what repr tells apart) to unit rows of DIM float32."""

    def __init__(self, seed: int = 0) -> None:
        self.calls: list[list[Any]] = []
        self._projection = np.random.default_rng(seed).standard_normal((512, DIM))

    def row(self, value: Any) -> npt.NDArray[np.float32]:
        data = repr(value).encode()
        counts = np.zeros(512)
        for at in range(len(data)):
            counts[zlib.crc32(data[at : at + 3]) % 512] += 1
        row = counts @ self._projection
        return (row / np.linalg.norm(row)).astype(np.float32)

    def rows(self, values: list[Any]) -> npt.NDArray[np.float32]:
        """What the model says of values, without a call."""
        return np.array([self.row(value) for value in values], np.float32).reshape(-1, DIM)

    def __call__(self, values: list[Any]) -> npt.NDArray[np.float32]:
        self.calls.append(list(values))
        return self.rows(values)

    @property
    def encoded(self) -> list[Any]:
        return [value for call in self.calls for value in call]


class OutOfMemoryError(RuntimeError):
    """What a model raises."""


def over(encode: Any, /, **settings: Any) -> EmbeddingCache:
    """Make a cache over an encoder."""
    named = {"model": "trigrams", "version": "v1", "dim": DIM, **settings}
    return EmbeddingCache(encode, **named)


def equal(rows: Any, expected: Any) -> bool:
    """Say whether rows are float32 and exactly those expected."""
    return rows.dtype == np.float32 and np.array_equal(rows, expected)
