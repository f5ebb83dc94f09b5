"""Arguments that make no sense: an error that names the argument, a table that did not change."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachecore import VectorCache
from vectors.helpers import DIM, MakeTable, check_counts, rows_for

NO_INT: list[Any] = [1.0, True, "4", b"4", [], math.nan, np.float64(4), 1j]
CONSTRUCTION: dict[str, list[Any]] = {
    "dim": [None, 0, -1, 2**63, 2**64, 2**40, *NO_INT],
    "dtype": [
        "O", object, "U", "S0", "no such", "import", 5, [("a", "O")], [], "V0",
        np.dtype((np.int8, 3)),
    ],
    "capacity": [None, 0, -1, 2**32, 2**63, 2**64, 10**30, *NO_INT],
    "ttl": [0, -1, math.nan, -math.inf, 1e9, 2**64, True, "5", [], 1j],
    "version": [None, 1, b"1", []],
    "checksums": [None, 0, 1, "yes", np.True_],
    "codec": ["", "int4", "INT8", 8, b"int8", []],
    "path": [5, 5.0, [], "", b"", "a\0b", object()],
}  # fmt: skip


def label(value: object) -> str:
    return f"{type(value).__name__} {value!r:.20}" if type(value) is not object else "object"


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name} {label(value)}")
        for name, values in table.items()
        for value in values
    ]


@pytest.mark.parametrize(("name", "value"), cases(CONSTRUCTION))
def test_the_constructor_names_the_argument(name: str, value: Any) -> None:
    arguments = {"dim": 4, "capacity": 4, name: value}
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
        VectorCache(**arguments)


@pytest.mark.parametrize("settings", [{"dtype": "float64"}, {"dim": None, "dtype": [("a", "f4")]}])
def test_int8_is_for_float32(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\bdtype\b.*int8"):
        VectorCache(**{"dim": 4, "capacity": 4, "codec": "int8", **settings})


def test_a_table_beyond_memory(shm: Path) -> None:
    with pytest.raises(MemoryError, match="4294967295 rows"):
        VectorCache(2**20, capacity=2**32 - 1)
    with pytest.raises(OSError, match="huge"):
        VectorCache(2**20, capacity=2**32 - 1, path=shm / "huge")
    assert list(shm.iterdir()) == []


READ_ONLY = np.zeros((2, DIM), np.float32)
READ_ONLY.flags.writeable = False

IDS: list[Any] = [
    None, 5, "ab", b"ab", 1.5, [1.0, 2.0], [math.nan, 1], ["1", "2"], [True, False], [None, 1],
    [2**63, 1], [-(2**63) - 1, 1], [10**30, 1], [[1, 2]], [[1, 2], [3]], {1, 2}, {1: 2}, object(),
    np.zeros(2), np.zeros((1, 2), int), np.zeros((), int), np.zeros(2, bool), np.zeros(0),
    np.array([1, 2**63], np.uint64), np.array([1, math.nan], object), np.zeros(2, "M8[s]"), [1, 2j],
    np.array([1, True], object),
]  # fmt: skip
ROWS: list[Any] = [
    None, 5, "ab", [], [1, 2], {}, object(), [[1] * DIM], [[1] * DIM] * 3, [[1] * (DIM + 1)] * 2,
    [["a"] * DIM] * 2, [[None] * DIM] * 2, [[1] * DIM, [1]], np.zeros((2, DIM)),
    b"\0" * 2 * DIM * 4,
    np.zeros((2, DIM), "f2"), np.zeros((2, DIM), "i4"), np.zeros((2, DIM), ">f4"),
    np.zeros((DIM, 2), "f4"), np.zeros(2 * DIM, "f4"), np.zeros((2, DIM, 1), "f4"),
    np.zeros((2, DIM), bool), np.zeros((2, DIM), "c8"),
]  # fmt: skip
OUTS: list[Any] = [
    5, "ab", [], object(), bytes(2 * DIM * 4), bytearray(2 * DIM * 4 - 1),
    bytearray(2 * DIM * 4 + 1),
    READ_ONLY, READ_ONLY.data, np.zeros((2, DIM)), np.zeros((2, DIM), "i4"),
    np.zeros((2, DIM), ">f4"), np.zeros((3, DIM), "f4"), np.zeros(2 * DIM, "f4"),
    np.zeros((2, 2 * DIM), "f4")[:, ::2], np.zeros((4, DIM), "f4")[::2],
    np.zeros((2, DIM), "f4", order="F"), np.zeros((2, DIM), "f4")[::-1],
    memoryview(bytearray(4 * DIM * 4))[::2],
]  # fmt: skip
NO_NUMBERS: list[Any] = [0, -1, 2**63, None, *NO_INT]

ACTS: dict[str, tuple[Callable[[VectorCache, Any], object], str, list[Any]]] = {
    "gather": (lambda t, x: t.gather(x), "ids", IDS),
    "put": (lambda t, x: t.put(x, rows_for([1, 2])), "ids", IDS),
    "find": (lambda t, x: t.find(x), "ids", IDS),
    "delete": (lambda t, x: t.delete(x), "ids", IDS),
    "get_or_load": (lambda t, x: t.get_or_load(x, rows_for), "ids", IDS),
    "load": (lambda t, x: t.load(x, rows_for([1, 2])), "ids", IDS),
    "view": (
        lambda t, x: t.view(x), r"ids?",
        [None, "1", 1.0, True, [1], 2**63, -(2**63) - 1, 10**30, math.nan, np.zeros(1, int)],
    ),
    "put rows": (lambda t, x: t.put([1, 2], x), "rows", ROWS),
    "load rows": (lambda t, x: t.load([1, 2], x), "rows", ROWS),
    "loaded rows": (lambda t, x: t.get_or_load([98, 99], lambda _: x), "loader", ROWS),
    "out": (lambda t, x: t.gather([1, 2], out=x), "out", OUTS),
    "threads": (lambda t, x: t.gather([1, 2], threads=x), "threads", NO_NUMBERS),
    "load threads": (
        lambda t, x: t.get_or_load([1, 99], rows_for, threads=x), "threads", NO_NUMBERS,
    ),
    "loader": (lambda t, x: t.get_or_load([1, 2], x), "loader", [None, 5, "len"]),
    "progress": (lambda t, x: t.load([1], rows_for([1]), progress=x), "progress", [5, "bar", True]),
}  # fmt: skip


@pytest.fixture(scope="module")
def table() -> VectorCache:
    table = VectorCache(DIM, capacity=10)
    table.put([1, 2, 3], rows_for([1, 2, 3], 4))
    return table


def state(table: VectorCache) -> tuple[Any, ...]:
    return table.gather([1, 2, 3])[0].tobytes(), len(table), table.stats().inserts, table.nbytes


@pytest.mark.parametrize(
    ("act", "value"), cases({name: values for name, (_, _, values) in ACTS.items()})
)
def test_the_error_names_the_argument_and_nothing_changes(
    table: VectorCache, act: str, value: Any
) -> None:
    do, name, _ = ACTS[act]
    before = state(table)
    memory = value.copy() if isinstance(value, np.ndarray) else None
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
        do(table, value)
    assert state(table) == before
    if memory is not None:
        assert memory.tobytes() == value.tobytes()
    check_counts(table)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_numbers_are_not_cut_to_fit(make: MakeTable, dtype: str) -> None:
    table = make(2, dtype, capacity=4)
    for rows in ([[1, 2**40]], [[1, -(2**40)]], [[1, 1.5]]):
        with pytest.raises((ValueError, TypeError), match=r"\brows\b"):
            table.put([1], rows)
    assert len(table) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_int8_refuses_what_is_not_finite(make: MakeTable, bad: float) -> None:
    table = make(DIM, capacity=4, codec="int8")
    rows = rows_for([1, 2])
    rows[1, 3] = bad
    acts: list[Callable[[], object]] = [
        lambda: table.put([1, 2], rows),
        lambda: table.load([1, 2], rows),
        lambda: table.get_or_load([1, 2], lambda _: rows),
        lambda: table.put([1], [[bad] * DIM]),
    ]
    for act in acts:
        with pytest.raises(ValueError, match="finite"):
            act()
    assert len(table) == 0


def test_required_and_keyword_only_arguments() -> None:
    acts: list[Callable[[], object]] = [
        lambda: VectorCache(4),  # type: ignore[call-arg]
        lambda: VectorCache(4, "float32", 10),  # type: ignore[call-arg]
        lambda: VectorCache(capacity=4),  # type: ignore[call-arg]
        lambda: VectorCache(4, capacity=4, size=5),  # type: ignore[call-arg]
    ]
    for act in acts:
        with pytest.raises(TypeError):
            act()
