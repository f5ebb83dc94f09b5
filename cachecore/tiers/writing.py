"""Writes, deletions and invalidations.

A write claims its keys, so that writes of one key follow one another in every tier as they do here,
and no load puts an older value after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cachecore._envelope import wire_keys
from cachecore._load import DELETE, SET, WAIT, Level, Load
from cachecore._tiered import NEVER
from cachecore.errors import TierError
from cachecore.tiers.base import Item
from cachecore.tiers.filling import Loaded
from cachecore.tiers.generations import Calls, fresh, tag_number
from cachecore.tiers.owing import Owing


class Writing(Owing):
    """The part of a cache with tiers that writes, deletes and invalidates."""

    __slots__ = ("namespace",)

    namespace: str

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
        numbers = tuple((tag_number(tag), 0) for tag in tags)
        load.values, load.sealed = {}, {}
        for key, value in values.items():
            soft, hard = self.lifetimes(now, ttl)
            load.sealed[key] = Loaded(now, soft, hard, 0.0, numbers)
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
        if self._deletes(level):
            self.owe_deletions(level, keys, now, noted)
            return
        for key in keys:
            self.owe(level, key, now, load.values[key], load.sealed[key], noted)

    def _write_through(self, load: Load, keys: list[Any], now: int, rest: list[Level]) -> Calls:
        """Write to the tiers in `rest`, out of which those go that were."""
        failed = None
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
                failed = failed or error
            else:
                level.writes += len(keys)
                for key, noted in self._to_do_again(level, keys):
                    self._owe_all(load, level, [key], now, noted)
            rest.pop(0)
        if failed is not None and self.strict:
            raise TierError(f"not every tier took the write: {failed}") from failed
        failed = None  # its traceback has this frame, and so the values

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
        now, failed, rest = self.now_ms(), None, []
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
                    self.owe_deletions(level, keys, now)
                    level.failed(error)
                    failed = failed or error
                else:
                    level.deletes += len(keys)
                    for key, noted in self._to_do_again(level, keys):
                        self.owe_deletions(level, [key], now, noted)
                rest.pop(0)
        except BaseException as error:
            for level in rest:
                self.owe_deletions(level, keys, now)
            load.failure = error
            raise
        finally:
            self.land(load, keys)
        if failed is not None and self.strict:
            raise TierError(f"not every tier deleted: {failed}") from failed
        failed = None
        return count

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
        if number is None:
            self.forget_here()
        else:
            flights = self.flights.copy().items()
            self.overtake([key for key, load in flights if _may_bear(load, key, number)])
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


def _may_bear(load: Load, key: Any, number: int) -> bool:
    """Whether what a load brings for a key may have a tag: of a write that is known."""
    if not load.write:
        return True
    sealed = load.sealed.get(key) if load.sealed else None
    return sealed is not None and any(number == each for each, _ in sealed.tags)
