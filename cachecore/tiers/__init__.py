"""Tiers below a cache: stores that are slower and larger, and the cache that falls through them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers.base import Item, Tier, Wrapper

if TYPE_CHECKING:
    from cachecore.tiers.breaker import Breaker
    from cachecore.tiers.deadline import Deadline
    from cachecore.tiers.memcached import MemcachedTier
    from cachecore.tiers.mmap import MmapTier
    from cachecore.tiers.policy import Policy, load_policies
    from cachecore.tiers.redis import RedisTier
    from cachecore.tiers.stats import TieredStats, TierStats
    from cachecore.tiers.tiered import TieredCache

__all__ = [
    "Breaker",
    "Deadline",
    "Item",
    "MemcachedTier",
    "MmapTier",
    "Policy",
    "RedisTier",
    "Tier",
    "TierError",
    "TierStats",
    "TierTimeoutError",
    "TieredCache",
    "TieredStats",
    "Wrapper",
    "load_policies",
]
# Where the others are. Loaded when first asked for: some need an engine's package.
_LATER = {
    "Breaker": "breaker",
    "Deadline": "deadline",
    "MemcachedTier": "memcached",
    "MmapTier": "mmap",
    "Policy": "policy",
    "RedisTier": "redis",
    "TierStats": "stats",
    "TieredCache": "tiered",
    "TieredStats": "stats",
    "load_policies": "policy",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return value
