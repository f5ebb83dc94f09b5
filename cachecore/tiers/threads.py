"""What threads do of the calls that `Tiered` yields; look-ups in tiers it makes itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from cachecore._load import ADD, DELETE, DEMOTE, LOAD, SET, SLEEP, WAIT
from cachecore.tiers.waiting import wait

if TYPE_CHECKING:
    from cachecore.tiers.tiered import TieredCache


def perform(cache: TieredCache, kind: int, level: Any, arg: Any) -> Any:
    """Make one call, and return what it returns."""
    if kind == LOAD:
        assert cache.loader is not None
        return cache.loader.run(level, arg)
    if kind == SET:
        return level.tier.set_many(arg)
    if kind == DELETE:
        return level.tier.delete_many(arg)
    if kind == ADD:
        return level.tier.add(arg)
    if kind == DEMOTE:
        return level.tier.demote_many(*arg)
    if kind == WAIT:
        return wait(arg)
    assert kind == SLEEP
    return time.sleep(arg)
