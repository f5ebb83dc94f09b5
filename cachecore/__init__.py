"""cachecore: a cache core for ML serving. `Cache` is a bounded dict that keeps what is hot."""

from cachecore._core import Cache
from cachecore._memo import memoize
from cachecore.sentinel import MISSING
from cachecore.stats import CacheStats

__all__ = ["MISSING", "Cache", "CacheStats", "memoize"]
__version__ = "0.1.0"
