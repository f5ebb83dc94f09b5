"""VectorCache as its users see it: what is put is gathered, of any dtype, by any kind of ids."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachecore import VectorCache
from vectors.helpers import DIM, MakeTable, rows_for

FEATURES = [("age", "<i4"), ("price", "<f8"), ("name", "S5")]
DTYPES: dict[str, tuple[int | None, Any]] = {
    "float16": (5, "float16"),
    "float32": (5, "float32"),
    "float64": (5, np.float64),
    "longdouble": (3, np.longdouble),
    "complex64": (3, "complex64"),
    "int8": (17, "int8"),
    "uint64": (1, np.dtype("uint64")),
    "bool": (7, bool),
    "big-endian": (3, ">f4"),
    "bytes": (2, "S3"),
    "datetime": (2, "M8[s]"),
    "record": (None, FEATURES),
    "records": (2, FEATURES),
    "aligned": (None, np.dtype(FEATURES, align=True)),
    "out of order": (
        None,
        {"names": ["a", "b"], "formats": ["i4", "f8"], "offsets": [8, 0], "itemsize": 16},
    ),
}


def some_rows(dim: int | None, dtype: Any, count: int) -> np.ndarray[Any, Any]:
    """Arbitrary bytes, but for bool, of which only two are values."""
    kind = np.dtype(dtype)
    raw = np.random.default_rng(3).integers(0, 2 if kind.kind == "b" else 256, 4096, np.uint8)
    flat = np.frombuffer(raw.tobytes()[: count * (dim or 1) * kind.itemsize], kind)
    return flat if dim is None else flat.reshape(count, dim)


@pytest.mark.parametrize("shared", [False, True], ids=["private", "file"])
@pytest.mark.parametrize("name", DTYPES)
def test_any_dtype(make: MakeTable, shm: Path, name: str, shared: bool) -> None:
    dim, dtype = DTYPES[name]
    table = make(dim, dtype, capacity=20, path=shm / "t" if shared else None, checksums=shared)
    rows = some_rows(dim, dtype, 10)
    table.put(range(10), rows)
    gathered, found = table.gather([3, 99, 0, 3])
    assert gathered.dtype == table.dtype == np.dtype(dtype)
    assert found.tolist() == [True, False, True, True]
    assert gathered[[0, 2, 3]].tobytes() == rows[[3, 0, 3]].tobytes()
    assert gathered[1].tobytes() == bytes(len(gathered[1].tobytes()))
    view = table.view(7)
    assert view is not None
    assert view.shape == rows.shape[1:]
    assert view.tobytes() == rows[7].tobytes()


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "int4"])
def test_dtypes_of_ml_dtypes(make: MakeTable, name: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rows = np.arange(6).reshape(2, 3).astype(getattr(ml_dtypes, name))
    table = make(3, name, capacity=4)
    table.put([1, 2], rows)
    gathered, found = table.gather([2, 1])
    assert found.all()
    assert gathered.dtype == rows.dtype
    assert gathered.tobytes() == rows[::-1].tobytes()
    assert table.dtype == make(3, rows.dtype, capacity=4).dtype


IDS: dict[str, Any] = {
    **{name: np.array([3, 1, 2, 1], name) for name in "i1 i2 i4 i8 u1 u2 u4 u8".split()},
    "big-endian": np.array([3, 1, 2, 1], ">i8"),
    "strided": np.array([3, 0, 1, 0, 2, 0, 1, 0])[::2],
    "backwards": np.array([1, 2, 1, 3])[::-1],
    "unaligned": np.frombuffer(b"x" + np.array([3, 1, 2, 1]).tobytes(), "V1")[1:].view(np.int64),
    "list": [3, 1, 2, 1],
    "tuple": (3, np.int8(1), np.int64(2), 1),
    "objects": np.array([3, 1, 2, 1], object),
    "matrix of one": np.ma.array([3, 1, 2, 1]),
}  # fmt: skip


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_any_integer_kind(make: MakeTable, kind: str) -> None:
    table = make(DIM, capacity=10)
    table.put(IDS[kind], rows_for([3, 1, 2, 1], 5))
    rows, found = table.gather(IDS[kind])
    assert found.all()
    np.testing.assert_array_equal(rows, rows_for([3, 1, 2, 1], 5))
    assert table.find(IDS[kind]).all()
    assert table.delete(IDS[kind]) == 3


def test_extreme_ids(make: MakeTable) -> None:
    ids = [-(2**63), 2**63 - 1, -1, 0, 1, 2**32, -(2**32), 2**31]
    table = make(2, "int64", capacity=8)
    table.put(ids, np.array([ids, ids]).T)
    for asked in (ids, np.array(ids), np.array(ids, object)):
        rows, found = table.gather(asked)
        assert found.all()
        assert rows[:, 0].tolist() == ids
    assert [view[0] for i in ids if (view := table.view(i)) is not None] == ids
    assert table.delete(ids) == 8


@pytest.mark.parametrize("ids", [[], (), np.empty(0, np.int64), np.empty(0, np.uint8), range(0)])
def test_no_ids(make: MakeTable, ids: Any) -> None:
    table = make(DIM, capacity=10)
    table.put(ids, np.empty((0, DIM), np.float32))
    rows, found = table.gather(ids)
    assert rows.shape == (0, DIM)
    assert rows.dtype == np.float32
    assert (found.shape, found.dtype) == ((0,), np.dtype(bool))
    assert table.gather(ids, out=bytearray())[0].shape == (0, DIM)
    assert table.find(ids).shape == (0,)
    assert table.delete(ids) == 0
    assert table.get_or_load(ids, lambda missing: 1 / 0).shape == (0, DIM)
    assert table.load(ids, np.empty((0, DIM), np.float32)) == 0


def test_of_an_id_that_comes_twice_the_last_row_stays(make: MakeTable) -> None:
    table = make(DIM, capacity=200_000)
    ids = np.arange(30_000) % 1000
    rows = np.repeat(np.arange(30_000, dtype=np.float32)[:, None], DIM, axis=1)
    table.put(ids, rows)
    np.testing.assert_array_equal(table.gather(ids)[0], rows[29_000 + ids])
    assert len(table) == table.stats().inserts == 1000


ROWS: dict[str, Any] = {
    "lists": [[1, 2], [3, 4]],
    "floats": [(1.0, 2.0), (3.0, 4.0)],
    "fortran": np.asfortranarray(np.array([[1, 2], [3, 4]], np.float32)),
    "strided": np.array([[1, 0, 2, 0], [3, 0, 4, 0]], np.float32)[:, ::2],
    "read-only": np.frombuffer(np.array([1, 2, 3, 4], np.float32).tobytes(), "f4").reshape(2, 2),
    "memoryview": np.array([[1, 2], [3, 4]], np.float32).data,
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_of_any_layout(make: MakeTable, kind: str) -> None:
    table = make(2, capacity=10)
    table.put([1, 2], ROWS[kind])
    assert table.gather([2, 1])[0].tolist() == [[3, 4], [1, 2]]


def test_rows_are_copied(make: MakeTable) -> None:
    table = make(DIM, capacity=10)
    rows = rows_for([1])
    table.put([1], rows)
    rows[:] = 0
    np.testing.assert_array_equal(table.gather([1])[0], rows_for([1]))


def outs() -> dict[str, Any]:
    size = 3 * DIM * 4
    return {
        "array": np.full((3, DIM), 7, np.float32),
        "bytearray": bytearray(b"\7" * size),
        "memoryview": memoryview(bytearray(b"\7" * size)),
        "of another format": np.full((DIM, 3), 7, np.int32).data,
        "unaligned": memoryview(bytearray(b"\7" * (size + 1)))[1:],
        "a slice": np.full((9, DIM), 7, np.float32)[3:6],
    }


@pytest.mark.parametrize("kind", outs())
def test_out(make: MakeTable, kind: str) -> None:
    table = make(DIM, capacity=10)
    table.put([1, 2], rows_for([1, 2]))
    out = outs()[kind]
    rows, found = table.gather([2, 5, 1], out=out)
    expected = rows_for([2, 5, 1])
    expected[1] = 0
    assert found.tolist() == [True, False, True]
    np.testing.assert_array_equal(rows, expected)
    assert bytes(memoryview(out).cast("B")) == expected.tobytes()
    if kind in {"array", "a slice"}:
        assert rows is out


def test_out_may_lie_over_the_ids(make: MakeTable) -> None:
    table = make(4, "int64", capacity=1000)
    expected = np.arange(4000).reshape(1000, 4) + 10_000
    table.put(range(1000), expected)
    memory = np.arange(4000)
    rows, found = table.gather(memory[:1000], out=memory.reshape(1000, 4))
    assert found.all()
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("threads", [1, 2, 7, 10**18])
def test_threads_share_a_gather(make: MakeTable, threads: int) -> None:
    table = make(256, capacity=3000, checksums=True)
    ids = np.arange(2000)
    table.put(ids, rows_for(ids, 1, 256))
    asked = np.random.default_rng(1).integers(0, 4000, 5000)
    rows, found = table.gather(asked, threads=threads)
    assert (found == (asked < 2000)).all()
    assert not rows[~found].any()
    np.testing.assert_array_equal(rows[found], rows_for(asked[found], 1, 256))


def test_attributes(make: MakeTable, shm: Path) -> None:
    table = make(DIM, "float16", capacity=7, ttl=1.234, version="a")
    assert (table.dim, table.dtype, table.capacity) == (DIM, np.dtype("f2"), 7)
    assert (table.ttl, table.version, table.path) == (1.23, "a", None)
    assert table.nbytes > 7 * DIM * 2
    assert make(DIM, capacity=1).ttl is None
    assert make(None, FEATURES, capacity=1).dim is None
    file = make(DIM, capacity=1, path=shm / "t")
    assert file.path == shm / "t"
    assert file.nbytes == (shm / "t").stat().st_size
    assert repr(table).startswith("<VectorCache(16, 'float16', capacity=7)")
    assert str(shm / "t") in repr(file)


def test_closed(make: MakeTable) -> None:
    with make(DIM, capacity=10) as table:
        assert not table.closed
    assert table.closed
    table.close()
    acts = [
        lambda: table.gather([1]),
        lambda: table.put([1], rows_for([1])),
        lambda: table.find([1]),
        lambda: table.delete([1]),
        lambda: table.view(1),
        lambda: table.load([1], rows_for([1])),
        lambda: table.get_or_load([1], rows_for),
        lambda: len(table),
        table.stats,
        table.clear,
        lambda: table.nbytes,
        table.__enter__,
    ]
    for act in acts:
        with pytest.raises(ValueError, match="closed"):
            act()
    assert "closed" in repr(table)
    assert table.capacity == 10


def test_subclass_weakref_and_collection() -> None:
    class Named(VectorCache):
        def __init__(self, name: str) -> None:
            super().__init__(DIM, capacity=10)
            self.name = name

    table = Named("n")
    table.put([1], rows_for([1]))
    assert table.name == "n"
    assert len(table) == 1
    with pytest.raises(RuntimeError):
        table.__init__("again")  # type: ignore[misc]
    gone = weakref.ref(table)
    del table
    gc.collect()
    assert gone() is None
    with pytest.raises(ValueError, match="closed"):
        len(VectorCache.__new__(VectorCache))
