"""An embedding made by hand: counts of hashed character trigrams; and questions for it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DIM = 512


def trigrams(texts: Sequence[str]) -> NDArray[np.float64]:
    """One row for each text: how often each hashed trigram of it occurs."""
    rows = np.zeros((len(texts), DIM))
    for row, text in zip(rows, texts, strict=True):
        padded = f"  {text.lower()} "
        for at in range(len(padded) - 2):
            row[zlib.crc32(padded[at : at + 3].encode()) % DIM] += 1
    return rows


class Embed:
    """`trigrams` that remembers what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: list[str]) -> NDArray[np.float64]:
        self.calls.append(list(texts))
        return trigrams(texts)


ASKED = "how do I reset my password?"
ALIKE = "how do I reset my password"  # 0.95
OTHER = "where is the nearest bakery in town?"  # 0.1


def cosine(a: str, b: str) -> float:
    one, other = trigrams([a, b])
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))
