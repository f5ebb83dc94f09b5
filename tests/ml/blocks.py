"""What tests of PrefixCache put: small blocks that tell their numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cachecore.ml import PrefixCache

BLOCK = 4


def cache(max_bytes: int | str = "1MB", **settings: Any) -> PrefixCache:
    return PrefixCache(block=BLOCK, max_bytes=max_bytes, **settings)


def states(count: int, first: int = 0) -> list[npt.NDArray[np.float32]]:
    return [np.full((2, BLOCK, 3), first + at, np.float32) for at in range(count)]


def numbers(blocks: list[Any]) -> list[int]:
    """Which of `states` these are."""
    return [int(block.flat[0]) for block in blocks]


def bytes_of_one() -> int:
    one = cache()
    one.put(range(BLOCK), states(1))
    return one.nbytes
