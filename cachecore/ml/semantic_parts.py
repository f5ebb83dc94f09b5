"""What SemanticCache returns and counts, and how it reads its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from sys import getsizeof as size_of_object
from typing import Any, NamedTuple

import numpy as np

from cachecore.ml.steps import in_thread
from cachecore.sentinel import MISSING
from cachecore.settings import awaits, seconds, share
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
    """Whether this call has computed it, and not another one for which it waited."""


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
    if isinstance(queries, (str, bytes)) or not hasattr(type(queries), "__iter__"):
        raise TypeError(f"queries must be an iterable of str, not {type(queries).__name__}")
    return [text_of(query) for query in queries]


def values_of(items: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The values to set, by query."""
    values = {text_of(query): value for query, value in dict(items).items()}
    if any(value is MISSING for value in values.values()):
        raise TypeError("value must not be MISSING, which means that there is none")
    return values


def pair_of(pair: tuple[Any, Any, Any]) -> tuple[str, str, bool]:
    """A labelled pair; a label that is missing (None, NaN) or text is hardly meant as true."""
    query, cached, same = pair
    if not isinstance(same, (bool, np.bool_)) and not (isinstance(same, int) and same in (0, 1)):
        raise TypeError(f"pairs must be labelled with True or False, not {same!r:.80}")
    return text_of(query), text_of(cached), bool(same)


def check_ttl(ttl: float | None) -> None:
    """Before anything is embedded or computed for it."""
    if ttl is not None:
        seconds(ttl, "ttl")


def both_ways(call: Any, name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A user's function as threads call it, and as tasks do.

    A task calls a function that is no coroutine function in a thread; a thread does not call one
    that is.
    """
    if not callable(call):
        raise TypeError(f"{name} must be callable, not {type(call).__name__}")
    if awaits(call):

        def refused(*_: Any) -> Any:
            raise TypeError(f"{name} is a coroutine function: use the asynchronous methods")

        return refused, call

    def called(*arguments: Any) -> Any:
        result = call(*arguments)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise TypeError(f"{name} returned an awaitable: make it a coroutine function")
        return result

    return called, in_thread(called)


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
