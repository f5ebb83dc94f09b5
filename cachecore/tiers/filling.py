"""What a miss brings upward: values that climb from lower tiers, values that the loader loads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import monotonic, perf_counter
from typing import Any

from cachecore._envelope import seal, wire_keys
from cachecore._load import ADD, DELETE, GET, LOAD, SET, SLEEP, Failed, Level, Load
from cachecore._tiered import NEVER
from cachecore.sentinel import MISSING
from cachecore.tiers.base import Item
from cachecore.tiers.generations import Calls, Generations

POLL = 0.01  # seconds between two looks whether another process has loaded a key


class Filling(Generations):
    """The part of a cache with tiers that fills the upper ones from below."""

    __slots__ = ("lease",)

    lease: float | None

    def climb(self, load: Load, keys: list[Any], at: int, failed: list[Level], now: int) -> Calls:
        """Put what the tier at `at` had into those above it, and out of it if it is exclusive."""
        levels = [level for level in self.levels[:at] if not level.exclusive]
        yield from self.write_levels(load, keys, levels, failed, now)
        level = self.levels[at]
        if level.exclusive:
            load.writing = True  # what leaves again meanwhile is not handed down before
            yield from self._try(level, DELETE, wire_keys(self.prefix, keys))

    def write_levels(
        self, load: Load, keys: list[Any], levels: list[Level], failed: list[Level], now: int
    ) -> Calls:
        """Write values of a load to tiers; a failure is counted, and no more."""
        levels = [level for level in levels if level not in failed and level.ledger is None]
        if not levels:
            return
        load.writing = True  # first: from here on no write takes a key away
        for level in levels:
            keys = self.held(load, keys)
            if not keys:
                break
            try:
                yield from self.current(load, level, keys, now)
                keys, items = self.writable_items(load, level, keys, now)
                yield SET, level, items
            except Exception as error:
                level.failed(error)
                failed.append(level)
            else:
                level.writes += len(items)
                level.bytes_written += sum(len(item.data) for item in items)
            yield from self.take_back(load, level, keys, now)
        load.writing = False

    def take_back(self, load: Load, level: Level, keys: list[Any], now: int) -> Calls:
        """Delete what was invalidated while it was written."""
        held = set(self.held(load, keys))
        gone = [key for key in keys if key not in held]
        if not gone:
            return
        try:
            yield DELETE, level, wire_keys(self.prefix, gone)
        except Exception as error:
            level.failed(error)
            self.owe_deletions(level, gone, now)

    def owe_deletions(self, level: Level, keys: Iterable[Any], now: int) -> None:
        """Remember deletions that a tier has missed: see owing.py."""
        raise NotImplementedError

    def current(self, load: Load, level: Level, keys: Iterable[Any], now: int) -> Calls:
        """Know the generations in a tier that values of a load are to bear."""
        yield from self.generation_known(level, now)
        numbers = {number for key in keys for number, _ in load.sealed[key].tags}
        if numbers:
            yield from self.tags_known(level, numbers, now)

    def items(self, load: Load, level: Level, keys: Sequence[Any], now: int) -> list[Item]:
        """What a tier whose generations are known is to keep of a load's values."""
        items = []
        for key, wire in zip(keys, wire_keys(self.prefix, keys), strict=True):
            sealed, value = load.sealed[key], load.values[key]
            try:
                data = self._data(level, key, value, sealed)
                items.append(Item(wire, data, remaining(sealed.hard, now)))
            except Exception as error:
                raise UnwritableError(
                    f"the value of key {key!r} cannot be written: {error}"
                ) from error
        return items

    def writable_items(
        self, load: Load, level: Level, keys: list[Any], now: int
    ) -> tuple[list[Any], list[Item]]:
        """The keys whose values the codec can write down, and their items.

        Of the others it is as if the loader had raised what the codec says.
        """
        try:
            return keys, self.items(load, level, keys, now)
        except UnwritableError:
            good: list[Any] = []
            items: list[Item] = []
        for key in keys:
            try:
                items += self.items(load, level, [key], now)
            except UnwritableError as error:
                load.errors = {**(load.errors or {}), key: error}
                if self.flights.get(key) is load:
                    self.l0.delete(key)
            else:
                good.append(key)
        return good, items

    def sealed_now(self, now: int, soft: int, hard: int) -> Any:
        return Loaded(now, soft, hard, 0.0)

    def _data(self, level: Level, key: Any, value: Any, sealed: Any) -> bytes:
        if self.raw:
            return self.codec.encode(value)
        return seal(
            key,
            value,
            self.codec,
            written=sealed.written,
            soft=sealed.soft,
            hard=sealed.hard,
            load=sealed.load,
            generation=level.generation,
            tags=[(number, level.tags[number][0]) for number, _ in sealed.tags],
            namespace=self.prefix,
        )

    def _try(self, level: Level, kind: int, arg: Any) -> Calls:
        """A call of a tier whose failure is counted, and no more."""
        try:
            return (yield kind, level, arg)
        except Exception as error:
            level.failed(error)
            return None

    # --- loading

    def load_rest(self, load: Load, keys: list[Any], failed: list[Level]) -> Calls:
        """Have the loader load keys that no tier has, and keep what it returns."""
        if self.loader is None:
            for key in keys:
                self._absent(load, key, not failed)
            return
        leased: dict[bytes, float] = {}
        if self.lease is not None and self.levels:
            keys, leased = yield from self._take_leases(load, keys)
        if not keys:
            return
        self.loads += len(keys)
        load.keys = keys
        begin = perf_counter()
        try:
            values = yield LOAD, load, keys
        except Exception as error:
            values = [Failed(error)] * len(keys)
        spent = perf_counter() - begin
        self.load_latencies.add(spent)
        self.told(load, "load", len(keys), spent)
        now = self.now_ms()
        kept, gone = [], []
        load.sealed = load.sealed or {}
        for key, value in zip(keys, values, strict=True):
            if type(value) is Failed:
                self._failed(load, key, value.error)
            elif value is MISSING:
                if load.fallback is not None and load.fallback.pop(key, MISSING) is not MISSING:
                    gone.append(key)
                self._absent(load, key, True)
            else:
                soft, hard = self.lifetimes(now, None)
                load.sealed[key] = Loaded(now, soft, hard, spent)
                self.kept(load, key, value, now, soft, hard, spent)
                kept.append(key)
        yield from self._hand_over(load, kept, gone, failed, leased)

    def _hand_over(
        self,
        load: Load,
        kept: list[Any],
        gone: list[Any],
        failed: list[Level],
        leased: dict[bytes, float],
    ) -> Calls:
        """Tell the tiers of what was loaded, and of what is not there any more."""
        now = self.now_ms()
        levels = [level for level in self.levels if not level.exclusive]
        yield from self.write_levels(load, kept, levels, failed, now)
        for level in self.levels if gone else ():
            yield from self._try(level, DELETE, wire_keys(self.prefix, gone))
        ours = [lease for lease, end in leased.items() if monotonic() < end]
        if ours:
            yield from self._try(self.levels[-1], DELETE, ours)

    def _failed(self, load: Load, key: Any, error: Exception) -> None:
        self.load_errors += 1
        self.cooling.set(key, True)
        if load.fallback is not None and key in load.fallback:
            self.stale_errors += load.known is None
            load.values[key] = load.fallback[key]
        else:
            load.errors = load.errors or {}
            load.errors[key] = error

    def _absent(self, load: Load, key: Any, surely: bool) -> None:
        """Nobody has a value for a key; what is old may do if somebody was not to be asked."""
        load.values[key] = MISSING
        if not surely and load.fallback is not None and key in load.fallback:
            self.stale_errors += 1
            load.values[key] = load.fallback[key]
        elif surely:
            self.gone(load, key)

    # --- one process of many

    def _take_leases(self, load: Load, keys: list[Any]) -> Calls:
        """The keys that this process is to load, and until when it surely has which lease.

        The others it has got meanwhile. A lease is a key in the last tier that only one can add,
        and that expires. Who does not get it waits until the value is there, or returns an old one.
        A tier that fails leases nothing.
        """
        level, ours = self.levels[-1], []
        leases: dict[bytes, float] = {}
        waiting = []
        for key, wire in zip(keys, wire_keys(self.prefix, keys), strict=True):
            if (yield from self._lease(level, wire + b"\0lease", leases)):
                ours.append(key)
            else:
                waiting.append(key)
        for key in waiting:
            if load.fallback is not None and key in load.fallback:
                self.stale_revalidated += load.known is None
                load.values[key] = load.fallback[key]
            elif not (yield from self._wait_for(load, level, key, leases)):
                ours.append(key)
        return ours, leases

    def _lease(self, level: Level, key: bytes, leases: dict[bytes, float]) -> Calls:
        """Whether no other process has the lease; if it is ours now, it is among `leases`."""
        assert self.lease is not None
        end = monotonic() + self.lease
        got = yield from self._try(level, ADD, Item(key, b"", int(self.lease * 1000) or 1))
        if got:
            leases[key] = end
        return got is not False

    def _wait_for(self, load: Load, level: Level, key: Any, leases: dict[bytes, float]) -> Calls:
        """Whether another process has loaded a key; False: we are to, maybe by a lease of ours."""
        wires = wire_keys(self.prefix, [key])
        wires.append(wires[0] + b"\0lease")
        while True:
            yield SLEEP, None, POLL
            datas = yield from self._try(level, GET, wires)
            if datas is None:
                return False
            if datas[0] is not None and self.accept_late(load, key, datas[0], self.now_ms(), level):
                return True
            if datas[1] is None and (yield from self._lease(level, wires[1], leases)):
                return False  # whoever was to load it has failed, or died


class Loaded:
    """When a value was loaded, until when it is good, and how long that took."""

    __slots__ = ("hard", "load", "soft", "tags", "written")

    def __init__(
        self, written: int, soft: int, hard: int, load: float, tags: tuple[Any, ...] = ()
    ) -> None:
        self.written, self.soft, self.hard, self.load, self.tags = written, soft, hard, load, tags


def remaining(hard: int, now: int) -> int | None:
    """The ms that are left of a lifetime, as a tier is to know it; None: for ever."""
    return None if hard == NEVER else max(1, hard - now)


class UnwritableError(TypeError):
    """A value that the codec has no bytes for."""
