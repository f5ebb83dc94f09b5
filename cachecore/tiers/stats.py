"""TieredStats: what a cache with tiers counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cachecore.stats import CacheStats

if TYPE_CHECKING:
    from cachecore._load import Level
    from cachecore.tiers.tiered import TieredCache


class TierStats(NamedTuple):
    """Counts of one tier since the cache was made, as that cache saw it."""

    name: str
    hits: int
    """Keys for which the tier had a good value."""
    misses: int
    errors: int
    """Calls that failed; those that a breaker refused among them."""
    timeouts: int
    """Those of them that took too long."""
    writes: int
    """Keys written."""
    deletes: int
    bytes_read: int
    bytes_written: int
    refused: dict[str, int]
    """Values that were not taken for what they seemed to be, by reason: misses."""
    owed: int
    """Writes, deletions and invalidations that it has missed, and that are to be made up for."""
    latencies: list[int]
    """Look-ups that it answered: item i counts those that took 2^i ... 2^(i + 1) - 1 us."""
    seconds: float
    """How long they took together."""
    own: dict[str, int]
    """What the tier and its wrappers counted themselves."""


class TieredStats(NamedTuple):
    """Counts since the cache was made. A look-up is a hit of one of: `l0`, a tier, the loader."""

    l0: CacheStats
    """The innermost cache; its misses went further."""
    tiers: tuple[TierStats, ...]
    loads: int
    """Keys that the loader was asked for."""
    load_errors: int
    """Those of them for which it raised."""
    negative_hits: int
    """Look-ups answered from the memory of absent keys."""
    stale_while_revalidate: int
    """Values returned after their expiry, while they were loaded anew."""
    stale_if_error: int
    """Values returned after their expiry, because loading them anew had failed."""
    early_refreshes: int
    """Look-ups that found a value due for a refresh before its expiry."""
    overtaken: int
    """Values not kept, because their key was written or invalidated while they were loaded."""
    invalidations: int
    """Keys that an invalidation source has named."""
    distrusts: int
    """Times that an invalidation source was lost."""
    demotions: int
    """Values that left this process for the first tier."""
    demotions_lost: int
    """Values that should have and did not."""
    replayed: int
    """Writes and deletions that a tier had missed, and was given later."""
    refreshes_dropped: int
    """Refreshes not begun because there was too much to do in the background."""
    ledgers_overflowed: int
    """Times that a tier had missed more than was remembered, and was made void."""
    load_latencies: list[int]
    """Calls of the loader, those that failed included, by how long they took, as of a tier."""
    load_seconds: float
    """How long they took together."""

    @property
    def hit_ratio(self) -> float:
        """Look-ups answered by this process's own memory, of all."""
        return self.l0.hit_ratio


def _of_level(level: Level) -> TierStats:
    return TierStats(
        level.tier.name,
        level.hits,
        level.misses,
        level.errors,
        level.timeouts,
        level.writes,
        level.deletes,
        level.bytes_read,
        level.bytes_written,
        dict(level.refused),
        0 if level.ledger is None else len(level.ledger),
        level.latencies.histogram(),
        level.latencies.seconds,
        level.tier.stats(),
    )


def collect(cache: TieredCache) -> TieredStats:
    """What a cache counted so far."""
    return TieredStats(
        cache.l0.stats(),
        tuple(_of_level(level) for level in cache.levels),
        cache.loads,
        cache.load_errors,
        cache.negative_hits,
        cache.stale_revalidated,
        cache.stale_errors,
        cache.early_refreshes,
        cache.overtaken,
        cache.invalidations,
        cache.distrusts,
        cache.demotions,
        cache.demotions_lost,
        cache.replayed,
        cache.refreshes_dropped,
        cache.ledgers_overflowed,
        cache.load_latencies.histogram(),
        cache.load_latencies.seconds,
    )
