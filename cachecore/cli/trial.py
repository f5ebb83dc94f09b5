"""What the demo measures: one stream of requests through several ways of holding embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter_ns
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cachecore import Cache
from cachecore.cli.encoder import Encoder, Vector

TURNS = 100  # slices of the stream
ROUNDS = 100  # of the ranking request, of which the fastest counts


class Embeddings:
    """Embeddings by name, computed each time; counts how often."""

    def __init__(self, texts: dict[str, str], encoder: Encoder) -> None:
        self._texts, self._encoder = texts, encoder
        self.computed = 0

    def __call__(self, name: str) -> Vector:
        self.computed += 1
        return self._encoder.encode(self._texts[name])


@dataclass(frozen=True)
class Holder:
    """A way of holding embeddings: how to get one by name, and how many it holds now."""

    name: str
    fetch: Callable[[str], Vector]
    held: Callable[[], int]


@dataclass(frozen=True)
class Run:
    """What a stream of requests met: latencies in ns, in order."""

    name: str
    latency: NDArray[np.int64]
    hit_ratio: float
    held: int


@dataclass(frozen=True)
class Ranking:
    """The fastest of many rounds, in ns: fetching the candidates, and with the scores."""

    name: str
    fetch: int
    total: int


def holders(
    embed: Embeddings, kept: dict[str, Vector], cache: Cache[str, Vector], lru_size: int
) -> list[Holder]:
    """The contenders: nothing held, an unbounded dict, `lru_cache`, and a `Cache`."""
    recent = lru_cache(lru_size)(embed)

    def from_dict(name: str) -> Vector:
        vector = kept.get(name)
        if vector is None:
            vector = kept[name] = embed(name)
        return vector

    def from_cache(name: str) -> Vector:
        vector = cache.get(name)
        if vector is None:
            vector = embed(name)
            cache.set(name, vector)
        return vector

    return [
        Holder("no cache", embed, lambda: 0),
        Holder("dict (unbounded)", from_dict, kept.__len__),
        Holder("lru_cache", recent, lambda: recent.cache_info().currsize),
        Holder("Cache", from_cache, cache.__len__),
    ]


def serve(
    contenders: list[Holder],
    embed: Embeddings,
    requests: list[str],
    sample: int,
    progress: Callable[[float], None],
) -> list[Run]:
    """Send every contender the requests, one by one; who holds nothing gets a sample of them.

    They take turns, slice by slice, so that what else the machine does meets them all. A latency
    includes one reading of the clock.
    """
    few = requests[:: max(1, len(requests) // sample)]
    streams = [few if holder.fetch is embed else requests for holder in contenders]
    latencies: list[list[int]] = [[] for _ in contenders]
    computed = [0] * len(contenders)
    clock = perf_counter_ns
    for turn in range(TURNS):
        for number, (holder, stream) in enumerate(zip(contenders, streams, strict=True)):
            fetch, note, before = holder.fetch, latencies[number].append, embed.computed
            part = slice(len(stream) * turn // TURNS, len(stream) * (turn + 1) // TURNS)
            for name in stream[part]:
                start = clock()
                fetch(name)
                note(clock() - start)
            computed[number] += embed.computed - before
        progress((turn + 1) / TURNS)
    return [
        Run(holder.name, np.array(taken), 1 - made / len(taken), holder.held())
        for holder, taken, made in zip(contenders, latencies, computed, strict=True)
    ]


def rank(
    cache: Cache[str, Vector], kept: dict[str, Vector], candidates: list[str], user: Vector
) -> tuple[list[Ranking], Vector]:
    """Score candidates against a user: three ways to collect the vectors, taken in turns.

    Returns the times and the rows that `gather` wrote.
    """
    rows = np.empty((len(candidates), len(user)), np.float32)

    def gather() -> Vector:
        cache.gather(candidates, rows)
        return rows

    ways: dict[str, Callable[[], Vector]] = {
        "np.stack([d[k] for k in keys])": lambda: np.stack([kept[key] for key in candidates]),
        "np.stack(cache.get_many(keys))": lambda: np.stack(
            cast(list[Vector], cache.get_many(candidates))
        ),
        "cache.gather(keys, out)": gather,
    }
    times: dict[str, list[tuple[int, int]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, collect in ways.items():
            start = perf_counter_ns()
            vectors = collect()
            fetched = perf_counter_ns()
            vectors @ user
            times[name].append((fetched - start, perf_counter_ns() - start))
    best = [
        Ranking(name, min(fetch for fetch, _ in taken), min(total for _, total in taken))
        for name, taken in times.items()
    ]
    return best, gather()
