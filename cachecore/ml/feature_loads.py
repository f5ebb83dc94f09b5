"""How what a FeatureCache does not hold comes from its store and its loader, and how it is written.

Each of it is a generator, which yields what is to be asked, as (name, arguments): of the store, or
of the loader as "load". So threads and tasks share it. A write and a load that overlap in time do
not mix: what was loaded meanwhile is returned to who asked before the write, and not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

import numpy as np

from cachecore._core import Cache
from cachecore.errors import TierError
from cachecore.ml.feature_rows import NOWHERE, Cells, Rows, Schema
from cachecore.stats import CacheStats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachecore.ml.feature_store import FeatureStore

Steps = Generator[tuple[Any, ...], Any, Any]


class FeatureCounts(NamedTuple):
    """Counts of one feature; a look-up is of one entity."""

    hits: int
    """Look-ups that found a fresh value in this process."""
    misses: int
    """All others."""
    expired: int
    """Those of them that found a value that was fresh no more."""
    store_hits: int
    """Values that came from the store."""
    loads: int
    """Values that the loader was asked for."""
    missing: int
    """Look-ups answered with the default: there is no value anywhere."""


class FeatureCacheStats(NamedTuple):
    """Counts since the cache was made."""

    features: dict[str, FeatureCounts]
    l0: CacheStats
    """Of the rows in this process."""
    loader_calls: int
    store_errors: int
    """Calls of the store that failed, or were not made because it kept failing."""
    store_damaged: int
    """Values in the store that were not taken for what they seemed to be."""


class Load:
    """Entities that are being loaded, and what was found of them; or that are being written."""

    __slots__ = ("__weakref__", "ended", "entities", "rows", "touched")

    def __init__(self, entities: Iterable[Any]) -> None:
        self.entities = dict.fromkeys(entities)
        self.rows: Rows = np.empty((0, 0), np.int64)  # until its end
        self.touched: set[Any] = set()  # written or invalidated meanwhile
        self.ended: int | None = None  # how many writes there were before its end


class Shelf:
    """The rows that a FeatureCache holds, and what is being loaded and written of them."""

    def __init__(
        self,
        schema: Schema,
        rows: Cache[Any, bytes],
        store: FeatureStore | None,
        loads: bool,
        exact: bool,
        negative: int | None,
        clocks: tuple[Callable[[], float], Callable[[], float]],
    ) -> None:
        self.schema, self.rows, self.store = schema, rows, store
        self._loads_any, self._exact, self._negative = loads, exact, negative
        self._clock, self._wall = clocks
        self.counts = np.zeros((len(FeatureCounts._fields), schema.count), np.int64)
        self.calls = self.writes = 0
        self.reset()

    def reset(self) -> None:
        """Begin anew in a child process, whose parent's other threads are not there."""
        self.lock = RLock()  # a signal handler or finalizer may come in between
        # Weakly: an interrupt may come before any clean-up, and ends who holds them.
        self._under_way: WeakSet[Load] = WeakSet()
        self._being_written: WeakSet[Load] = WeakSet()

    def now(self) -> int:
        """Milliseconds by the clock of expiries."""
        return int(self._clock() * 1000)

    def unix(self) -> int:
        """Milliseconds by the clock that other processes share."""
        return int(self._wall() * 1000)

    def count(self, name: str, places: Any, cells: Any) -> None:
        """Add numbers for features."""
        with self.lock:
            self.counts[FeatureCounts._fields.index(name), places] += cells

    def held(self, entities: Iterable[Any], now: int) -> Rows:
        """What is fresh here; not a look-up."""
        return self.schema.unpack([self.rows.peek(entity) for entity in entities], now)

    # --- loads

    def loading(self, load: Load, places: Sequence[int]) -> Steps:
        """Find these features of a load's entities, here, below or by the loader; keep them."""
        schema, store = self.schema, self.store
        entities = list(load.entities)
        with self.lock:
            for write in self._being_written:
                load.touched |= write.entities.keys() & load.entities.keys()
            self._under_way.add(load)
        try:
            rows = self.held(entities, self.now())
            expiries = schema.expiries(rows)
            known = expiries != 0
            told = True
            at, which = _rectangle(expiries, places)
            if at and store is not None:
                asked = [entities[row] for row in at]
                replies = yield "get_fields", store.keys(asked), [store.fields[p] for p in which]
                told = not isinstance(replies, TierError)
                if told:
                    found = store.read(replies, which, self.now(), self.unix())
                    taken = self.take(rows, at, found)
                    self.count("store_hits", which, taken[:, which].sum(axis=0))
                at, which = _rectangle(expiries, places)
            loaded = np.zeros_like(known)
            if at and self._loads_any:
                asked, names = [entities[row] for row in at], [schema.names[p] for p in which]
                wanted = expiries[np.ix_(at, which)] == 0
                self.count("loads", which, wanted.sum(axis=0) if self._exact else len(at))
                self.calls += 1
                source = yield "load", asked, names, *([wanted] if self._exact else [])
                found = schema.read(source, which, len(at), self.now(), "what loader returned")
                loaded[at] = self.take(rows, at, found)
                told = True
            absent = np.zeros_like(known)
            absent[:, places] = expiries[:, places] == 0
            until = NOWHERE
            if told and self._negative is not None:
                until = -(self.now() + self._negative)
            expiries[absent] = until
            self._keep(load, entities, rows, ~known & (expiries != 0) & (expiries != NOWHERE))
            load.rows = rows
            if store is not None and loaded.any():
                yield from self._hand_down(load, entities, rows, loaded)
        finally:
            with self.lock:
                self._under_way.discard(load)
                load.ended = self.writes

    def take(self, rows: Rows, at: Sequence[int], found: Rows) -> Cells:
        """Take over what is not known of some rows; which cells those are."""
        schema, some = self.schema, rows[at]
        cells: Cells = (schema.expiries(some) == 0) & (schema.expiries(found) != 0)
        schema.merge(some, found, cells)
        rows[at] = some
        return cells

    def _keep(self, load: Load, entities: Sequence[Any], rows: Rows, cells: Cells) -> None:
        """Keep cells of rows, beside what is there: that is newer."""
        with self.lock:
            at = [
                row
                for row in np.flatnonzero(cells.any(axis=1)).tolist()
                if entities[row] not in load.touched
            ]
            some = [entities[row] for row in at]
            held = self.held(some, self.now())
            fits = cells[at] & (self.schema.expiries(held) == 0)
            self.schema.merge(held, rows[at], fits)
            self.rows.set_many(zip(some, self.schema.pack(held), strict=True))

    def _hand_down(self, load: Load, entities: Sequence[Any], rows: Rows, cells: Cells) -> Steps:
        """Write to the store what was loaded; what was written since is taken out again."""
        assert self.store is not None
        before = set(load.touched)
        at = [row for row, entity in enumerate(entities) if entity not in before]
        some = [entities[row] for row in at]
        items = self.store.write(some, rows[at], cells[at], self.now(), self.unix())
        yield "set_fields", items, self.store.lifetime
        late = load.touched - before
        if late:
            fields = [self.store.fields[place] for place in np.flatnonzero(cells.any(axis=0))]
            yield "delete_fields", self.store.keys(late), fields

    # --- writes

    @contextmanager
    def _writing(self, entities: Iterable[Any]) -> Iterator[None]:
        """Loads that overlap with this in time are not kept."""
        write = Load(entities)
        with self.lock:
            self._being_written.add(write)
            for load in self._under_way:
                load.touched |= write.entities.keys() & load.entities.keys()
        try:
            yield
        finally:
            with self.lock:
                self._being_written.discard(write)
                self.writes += 1

    def setting(self, entities: Sequence[Any], given: Rows) -> Steps:
        """Set what rows have, in the store and here; here even if the store's call is stopped."""
        schema, done = self.schema, None
        cells = schema.expiries(given) != 0
        with self._writing(entities):
            try:
                if self.store is not None:
                    items = self.store.write(entities, given, cells, self.now(), self.unix())
                    done = yield "set_fields", items, self.store.lifetime
            finally:
                with self.lock:
                    held = self.held(entities, self.now())
                    schema.merge(held, given, cells)
                    self.rows.set_many(zip(entities, schema.pack(held), strict=True))
        if isinstance(done, TierError):
            raise done

    def invalidating(self, entities: Sequence[Any], places: Sequence[int]) -> Steps:
        """Forget features, in the store and here; here even if the store's call is stopped."""
        done = None
        with self._writing(entities):
            try:
                if self.store is not None:
                    fields = [self.store.fields[place] for place in places]
                    done = yield "delete_fields", self.store.keys(entities), fields
            finally:
                with self.lock:
                    if len(places) == self.schema.count:
                        self.rows.delete_many(entities)
                    else:
                        entities = [entity for entity in entities if entity in self.rows]
                        held = self.held(entities, self.now())
                        self.schema.expiries(held)[:, places] = 0
                        self.rows.set_many(zip(entities, self.schema.pack(held), strict=True))
        if isinstance(done, TierError):
            raise done


def _rectangle(expiries: Rows, places: Sequence[int]) -> tuple[list[int], list[int]]:
    """The rows and the columns, of these, in which something is not known."""
    unknown = expiries[:, places] == 0
    which = np.flatnonzero(unknown.any(axis=0)).tolist()
    return np.flatnonzero(unknown.any(axis=1)).tolist(), [places[at] for at in which]
