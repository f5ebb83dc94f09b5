"""Memory per entry and the cost of the import."""

from __future__ import annotations

import isolated

from .common import SIZES, Topic


class Memory(Topic):
    """Resident memory beyond key and value objects, of a full cache after evictions."""

    params = (SIZES[1:],)  # 10^3 entries are fewer pages than the process' own noise
    param_names = ("entries",)
    unit = "bytes"

    def track_bytes_per_entry(self, entries: int) -> float:
        """Measure in a process of its own."""
        figures = isolated.run("overhead", "cachecore", entries)
        return float(figures["bytes_per_entry"])


class Import(Topic):
    """Cache, VectorCache and memoize beyond NumPy's own import."""

    unit = "ms"

    def track_import(self) -> float:
        """Return the median of nine fresh processes."""
        return float(sorted(isolated.run("imports")["ms"] for _ in range(9))[4])
