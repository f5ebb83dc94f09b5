"""Tiers below a cache: stores that are slower and larger, and the cache that falls through them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers.base import Item, Tier, Wrapper

if TYPE_CHECKING:
    from cachecore.tiers.mmap import MmapTier

# Loaded when first asked for: each needs its engine's package.
_MODULES = {"MmapTier": "cachecore.tiers.mmap"}

__all__ = ["Item", "MmapTier", "Tier", "TierError", "TierTimeoutError", "Wrapper"]


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(module), name)
    return value
