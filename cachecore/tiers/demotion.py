"""Demotion: what the innermost cache lets go goes to the first tier, in the background."""

from __future__ import annotations

from typing import Any

from cachecore._envelope import Sealed, unseal
from cachecore._load import DEMOTE, GET, WAIT, Level, Load, Tagged
from cachecore._tiered import NEVER, clock_ahead, leaves_to, run_sync
from cachecore.tiers.filling import Loaded
from cachecore.tiers.generations import Calls
from cachecore.tiers.writing import BATCH, Writing

DELAY = 0.05  # seconds in which what leaves gathers
MOST = 2_000  # values that wait; beyond, the oldest are let go and counted
EARNED = 2  # look-ups of late that a value must have had


class Demoting(Writing):
    """The part of a cache with tiers that hands down what its own memory has no room for.

    Until it is written a value that left can still be found here, and climbs back.
    """

    __slots__ = ()

    def hand_down(self) -> None:
        """Begin to take note of what leaves."""
        leaves_to(self, self._left)

    def _left(
        self, key: Any, value: Any, reason: str, frequency: int, soft: int, deadline: int
    ) -> None:
        if reason == "expired" or frequency < EARNED or type(value) is Tagged:
            return
        ahead = clock_ahead(self)
        soft = NEVER if soft == NEVER else soft + ahead
        hard = NEVER if deadline == NEVER else deadline + ahead
        if not self.leaving:
            self.background.submit(self.demote, delay=DELAY)
        self.leaving[key] = value, soft, hard, frequency
        if len(self.leaving) > MOST:
            self.leaving.pop(next(iter(self.leaving)), None)
            self.demotions_lost += 1

    def demote(self) -> None:
        """Write what waits to the first tier. In a thread."""
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
                    lifetime = None if held.hard == NEVER else max(1, held.hard - now)
                    items[at] = items[at]._replace(data=data, lifetime=lifetime)
        return items
