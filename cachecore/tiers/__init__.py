"""Tiers below a cache: stores that are slower and larger, and the cache that falls through them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers.base import Item, Tier, Wrapper

if TYPE_CHECKING:
    from cachecore.tiers.breaker import Breaker
    from cachecore.tiers.changes import EVERYTHING, debezium
    from cachecore.tiers.deadline import Deadline
    from cachecore.tiers.existence import ExistenceFilter
    from cachecore.tiers.invalidation import PubSub, Streams, Tracking
    from cachecore.tiers.listening import Sink
    from cachecore.tiers.memcached import MemcachedTier
    from cachecore.tiers.mmap import MmapTier
    from cachecore.tiers.policy import Policy, load_policies
    from cachecore.tiers.redis import RedisTier
    from cachecore.tiers.shadow import ShadowCheck
    from cachecore.tiers.stats import TieredStats, TierStats
    from cachecore.tiers.tiered import TieredCache
    from cachecore.tiers.write_behind import WriteBehind

__all__ = [
    "EVERYTHING",
    "Breaker",
    "Deadline",
    "ExistenceFilter",
    "Item",
    "MemcachedTier",
    "MmapTier",
    "Policy",
    "PubSub",
    "RedisTier",
    "ShadowCheck",
    "Sink",
    "Streams",
    "Tier",
    "TierError",
    "TierStats",
    "TierTimeoutError",
    "TieredCache",
    "TieredStats",
    "Tracking",
    "Wrapper",
    "WriteBehind",
    "debezium",
    "load_policies",
]
# Where the others are. Loaded when first asked for: some need an engine's package.
_LATER = {
    "EVERYTHING": "changes",
    "Breaker": "breaker",
    "Deadline": "deadline",
    "ExistenceFilter": "existence",
    "MemcachedTier": "memcached",
    "MmapTier": "mmap",
    "Policy": "policy",
    "PubSub": "invalidation",
    "RedisTier": "redis",
    "ShadowCheck": "shadow",
    "Sink": "listening",
    "Streams": "invalidation",
    "TierStats": "stats",
    "TieredCache": "tiered",
    "TieredStats": "stats",
    "Tracking": "invalidation",
    "WriteBehind": "write_behind",
    "debezium": "changes",
    "load_policies": "policy",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return value
