"""What SemanticCache returns and counts, and how it reads its arguments."""

from __future__ import annotations

from collections.abc import Iterable
from sys import getsizeof as size_of_object
from typing import Any, NamedTuple

import numpy as np

from cachecore.settings import share
from cachecore.stats import CacheStats

BINS = 100  # of the histogram of similarities


class Hit(NamedTuple):
    """An answer of the cache."""

    value: Any
    similarity: float
    """Cosine of the embeddings of the two queries, -1 ... 1; 1.0 if they are the same text."""
    query: str
    """The query under which the value was set."""
    exact: bool
    """Whether it is the very text that was asked for."""
    computed: bool = False
    """Whether this call has computed it: of `get_or_compute`."""


class SemanticStats(NamedTuple):
    """What a SemanticCache has counted.

    `verified_away` and `similarities` count a text once that a batch has several times.
    """

    exact_hits: int
    semantic_hits: int
    misses: int
    verified_away: int
    """Misses that were near enough, and that the verifier has refused."""
    similarities: tuple[int, ...]
    """How many that were no exact hits had their nearest query at a similarity of 0 ... 0.01, 0.01
    ... 0.02 and so on: 100 counts. Negative ones are in the first."""
    cache: CacheStats
    """Of the cache of values. Its look-ups are not the queries: a semantic hit makes two."""

    @property
    def hit_ratio(self) -> float:
        """Hits of both kinds / queries; 0.0 before the first."""
        hits = self.exact_hits + self.semantic_hits
        return hits / (hits + self.misses) if hits + self.misses else 0.0


def text_of(query: Any) -> str:
    """A query, as an exact str."""
    if not isinstance(query, str):
        raise TypeError(f"query must be a str, not {type(query).__name__}")
    return query if type(query) is str else str.__str__(query)


def texts_of(queries: Iterable[Any]) -> list[str]:
    """Queries; one str is hardly meant as many."""
    if isinstance(queries, (str, bytes)):
        raise TypeError(f"queries must be an iterable of str, not one {type(queries).__name__}")
    return [text_of(query) for query in queries]


def open_share(value: Any, name: str) -> float:
    """A number above 0 and below 1."""
    number = share(value, name)
    if not 0 < number < 1:
        raise ValueError(f"{name} must be above 0 and below 1, not {value!r}")
    return number


def size_of(value: Any) -> int:
    """What `Cache` counts for a value."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    try:
        return memoryview(value).nbytes
    except TypeError:
        return size_of_object(value)
