"""One look-up of a FeatureCache: what is here, what else is to be loaded, and the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import numpy as np

from cachecore.ml.feature_loads import Load, Shelf, Steps
from cachecore.ml.feature_rows import FOREVER, Cells, Rows

_KINDS = {str, bytes, int}


def entities_of(entity_ids: Any) -> list[Any]:
    """A sequence or array of entities as a list of str, bytes and int."""
    if isinstance(entity_ids, np.ndarray):
        if entity_ids.ndim != 1 or entity_ids.dtype.kind not in "iuSUO":
            raise TypeError(
                "entity_ids must be of str, bytes or int in one dimension, not of shape "
                f"{entity_ids.shape} and dtype {entity_ids.dtype}"
            )
        entities: list[Any] = entity_ids.tolist()
    elif isinstance(entity_ids, (str, bytes)) or not hasattr(type(entity_ids), "__iter__"):
        kind = type(entity_ids).__name__
        raise TypeError(f"entity_ids must be an iterable of entities, not {kind}")
    else:
        entities = list(entity_ids)
    if not _KINDS.issuperset(map(type, entities)):
        entities = [_entity(each) for each in entities]
    return entities


def _entity(entity: Any) -> Any:
    if type(entity) in _KINDS:
        return entity
    if isinstance(entity, np.integer):
        return int(entity)
    if isinstance(entity, (np.str_, np.bytes_)):
        return entity.item()
    raise TypeError(f"entity_ids must be of str, bytes or int, not {type(entity).__name__}")


class Look:
    """A look-up; `missing` has the entities that lack a feature which is asked for."""

    def __init__(
        self,
        shelf: Shelf,
        scope: dict[Any, bytes] | None,
        entity_ids: Any,
        names: Iterable[str] | None,
    ) -> None:
        schema = shelf.schema
        self._shelf, self._scope, self._entities = shelf, scope, entities_of(entity_ids)
        self._places: Sequence[int] = range(schema.count)
        self._which: Any = slice(None)  # the columns of expiries
        self._names: list[str] | None = None
        if names is not None:
            self._which = places = self._places = schema.columns(names)
            if not places:
                raise ValueError("names must be at least one")
            if places == [*range(places[0], places[0] + len(places))]:  # a slice is faster
                self._which = slice(places[0], places[-1] + 1)
            self._names = [schema.names[place] for place in places]
        self._rows = np.empty((len(self._entities), schema.width), np.int64)
        shelf.rows.gather(self._entities, self._rows)
        self._expiries = schema.expiries(self._rows)
        if scope is not None:
            pinned = self._pinned(scope)
            schema.merge(self._rows, pinned, schema.expiries(pinned) != 0)
        self.missing: list[Any] = []
        now, count = shelf.now(), len(self._entities)
        expiries = self._expiries[:, self._which]
        fresh = expiries > now
        self._found: Cells | None = fresh
        if fresh.all():
            shelf.count("hits", self._which, count)
            return
        hits = fresh.sum(axis=0)
        shelf.count("hits", self._which, hits)
        shelf.count("misses", self._which, count - hits)
        shelf.count("expired", self._which, ((expiries > 0) & ~fresh).sum(axis=0))
        self._found = None
        self._expiries[np.abs(self._expiries) <= now] = 0
        self._writes = shelf.writes
        self._own: set[Load] = set()
        lacking = (self._expiries[:, self._which] == 0).any(axis=1)
        self._lacking: list[int] = np.flatnonzero(lacking).tolist()
        # An entity's last row is completed; its others are copied from that in the end.
        self._at = {self._entities[at]: at for at in self._lacking}
        self.missing = list(self._at)

    # --- loads

    def compute(self, some: list[Any], play: Callable[[Steps], None]) -> list[tuple[Load, int]]:
        """Load entities that nobody else is loading; for each, where its row is."""
        load = Load(some)
        self._own.add(load)
        play(self._shelf.loading(load, self._places))
        return [(load, at) for at in range(len(some))]

    async def acompute(
        self, some: list[Any], play: Callable[[Steps], Awaitable[None]]
    ) -> list[tuple[Load, int]]:
        """The same in a task."""
        load = Load(some)
        self._own.add(load)
        await play(self._shelf.loading(load, self._places))
        return [(load, at) for at in range(len(some))]

    def take(self, found: dict[Any, tuple[Load, int]]) -> None:
        """Take what was loaded, by us or by others; `missing` is what still lacks something.

        Others may have loaded other features; or before a write that came before this look-up.
        """
        good = [(each, *place) for each, place in found.items() if self._may_take(each, place[0])]
        if good:
            rows = np.stack([load.rows[at] for _, load, at in good])
            self._shelf.take(self._rows, [self._at[entity] for entity, _, _ in good], rows)
        expiries = self._expiries[list(self._at.values())][:, self._which]
        lacking = (expiries == 0).any(axis=1).tolist()
        self.missing = [each for each, lacks in zip(self._at, lacking, strict=True) if lacks]

    def _may_take(self, entity: Any, load: Load) -> bool:
        if load in self._own:
            return True
        return entity not in load.touched and load.ended is not None and load.ended >= self._writes

    # --- the answer

    def answer(self, as_dict: bool, mask: bool) -> Any:
        """What the caller gets."""
        schema, records = self._shelf.schema, self._shelf.schema.records(self._rows)
        if self._found is None:
            if len(self._at) < len(self._lacking):
                whole = [self._at[self._entities[at]] for at in self._lacking]
                self._rows[self._lacking] = self._rows[whole]
            self._found = self._expiries[:, self._which] > 0
            absent = ~self._found
            self._shelf.count("missing", self._which, absent.sum(axis=0))
            for column in np.flatnonzero(absent.any(axis=0)).tolist():
                feature = schema.features[self._places[column]]
                records[feature.name][absent[:, column]] = feature.default
        if self._scope is not None:
            self._remember(self._scope, self._found)
        names = schema.names if self._names is None else self._names
        if as_dict:
            answer: Any = {name: records[name] for name in names}
        else:
            answer = records if self._names is None else records[self._names]
        return (answer, self._found) if mask else answer

    # --- the request that this is part of

    def _pinned(self, scope: dict[Any, bytes]) -> Rows:
        """What it has looked up, as rows of ours."""
        return self._shelf.schema.unpack([scope.get(entity) for entity in self._entities], 0)

    def _remember(self, scope: dict[Any, bytes], found: Cells) -> None:
        schema, pinned = self._shelf.schema, self._pinned(scope)
        cells = np.zeros((len(pinned), schema.count), np.bool_)
        cells[:, self._which] = True
        schema.merge(pinned, self._rows, cells)
        schema.expiries(pinned)[:, self._which] = np.where(found, FOREVER, -FOREVER)
        scope.update(zip(self._entities, schema.pack(pinned), strict=True))
