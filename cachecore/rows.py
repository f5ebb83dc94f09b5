"""What a table of rows is made for, and what may be put into it. Errors name the argument."""

from __future__ import annotations

import hashlib
import math
import operator
import os
from typing import Any, NamedTuple

import numpy as np

from cachecore.settings import positive_int, seconds

MOST_ROWS = 2**32 - 1
TTL_UNIT = 0.01  # seconds
_MOST_TTL = 2**31 - 1  # units
_KIND_BYTES = 40


class Shape(NamedTuple):
    """The settings of a table, checked."""

    dim: int | None
    dtype: np.dtype[Any]
    capacity: int
    ttl_units: int
    """0: rows live until they are evicted."""
    checksums: bool
    coded: bool
    version: bytes
    """A digest of 16 bytes."""

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return (self.dim or 1) * self.dtype.itemsize

    @property
    def kind(self) -> bytes:
        """The dtype and dim as 40 bytes: as text, or as a digest where that is longer."""
        text = fields_of(self.dtype) if self.dtype.names else str(self.dtype)
        if len(text) > 20:
            text = "fields " + hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
        if self.dim is not None:
            text = f"{text} {self.dim}"
        return text.encode().ljust(_KIND_BYTES, b"\0")

    @property
    def ttl(self) -> float | None:
        """Seconds."""
        return self.ttl_units * TTL_UNIT or None


def fields_of(kind: np.dtype[Any]) -> str:
    """A structured dtype as text."""
    try:
        return str(kind.descr)
    except ValueError:  # fields overlap, or are not in the order of their places
        return str(kind)


def item_type(dtype: Any) -> np.dtype[Any]:
    """A fixed-width dtype of plain items; "bfloat16" and its like come from ml_dtypes."""
    try:
        kind: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        kind = _extension_type(dtype)
    if kind.hasobject:
        raise TypeError(f"dtype must not hold objects, as {kind} does")
    if kind.itemsize == 0 or kind.subdtype is not None:
        raise ValueError(f"dtype must be of one item of fixed width, not {kind!r}")
    return kind


def _extension_type(name: Any) -> np.dtype[Any]:
    problem = f"dtype must be a NumPy dtype, not {name!r}"
    if not isinstance(name, str):
        raise TypeError(problem)
    try:
        import ml_dtypes
    except ImportError:
        raise TypeError(f"{problem}, unless ml_dtypes is installed and has it") from None
    if not hasattr(ml_dtypes, name):
        raise TypeError(problem)
    kind: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return kind


def _ttl_units(ttl: Any) -> int:
    lifetime = math.inf if ttl is None else seconds(ttl, "ttl")
    if math.isinf(lifetime):
        return 0
    units = max(1, math.floor(lifetime / TTL_UNIT + 1e-6))
    if units > _MOST_TTL:
        raise ValueError(f"ttl must be at most {_MOST_TTL // 100} seconds, not {ttl!r}")
    return units


def shape_of(
    dim: Any, dtype: Any, capacity: Any, ttl: Any, version: Any, checksums: Any, codec: Any
) -> Shape:
    """The settings of a table."""
    kind = item_type(dtype)
    if dim is None:
        if kind.names is None:
            raise ValueError(f"dim must be an int, unless dtype is structured, as {kind} is not")
    else:
        dim = positive_int(dim, "dim")
    capacity = positive_int(capacity, "capacity")
    if capacity > MOST_ROWS:
        raise ValueError(f"capacity must be at most {MOST_ROWS} rows, not {capacity}")
    if (dim or 1) * kind.itemsize > 2**40:
        raise ValueError(f"dim must leave a row below 2**40 bytes, not {dim} of {kind}")
    if not isinstance(checksums, bool):
        raise TypeError(f"checksums must be a bool, not {type(checksums).__name__}")
    if not isinstance(version, str):
        raise TypeError(f"version must be a str, not {type(version).__name__}")
    if codec not in (None, "int8"):
        raise ValueError(f'codec must be None or "int8", not {codec!r}')
    if codec == "int8" and (kind != np.float32 or dim is None):
        raise ValueError(f'dtype must be float32 with codec="int8", not {kind}')
    digest = hashlib.blake2b(version.encode(), digest_size=16).digest()
    return Shape(dim, kind, capacity, _ttl_units(ttl), checksums, codec == "int8", digest)


def path_of(path: Any) -> bytes:
    """A path as the system takes it."""
    try:
        name = os.fsencode(path)
    except TypeError:
        kind = type(path).__name__
        raise TypeError(f"path must be a str, bytes or path object, not {kind}") from None
    if not name or b"\0" in name:
        raise ValueError(f"path must name a file, not {path!r}")
    return name


def ids_of(ids: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """`ids` as a contiguous array of int64."""
    try:
        array = np.asarray(ids)
    except ValueError as error:  # such as lists of several lengths
        raise ValueError(f"ids must be integers in one dimension: {error}") from None
    if array.ndim != 1:
        raise ValueError(f"ids must have one dimension, not shape {array.shape}")
    if array.size == 0 and not isinstance(ids, np.ndarray):
        return np.empty(0, np.int64)
    if array.dtype == object:
        return _ids_from_objects(array)
    if array.dtype.kind not in "iu":
        raise TypeError(f"ids must be integers, not {array.dtype}")
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and np.any(array > 2**63 - 1):
        raise ValueError("ids must be below 2**63")
    return np.ascontiguousarray(array, dtype=np.int64)


def _ids_from_objects(array: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Such as integers too large for any dtype, or of a kind that NumPy does not know."""
    try:
        numbers = [operator.index(number) for number in array]
    except TypeError as error:
        raise TypeError(f"ids must be integers: {error}") from None
    if any(isinstance(number, bool) for number in array):
        raise TypeError("ids must be integers, not bool")
    if not all(-(2**63) <= number < 2**63 for number in numbers):
        raise ValueError("ids must be int64: -2**63 ... 2**63 - 1")
    return np.array(numbers, dtype=np.int64)


def id_of(number: Any) -> int:
    """One id."""
    try:
        return int(ids_of([number])[0])
    except (TypeError, ValueError) as error:
        raise type(error)(f"id must be one int64, not {number!r}") from None


def rows_of(rows: Any, shape: Shape, count: int, name: str = "rows") -> np.ndarray[Any, Any]:
    """`count` rows as a contiguous array of the table's dtype; what is no array is converted."""
    array = rows if isinstance(rows, np.ndarray) else _array_from(rows, shape, name)
    if array.dtype != shape.dtype:
        raise TypeError(f"{name} must be of dtype {shape.dtype}, not {array.dtype}")
    expected = (count,) if shape.dim is None else (count, shape.dim)
    if array.shape != expected:
        raise ValueError(f"{name} must have shape {expected}, not {array.shape}")
    if shape.coded and not np.isfinite(array).all():
        raise ValueError(f'{name} must be finite with codec="int8"')
    return np.require(array, requirements=("C", "A"))


def _array_from(rows: Any, shape: Shape, name: str) -> np.ndarray[Any, Any]:
    """Something else than an array: what knows its own dtype keeps it, numbers in lists do not."""
    if hasattr(rows, "__array__") or hasattr(rows, "dtype") or isinstance(rows, memoryview):
        return np.asarray(rows)
    try:
        array = np.asarray(rows, dtype=shape.dtype if shape.dtype.names else None)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of {shape.dtype}: {error}") from None
    if array.dtype == shape.dtype:
        return array
    plain = array.dtype.kind in "iuf" and shape.dtype.kind in "iufcV"
    fits = shape.dtype.kind not in "iu" or array.dtype.kind in "iu"
    if array.size and not (plain and fits):
        raise TypeError(f"{name} must be of dtype {shape.dtype}, not {array.dtype}")
    converted = array.astype(shape.dtype)
    if shape.dtype.kind in "iu" and np.any(converted != array):
        raise ValueError(f"{name} must be within {shape.dtype}")
    return converted


def out_of(out: Any, shape: Shape, count: int) -> np.ndarray[Any, Any]:
    """A writable buffer of the caller's as `count` rows over the same memory."""
    expected = (count,) if shape.dim is None else (count, shape.dim)
    if isinstance(out, np.ndarray):
        if out.dtype != shape.dtype:
            raise TypeError(f"out must be of dtype {shape.dtype}, not {out.dtype}")
        if out.shape != expected:
            raise ValueError(f"out must have shape {expected}, not {out.shape}")
        if not out.flags.c_contiguous or not out.flags.writeable:
            raise ValueError("out must be C-contiguous and writable")
        return out
    try:
        view = memoryview(out)
    except TypeError:
        raise TypeError(f"out must be a writable buffer, not {type(out).__name__}") from None
    if view.readonly or not view.c_contiguous:
        raise ValueError("out must be C-contiguous and writable")
    if view.nbytes != count * shape.width:
        raise ValueError(f"out must be of {count * shape.width} bytes, not {view.nbytes}")
    if count == 0:
        return np.empty(expected, shape.dtype)
    return np.frombuffer(view.cast("B"), dtype=shape.dtype).reshape(expected)


def described(capacity: int, ttl_units: int, coded: bool, sums: bool, kind: bytes) -> str:
    """What a file was made for, in words."""
    ttl = f"{ttl_units * TTL_UNIT:g}" if ttl_units else "None"
    words = kind.rstrip(b"\0").decode("ascii", "replace")
    codec = "'int8'" if coded else "None"
    return f"rows of {words}, capacity={capacity}, ttl={ttl}, codec={codec}, checksums={bool(sums)}"
