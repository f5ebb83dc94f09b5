"""Writes and deletions: of the caller, of invalidations, and those that a tier has missed.

A write claims its keys, so that writes of one key follow one another in every tier as they do here,
and no load puts an older value after it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from math import inf
from sys import getsizeof
from time import monotonic
from typing import Any

import numpy as np

from cachecore._envelope import peek_written, wire_keys
from cachecore._load import DELETE, GET, SET, WAIT, Level, Load
from cachecore._tiered import NEVER, run_sync
from cachecore.errors import TierError
from cachecore.sentinel import MISSING
from cachecore.tiers.background import Background
from cachecore.tiers.base import Item
from cachecore.tiers.filling import Filling, Loaded, UnwritableError
from cachecore.tiers.generations import Calls, fresh, tag_number
from cachecore.tiers.ledger import Ledger, Missed

_log = logging.getLogger("cachecore")

# Seconds between two attempts to make up for what was missed, and until what was sent has arrived.
REPLAY = 0.25
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
        now, rest = self.now_ms(), []
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
            rest = list(self.levels)
            for key, value in values.items():
                sealed = load.sealed[key]
                if self.around:
                    load.values[key] = value
                    self.forget_keys([key])
                else:
                    self.kept(load, key, value, now, sealed.soft, sealed.hard, 0.0, sealed.tags)
            yield from self._write_through(load, list(values), now, rest)
        except BaseException as error:  # cancelled: nobody knows whether it was done
            for level in rest:
                self._owe_all(load, level, values, now)
            load.failure = error  # last: from here on nobody waits for it
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

    def _deletes(self, level: Level) -> bool:
        """Whether a write takes its keys out of a tier, instead of putting them in."""
        return level.exclusive or (self.around and level is not self.levels[-1])

    def _owe_all(
        self,
        load: Load,
        level: Level,
        keys: Iterable[Any],
        now: int,
        noted: float | None = None,
    ) -> None:
        deletes = self._deletes(level)
        for key in keys:
            if deletes:
                self.owe(level, key, now, MISSING, None, noted)
            else:
                self.owe(level, key, now, load.values[key], load.sealed[key], noted)

    def _write_through(self, load: Load, keys: list[Any], now: int, rest: list[Level]) -> Calls:
        """Write to the tiers in `rest`, out of which those go that were."""
        errors = []
        while rest:
            level = rest[0]
            try:
                if level.ledger is not None and level.ledger.is_void:
                    raise TierError("all that it has is still to be made void")
                if self._deletes(level):
                    yield DELETE, level, wire_keys(self.prefix, keys)
                else:
                    yield from self.current(load, level, keys, now)
                    items = self.items(load, level, keys, now)
                    yield SET, level, items
                    level.bytes_written += sum(len(item.data) for item in items)
            except Exception as error:
                self._owe_all(load, level, keys, now)
                level.failed(error)
                errors.append(error)
            else:
                level.writes += len(keys)
                for key, noted in self._to_do_again(level, keys):
                    self._owe_all(load, level, [key], now, noted)
            rest.pop(0)
        if errors and self.strict:
            raise TierError(f"not every tier took the write: {errors[0]}") from errors[0]

    def set_missed(
        self, at: int, key: Any, value: Any, now: int, soft: int, hard: int, error: BaseException
    ) -> None:
        """The tier at `at` did not take the one write of `set`.

        What has ended that call is raised: the tiers after it were not come to.
        """
        ended = not isinstance(error, Exception)
        for level in self.levels[at:] if ended else [self.levels[at]]:
            self.owe(level, key, now, value, Loaded(now, soft, hard, 0.0))
        if ended:
            raise error
        self.levels[at].failed(error)

    def delete_steps(self, keys: list[Any], load: Load) -> Calls:
        """A generator that deletes keys here and in the tiers; how many there were."""
        now, errors, rest = self.now_ms(), [], []
        wires = wire_keys(self.prefix, keys)
        try:
            yield from self._claimed(load, keys)
            rest = list(self.levels)
            count = self.forget_keys(keys)
            while rest:
                level = rest[0]
                try:
                    count = max(count, (yield DELETE, level, wires))
                except Exception as error:
                    for key in keys:
                        self.owe(level, key, now, MISSING, None)
                    level.failed(error)
                    errors.append(error)
                else:
                    level.deletes += len(keys)
                    for key, noted in self._to_do_again(level, keys):
                        self.owe(level, key, now, MISSING, None, noted)
                rest.pop(0)
        except BaseException as error:
            for level in rest:
                for key in keys:
                    self.owe(level, key, now, MISSING, None)
            load.failure = error
            raise
        finally:
            self.land(load, keys)
        if errors and self.strict:
            raise TierError(f"not every tier deleted: {errors[0]}") from errors[0]
        return count

    # --- what a tier has missed

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
        sealed: Loaded | None,
        noted: float | None = None,
    ) -> None:
        ledger, noted = self.ledger_of(level), monotonic() if noted is None else noted
        if sealed is None:
            missed = Missed(now, MISSING, NEVER, NEVER, (), 64, noted)
        else:
            size = 128 + getattr(value, "nbytes", getsizeof(value))
            numbers = tuple(number for number, _ in sealed.tags)
            missed = Missed(now, value, sealed.soft, sealed.hard, numbers, size, noted)
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
            tags = tuple((number, 0) for number in missed.tags)
            load.sealed = load.sealed or {}
            load.sealed[key] = Loaded(missed.at, missed.soft, missed.hard, 0.0, tags)
            self.kept(load, key, missed.value, now, missed.soft, missed.hard, 0.0, tags)
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
                tags = tuple((number, 0) for number in entry.tags)
                load.values[key] = entry.value
                load.sealed[key] = Loaded(entry.at, entry.soft, entry.hard, 0.0, tags)
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

    # --- invalidation

    def invalidate_steps(self, name: str) -> Calls:
        """A generator that makes a whole namespace, or all that has a tag, void."""
        number = None if name == self.namespace else tag_number(name)
        error = yield from self.void_steps(number, self.levels)
        if error is not None and self.strict:
            raise TierError(f"not every tier was told: {error}") from error

    def void_steps(self, number: int | None, levels: Sequence[Level]) -> Calls:
        """The same for a tag's number; None: the namespace. Returns the last failure of a tier.

        Only in those tiers, and here. A tier that fails is told later. The slowest is told first,
        and after each whatever may have come from it is void: nothing old climbs into what is new.
        """
        failure, rest = None, list(levels)
        self._void_here(number)
        try:
            while rest:
                level, generation = rest[-1], fresh()
                key = level.generation_key if number is None else self.tag_key(number)
                try:
                    if level.ledger is not None:
                        level.ledger.void(number)
                    yield SET, level, [Item(key, generation)]
                except Exception as error:
                    self._owe_generation(level, number)
                    level.failed(error)
                    failure = error
                else:
                    self.renewed(level, number, generation)
                rest.pop()
                self._void_here(number)
        except BaseException:
            for level in rest:
                self._owe_generation(level, number)
            raise
        return failure

    def _void_here(self, number: int | None) -> None:
        self.overtake(list(self.flights))  # a value on its way may be concerned
        if number is None:
            self.leaving.clear()  # what has tags does not wait there
            self.forget_here()
        else:
            self.tag_changed(number)

    def _owe_generation(self, level: Level, number: int | None) -> None:
        generation = fresh()
        while True:
            ledger = self.ledger_of(level)
            if number is None:
                ledger.renewal = generation
            else:
                ledger.tags[number] = generation
                level.tags[number] = int.from_bytes(generation, "little"), NEVER
            if level.ledger is ledger:
                return

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
