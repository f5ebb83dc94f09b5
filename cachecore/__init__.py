"""cachecore: a cache core for ML serving. `Cache` is a bounded dict that keeps what is hot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cachecore._core import Cache
    from cachecore._memo import memoize
    from cachecore._vectors import VectorCache
    from cachecore.sentinel import MISSING
    from cachecore.stats import CacheStats, VectorStats
    from cachecore.tiers.tiered import TieredCache

__all__ = [
    "MISSING",
    "Cache",
    "CacheStats",
    "TieredCache",
    "VectorCache",
    "VectorStats",
    "memoize",
]
__version__ = "0.1.0"
# Where the names are. Loaded when first asked for: NumPy, which Cache needs, takes longer to
# import than all that `cachecore get` does.
_LATER = {
    "MISSING": "sentinel",
    "Cache": "_core",
    "CacheStats": "stats",
    "TieredCache": "tiers.tiered",
    "VectorCache": "_vectors",
    "VectorStats": "stats",
    "memoize": "_memo",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return value
