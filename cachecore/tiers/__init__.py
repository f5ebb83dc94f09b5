"""Tiers below a cache: stores that are slower and larger, and the cache that falls through them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers.base import Item, Tier, Wrapper

if TYPE_CHECKING:
    from cachecore.tiers.redis import RedisTier

# What needs an engine, which is imported when its tier is first asked for: name -> module.
_LATER = {"RedisTier": "redis"}

__all__ = ["Item", "RedisTier", "Tier", "TierError", "TierTimeoutError", "Wrapper"]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
