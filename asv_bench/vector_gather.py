"""How ways to gather rows are compared: the same batches, the same `out`, turn by turn.

Rows are float32, ids 40-bit integers without a pattern, all of them in the table and drawn at
random with replacement; accounting is on. NumPy's tables lie on boundaries of 2 MiB with huge pages
advised, as our private ones do. What is compared writes to the same `out`, which is placed anew
several times: how far its rows lie from a page's start, beside those they are copied from, decides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bars import OURS
from timing import ROUND_NS, Effort, Ratio, Samples, cold
from vector_tables import Population, Rows, population, row_bytes

BATCHES = (100, 1_000, 10_000)
PLACEMENTS = 6  # of `out`


@dataclass(frozen=True)
class Cell:
    """Gather beside np.take in one shape, and how both tables are paged."""

    rows: int
    dim: int
    batch: int
    ratio: Ratio
    pages: str


@dataclass(frozen=True)
class Side:
    """One way to gather: a body in which c[0] is `table`, c[1] an array, and k a batch."""

    name: str
    body: str
    table: Any
    batch_of: Callable[[Any], Any]  # makes k of places in the population's array
    out_of: Callable[[Rows], Any] = lambda out: out


def ours(here: Population, options: str = "") -> Side:
    """Return VectorCache's way."""
    return Side(OURS, f"c[0].gather(k, c[1]{options})", here.cache, lambda at: here.ids[at])


def take(here: Population) -> Side:
    """Return NumPy's."""
    body = "np.take(c[0], k, axis=0, out=c[1], mode='clip')"
    return Side("take", body, here.table, lambda at: at)


def outs(batch: int, dim: int) -> Iterator[Rows]:
    """Yield arrays for a batch at several distances from a page's start, all multiples of 64."""
    size = batch * row_bytes(dim)
    for placement in range(PLACEMENTS):
        whole = np.empty(size + 2 * 4096, np.uint8)
        start = -whole.ctypes.data % 4096 + 4096 * placement // PLACEMENTS // 64 * 64
        yield whole[start : start + size].view(np.float32).reshape(batch, dim)


def play(here: Population, batch: int, effort: Effort, sides: Sequence[Side]) -> Samples:
    """Measure ways to gather, each in turn some batches ahead of the next."""
    each = max(1, round(ROUND_NS / (batch * (20 + row_bytes(here.dim) / 10))))
    places = here.places(batch, 24 * each)
    samples = Samples()
    for out in outs(batch, here.dim):
        rows, found = here.cache.gather(here.ids[places[0]], out)
        assert found.all()
        assert (rows == here.table[places[0]]).all()
        contenders = []
        for turn, side in enumerate(sides):
            batches = list(map(side.batch_of, places))
            parts = [batches[start : start + each] for start in range(0, len(batches), each)]
            lag = turn * len(parts) // len(sides)
            c = (side.table, side.out_of(out))
            contenders.append(cold(side.name, side.body, c, parts, lag, batch))
        samples.play(contenders, max(3, effort.large_rounds // PLACEMENTS))
    return samples


@functools.cache
def cells(rows: int, dim: int, effort: Effort) -> list[Cell]:
    """Measure all batches of one shape beside np.take."""
    here = population(rows, dim)
    sides = (ours(here), take(here))
    return [
        Cell(rows, dim, batch, play(here, batch, effort, sides).ratio(OURS, "take"), here.pages)
        for batch in BATCHES
    ]
