"""Features in a RedisTier: one hash for each entity, one field for each feature.

    key    namespace : digest of version and schema : i, s or b : entity
    field  name of the feature
    value  int64 expiry, Unix milliseconds | four bytes for the dtype | the value

A hash lives as long as the longest-lived feature of the schema; what of it has
expired is told by the expiries within. What is not of that form is not there, and counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from cachecore.errors import TierError
from cachecore.ml.feature_rows import FOREVER, Cells, Rows, Schema
from cachecore.tiers.breaker import Circuit

METHODS = ("get_fields", "set_fields", "delete_fields")


class FeatureStore:
    """A RedisTier as a FeatureCache asks it: now and then only, while it is down."""

    def __init__(self, tier: Any, schema: Schema, namespace: str) -> None:
        for name in METHODS:
            if not callable(getattr(tier, name, None)):
                raise TypeError(f"store must be a RedisTier, not {type(tier).__name__}")
        self.tier, self._schema = tier, schema
        self._prefix = f"{namespace}:{schema.digest.hex()}:".encode()
        self.fields = [name.encode() for name in schema.names]
        self._cells = [
            np.dtype([("expiry", "<i8"), ("kind", "V4"), ("value", feature.dtype)])
            for feature in schema.features
        ]
        self._kinds = [np.void(feature.kind) for feature in schema.features]
        longest = int(schema.lifetimes.max())
        self.lifetime = None if longest >= FOREVER else longest
        self._circuit = Circuit(5, 1.0, 30.0, time.monotonic)
        self.errors = self.damaged = 0

    def keys(self, entities: Iterable[Any]) -> list[bytes]:
        """The keys of hashes; `1`, `"1"` and `b"1"` are three."""
        prefix = self._prefix
        return [
            prefix + b"s" + entity.encode("utf-8", "surrogatepass")
            if type(entity) is str
            else prefix + (b"b" + entity if type(entity) is bytes else b"i%d" % entity)
            for entity in entities
        ]

    # --- calls: what the tier returns, or its TierError

    def ask(self, name: str, *args: Any) -> Any:
        try:
            with self._guarded():
                return getattr(self.tier, name)(*args)
        except TierError as error:
            self.errors += 1
            return error

    async def aask(self, name: str, *args: Any) -> Any:
        """The same in a task."""
        try:
            with self._guarded():
                return await getattr(self.tier, f"a{name}")(*args)
        except TierError as error:
            self.errors += 1
            return error

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        circuit = self._circuit
        probe = circuit.refusing
        if probe and not circuit.admit():
            raise TierError("the store of features is not asked: it kept failing")
        try:
            yield
        except TierError:
            circuit.failed(probe)
            raise
        except BaseException:
            if probe:
                circuit.released()
            raise
        if circuit.trouble:
            circuit.succeeded(probe)

    # --- rows to fields and back; `now`: by the cache's clock and by Unix time

    def read(
        self, replies: Sequence[Sequence[bytes | None]], places: Sequence[int], now: int, unix: int
    ) -> Rows:
        """Rows of what `get_fields` returned for these features; what is not fresh is not there."""
        schema = self._schema
        rows = np.zeros((len(replies), schema.width), np.int64)
        records, expiries = schema.records(rows), schema.expiries(rows)
        for at, column in zip(places, zip(*replies, strict=True), strict=True):
            kind = self._cells[at]
            size, blank = kind.itemsize, bytes(kind.itemsize)
            whole = [cell if cell and len(cell) == size else blank for cell in column]
            cells = np.frombuffer(b"".join(whole), kind)
            good = cells["kind"] == self._kinds[at]
            damaged = sum(cell is not None for cell in column) - int(good.sum())
            self.damaged += damaged  # in one step, for threads
            records[schema.names[at]] = cells["value"]
            until = np.clip(cells["expiry"], 0, FOREVER)
            fresh = good & (until > unix)
            # Not later than if it had been loaded now: clocks differ, and so may the schema's TTLs.
            most = min(now + int(schema.lifetimes[at]), FOREVER)
            expiries[fresh, at] = np.minimum(until[fresh] - unix + now, most)
        return rows

    def write(
        self, entities: Sequence[Any], rows: Rows, cells: Cells, now: int, unix: int
    ) -> Mapping[bytes, Mapping[bytes, bytes]]:
        """What `set_fields` takes, for these cells of rows."""
        schema = self._schema
        items: dict[bytes, dict[bytes, bytes]] = {key: {} for key in self.keys(entities)}
        hashes = list(items.values())
        records, expiries = schema.records(rows), schema.expiries(rows)
        for at in np.flatnonzero(cells.any(axis=0)):
            which = np.flatnonzero(cells[:, at])
            packed = np.empty(len(which), self._cells[at])
            until = expiries[which, at]
            packed["expiry"] = np.where(until >= FOREVER, FOREVER, until - now + unix)
            packed["kind"], packed["value"] = self._kinds[at], records[schema.names[at]][which]
            data, size, field = packed.tobytes(), packed.itemsize, self.fields[at]
            for number, row in enumerate(which.tolist()):
                hashes[row][field] = data[number * size : (number + 1) * size]
        return items
