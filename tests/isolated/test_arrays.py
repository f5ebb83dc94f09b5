"""Arrays that turn on the cache: memory of nobody, methods that lie, an `out` that changes."""

from __future__ import annotations

import gc
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cachecore import Cache
from support import Key, check

Array = npt.NDArray[Any]


def test_memory_that_no_object_owns_is_copied() -> None:
    """A buffered reader hands its memory out as a memoryview that is of no object."""
    cache: Cache[str, Array] = Cache(8)

    class Source(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, memory: Any) -> int:
            array = np.frombuffer(memory, np.uint8)
            array[:] = 7
            cache["rows"], cache["row"] = array, array[3:]
            array[:] = 9
            return len(array)

    assert io.BufferedReader(Source(), 64).read(64) == b"\t" * 64
    gc.collect()
    assert cache["rows"].tolist() == [7] * 64
    assert cache["row"].tolist() == [7] * 61


class Lying(np.ndarray[Any, Any]):
    """An array whose copy is whatever `lie` says."""

    lie: Any = None

    def copy(self, order: Any = "C") -> Any:
        return self.lie


@pytest.mark.parametrize("lie", ["short", "another dtype", "strided", "number", "nothing", "list"])
def test_gather_of_arrays_whose_copies_are_none(lie: str) -> None:
    lies: dict[str, object] = {
        "short": np.zeros(1),
        "another dtype": np.zeros(90_000, np.int8),
        "strided": np.zeros(180_000)[::2],
        "number": 5,
        "nothing": None,
        "list": [0.0] * 90_000,
    }
    Lying.lie = lies[lie]
    expected = np.arange(90_000.0).reshape(300, 300)
    cache: Cache[str, Array] = Cache(8)
    cache["k"] = np.asfortranarray(expected).view(Lying)  # gather must bring it in order
    out = np.empty((2, 300, 300))
    for _ in range(20):
        assert cache.gather(["k", "k"], out).all()
        assert (out == expected).all()
    check(cache)


CHANGES: dict[str, Callable[[Array], object]] = {
    "shorter": lambda out: out.resize((1, 1), refcheck=False),
    "longer": lambda out: out.resize((20, 50_000), refcheck=False),
    "read-only": lambda out: out.setflags(write=False),
    "of another dtype": lambda out: setattr(out, "dtype", np.int64),
}


@pytest.mark.parametrize("change", CHANGES)
def test_out_that_changes_while_keys_are_looked_up(change: str) -> None:
    cache: Cache[Key, Array] = Cache(8)
    out = np.ones((1, 50_000))
    cache[Key("k", on_eq=lambda _: CHANGES[change](out))] = np.full(50_000, 5.0)
    with pytest.raises(RuntimeError, match="out changed"):
        cache.gather([Key("k")], out)
    assert not (out.view(np.float64) == 5).any()
    check(cache)


class Meddling(np.ndarray[Any, Any]):
    """An array whose copies make another array short."""

    victim: Any = None

    def __array_finalize__(self, source: object) -> None:
        if Meddling.victim is not None:
            Meddling.victim.resize((1,), refcheck=False)
            Meddling.victim = None


def test_a_value_that_another_values_copy_changes() -> None:
    cache: Cache[str, Array] = Cache(8, copy_arrays=False)
    cache["plain"] = plain = np.arange(1_000_000.0)
    cache["meddling"] = np.asfortranarray(np.ones((1000, 1000))).view(Meddling)
    out = np.full((2, 1_000_000), 5.0)
    Meddling.victim = plain
    with pytest.raises(RuntimeError, match="value changed"):
        cache.gather(["plain", "meddling"], out)
    assert (out == 5).all()
