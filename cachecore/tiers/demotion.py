"""Demotion: what the innermost cache lets go goes to the first tier, in the background."""

from __future__ import annotations

from typing import Any

from cachecore._envelope import Sealed, unseal
from cachecore._load import DEMOTE, GET, WAIT, Level, Load
from cachecore._tiered import run_sync
from cachecore.tiers.base import Item
from cachecore.tiers.filling import Loaded, remaining
from cachecore.tiers.generations import Calls
from cachecore.tiers.owing import BATCH
from cachecore.tiers.writing import Writing

DELAY = 0.05  # seconds in which what leaves gathers


class Demoting(Writing):
    """The part of a cache with tiers that hands down what its own memory has no room for.

    Until it is written a value that left can still be found here, and climbs back.
    """

    __slots__ = ()

    def hand_down_soon(self) -> None:
        """Have what waits written, soon."""
        if self.leaving:
            self.handing_down = self.background.submit(self.demote, delay=DELAY)

    def demote(self) -> None:
        """Write what waits to the first tier. In a thread."""
        self.handing_down = False
        while self.leaving:
            run_sync(self, self._demote_steps())

    def _demote_steps(self) -> Calls:
        level, load, now = self.levels[0], Load(), self.now_ms()
        load.values, load.sealed = {}, {}
        claimed, others = self.claim_write(load, list(self.leaving)[:BATCH])
        if not claimed:
            for other in others[:1]:
                yield WAIT, None, other
            return
        try:
            frequencies: list[int] = []
            for key in claimed:
                value, soft, hard, frequency = self.leaving.pop(key, (None, 0, 0, 0))
                if frequency and hard > now and level.ledger is None:
                    load.values[key] = value
                    load.sealed[key] = Loaded(now, soft, hard, 0.0)
                    frequencies.append(frequency)
            keys = list(load.values)
            try:
                yield from self.current(load, level, keys, now)
                items = yield from self._demoted(load, level, keys, now)
                yield DEMOTE, level, (items, frequencies)
                self.demotions += len(items)
                yield from self.take_back(load, level, keys, now)
            except Exception as error:
                level.failed(error)
                self.demotions_lost += len(keys)
        finally:
            self.land(load, claimed)

    def _demoted(self, load: Load, level: Level, keys: list[Any], now: int) -> Calls:
        """What the tier is to keep: what it has, where it has a value, for ours is not newer."""
        items = self.items(load, level, keys, now)
        datas = yield GET, level, [item.key for item in items]
        for at, (key, data) in enumerate(zip(keys, datas, strict=True)):
            if self.raw and data is not None:
                items[at] = items[at]._replace(data=data)
            elif data is not None:
                held = unseal(data, key, self.codec, now, level.generation, self.prefix)
                if isinstance(held, Sealed):
                    items[at] = Item(items[at].key, data, remaining(held.hard, now))
        return items
