"""Arrays in a cache cannot change: who might try, what is not copied, how long a result lives."""

from __future__ import annotations

import gc
import mmap
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cachecore import Cache
from support import MakeCache

Array = npt.NDArray[Any]
SIZE = 4096


def fresh() -> Array:
    return np.arange(SIZE, dtype=np.float32)


def keep_reference() -> tuple[Array, Callable[[], object]]:
    array = fresh()
    return array, lambda: array.fill(-1)


def lift_the_flag() -> tuple[Array, Callable[[], object]]:
    array = fresh()
    array.flags.writeable = False

    def lift() -> None:
        array.flags.writeable = True
        array.fill(-1)

    return array, lift


def older_view() -> tuple[Array, Callable[[], object]]:
    array = fresh()
    view = array[:]
    array.flags.writeable = False
    return array, lambda: view.fill(-1)


def base_of_a_slice() -> tuple[Array, Callable[[], object]]:
    whole = np.tile(fresh(), (3, 1))
    part = whole[1]
    part.flags.writeable = False
    return part, lambda: whole.fill(-1)


def bytearray_below() -> tuple[Array, Callable[[], object]]:
    memory = bytearray(fresh().tobytes())
    array = np.frombuffer(memory, np.float32)
    return array, lambda: memory.__setitem__(slice(None), bytes(len(memory)))


def read_only_view_of_bytearray() -> tuple[Array, Callable[[], object]]:
    memory = bytearray(fresh().tobytes())
    array = np.frombuffer(memoryview(memory).toreadonly(), np.float32)
    return array, lambda: memory.__setitem__(slice(None), bytes(len(memory)))


def through_the_result() -> tuple[Array, Callable[[], object]]:
    array = fresh()
    return array, lambda: None


def setstate() -> tuple[Array, Callable[[], object]]:
    array = fresh()
    return array, lambda: array.byteswap(inplace=True)


WRITERS = [
    keep_reference, lift_the_flag, older_view, base_of_a_slice, bytearray_below,
    read_only_view_of_bytearray, through_the_result, setstate,
]  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
@pytest.mark.parametrize("way", ["setitem", "set_many", "setdefault", "get_or_set", "update"])
def test_nobody_can_change_a_cached_array(
    make: MakeCache, writer: Callable[[], tuple[Array, Callable[[], object]]], way: str
) -> None:
    cache = make(8)
    array, write = writer()
    if way == "setitem":
        cache["k"] = array
    elif way == "setdefault":
        assert cache.setdefault("k", array) is cache["k"]
    elif way == "get_or_set":
        assert cache.get_or_set("k", lambda: array) is cache["k"]
    else:
        getattr(cache, way)({"k": array})
    write()
    cached = cache["k"]
    assert cached is not array
    assert not np.shares_memory(cached, array)
    assert (cached == fresh()).all()


def writable_memory(tmp_path: Path) -> Array:
    memory = mmap.mmap(-1, SIZE * 4)
    return np.frombuffer(memory, np.float32)


def read_only_mapping_of_a_file(tmp_path: Path) -> Array:
    path = tmp_path / "rows.bin"
    path.write_bytes(fresh().tobytes())
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.float32)


def memmap(mode: Any) -> Callable[[Path], Array]:
    def load(tmp_path: Path) -> Array:
        path = tmp_path / "rows.npy"
        np.save(path, fresh())
        loaded: Array = np.load(path, mmap_mode=mode)
        return loaded

    load.__name__ = f"memmap_{mode}"
    return load


def of_bytes(tmp_path: Path) -> Array:
    return np.frombuffer(fresh().tobytes(), np.float32)


def slice_of_bytes(tmp_path: Path) -> Array:
    return np.frombuffer(fresh().tobytes(), np.float32)[10:20]


def memoryview_of_bytes(tmp_path: Path) -> Array:
    return np.frombuffer(memoryview(fresh().tobytes())[4:], np.float32)


def slice_of_memmap(tmp_path: Path) -> Array:
    return memmap("r")(tmp_path)[7:]


def cached_elsewhere(tmp_path: Path) -> Array:
    cache: Cache[str, Array] = Cache(1)
    cache["k"] = fresh()
    return cache["k"]


def slice_of_cached(tmp_path: Path) -> Array:
    return cached_elsewhere(tmp_path)[5:9]


def subclass_of_bytes(tmp_path: Path) -> Array:
    class Blob(bytes):
        pass

    return np.frombuffer(Blob(fresh().tobytes()), np.float32)


@pytest.mark.parametrize(
    "source",
    [
        read_only_mapping_of_a_file, memmap("r"), of_bytes, slice_of_bytes, memoryview_of_bytes,
        slice_of_memmap, cached_elsewhere, slice_of_cached,
    ],
    ids=lambda source: source.__name__,
)  # fmt: skip
def test_memory_that_nobody_can_write_is_not_copied(
    make: MakeCache, tmp_path: Path, source: Callable[[Path], Array]
) -> None:
    cache = make(8)
    array = source(tmp_path)
    cache["k"] = array
    assert cache["k"] is array
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


@pytest.mark.parametrize(
    "source",
    [writable_memory, memmap("r+"), memmap("c")],
    ids=lambda source: source.__name__,
)
def test_writable_mappings_are_copied(
    make: MakeCache, tmp_path: Path, source: Callable[[Path], Array]
) -> None:
    cache = make(8)
    array = source(tmp_path)
    expected = array.copy()
    cache["k"] = array
    array[:] = -1
    assert (np.asarray(cache["k"]) == np.asarray(expected)).all()


def strings_of_any_length() -> Array:
    return np.array(["a", "b" * 100], dtype=np.dtypes.StringDType())


@pytest.mark.parametrize(
    "make_value",
    [
        lambda: np.array([[1], "a", None], dtype=object),
        lambda: np.array([(object(), 1), (object(), 2)], [("a", object), ("b", int)]),
        lambda: np.zeros(2, [("a", [("b", object)])]),
        strings_of_any_length,
        lambda: bytearray(b"abc"),
        lambda: np.float64(3),
        lambda: [1, 2],
        lambda: memoryview(bytearray(4)),
    ],
    ids=[
        "object array", "objects in fields", "objects within fields", "StringDType", "bytearray",
        "scalar", "list", "memoryview",
    ],
)  # fmt: skip
def test_other_values_go_by_reference(make: MakeCache, make_value: Callable[[], Any]) -> None:
    """What holds references cannot be copied byte by byte; an object array's items can change."""
    cache = make(8)
    value = make_value()
    cache["k"] = value
    assert cache["k"] is value
    if isinstance(value, np.ndarray):
        assert value.flags.writeable


def test_copy_arrays_false_adopts_any_array(make: MakeCache) -> None:
    cache = make(8, copy_arrays=False)
    array = fresh()
    cache["k"] = array
    assert cache["k"] is array
    assert array.flags.writeable
    array[0] = 42
    assert cache["k"][0] == 42
    assert cache.copy()["k"] is array


def test_a_row_does_not_keep_its_batch_alive(make: MakeCache) -> None:
    tracemalloc.start()
    try:
        cache = make(8)
        batch = np.ones((1000, 10_000), np.float32)  # 40 MB
        cache["row"] = batch[500]
        del batch
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000
    assert (cache["row"] == 1).all()


ENDS: dict[str, Callable[[Cache[Any, Any]], object]] = {
    "overwrite": lambda cache: cache.set("k", None),
    "delete": lambda cache: cache.delete("k"),
    "pop": lambda cache: cache.pop("k") is None,
    "clear": lambda cache: cache.clear(),
    "eviction": lambda cache: [cache.get_or_set(i // 20, object) for i in range(2000)],
    "resize": lambda cache: (cache.set("other", 1), cache.resize(1), cache.set("z", 1)),
}


@pytest.mark.parametrize("end", [*ENDS, "the cache is gone"])
@pytest.mark.parametrize("taken", ["array", "view", "slice", "memoryview", "get_many"])
def test_a_result_outlives_its_entry_and_its_memory_does_not_outlive_it(
    end: str, taken: str
) -> None:
    large = 1_000_000
    tracemalloc.start()
    try:
        cache: Cache[Any, Any] = Cache(4)
        cache["k"] = np.arange(large, dtype=np.float64)
        held: Any = {
            "array": lambda: cache["k"],
            "view": lambda: cache["k"].view(np.int64),
            "slice": lambda: cache["k"][3::7],
            "memoryview": lambda: memoryview(cache["k"]),
            "get_many": lambda: cache.get_many(["k"])[0],
        }[taken]()
        before = bytes(held)
        if end in ENDS:
            ENDS[end](cache)
            assert cache.get("k") is None
        else:
            del cache
        gc.collect()
        # What is allocated next would take the place of memory that was freed too early.
        noise = [np.full(large, -1.0) for _ in range(3)]
        assert bytes(held) == before
        assert tracemalloc.get_traced_memory()[0] > 8 * large
        del held, before, noise
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < large
    finally:
        tracemalloc.stop()


def test_the_snapshot_is_taken_before_user_code_can_run(make: MakeCache) -> None:
    """What getsizeof sees is the snapshot; it writes to the source, which then changes nothing."""
    array = fresh()
    sized: list[Array] = []

    def getsizeof(value: Array) -> int:
        array.fill(-1)
        sized.append(value)
        return value.nbytes

    cache = make(8, getsizeof=getsizeof)
    cache["k"] = array
    assert sized[0] is cache["k"]
    assert (cache["k"] == fresh()).all()


def test_a_buffer_cannot_be_resized_under_the_copy(make: MakeCache) -> None:
    memory = bytearray(fresh().tobytes())
    array = np.frombuffer(memory, np.float32)
    cache = make(8)
    cache["k"] = array
    with pytest.raises(BufferError):
        memory.clear()  # the caller's own array holds it; the cache's does not
    del array
    memory.clear()
    assert (cache["k"] == fresh()).all()
