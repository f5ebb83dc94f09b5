"""Snapshots of arrays of every kind: equal to their source, aligned, read-only for good."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from support import MakeCache

Array = npt.NDArray[Any]


def structured() -> Array:
    array = np.zeros(5, [("id", ">i4"), ("score", "f8"), ("name", "S3")])
    array["id"], array["score"], array["name"] = range(5), np.linspace(0, 1, 5), b"xyz"
    return array


class Labelled(np.ndarray[Any, Any]):
    """A subclass with an attribute, as the NumPy manual tells to write one."""

    label = "none"

    def __array_finalize__(self, source: object) -> None:
        self.label = getattr(source, "label", "none")


def labelled() -> Array:
    array = np.arange(4.0).view(Labelled)
    array.label = "mine"
    return array


class Texts(np.ndarray[Any, Any]):
    """Cannot be seen as anything but text, as NumPy's own character arrays, now deprecated."""

    def __array_finalize__(self, source: object) -> None:
        if self.dtype.char not in "USb?":  # b: unpickling starts from it; ?: comparing gives it
            raise ValueError("text only")


SHAPES: dict[str, Callable[[], Array]] = {
    "1-d": lambda: np.arange(4096, dtype=np.float32),
    "0-d": lambda: np.array(3.5),
    "empty": lambda: np.empty(0, np.float32),
    "empty 3-d": lambda: np.empty((2, 0, 4)),
    "2-d": lambda: np.arange(12.0).reshape(3, 4),
    "strided": lambda: np.arange(100)[::7],
    "negative strides": lambda: np.arange(12).reshape(3, 4)[::-1, ::-1],
    "broadcast": lambda: np.broadcast_to(np.arange(3), (4, 3)),
    "transposed 3-d": lambda: np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
    "Fortran": lambda: np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "big-endian": lambda: np.arange(5, dtype=">i4"),
    "structured": structured,
    "record": lambda: structured().view(np.recarray),
    "part of a record": lambda: structured()["score"],
    "sub-array dtype": lambda: np.zeros(3, [("v", "f4", (2, 2))]),
    "datetimes": lambda: np.arange("2020-01", "2020-05", dtype="M8[M]"),
    "strings": lambda: np.array(["a", "bcd"]),
    "bool": lambda: np.array([True, False]),
    "complex": lambda: np.array([1 + 2j]),
    "half": lambda: np.arange(3, dtype=np.float16),
    "long double": lambda: np.arange(3, dtype=np.longdouble),
    "matrix": lambda: np.asmatrix([[1, 2], [3, 4]]),
    "text only": lambda: np.array(["a", "bcd"]).view(Texts),
    "unaligned": lambda: np.frombuffer(bytearray(33), np.uint8)[1:].view(np.float64),
    "labelled": labelled,
    "32 dimensions": lambda: np.zeros((1,) * 32),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_snapshot_equals_its_source(make: MakeCache, kind: str) -> None:
    cache = make(8)
    array = SHAPES[kind]()
    cache["k"] = array
    cached = cache["k"]
    assert cache["k"] is cached
    assert type(cached) is type(array)
    assert (cached.dtype, cached.shape) == (array.dtype, array.shape)
    assert cached.tobytes() == array.tobytes()
    assert cached.dtype.isnative == array.dtype.isnative
    assert cached.dtype.names == array.dtype.names
    assert getattr(cached, "label", None) == getattr(array, "label", None)
    assert not np.shares_memory(cached, array)
    assert cached.ctypes.data % 64 == 0
    assert cached.flags.aligned
    assert cached.flags.c_contiguous or cached.flags.f_contiguous
    if array.flags.f_contiguous:
        assert cached.flags.f_contiguous
    pickled = pickle.loads(pickle.dumps(cached))
    assert (pickled == array).all()
    assert pickled.flags.writeable


@pytest.mark.parametrize("kind", SHAPES)
def test_results_are_read_only_for_good(make: MakeCache, kind: str) -> None:
    cache = make(8)
    cache["k"] = SHAPES[kind]()
    cached = cache["k"]
    results = [cached, cached.view(), cached[...], cached.T, cached.base]
    for result in results:
        if not isinstance(result, np.ndarray):
            continue
        assert not result.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            result.flags.writeable = True
        with pytest.raises(ValueError, match="WRITEABLE"):
            result.setflags(write=True)
        with pytest.raises(ValueError, match="read-only"):
            result[...] = 0
    if cached.dtype.kind not in "mM":  # dates have no buffer format
        assert memoryview(cached).readonly
    assert cached.base is not None
    if not isinstance(cached.base, np.ndarray):
        assert memoryview(cached.base).readonly


def masked() -> Any:
    return np.ma.masked_array(np.arange(6.0), mask=[False, True] * 3)


def test_masked_arrays_keep_their_mask(make: MakeCache) -> None:
    cache = make(8)
    source = masked()
    cache["k"] = source
    cached = cache["k"]
    assert type(cached) is type(source)
    assert (np.ma.getmaskarray(cached) == np.ma.getmaskarray(source)).all()
    assert cached.sum() == source.sum()
    source[0] = 99
    source.mask[:] = True
    source._mask[:] = True
    assert not cached._mask.flags.writeable
    assert (np.ma.getmaskarray(cached) == np.ma.getmaskarray(masked())).all()
    assert cached.sum() == masked().sum()


class Grasping(np.ndarray[Any, Any]):
    """A subclass that tries to keep a writable view of every array that is made of it."""

    views: ClassVar[list[Array]] = []

    def __array_finalize__(self, source: object) -> None:
        self.views.append(self.view(np.ndarray))


def test_a_subclass_never_sees_its_snapshot_writable(make: MakeCache) -> None:
    cache = make(8)
    array = np.arange(6.0).view(Grasping)
    Grasping.views.clear()
    cache["k"] = array
    cached = cache["k"]
    assert type(cached) is Grasping
    assert any(np.shares_memory(view, cached) for view in Grasping.views)
    for view in Grasping.views:
        if np.shares_memory(view, cached):
            with pytest.raises(ValueError, match="WRITEABLE"):
                view.flags.writeable = True
