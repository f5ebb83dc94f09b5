"""cachecore and its peers through the facade, 10^4 str keys: hit, miss, set at capacity, mixed."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from peers import PEERS
from timing import compile_loop
from workloads import draws, fresh_keys, make_keys, slices, zipf

from .common import LOOKUPS, WRITES, Topic, next_seed

CAPACITY = 10**4


@functools.cache
def full(name: str) -> tuple[Any, list[Any], Iterator[list[Any]]]:
    """Return a full cache, its keys, and a supply of keys it has not seen."""
    peer = PEERS[name]
    keys = make_keys(peer.keys, CAPACITY)
    return peer.filled(CAPACITY, keys), keys, fresh_keys(WRITES, CAPACITY, peer.keys)


class Hit(Topic):
    """10,000 hits."""

    params = (list(PEERS),)
    param_names = ("peer",)

    def setup(self, name: str) -> None:
        """Draw keys."""
        self.cache, keys, _ = full(name)
        self.keys = draws(keys, LOOKUPS, next_seed())
        self.play = compile_loop(PEERS[name].hit)

    def time_hit(self, _: str) -> None:
        """Read in the words of the peer's user."""
        self.play(self.cache, self.keys, 1)


class Miss(Topic):
    """1,000 misses; an lru_cache cannot be asked without computing."""

    params = ([name for name, peer in PEERS.items() if peer.get],)
    param_names = ("peer",)

    def setup(self, name: str) -> None:
        """Take keys that were never stored."""
        self.cache, _, supply = full(name)
        self.keys = next(supply)
        self.play = compile_loop(PEERS[name].get or "")

    def time_get(self, _: str) -> None:
        """`c.get(absent)`."""
        self.play(self.cache, self.keys, 1)


class AtCapacity(Topic):
    """1,000 new keys into a full cache; a dict and lmdb would grow."""

    params = ([name for name, peer in PEERS.items() if peer.bounded],)
    param_names = ("peer",)

    def setup(self, name: str) -> None:
        """Take keys that were never stored."""
        self.cache, _, supply = full(name)
        self.keys = next(supply)
        self.play = compile_loop(PEERS[name].set)

    def time_set(self, _: str) -> None:
        """Write in the words of the peer's user."""
        self.play(self.cache, self.keys, 1)


@functools.cache
def parts() -> list[Sequence[Any]]:
    """Return the request stream, in parts of 10,000."""
    return slices(zipf(0.9, make_keys("str", 10 * CAPACITY), 60 * LOOKUPS), LOOKUPS)


@functools.cache
def warm(name: str) -> tuple[Any, Iterator[Sequence[Any]]]:
    """Return a cache that has seen the stream once, and the stream again, without end."""
    peer = PEERS[name]
    cache, play = peer.make(CAPACITY), compile_loop(peer.mixed or "")
    for part in parts():
        play(cache, part, 1)
    return cache, itertools.cycle(parts())


class Mixed(Topic):
    """Zipf 0.9 over 10^5 keys: get, on a miss set."""

    params = ([name for name, peer in PEERS.items() if peer.mixed and peer.absent],)
    param_names = ("peer",)

    def setup(self, name: str) -> None:
        """Take the next part of the stream."""
        self.cache, rest = warm(name)
        self.part = next(rest)
        self.play = compile_loop(PEERS[name].mixed or "")

    def time_stream(self, _: str) -> None:
        """10,000 requests."""
        self.play(self.cache, self.part, 1)

    def track_hit_ratio(self, _: str) -> float:
        """Return the hit ratio in percent of the stream's second pass."""
        missed = sum(self.play(self.cache, part, 1)[1] for part in parts())
        return 100 * (1 - missed / (len(parts()) * LOOKUPS))

    track_hit_ratio.unit = "%"  # type: ignore[attr-defined]
