"""Values become bytes and come back equal and of the same type, or are refused by name and place."""

from __future__ import annotations

import collections
import datetime
import enum
import hashlib
import struct
import subprocess
import sys
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
from cachecore.codecs import Codec, Pickle, codec_of
from cachecore.dtypes import dtype_of, text_of

DEFAULT = codec_of(None)
LONG_INT = 2**200 + 1


def same(one: Any, other: Any) -> bool:
    """Whether `other`, which came back, is equal to `one` with the same types, bit for bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray | np.generic):
        order = one.flags.f_contiguous and not one.flags.c_contiguous
        contiguous = one.flags.c_contiguous or one.flags.f_contiguous
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and (one.tobytes() == other.tobytes() or one.dtype == GAPS)
            and (one.dtype != GAPS or one.tolist() == other.tolist())  # what lies in gaps is lost
            and (not contiguous or order == (not other.flags.c_contiguous))  # kept if there is one
        )
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def returned(value: Any, codec: Codec = DEFAULT) -> Any:
    return codec.decode(codec.encode(value))


NAN = struct.unpack("d", b"\x01\x02\x03\x04\x05\x06\xf8\xff")[0]  # with a payload of its own
PLAIN: list[Any] = [
    None, True, False, 0, 1, -1, 2**63 - 1, -(2**63), 2**64 - 1, 0.0, -0.0, 1.5, NAN,
    float("inf"), float("-inf"), 5e-324, b"", b"\0\xff", "", "a", "h\u00e9\u20ac\U0001f600\0", [],
    {}, [[[]], {}], {"": None, "k": [1, {"\u20ac": b"\0"}]}, list(range(1000)), "x" * 100_000,
]  # fmt: skip
BEYOND: list[Any] = [2**64, -(2**63) - 1, LONG_INT, -LONG_INT, [1 << 100_000], [LONG_INT, 1]]
STRUCTURE = np.dtype([("id", ">i8"), ("at", "M8[us]"), ("v", "<f4", (2, 3)), ("s", "S5")])
ALIGNED = np.dtype([("a", "i1"), ("b", "f8"), ("c", [("x", "?"), ("y", "<U2")])], align=True)
GAPS = np.dtype({"names": ["b", "a"], "formats": ["i4", "i2"], "offsets": [8, 1], "itemsize": 16})
DTYPES: list[Any] = [
    *"?bBhHiIqQefdgFDG", ">f8", ">i4", ">u2", "<c8", "M8[ns]", "M8[25s]", "M8", "m8[ms]", "S3", "U4",
    ">U4", "V7", STRUCTURE, ALIGNED, GAPS, np.dtype([]), ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn,
    ml_dtypes.int4, np.dtype([("a", ml_dtypes.bfloat16), ("b", "i4")]),
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
        np.float64("nan"), np.float32(-0.0), np.datetime64("NaT"), np.datetime64(5, "ns"),
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
    value = {"a": [1, LONG_INT, array], "b": [2]}
    DEFAULT.encode(value)
    assert value["a"][2] is array
    assert value == {"a": [1, LONG_INT, array], "b": [2]}


# --- payloads from elsewhere


@pytest.mark.parametrize("value", [np.arange(4.0), np.float32(1), "text", LONG_INT, {"a": [1]}])
def test_what_was_cut_off_or_changed(value: Any) -> None:
    """An error or another value, no crash; checksums are the envelope's affair."""
    data = DEFAULT.encode(value)
    for size in range(len(data)):
        try:
            DEFAULT.decode(data[:size])
        except (ValueError, msgspec.DecodeError):
            continue
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            DEFAULT.decode(bytes(flipped))
        except (ValueError, ImportError, msgspec.DecodeError):
            continue


def array_payload(text: str, shape: tuple[int, ...], items: bytes, order: bytes = b"C") -> bytes:
    head = struct.pack("<ccHI", b"a", order, len(shape), len(text)) + struct.pack(
        f"<{len(shape)}q", *shape
    )
    head += text.encode()
    return head + bytes(-len(head) % 16) + items


@pytest.mark.parametrize(
    ("text", "shape", "items"),
    [
        ('"<f4"', (3,), bytes(8)), ('"<f4"', (1,), bytes(8)), ('"<f4"', (-1,), b""),
        ('"<f4"', (2**62,), b""), ('"<f4"', (2**32, 2**32), b""), ('"<f4"', (0, 2**62), b""),
        ('"<f4"', (1,) * 65, bytes(4)), ('"|O"', (1,), bytes(8)), ('"O"', (1,), bytes(8)),
        ('"|O8"', (1,), bytes(8)), ('["<f4",[2]]', (1,), bytes(8)), ("", (1,), bytes(4)),
        ("<f4", (1,), bytes(4)), ('"<f99"', (1,), bytes(99)), ('"object"', (1,), bytes(8)),
        ('"finfo"', (1,), bytes(8)), ('"__name__"', (1,), bytes(8)), ("[" * 10_000, (1,), b""),
        ('"T"', (1,), bytes(16)), ('{"names":["a"],"formats":["|O"]}', (1,), bytes(8)),
        ('{"names":["a","b"],"formats":["<i4","<i4"],"offsets":[0,2],"itemsize":4}', (1,), b"aaaa"),
        ('"<S5"', (1,), b"aaaa"), ('"|S4294967295"', (1,), b"aaaa"), ("null", (1,), bytes(8)),
    ],
)  # fmt: skip
def test_arrays_that_lie(text: str, shape: tuple[int, ...], items: bytes) -> None:
    for codec in (DEFAULT, codec_of("array")):
        with pytest.raises(ValueError, match="array|dtype|large|big"):
            codec.decode(array_payload(text, shape, items))


def test_an_array_made_by_hand() -> None:
    made = array_payload('"<i2"', (2, 2), b"\1\0\2\0\3\0\4\0", b"F")
    assert DEFAULT.decode(made).tolist() == [[1, 3], [2, 4]]
    assert DEFAULT.encode(np.array([[1, 3], [2, 4]], "<i2", order="F")) == made
    with pytest.raises(ValueError, match="order"):
        DEFAULT.decode(made.replace(b"aF", b"aX"))
    with pytest.raises(ValueError, match="long double"):
        dtype_of('"<f16"')


@pytest.mark.parametrize("inner", [b"s", b"m\x01", b"b", b"", b"x", b"a", b"g"])
def test_extensions_of_msgpack_are_ours(inner: bytes) -> None:
    with pytest.raises(ValueError, match=r"extension|cut off"):
        DEFAULT.decode(b"m" + msgspec.msgpack.encode(msgspec.msgpack.Ext(1, inner)))
    with pytest.raises(ValueError, match="extension"):
        DEFAULT.decode(b"m" + msgspec.msgpack.encode(msgspec.msgpack.Ext(2, b"i\1")))


@given(st.binary(max_size=80))
def test_any_bytes(data: bytes) -> None:
    for codec in (DEFAULT, codec_of("array"), codec_of("msgpack")):
        for each in (data, b"m" + data, b"a" + data, b"g" + data):
            try:
                codec.decode(each)
            except Exception as error:
                assert not isinstance(error, SystemError | MemoryError), error  # noqa: PT017


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.text()
dtypes = (nst.scalar_dtypes() | nst.array_dtypes()).filter(text_of)  # titles are refused
arrays = nst.arrays(dtypes, nst.array_shapes(min_side=0))
values = st.recursive(
    scalars | arrays, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(values)
def test_any_value(value: Any) -> None:
    assert same(value, returned(value))


# --- the other codecs


def test_codecs_by_name() -> None:
    names = {name: codec_of(name).name for name in ("raw", "array", "msgpack", "pickle")}
    assert all(name == given for name, given in names.items())
    assert codec_of(None).name == "default"
    assert [codec_of(name).private for name in (None, "raw", "pickle")] == [False, False, True]
    assert [codec_of(name).enveloped for name in (None, "raw", "pickle")] == [True, False, True]
    mine = Reversed()
    assert codec_of(mine) is mine


@pytest.mark.parametrize(
    "wrong", ["", "Raw", "json", 5, b"raw", Codec, Pickle, Codec(), lambda value: value], ids=repr
)
def test_no_codec(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^codec must "):
        codec_of(wrong)


class Reversed(Codec):
    name = "reversed"

    def encode(self, value: Any) -> bytes:
        return bytes(reversed(value))

    def decode(self, data: bytes | memoryview) -> Any:
        return bytes(reversed(data))


def test_raw() -> None:
    raw = codec_of("raw")
    data = b"abc"
    assert raw.encode(data) is data
    assert raw.decode(data) is data
    for value in ("a", bytearray(b"a"), np.arange(3), None):
        with pytest.raises(TypeError, match=r"^value must be bytes"):
            raw.encode(value)


def test_array_takes_arrays_only() -> None:
    for value in (b"a", "a", 1.0, np.float32(1), [np.arange(3)], np.matrix([1]), np.array([None])):
        with pytest.raises(TypeError, match=r"^value "):
            codec_of("array").encode(value)
    with pytest.raises(ValueError, match="not an array"):
        codec_of("array").decode(DEFAULT.encode(b"abc"))


@pytest.mark.parametrize("value", PLAIN)
def test_msgpack_is_what_others_read(value: Any) -> None:
    codec = codec_of("msgpack")
    assert codec.encode(value) == msgspec.msgpack.encode(value)
    assert same(value, returned(value, codec))


@pytest.mark.parametrize("value", [*BEYOND, np.arange(3), np.float64(1), [np.zeros(1)]])
def test_msgpack_takes_no_extensions(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^value.* is of type"):
        codec_of("msgpack").encode(value)


def test_pickle() -> None:
    for codec in (codec_of("pickle"), Pickle(), Pickle(b"s" * 16)):
        assert returned({(1, 2): {3}}, codec) == {(1, 2): {3}}
        with pytest.raises(TypeError, match="value cannot be pickled|cannot pickle"):
            codec.encode(lambda: 1)
    assert not Pickle(b"s" * 16).private
    for secret in ("s" * 16, bytearray(16), 16):
        with pytest.raises(TypeError, match="secret"):
            Pickle(secret)  # type: ignore[arg-type]
    for short in (b"", b"s" * 15):
        with pytest.raises(ValueError, match="secret"):
            Pickle(short)


def test_dtypes_that_were_described_stay_as_they_are() -> None:
    """Bytes in tiers outlive this version: what is written is frozen."""
    texts = "".join(str(text_of(np.dtype(dtype))) for dtype in DTYPES if dtype not in list("gG"))
    assert hashlib.sha256(texts.encode()).hexdigest()[:8] == FROZEN


FROZEN = "bb4c7c6a"


def test_what_must_be_installed_is_said() -> None:
    code = """
        import sys
        sys.modules["msgspec"] = sys.modules["ml_dtypes"] = None
        import numpy as np
        from cachecore.codecs import codec_of
        codec = codec_of(None)
        assert codec.decode(codec.encode(b"a")) == b"a"
        assert codec.decode(codec.encode("a")) == "a"
        assert codec.decode(codec.encode(np.arange(3))).tolist() == [0, 1, 2]
        for call, text in (
            (lambda: codec.encode({"a": 1}), 'pip install "cachecore-ml[tiers]"'),
            (lambda: codec.decode(b"m" + bytes([1])), 'pip install "cachecore-ml[tiers]"'),
            (lambda: codec.decode(BFLOAT), "pip install ml_dtypes"),
        ):
            try:
                call()
            except ImportError as error:
                assert text in str(error), error
            else:
                raise AssertionError(text)
    """
    bfloat = DEFAULT.encode(np.zeros(1, ml_dtypes.bfloat16))
    code = "\n".join(line[8:] for line in code.splitlines()).replace("BFLOAT", repr(bfloat))
    subprocess.run([sys.executable, "-c", code], check=True)
