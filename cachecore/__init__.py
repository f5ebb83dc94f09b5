"""cachecore: a cache core for ML serving. `Cache` is a bounded dict that keeps what is hot."""

from typing import TYPE_CHECKING, Any

from cachecore._core import Cache
from cachecore._memo import memoize
from cachecore._vectors import VectorCache
from cachecore.sentinel import MISSING
from cachecore.stats import CacheStats, VectorStats

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    if name != "TieredCache":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cachecore.tiers.tiered import TieredCache

    return TieredCache
