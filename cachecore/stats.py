"""CacheStats: what a cache counted."""

from __future__ import annotations

from typing import NamedTuple


class CacheStats(NamedTuple):
    """Counts since the cache was made, and its size now.

    ``hits + misses`` are the look-ups. Always ``inserts == entries + evictions + rejections +
    expirations + deletions``: an overwrite is not an insert, a refused value never was one.
    """

    hits: int
    misses: int
    inserts: int
    evictions: int
    """Entries of the main region that made room for others."""
    rejections: int
    """New entries that lost the contest for the main region when they left the window."""
    refused: int
    """Values larger than the byte budget; they were never in."""
    expirations: int
    deletions: int
    entries: int
    """Entries held, those included that have expired and are not reclaimed yet."""
    bytes: int
    """Bytes of keys, values and entry overhead; 0 where the cache does not count bytes."""

    @property
    def hit_ratio(self) -> float:
        """Hits / look-ups; 0.0 before the first look-up."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0
