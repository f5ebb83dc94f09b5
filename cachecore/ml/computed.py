"""Results by key: kept here, in a cache below, or computed. ResultCache and Pipeline share it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from cachecore._core import Cache
from cachecore.ml.flights import BatchFlights
from cachecore.ml.savings import Ledger
from cachecore.ml.steps import Steps
from cachecore.sentinel import MISSING

if TYPE_CHECKING:
    from cachecore.tiers.tiered import TieredCache

LEAST_COST = 1e-9  # that a Cache takes


class Computed:
    """Results of one computation, kept under bytes that name their inputs exactly.

    Args:
        maxsize, max_bytes, ttl, timer: as for `Cache`.
        below: a TieredCache without a loader, or None.
        ledger: where the time that results took is noted.
    """

    __slots__ = ("below", "cache", "flights", "ledger")

    def __init__(
        self,
        maxsize: int | None,
        max_bytes: int | str | None,
        ttl: float | None,
        timer: Callable[[], float] | None,
        below: TieredCache | None,
        ledger: Ledger,
    ) -> None:
        self.cache: Cache[bytes, Any] = Cache(maxsize, max_bytes=max_bytes, ttl=ttl, timer=timer)
        if below is not None:
            check_below(below)
        self.below, self.ledger = below, ledger
        self.flights = BatchFlights()

    def steps(
        self,
        keys: Sequence[bytes],
        names: Callable[[Sequence[bytes]], list[bytes]],
        compute: Callable[[list[bytes]], Steps],
        packed: Callable[[Any], Any] = lambda value: value,
        unpacked: Callable[[Any], Any] = lambda value: value,
    ) -> Steps:
        """Return the values of distinct keys; nothing is kept of a computation that fails.

        `names` are those of keys below; `compute` is steps that return the values of keys, and the
        seconds they took; `packed` is a value as it is written below, `unpacked` the same back, or
        MISSING if it is of no use.
        """
        values = {key: self.cache.peek(key, MISSING) for key in keys}  # some may have just come
        rest = [key for key in keys if values[key] is MISSING]
        below = self.below
        named = dict(zip(rest, names(rest), strict=True)) if below is not None else {}
        if below is not None and rest:
            arguments = list(named.values()), MISSING
            found = yield below.get_many, below.aget_many, arguments
            for key, value in zip(rest, found, strict=True):
                if value is not MISSING:
                    values[key] = self._climbed(key, named[key], unpacked(value))
            rest = [key for key in rest if values[key] is MISSING]
        if rest:
            results, spent = yield from compute(rest)
            if below is not None:
                items = {
                    named[key]: packed(value) for key, value in zip(rest, results, strict=True)
                }
                ttl = self.cache.ttl
                yield partial(below.set_many, ttl=ttl), partial(below.aset_many, ttl=ttl), (items,)
            cost = max(spent / len(rest), LEAST_COST)
            for key, value in zip(rest, results, strict=True):
                self.cache.set(key, value, cost=cost)
                values[key] = self.cache.peek(key, value)  # of an array, what cannot be changed
            self.ledger.computed(len(rest), spent)
        return [values[key] for key in keys]

    def _climbed(self, key: bytes, name: bytes, value: Any) -> Any:
        """Keep what the cache below has, for as long as that does."""
        if value is MISSING:
            return MISSING
        try:
            left = self.below.l0.get_ttl(name)  # type: ignore[union-attr]
        except KeyError:  # it had no room for it: how long it lives is not known
            return value
        lifetimes = [t for t in (left, self.cache.ttl) if t is not None]
        self.cache.set(key, value, ttl=min(lifetimes, default=math.inf))
        return self.cache.peek(key, value)


def check_below(below: Any) -> None:
    """`below` is a TieredCache that has no loader: the computation is what loads."""
    from cachecore.tiers.tiered import TieredCache

    if not isinstance(below, TieredCache):
        raise TypeError(f"below must be a TieredCache, not {type(below).__name__}")
    if below.loader is not None:
        raise ValueError("below must have no loader: what it does not have is computed here")
