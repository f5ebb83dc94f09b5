"""What a tier has missed: noted, read meanwhile, and made up for when the tier is back."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from math import inf
from sys import getsizeof
from time import monotonic
from typing import Any

from cachecore._envelope import peek_written, wire_keys
from cachecore._load import DELETE, GET, SET, Level, Load
from cachecore._tiered import NEVER, run_sync
from cachecore.sentinel import MISSING
from cachecore.tiers.background import Background
from cachecore.tiers.base import Item
from cachecore.tiers.filling import Filling, Loaded, UnwritableError
from cachecore.tiers.generations import Calls, fresh
from cachecore.tiers.ledger import Ledger, Missed

_log = logging.getLogger("cachecore")

# Seconds between two attempts to make up for what was missed, and until what was sent has arrived.
REPLAY = 0.25
BATCH = 500  # keys a call


class Owing(Filling):
    """The part of a cache with tiers that remembers what they have missed."""

    __slots__ = ("background",)

    background: Background

    def _to_do_again(self, level: Level, keys: Iterable[Any]) -> list[tuple[Any, float]]:
        """Those of the keys just written for which an older write may be on its way, since when."""
        ledger = level.ledger
        if ledger is None:
            return []
        ledger.forget(ledger.of(keys, monotonic() - REPLAY))
        return [(key, ledger.missed[key].noted) for key in ledger.of(keys, inf)]

    def owe(
        self,
        level: Level,
        key: Any,
        now: int,
        value: Any,
        sealed: Loaded,
        noted: float | None = None,
    ) -> None:
        """Remember a write that a tier has missed, since `noted`, or just now."""
        size = 128 + getattr(value, "nbytes", getsizeof(value))
        numbers = tuple(number for number, _ in sealed.tags)
        self._note(level, key, Missed(now, value, sealed.soft, sealed.hard, numbers, size), noted)

    def owe_deletions(
        self, level: Level, keys: Iterable[Any], now: int, noted: float | None = None
    ) -> None:
        for key in keys:
            self._note(level, key, Missed(now, MISSING, NEVER, NEVER, (), 64), noted)

    def _note(self, level: Level, key: Any, missed: Missed, noted: float | None) -> None:
        missed = missed._replace(noted=monotonic() if noted is None else noted)
        ledger = self.ledger_of(level)
        while True:
            overflowed = ledger.overflowed
            ledger.note(key, missed)
            self.ledgers_overflowed += ledger.overflowed and not overflowed
            if level.ledger is ledger:
                return
            ledger = self.ledger_of(level)  # it was let go of meanwhile

    def owed_here(self, load: Load, level: Level, keys: list[Any], now: int) -> list[Any]:
        """Keep what a tier should have and has missed; the keys for which that is nothing."""
        rest = []
        for key in keys:
            missed = None if level.ledger is None else level.ledger.missed.get(key)
            if missed is None or missed.value is MISSING or missed.soft <= now:
                rest.append(key)
                continue
            load.sealed = load.sealed or {}
            load.sealed[key] = sealed = _sealed(missed)
            self.kept(load, key, missed.value, now, sealed.soft, sealed.hard, 0.0, sealed.tags)
        return rest

    def tell_of_owed(self) -> None:
        """Log what will not be made up for any more."""
        owed = sum(len(level.ledger) for level in self.levels if level.ledger is not None)
        if owed:
            _log.warning("cachecore: %r is closed while tiers have missed %d writes", self, owed)

    def ledger_of(self, level: Level) -> Ledger:
        if level.ledger is None:
            level.ledger = Ledger()
            self.background.submit(self.replay, level, delay=REPLAY)
        return level.ledger

    def replay(self, level: Level) -> None:
        """Make up for what a tier has missed, if it is back; else try again later. In a thread."""
        try:
            while not level.settle():
                if not run_sync(self, self._replay_steps(level)):
                    break
        except Exception as error:
            level.failed(error)
        if not level.settle():
            self.background.submit(self.replay, level, delay=REPLAY)

    def _replay_steps(self, level: Level) -> Calls:
        """One batch; False when there is none just now. Raises what the tier raises."""
        ledger, now = self.ledger_of(level), self.now_ms()
        if ledger.overflowed and ledger.renewal is None and not self.raw:  # which nothing can void
            ledger.renewal = fresh()
        if ledger.renewal is not None:
            renewal = ledger.renewal
            yield SET, level, [Item(level.generation_key, renewal)]
            self.renewed(level, None, renewal)
            if ledger.renewal is renewal:
                ledger.renewal, ledger.overflowed = None, False
        for number, generation in list(ledger.tags.items()):
            yield SET, level, [Item(self.tag_key(number), generation)]
            if ledger.tags.get(number) is generation:
                del ledger.tags[number]
                self.renewed(level, number, generation)
        keys = ledger.of(ledger.missed, monotonic() - (0 if self.closed else REPLAY))[:BATCH]
        load = Load()
        load.values, load.sealed = {}, {}
        try:
            keys, _ = self.claim_write(load, keys)  # others are being written just now
            missed = {key: each for key in keys if (each := ledger.missed.get(key))}
            ledger.made_up((yield from self._make_up(load, level, missed, now)))
        except BaseException as error:
            load.failure = error
            raise
        finally:
            self.land(load, keys)
        return bool(keys) or not (ledger.missed or ledger.is_void)

    def _make_up(self, load: Load, level: Level, missed: dict[Any, Missed], now: int) -> Calls:
        """Write and delete what was missed; returns what needs not be done again."""
        for key, entry in missed.items():
            if entry.value is not MISSING and entry.hard > now:
                load.values[key], load.sealed[key] = entry.value, _sealed(entry)
        yield from self.current(load, level, load.values, now)
        load.voided = None  # by us, if its generation has turned out to be another one
        done = self._still_missed(level, missed)
        if done and not self.raw:
            yield from self._give_way(level, done)
            done = self._still_missed(level, done)
        done = {key: entry for key, entry in done.items() if key not in (load.voided or ())}
        items, gone = self._writable(load, level, done, now)
        if items:
            yield SET, level, items
        gone += load.voided or ()  # invalidated while they were written
        if gone:
            yield DELETE, level, wire_keys(self.prefix, gone)
        self.replayed += len(done)
        return done

    def _give_way(self, level: Level, missed: dict[Any, Missed]) -> Calls:
        """Forget what was missed under keys that somebody else has written since."""
        datas = yield GET, level, wire_keys(self.prefix, list(missed))
        for (key, entry), data in zip(missed.items(), datas, strict=True):
            if data is not None and (peek_written(data) or 0) > entry.at:
                self.ledger_of(level).forget([key])

    def _writable(
        self, load: Load, level: Level, keys: Iterable[Any], now: int
    ) -> tuple[list[Item], list[Any]]:
        """Items of keys, and the keys that have no value, or one that its owner has spoilt."""
        items: list[Item] = []
        gone = []
        for key in keys:
            try:
                if key in load.values:
                    items += self.items(load, level, [key], now)
                else:
                    gone.append(key)
            except UnwritableError:
                gone.append(key)
        return items, gone

    def _still_missed(self, level: Level, missed: dict[Any, Missed]) -> dict[Any, Missed]:
        now = {} if level.ledger is None else level.ledger.missed
        return {key: entry for key, entry in missed.items() if now.get(key) is entry}

    def renewed(self, level: Level, number: int | None, generation: bytes) -> None:
        """A tier has been given a generation, of the namespace or of a tag."""
        value, now = int.from_bytes(generation, "little"), self.now_ms()
        if number is None:
            level.generation, level.generation_read = value, now
        else:
            level.tags[number] = value, now


def _sealed(missed: Missed) -> Loaded:
    """What the envelope of a missed write is to say."""
    tags = tuple((number, 0) for number in missed.tags)
    return Loaded(missed.at, missed.soft, missed.hard, 0.0, tags)
