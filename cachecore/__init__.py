"""cachecore: a cache core for ML serving. `Cache` is a bounded dict that keeps what is hot."""

from cachecore._core import Cache
from cachecore._memo import memoize
from cachecore._vectors import VectorCache
from cachecore.sentinel import MISSING
from cachecore.stats import CacheStats, VectorStats

__all__ = ["MISSING", "Cache", "CacheStats", "VectorCache", "VectorStats", "memoize"]
__version__ = "0.1.0"
