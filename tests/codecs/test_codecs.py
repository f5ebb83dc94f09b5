"""Codecs by name, payloads that are not what was written, packages that are missing."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachecore.codecs import Codec, Pickle, codec_of
from cachecore.dtypes import dtype_of
from envelopes import BEYOND, DEFAULT, LONG_INT, PLAIN, returned, same


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
        with pytest.raises(TypeError, match=r"value cannot be pickled|cannot pickle"):
            codec.encode(lambda: 1)
    assert not Pickle(b"s" * 16).private
    for secret in ("s" * 16, bytearray(16), 16):
        with pytest.raises(TypeError, match="secret"):
            Pickle(secret)  # type: ignore[arg-type]
    for short in (b"", b"s" * 15):
        with pytest.raises(ValueError, match="secret"):
            Pickle(short)


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
        with pytest.raises(ValueError, match=r"array|dtype|large|big"):
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
