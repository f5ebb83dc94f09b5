"""A small model of NumPy: of a row it says the same in any batch, to the last bit."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Weighted:
    """Weighted sums of rows: one number for each, or `heads` of them. Notes what it was asked."""

    def __init__(self, heads: int | None = None) -> None:
        self.heads = heads
        self.batches: list[Array] = []
        self._lock = threading.Lock()

    def predict(self, rows: Array, *, scale: float = 1.0) -> Array:
        with self._lock:
            self.batches.append(rows.copy())
        flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
        sums = (flat.astype(float) * scale).sum(axis=1)
        return sums if self.heads is None else np.stack([sums + h for h in range(self.heads)], 1)

    @property
    def asked(self) -> int:
        """How many rows it was given so far."""
        return sum(map(len, self.batches))


def table(n: int, width: int = 4, start: int = 0) -> Array:
    """`n` rows, each another."""
    return np.arange(start * width, (start + n) * width, dtype=float).reshape(n, width)
