"""Writes and deletions: of the caller, of invalidations, and those that a tier has missed.

A write claims its keys, so that writes of one key follow one another in every tier as they do here,
and no load puts an older value after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sys import getsizeof
from typing import Any

import numpy as np

from cachecore._envelope import peek_written, wire_keys
from cachecore._load import DELETE, GET, SET, WAIT, Level, Load
from cachecore._tiered import NEVER, run_sync
from cachecore.errors import TierError
from cachecore.sentinel import MISSING
from cachecore.tiers.background import Background
from cachecore.tiers.base import Item
from cachecore.tiers.filling import Filling, Loaded
from cachecore.tiers.generations import Calls, fresh, tag_number
from cachecore.tiers.ledger import Ledger, Missed

REPLAY = 0.25  # seconds between two attempts to make up for missed writes
BATCH = 500  # keys a call


class Writing(Filling):
    """The part of a cache with tiers that writes, deletes and invalidates."""

    __slots__ = ("background", "namespace")

    namespace: str
    background: Background

    # --- one write, of any number of keys

    def _claimed(self, load: Load, keys: Iterable[Any]) -> Calls:
        """Claim keys for a write, after the writes before it."""
        while others := self.claim_writes(load, keys):
            for other in others:
                if not (yield WAIT, None, other):
                    raise RecursionError("this very key is being written, and that waits for this")

    def set_steps(
        self, values: dict[Any, Any], ttl: float | None, tags: Sequence[str], load: Load
    ) -> Calls:
        """A generator that sets keys here and in the tiers."""
        now = self.now_ms()
        numbers = [tag_number(tag) for tag in tags]
        load.values, load.sealed = {}, {}
        for key, value in values.items():
            soft, hard = self.lifetimes(now, ttl)
            load.sealed[key] = Loaded(now, soft, hard, 0.0, tuple((n, 0) for n in numbers))
            if self.levels:
                self._check(key, value)
        if self.levels:
            wire_keys(self.prefix, values)  # ValueError, if it cannot be
        try:
            yield from self._claimed(load, values)
            for key, value in values.items():
                sealed = load.sealed[key]
                if self.around:
                    load.values[key] = value
                    self.l0.delete(key)
                else:
                    self.kept(load, key, value, now, sealed.soft, sealed.hard, 0.0, sealed.tags)
                if self.absent is not None:
                    self.absent.delete(key)
                self.leaving.pop(key, None)
            yield from self._write_through(load, list(values), now)
        except BaseException as error:
            load.failure = error
            raise
        finally:
            self.land(load, values)

    def _check(self, key: Any, value: Any) -> None:
        """TypeError if the value cannot be written down: before anything is changed."""
        plain = type(value) in self.writable and not (
            type(value) is np.ndarray and value.dtype.hasobject
        )
        if not plain:
            self.codec.encode(value)

    def _write_through(self, load: Load, keys: list[Any], now: int) -> Calls:
        errors = []
        for level in self.levels:
            deletes = self._deletes(level)
            try:
                if deletes:
                    yield DELETE, level, wire_keys(self.prefix, keys)
                else:
                    yield from self.current(load, level, keys, now)
                    items = self.items(load, level, keys, now)
                    yield SET, level, items
                    level.bytes_written += sum(len(item.data) for item in items)
            except BaseException as error:  # cancelled, too: nobody knows whether it was done
                for each in _untold(self.levels, level, error):
                    self._owe_all(each, load, keys, now)
                if not isinstance(error, Exception):
                    raise
                level.failed(error)
                errors.append(error)
            else:
                level.writes += len(keys)
                if level.ledger is not None:
                    level.ledger.forget(keys)
        if errors and self.strict:
            raise TierError(f"not every tier took the write: {errors[0]}") from errors[0]

    def set_missed(
        self, level: Level, key: Any, value: Any, now: int, soft: int, hard: int, error: Any
    ) -> TierError | None:
        """A tier did not take the one write of `set`; what is to be raised when all were asked."""
        for each in _untold(self.levels, level, error):
            self.owe(each, key, now, value, Loaded(now, soft, hard, 0.0))
        if not isinstance(error, Exception):
            raise error
        level.failed(error)
        if not self.strict:
            return None
        failure = TierError(f"not every tier took the write: {error}")
        failure.__cause__ = error
        return failure

    def _deletes(self, level: Level) -> bool:
        """Whether a write of a key is its deletion in a tier."""
        return level.exclusive or (self.around and level is not self.levels[-1])

    def delete_steps(self, keys: list[Any], load: Load) -> Calls:
        """A generator that deletes keys here and in the tiers; how many there were."""
        now, errors = self.now_ms(), []
        wires = wire_keys(self.prefix, keys)
        try:
            yield from self._claimed(load, keys)
            count = self.forget_keys(keys)
            for level in self.levels:
                try:
                    count = max(count, (yield DELETE, level, wires))
                except BaseException as error:
                    for each in _untold(self.levels, level, error):
                        for key in keys:
                            self.owe(each, key, now, MISSING, None)
                    if not isinstance(error, Exception):
                        raise
                    level.failed(error)
                    errors.append(error)
                else:
                    level.deletes += len(keys)
                    if level.ledger is not None:
                        level.ledger.forget(keys)
        except BaseException as error:
            load.failure = error
            raise
        finally:
            self.land(load, keys)
        if errors and self.strict:
            raise TierError(f"not every tier deleted: {errors[0]}") from errors[0]
        return count

    def forget_keys(self, keys: Iterable[Any]) -> int:
        """Forget keys in this process; how many were there."""
        count = 0
        for key in keys:
            count += self.l0.delete(key)
            self.leaving.pop(key, None)
            if self.absent is not None:
                self.absent.delete(key)
        return count

    # --- what a tier has missed

    def _owe_all(self, level: Level, load: Load, keys: list[Any], now: int) -> None:
        for key in keys:
            if self._deletes(level):
                self.owe(level, key, now, MISSING, None)
            else:
                self.owe(level, key, now, load.values[key], load.sealed[key])

    def owe(self, level: Level, key: Any, now: int, value: Any, sealed: Loaded | None) -> None:
        ledger = self.ledger_of(level)
        if sealed is None:
            missed = Missed(now, MISSING, NEVER, NEVER, (), 64)
        else:
            size = 128 + getattr(value, "nbytes", getsizeof(value))
            numbers = tuple(number for number, _ in sealed.tags)
            missed = Missed(now, value, sealed.soft, sealed.hard, numbers, size)
        overflowed = ledger.overflowed
        ledger.note(key, missed)
        if ledger.overflowed and not overflowed:
            self.ledgers_overflowed += 1

    def ledger_of(self, level: Level) -> Ledger:
        if level.ledger is None:
            level.ledger = Ledger()
            self.background.submit(self.replay, level, delay=REPLAY)
        return level.ledger

    def replay(self, level: Level) -> None:
        """Make up for what a tier has missed, if it is back; else try again later. In a thread."""
        try:
            while level.ledger is not None and not level.ledger.settled:
                run_sync(self, self._replay_steps(level))
        except Exception as error:
            level.failed(error)
        if level.ledger is not None and level.ledger.settled:
            level.ledger = None
        if level.ledger is not None:
            self.background.submit(self.replay, level, delay=REPLAY)

    def _replay_steps(self, level: Level) -> Calls:
        """One batch; raises what the tier raises."""
        ledger, now = self.ledger_of(level), self.now_ms()
        if ledger.overflowed and ledger.renewal is None:
            ledger.renewal = fresh()
        if ledger.renewal is not None:
            renewal = ledger.renewal
            yield SET, level, [Item(level.generation_key, renewal)]
            self.renewed(level, None, renewal)
            if ledger.renewal is renewal:
                ledger.renewal, ledger.overflowed = None, False
        for number, generation in list(ledger.tags.items()):
            yield SET, level, [Item(self.tag_key(number), generation)]
            ledger.tags.pop(number, None)
            self.renewed(level, number, generation)
        keys = list(ledger.missed)[:BATCH]
        load = Load()
        load.values, load.sealed = {}, {}
        try:
            keys, _ = self.claim_write(load, keys)  # others are being written just now
            missed = {key: ledger.missed[key] for key in keys if key in ledger.missed}
            yield from self._make_up(load, level, missed, now)
            ledger.forget(missed)
        except BaseException as error:
            load.failure = error
            raise
        finally:
            self.land(load, keys)

    def _make_up(self, load: Load, level: Level, missed: dict[Any, Missed], now: int) -> Calls:
        """Write and delete what was missed, but for what somebody else has written since."""
        if not missed:
            return
        keys = list(missed)
        wires = wire_keys(self.prefix, keys)
        if not self.raw:
            yield from self.generation_known(level, now)
            datas = yield GET, level, wires
            newer = [
                data is not None and (peek_written(data) or 0) > missed[key].at
                for key, data in zip(keys, datas, strict=True)
            ]
        else:
            newer = [False] * len(keys)
        again, gone = [], []
        for key, wire, late in zip(keys, wires, newer, strict=True):
            entry = missed[key]
            if late:
                continue
            if entry.value is MISSING or entry.hard <= now:
                gone.append(wire)
                continue
            load.values[key] = entry.value
            tags = tuple((number, 0) for number in entry.tags)
            load.sealed[key] = Loaded(entry.at, entry.soft, entry.hard, 0.0, tags)
            again.append(key)
        if again:
            yield from self.current(load, level, again, now)
            good, items = self.writable_items(load, level, again, now)
            yield SET, level, items
            gone += wire_keys(self.prefix, [key for key in again if key not in good])
        if gone:
            yield DELETE, level, gone
        self.replayed += len(again) + len(gone)

    # --- invalidation

    def invalidate_steps(self, name: str) -> Calls:
        """A generator that makes a whole namespace, or all that has a tag, void."""
        error = yield from self.void_steps(None if name == self.namespace else tag_number(name))
        if error is not None and self.strict:
            raise TierError(f"not every tier was told: {error}") from error

    def void_steps(
        self, number: int | None, own: bool = False, news_of: Level | None = None
    ) -> Calls:
        """The same for a tag's number; None: the namespace. Returns the last failure of a tier.

        With `own` only in tiers that are not shared. `news_of`: the tier where somebody else has
        done this. He has told the tiers that he uses, and to answer him would never end: so what is
        new in a tier that is not shared goes only upward, and shared ones are not told. A tier that
        fails is told later.
        """
        self.overtake(list(self.flights))  # a value on its way may be concerned
        if number is None:
            self.leaving.clear()  # what has tags does not wait there
            self.forget_here()
        else:
            self.tag_changed(number)
        failure = None
        levels = self.levels
        if news_of is not None and not news_of.tier.shared:
            levels = levels[: levels.index(news_of)]
        if own or news_of is not None:
            levels = [level for level in levels if not level.tier.shared]
        for level in levels:
            generation = fresh()
            key = level.generation_key if number is None else self.tag_key(number)
            try:
                yield SET, level, [Item(key, generation)]
            except BaseException as error:
                for each in _untold(levels, level, error):
                    self._void_later(each, number, generation)
                if not isinstance(error, Exception):
                    raise
                level.failed(error)
                failure = error
            else:
                self.renewed(level, number, generation)
        return failure

    def _void_later(self, level: Level, number: int | None, generation: bytes) -> None:
        """Owe a tier a generation; what is written to it from now on bears that."""
        value = int.from_bytes(generation, "little")
        if number is None:
            self.ledger_of(level).renewal = generation
            level.generation, level.generation_read = value, NEVER
        else:
            self.ledger_of(level).tags[number] = generation
            level.tags[number] = value, NEVER

    def renewed(self, level: Level, number: int | None, generation: bytes) -> None:
        """A tier has been given a generation, of the namespace or of a tag."""
        value, now = int.from_bytes(generation, "little"), self.now_ms()
        if number is None:
            level.generation, level.generation_read = value, now
        else:
            level.tags[number] = value, now


def _untold(levels: list[Level], level: Level, error: BaseException) -> list[Level]:
    """The tiers that miss what one has not done; those below too, if the caller was stopped."""
    at = levels.index(level)
    return levels[at : at + 1 if isinstance(error, Exception) else None]
