"""Values become bytes and come back as they were, or are refused by name and place."""

from __future__ import annotations

import collections
import datetime
import enum
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nst

from cachecore import Cache
from cachecore.codecs import codec_of
from cachecore.dtypes import text_of
from envelopes import BEYOND, DEFAULT, LONG_INT, PLAIN, returned, same

STRUCTURE = np.dtype(
    [("id", ">i8"), ("at", "M8[us]"), ("v", "<f4", (2, 3)), ("s", "S5"), ("o", "i1", (1,))]
)
ALIGNED = np.dtype([("a", "i1"), ("b", "f8"), ("c", [("x", "?"), ("y", "<U2")])], align=True)
GAPS = np.dtype({"names": ["b", "a"], "formats": ["i4", "i2"], "offsets": [8, 1], "itemsize": 16})
DTYPES: list[Any] = [
    *"?bBhHiIqQefdgFDG", ">f8", ">i4", ">u2", "<c8", "M8[ns]", "M8[25s]", "M8", "m8[ms]", "S3",
    "U4", ">U4", "V7", STRUCTURE, ALIGNED, GAPS, np.dtype([]), ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn, ml_dtypes.int4, np.dtype([("a", ml_dtypes.bfloat16), ("b", "i4")]),
]  # fmt: skip


def filled(dtype: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """An array of small bytes, which are valid items of any type but text, which gets digits."""
    dtype = np.dtype(dtype)
    if dtype.kind in "SU":
        return np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
    size = int(np.prod(shape)) * dtype.itemsize
    items = np.frombuffer(bytes(at % 2 for at in range(size)), np.uint8)
    return np.ndarray(shape, dtype, items.copy() if size else None)


@pytest.mark.parametrize("value", PLAIN + BEYOND)
def test_plain_values(value: Any) -> None:
    assert same(value, returned(value))
    assert same([value, {"k": value}], returned([value, {"k": value}]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 4), (2, 0, 3), (2, 3, 4)], ids=str)
def test_arrays(dtype: Any, shape: tuple[int, ...]) -> None:
    array = filled(dtype, shape)
    for value in (array, np.asfortranarray(array), array.T, array[..., ::-1] if shape else array):
        for codec in (DEFAULT, codec_of("array")):
            back = returned(value, codec)
            assert same(value, back)
            assert back.flags.aligned
            assert not back.flags.writeable
        assert same({"k": [value]}, returned({"k": [value]}))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numpy_scalars(dtype: Any) -> None:
    value = filled(dtype, (3,))[1]
    if type(value) is not np.dtype(value.dtype.str).type and dtype in ("q", "Q"):
        with pytest.raises(TypeError, match=r"value is of type numpy\.u?longlong"):
            DEFAULT.encode(value)  # another type of the same size would come back
        return
    assert same(value, returned(value))
    assert same([value], returned([value]))


def test_odd_numpy_scalars() -> None:
    for value in (
        np.float64("nan"), np.float32(-0.0), np.datetime64("NaT", "s"), np.datetime64(5, "ns"),
        np.str_(""), np.bytes_(b""), np.str_("\ud800"), np.void(b"abc"), np.True_,
    ):  # fmt: skip
        assert same(value, returned(value))
    assert returned(np.True_) is np.True_
    for cut in (np.str_("a\0"), np.bytes_(b"\0")):  # NumPy's own arrays forget these zeros
        with pytest.raises(TypeError, match=r"value is of type numpy\.(str_|bytes_)"):
            DEFAULT.encode(cut)


def test_an_array_is_a_view_of_what_was_received() -> None:
    data = DEFAULT.encode(np.arange(1000.0))
    back = DEFAULT.decode(data)
    assert back.base is data
    with pytest.raises(ValueError, match="WRITEABLE"):
        back.flags.writeable = True
    cache: Cache[str, Any] = Cache(maxsize=4)
    cache["k"] = back
    assert cache["k"] is back


def test_many_dtypes_at_a_time() -> None:
    """More than are remembered."""
    arrays = [np.zeros(2, f"S{size}") for size in range(1, 600)] * 2
    assert all(same(array, returned(array)) for array in arrays)
    one, other = np.dtype([("a", "i4")]), np.dtype((np.record, [("a", "i4")]))
    assert one == other
    for _ in range(2):
        assert same(np.zeros(1, one), returned(np.zeros(1, one)))
        with pytest.raises(TypeError, match="dtype"):
            DEFAULT.encode(np.zeros(1, other))


def test_gaps_between_items_do_not_leak() -> None:
    """What lies between fields of scattered items is zeros, not what memory held before."""
    array = np.ones((50, 2), np.dtype([("a", "u1"), ("b", "f8")], align=True))
    for _ in range(20):
        del [b"\xff" * 900 for _ in range(100)][:]
        back = returned(array[:, 0])
        assert not back.view(np.uint8).reshape(50, 16)[:, 1:8].any()


# --- what is refused


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Color(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Point:
    x: int


REFUSED: list[Any] = [
    (1, 2), {1}, frozenset(), bytearray(b"a"), memoryview(b"a"), 1j, object(), Text("a"), Number(1),
    type("L", (list,), {})(), collections.OrderedDict(a=1), collections.defaultdict(int),
    datetime.datetime(2020, 1, 1), datetime.date(2020, 1, 1), datetime.timedelta(1), Color.RED,
    Level.LOW, Point(1), range(3), int, np.array([None]), np.array([("a", 1)], "O,i4"),
    np.matrix([1]), np.ma.masked_array([1]), np.recarray(1, [("a", "i4")]),
    np.zeros(1, np.dtype((np.record, [("a", "i4")]))), np.zeros(1, [(("title", "a"), "i4")]),
    np.array(["a"], np.dtypes.StringDType()), np.recarray(1, [("a", "i4")])[0],
    np.dtype("i4"), type("F", (np.float64,), {})(1.0), msgspec.Raw(b"\x01"), "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_what_would_come_back_as_something_else(value: Any) -> None:
    what = (
        "text with lone surrogates" if type(value) is str else f"of type .*{type(value).__name__}"
    )
    with pytest.raises(TypeError, match=rf"^value is {what}"):
        DEFAULT.encode(value)
    with pytest.raises(TypeError, match=rf"^value\[1\]\['k'\] is {what}"):
        DEFAULT.encode([0, {"j": LONG_INT, "k": value}])
    with pytest.raises(TypeError, match=r"^value\['k'\] is "):
        codec_of("msgpack").encode({"k": value})


@pytest.mark.parametrize("key", [1, None, b"k", Text("k"), (1,), np.str_("k"), "\ud800"], ids=repr)
def test_keys_of_dicts_are_str(key: Any) -> None:
    with pytest.raises(TypeError, match=r"^value\[0\] is a dict with a key "):
        DEFAULT.encode([{key: 1}])


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"k": value}])
def test_depth_is_bounded(wrap: Callable[[Any], Any]) -> None:
    deepest = nested(100, wrap)
    assert returned(deepest) == deepest
    for value in (nested(101, wrap), nested(200_000, wrap)):
        with pytest.raises(TypeError, match=r"is more than 100 lists and dicts deep"):
            DEFAULT.encode(value)
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(TypeError, match="deep"):
        DEFAULT.encode(cycle)


def test_a_value_is_not_changed() -> None:
    array = np.arange(3)
    value: dict[str, Any] = {"a": [1, LONG_INT, array], "b": [2]}
    DEFAULT.encode(value)
    assert value["a"][2] is array
    assert value == {"a": [1, LONG_INT, array], "b": [2]}


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.text()
dtypes = (nst.scalar_dtypes() | nst.array_dtypes()).filter(text_of)  # titles are refused
arrays = nst.arrays(dtypes, nst.array_shapes(min_side=0))
values = st.recursive(
    scalars | arrays, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(values)
def test_any_value(value: Any) -> None:
    assert same(value, returned(value))


def test_dtypes_that_were_described_stay_as_they_are() -> None:
    """Bytes in tiers outlive this version: what is written is frozen."""
    texts = "".join(str(text_of(np.dtype(dtype))) for dtype in DTYPES if dtype not in list("gG"))
    assert hashlib.sha256(texts.encode()).hexdigest()[:8] == FROZEN


FROZEN = "a970d1f5"
