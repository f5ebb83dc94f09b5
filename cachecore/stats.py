"""CacheStats, VectorStats: what a cache counted."""

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


class VectorStats(NamedTuple):
    """Counts of a VectorCache since its table was made, by all processes, and its size now.

    Exact while nobody writes. The first ten are those of `CacheStats`, and also ``inserts ==
    entries + evictions + rejections + expirations + deletions``.
    """

    hits: int
    misses: int
    inserts: int
    evictions: int
    rejections: int
    refused: int
    """Rows that were not put: behind a stopped process, or by a process whose version of the table
    another has replaced."""
    expirations: int
    deletions: int
    entries: int
    """Rows held, those included that have expired and are not reclaimed yet."""
    bytes: int
    """Bytes of the rows held."""
    damaged: int
    """Rows whose checksum did not agree when they were gathered: misses."""
    pinned_bytes: int
    """Bytes of rows that views hold."""

    @property
    def hit_ratio(self) -> float:
        """Hits / look-ups; 0.0 before the first look-up."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0
