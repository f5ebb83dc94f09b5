"""Tiers below a cache: stores that are slower and larger, and the cache that falls through them."""

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers.base import Item, Tier, Wrapper

__all__ = ["Item", "Tier", "TierError", "TierTimeoutError", "Wrapper"]
