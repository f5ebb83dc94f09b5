"""What a FeatureCache keeps of an entity: one row of fixed width with all its features.

    int64 expiry of each feature | value of each feature, aligned as its dtype asks | up to 8 bytes

So many entities are one matrix of int64, of which the first columns say what is there, and, seen as
records, one structured array. An expiry is in milliseconds of the cache's clock: the value is fresh
before that. 0: not known. Negative: known until then to be absent; NOWHERE says so of one look-up.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cachecore.rows import item_type
from cachecore.sentinel import MISSING
from cachecore.settings import seconds

FOREVER = 2**62  # an expiry that never comes
NOWHERE = -1
POLICIES: Mapping[str, float] = {"static": math.inf, "batch": 6 * 3600.0, "streaming": 10.0}

Rows = npt.NDArray[np.int64]
Cells = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Feature:
    """One column of a schema.

    Args:
        name: of the column.
        dtype: of a value, of fixed width: "f4", "S2", "V16", "M8[s]" and so on, or with a shape,
            such as ("f4", (16,)). No objects, no fields.
        ttl: how long a value is fresh: "static" (for ever), "batch" (6 hours), "streaming" (10
            seconds), another of the cache's `policies`, or seconds.
        default: stands where there is no value; None: NaN for floats, else zero or empty.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range; it is named.
    """

    name: str
    dtype: Any
    ttl: str | float = "batch"
    default: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"name must be a str that is not empty, not {self.name!r}")
        try:
            kind = np.dtype(self.dtype)
        except TypeError:
            kind = item_type(self.dtype)
        base = item_type(kind.base)
        if base.names is not None or kind.itemsize == 0:
            raise ValueError(f"dtype of feature {self.name!r} must be plain, not {kind}")
        object.__setattr__(self, "dtype", kind)
        if not isinstance(self.ttl, str):
            object.__setattr__(self, "ttl", seconds(self.ttl, f"ttl of feature {self.name!r}"))
        default = self.default
        if default is None:
            default = np.full((), np.nan, base) if base.kind in "fc" else np.zeros((), base)
        if kind.shape:
            default = np.broadcast_to(default, kind.shape)
        filling, _ = column_of([default], self, 1, "default")
        object.__setattr__(self, "default", filling[0])

    @property
    def kind(self) -> bytes:
        """What its values are, as four bytes."""
        base = self.dtype.base
        text = f"{base.str} {base} {self.dtype.shape}"
        return hashlib.blake2b(text.encode(), digest_size=4).digest()


class Schema:
    """The features of a cache, and the rows that hold them."""

    def __init__(
        self, features: Iterable[Any], version: str, policies: Mapping[str, float]
    ) -> None:
        if not hasattr(type(features), "__iter__"):
            kind = type(features).__name__
            raise TypeError(f"features must be an iterable of features, not {kind}")
        if not isinstance(policies, Mapping):
            kind = type(policies).__name__
            raise TypeError(f"policies must be a mapping of names to seconds, not {kind}")
        self.features = [_feature(each) for each in features]
        self.names = [feature.name for feature in self.features]
        self.places = {name: at for at, name in enumerate(self.names)}
        if not self.names or len(self.places) < len(self.names):
            raise ValueError(f"features must be at least one, each name once, not {self.names}")
        if not isinstance(version, str):
            raise TypeError(f"version must be a str, not {type(version).__name__}")
        self.count = len(self.names)
        self.record, self.width = self._record()
        known = {**POLICIES, **{name: seconds(ttl, "policies") for name, ttl in policies.items()}}
        self.lifetimes = np.array([_lifetime(each, known) for each in self.features])
        parts = [
            (each.name, each.kind) for each in sorted(self.features, key=lambda each: each.name)
        ]
        self.digest = hashlib.blake2b(repr((version, parts)).encode(), digest_size=8).digest()

    def _record(self) -> tuple[np.dtype[Any], int]:
        """The dtype of a row, and how many int64 that is."""
        at, offsets = 8 * self.count, []
        for feature in self.features:
            at += -at % feature.dtype.alignment
            offsets.append(at)
            at += feature.dtype.itemsize
        width = -(-at // 8)
        formats = [feature.dtype for feature in self.features]
        fields = {"names": self.names, "formats": formats, "offsets": offsets}
        return np.dtype({**fields, "itemsize": 8 * width}), width  # type: ignore[call-overload]

    def columns(self, names: Iterable[str]) -> list[int]:
        """The places of features; KeyError names one that is not in the schema."""
        if isinstance(names, (str, bytes)) or not hasattr(type(names), "__iter__"):
            kind = type(names).__name__
            raise TypeError(f"names must be an iterable of names of features, not one {kind}")
        try:
            places = [self.places[name] for name in names]
        except KeyError as error:
            raise KeyError(f"names must be of {self.names}, not {error.args[0]!r}") from None
        if len(set(places)) < len(places):
            raise ValueError("names must be of each feature once")
        return places

    # --- rows

    def records(self, rows: Rows) -> npt.NDArray[np.void]:
        """The same memory as one record for each row."""
        return rows.view(self.record).reshape(len(rows))

    def expiries(self, rows: Rows) -> Rows:
        """The same memory's expiries, one column for each feature."""
        return rows[:, : self.count]

    def pack(self, rows: Rows) -> list[bytes]:
        """Each row as bytes."""
        data, size = rows.tobytes(), 8 * self.width
        return [data[at : at + size] for at in range(0, len(data), size)]

    def unpack(self, packed: Sequence[bytes | None], now: int) -> Rows:
        """Rows from bytes, nothing in those that are None; what is not fresh is not known."""
        blank = bytes(8 * self.width)
        rows = np.frombuffer(bytearray().join(each or blank for each in packed), np.int64)
        rows = rows.reshape(len(packed), self.width)
        expiries = self.expiries(rows)
        expiries[np.abs(expiries) <= now] = 0
        return rows

    def merge(self, rows: Rows, others: Rows, cells: Cells) -> None:
        """Take the values and expiries of these cells over into rows."""
        self.expiries(rows)[cells] = self.expiries(others)[cells]
        into, source = self.records(rows), self.records(others)
        for at in np.flatnonzero(cells.any(axis=0)):
            name, which = self.names[at], cells[:, at]
            into[name][which] = source[name][which]

    def read(self, source: Any, places: Sequence[int], count: int, now: int, what: str) -> Rows:
        """Rows of what a loader or a caller gives for these features; fresh from now on.

        Raises:
            TypeError, ValueError: a column is missing, too short, or of another kind; it is named.
        """
        if isinstance(source, np.ndarray) and source.dtype.names is not None:
            there: Any = source.dtype.names
        elif isinstance(source, Mapping):
            there = source
        else:
            kind = type(source).__name__
            raise TypeError(
                f"{what} must be a mapping of columns or a structured array, not {kind}"
            )
        rows = np.zeros((count, self.width), np.int64)
        records, expiries = self.records(rows), self.expiries(rows)
        until = np.minimum(now + self.lifetimes, FOREVER)
        for at in places:
            feature = self.features[at]
            if feature.name not in there:
                raise ValueError(f"{what} must have a column {feature.name!r}")
            name = f"column {feature.name!r} of {what}"
            records[feature.name], absent = column_of(source[feature.name], feature, count, name)
            expiries[:, at] = until[at]
            if absent is not None:
                expiries[absent, at] = 0
        return rows


def _feature(given: Any) -> Feature:
    if isinstance(given, Feature):
        return given
    if not isinstance(given, (tuple, list)):
        kind = type(given).__name__
        raise TypeError(f"features must each be a Feature or a tuple of its arguments, not {kind}")
    return Feature(*given)


def _lifetime(feature: Feature, policies: Mapping[str, float]) -> int:
    ttl = feature.ttl
    if isinstance(ttl, str):
        if ttl not in policies:
            raise ValueError(f"ttl of {feature.name!r} must be one of {[*policies]}, not {ttl!r}")
        ttl = policies[ttl]
    return milliseconds(ttl)


def milliseconds(ttl: float) -> int:
    """A lifetime in seconds as one of at least a millisecond."""
    return FOREVER if ttl > 1e12 else max(1, round(ttl * 1000))


def column_of(
    values: Any, feature: Feature, count: int, what: str
) -> tuple[npt.NDArray[Any], Cells | None]:
    """Values as an array of a feature's dtype, and which there are not; None: there are all.

    There is no value where an item is None, MISSING or masked.
    """
    kind = feature.dtype
    absent: Cells | None = None
    if isinstance(values, np.ma.MaskedArray) and values.dtype != object:
        hidden = np.ma.getmaskarray(values)
        absent = np.asarray(hidden.any(axis=tuple(range(1, hidden.ndim))))
        values = values.data.copy()
        values[hidden] = np.zeros((), values.dtype)
    elif not isinstance(values, np.ndarray) or values.dtype == object:
        if isinstance(values, (str, bytes)) or not hasattr(type(values), "__iter__"):
            raise TypeError(f"{what} must have an item for each entity, not {values!r:.80}")
        values = list(values)
        if not values and count == 0:  # which tells nothing of its dtype
            return np.empty((0, *kind.shape), kind.base), None
        gone = [value is None or value is MISSING or value is np.ma.masked for value in values]
        if any(gone):
            absent, blank = np.array(gone, np.bool_), np.zeros(kind.shape, kind.base)
            values = [blank if none else value for value, none in zip(values, gone, strict=True)]
    try:
        array = np.asarray(values)
    except ValueError as error:  # such as vectors of several lengths
        raise ValueError(f"{what} must have shape {(count, *kind.shape)}: {error}") from None
    if array.shape != (count, *kind.shape):
        raise ValueError(f"{what} must have shape {(count, *kind.shape)}, not {array.shape}")
    return _converted(array, kind.base, what), absent


def _converted(array: npt.NDArray[Any], base: np.dtype[Any], what: str) -> npt.NDArray[Any]:
    """The same values in another dtype; an error if they do not fit."""
    given = array.dtype
    if given == base:
        return array
    if base.kind in "biu":
        takes = given.kind in "biu"
    elif base.kind in "SU":
        takes = given.kind == base.kind
    elif base.type is np.void:
        takes = given.kind == "S" and given.itemsize <= base.itemsize
    else:
        takes = np.can_cast(given, base, "same_kind")
    if not takes:
        raise TypeError(f"{what} must be of dtype {base}, not {given}")
    with np.errstate(all="ignore"):
        cast = array.astype(base)
        if base.kind in "biuSU":
            fits = cast == array
        elif base.kind in "mM" and given.kind == base.kind and np.can_cast(given, base):
            fits = np.isnat(array) | (cast.astype(given) == array)  # a finer unit reaches less far
        elif base.kind in "mM" or base.type is np.void:
            return cast
        else:
            fits = np.isfinite(cast) | ~np.isfinite(array)
    if not fits.all():
        raise ValueError(f"{what} must fit into {base}, as {array[~fits].flat[0]!r} does not")
    return cast
