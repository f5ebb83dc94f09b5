"""FeatureCache: the features of entities, some of which are fresh for seconds and some for ever."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from cachecore._core import Cache
from cachecore.ml.feature_loads import FeatureCacheStats, FeatureCounts, Shelf, Steps
from cachecore.ml.feature_look import Look, entities_of
from cachecore.ml.feature_rows import Schema, milliseconds
from cachecore.ml.feature_store import FeatureStore
from cachecore.ml.flights import BatchFlights
from cachecore.ml.steps import in_thread
from cachecore.settings import awaits, seconds

_caches: weakref.WeakSet[FeatureCache] = weakref.WeakSet()
# Of the blocks that this code is in: the rows of what was looked up, in a list; none at its end.
_blocks: ContextVar[dict[FeatureCache, list[dict[Any, bytes]]] | None] = ContextVar(
    "cachecore_features", default=None
)


class FeatureCache:
    """Features by entity: fixed-width columns, each with a lifetime of its own.

    Args:
        features: the schema: of each a `Feature`, or its arguments as a tuple.
        maxsize, max_bytes: bounds of what this process holds, as for `Cache`: entities, and bytes;
            one is required.
        loader: called as loader(entities, names) for what is missing, two lists; returns a mapping
            of columns by name, or a structured array, aligned with the entities. None, MISSING
            or masked: there is none. NaN is a value. More columns than asked for are
            ignored. It may be a coroutine function: then only `aget_features` loads.
        exact: call it as loader(entities, names, wanted) instead: a bool array of shape (entities,
            names) says of which of them which feature is missing. What it returns for others
            is ignored, and may be None.
        store: a `RedisTier`, asked before the loader and given what that returned. It stays open.
        version: of what the features mean. It is part of every key of the store, as are names
            and dtypes: what was written for another schema is not read.
        namespace: begins every key of the store.
        policies: seconds for names of lifetimes, beside "static", "batch" and "streaming".
        negative_ttl: seconds for which it is remembered that there is no value; None: not at all.
        timer: a function that returns Unix seconds, for tests.

    Entities are str, bytes or int; `1`, `"1"` and `b"1"` are three. The methods may be called from
    any thread, the asynchronous ones from any event loop. Of all who ask at a time, one loads
    an entity. Reads never raise for the store: its failure is counted, and a miss.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong kind; it is named.
    """

    def __init__(
        self,
        features: Iterable[Any],
        *,
        maxsize: int | None = None,
        max_bytes: int | str | None = None,
        loader: Callable[..., Any] | None = None,
        exact: bool = False,
        store: Any = None,
        version: str = "",
        namespace: str = "features",
        policies: Mapping[str, float] | None = None,
        negative_ttl: float | None = None,
        timer: Callable[[], float] | None = None,
    ) -> None:
        for name, function in (("loader", loader), ("timer", timer)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be callable, not {type(function).__name__}")
        if not isinstance(exact, bool):
            raise TypeError(f"exact must be a bool, not {type(exact).__name__}")
        if not isinstance(namespace, str):
            raise TypeError(f"namespace must be a str, not {type(namespace).__name__}")
        self._schema = schema = Schema(features, version, {} if policies is None else policies)
        negative = None
        if negative_ttl is not None:
            negative = milliseconds(seconds(negative_ttl, "negative_ttl"))
        rows: Cache[Any, bytes] = Cache(maxsize, max_bytes=max_bytes)
        below = None if store is None else FeatureStore(store, schema, namespace)
        clocks = (timer or time.monotonic, timer or time.time)
        self._shelf = Shelf(schema, rows, below, loader is not None, exact, negative, clocks)
        self._loader, self._flights = loader, BatchFlights()
        self._awaits = awaits(loader)
        _caches.add(self)

    @property
    def names(self) -> list[str]:
        """Of the features."""
        return list(self._schema.names)

    # --- look-ups

    def get_features(
        self,
        entity_ids: Any,
        names: Iterable[str] | None = None,
        *,
        as_dict: bool = False,
        mask: bool = False,
    ) -> Any:
        """Features of n entities: what is missing or no longer fresh is loaded, in one call.

        The loader is asked for the features that any of the entities lacks, of the entities that
        lack any (with `exact`, it is told which lacks which); of its answer only what was
        missing is taken.

        Args:
            entity_ids: n of them, in a sequence or an array; the same one may come more than once.
            names: of the features; None: all.
            as_dict: return a mapping of columns by name instead of a structured array.
            mask: also return where there is a value, as a bool array of shape (n, names).

        Returns:
            rows: a structured array of n with these fields, the caller's own; its dtype has gaps,
            which `numpy.lib.recfunctions.repack_fields` takes out. Where a feature exists
            nowhere its default stands. With `mask`: (rows, found).

        Raises:
            TypeError, ValueError: an argument, or what the loader returned, is not of that kind;
                nothing was kept.
            KeyError: a name is not in the schema.
        """
        look = Look(self._shelf, self._scope(), entity_ids, names)
        while look.missing:
            look.take(self._flights.run(look.missing, lambda some: look.compute(some, self._play)))
        return look.answer(as_dict, mask)

    async def aget_features(
        self,
        entity_ids: Any,
        names: Iterable[str] | None = None,
        *,
        as_dict: bool = False,
        mask: bool = False,
    ) -> Any:
        """The same in a task; a loader that is no coroutine function runs in a thread."""
        look = Look(self._shelf, self._scope(), entity_ids, names)
        while look.missing:
            look.take(
                await self._flights.arun(
                    look.missing, lambda some: look.acompute(some, self._aplay)
                )
            )
        return look.answer(as_dict, mask)

    # --- writes

    def set_features(self, entity_ids: Any, columns: Any) -> None:
        """Set features of n entities, here and in the store; fresh from now on.

        Args:
            entity_ids: n of them; of one that comes more than once, the last row counts.
            columns: a mapping of columns by name, or a structured array. What is None, MISSING or
                masked stays as it is.

        Raises:
            TypeError, ValueError, KeyError: an argument is not of that kind; nothing was set.
            TierError: the store did not take it; it was set here.
        """
        self._play(self._setting(entity_ids, columns))

    async def aset_features(self, entity_ids: Any, columns: Any) -> None:
        """The same in a task."""
        await self._aplay(self._setting(entity_ids, columns))

    def _setting(self, entity_ids: Any, columns: Any) -> Steps:
        entities = entities_of(entity_ids)
        fields = getattr(getattr(columns, "dtype", None), "names", None)
        names = columns if isinstance(columns, Mapping) else fields or ()
        places, now = self._schema.columns(names), self._shelf.now()
        rows = self._schema.read(columns, places, len(entities), now, "columns")
        last = {entity: at for at, entity in enumerate(entities)}
        try:
            yield from self._shelf.setting(list(last), rows[list(last.values())])
        finally:
            self._unsee(last)

    def invalidate(self, entity_ids: Any, names: Iterable[str] | None = None) -> None:
        """Forget features of entities, here and in the store; names=None: all of them.

        Other processes keep what they hold until it expires.

        Raises:
            TypeError, KeyError: an argument is not of that kind.
            TierError: the store could not be told; it was forgotten here.
        """
        self._play(self._invalidating(entity_ids, names))

    async def ainvalidate(self, entity_ids: Any, names: Iterable[str] | None = None) -> None:
        """The same in a task."""
        await self._aplay(self._invalidating(entity_ids, names))

    def _invalidating(self, entity_ids: Any, names: Iterable[str] | None) -> Steps:
        entities = list(dict.fromkeys(entities_of(entity_ids)))
        places = self._schema.columns(self._schema.names if names is None else names)
        try:
            yield from self._shelf.invalidating(entities, places)
        finally:
            self._unsee(entities)

    # --- the request

    @contextmanager
    def request(self) -> Iterator[None]:
        """What is looked up in the block, in this thread or task, is remembered for the block.

        A feature looked up twice has the same value both times, whatever happens to it meanwhile,
        unless the block itself writes or invalidates it. A block within the block, and tasks
        begun in it, share what it remembers, until its end.
        """
        if self._scope() is not None:
            yield
            return
        rows: list[dict[Any, bytes]] = [{}]
        token = _blocks.set({**(_blocks.get() or {}), self: rows})
        try:
            yield
        finally:
            rows.clear()  # a task that goes on has a context with it
            _blocks.reset(token)

    def _scope(self) -> dict[Any, bytes] | None:
        rows = (_blocks.get() or {}).get(self)
        return rows[0] if rows else None

    def _unsee(self, entities: Iterable[Any]) -> None:
        scope = self._scope()
        for entity in entities if scope else ():
            assert scope is not None
            scope.pop(entity, None)

    # --- who carries steps out

    def _play(self, steps: Steps) -> None:
        answer = None
        try:
            while True:
                try:
                    name, *args = steps.send(answer)
                except StopIteration:
                    return
                answer = self._load(*args) if name == "load" else self._ask(name, *args)
        finally:
            steps.close()

    async def _aplay(self, steps: Steps) -> None:
        answer = None
        try:
            while True:
                try:
                    name, *args = steps.send(answer)
                except StopIteration:
                    return
                if name != "load":
                    assert self._shelf.store is not None
                    answer = await self._shelf.store.aask(name, *args)
                elif self._awaits:
                    assert self._loader is not None
                    answer = await self._loader(*args)
                else:
                    answer = await in_thread(self._load)(*args)
        finally:
            steps.close()

    def _ask(self, name: str, *args: Any) -> Any:
        assert self._shelf.store is not None
        return self._shelf.store.ask(name, *args)

    def _load(self, *args: Any) -> Any:
        if self._awaits:
            raise TypeError("loader is a coroutine function: call aget_features")
        assert self._loader is not None
        return self._loader(*args)

    # --- the rest

    def stats(self) -> FeatureCacheStats:
        """What was counted so far."""
        shelf = self._shelf
        with shelf.lock:
            counts = shelf.counts.T.tolist()
        features = dict(zip(self._schema.names, map(FeatureCounts._make, counts), strict=True))
        store = shelf.store
        errors, damaged = (store.errors, store.damaged) if store is not None else (0, 0)
        return FeatureCacheStats(features, shelf.rows.stats(), shelf.calls, errors, damaged)

    def __len__(self) -> int:
        """How many entities are here."""
        return len(self._shelf.rows)

    def __repr__(self) -> str:
        return f"<FeatureCache of {len(self)} entities with {self._schema.count} features>"


def _begin_anew() -> None:
    """In a child process the threads are gone, and what they were about to do."""
    for cache in list(_caches):
        cache._shelf.reset()


os.register_at_fork(after_in_child=_begin_anew)
