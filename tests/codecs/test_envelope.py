"""Envelopes: read as what was sealed, for the same key, codec and generation; or why not."""

from __future__ import annotations

import gc
import struct
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from cachecore import _envelope
from cachecore._envelope import (
    NEVER,
    REASONS,
    Sealed,
    peek_written,
    unseal,
    wire_key,
    wire_keys,
)
from cachecore.codecs import Codec, Pickle, codec_of
from envelopes import DEFAULT, GENERATION, HEAD, NOW, changed, opened, seal, summed

SECRET = b"sixteen bytes ok"
KEYS: list[Any] = [
    "", "k", "user:1", "\u20ac", b"", b"\0\xff", b"k", 0, 1, -1, 2**63, -(2**63) - 1, 10**600, "1",
    b"1", 1 << 3000, -(1 << 3000), "x" * 1000,
]  # fmt: skip


# --- what was sealed


@pytest.mark.parametrize("key", KEYS, ids=lambda key: f"{key!r:.20}" if key != 1 << 3000 else "big")
@pytest.mark.parametrize("tags", [(), ((2**64 - 1, 0),), ((1, 2), (3, 4))])
def test_everything_comes_back(key: Any, tags: tuple[tuple[int, int], ...]) -> None:
    value = np.arange(5.0)
    data = seal(key, value, tags=tags, hard=NEVER)
    found = unseal(data, key, DEFAULT, NOW, GENERATION)
    assert isinstance(found, Sealed)
    assert np.array_equal(found.value, value)
    assert found.value.flags.aligned
    assert found.value.ctypes.data % 16 == 0
    assert (found.written, found.soft, found.hard) == (NOW - 10, NOW + 5, NEVER)
    assert (found.load, found.tags) == (0.25, tags)
    assert peek_written(data) == NOW - 10


def test_the_layout() -> None:
    """Bytes in tiers outlive this version: what is written is frozen."""
    data = seal("key", b"value", tags=[(5, 6)])
    codec = 5819830460547423807  # from its name
    head = [0x656F63CC, 1, b"s", 1, 0, codec, NOW - 10, NOW + 5, NOW + 10, GENERATION, 0.25, 3]
    made = HEAD.pack(*head) + struct.pack("<QQ", 5, 6) + b"key".ljust(16, b"\0") + b"bvalue"
    assert data == summed(made)
    assert summed(data) == data


@pytest.mark.parametrize("codec", ["array", "msgpack", "pickle"])
def test_codecs_by_name(codec: str) -> None:
    value: Any = np.arange(3) if codec == "array" else {"a": [1, 2.5, None]}
    found = opened(seal(value=value, codec=codec_of(codec)), codec=codec_of(codec))
    assert type(found) is type(value)
    assert np.array_equal(found, value) if codec == "array" else found == value


def test_large_values() -> None:
    """Beyond the size from which sums are made without the GIL."""
    value = np.arange(2_000_000, dtype="u4")
    data = seal(value=value)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: np.array_equal(opened(data), value), range(20)))
        assert len(set(pool.map(lambda _: seal(value=value), range(20)))) == 1
    flipped = bytearray(data)
    flipped[-1] ^= 1
    assert opened(bytes(flipped)) == ("damaged",)


# --- what does not match


@pytest.mark.parametrize("key", ["1", b"1", 1, "k", b"k", "", b""], ids=repr)
def test_other_keys(key: Any) -> None:
    data = seal(key)
    for other in ("1", b"1", 1, 2, "k", b"k", "", b"", "1\0", "k" * 17):
        alike = type(other) is type(key) and other == key
        assert opened(data, other) == (b"value" if alike else ("other key",))


def test_times_generation_and_codec() -> None:
    data = seal()
    assert opened(data, now=NOW + 9) == b"value"
    assert opened(data, now=NOW + 10) == ("expired",)
    assert opened(seal(hard=NEVER), now=NEVER - 1) == b"value"
    assert opened(seal(soft=0)) == b"value"
    assert opened(data, generation=GENERATION + 1) == ("other generation",)
    for name in ("array", "msgpack", "pickle"):
        assert opened(data, codec=codec_of(name)) == ("other codec",)
    assert opened(changed(data, layout=2)) == ("foreign",)
    assert opened(changed(data, magic=0)) == ("foreign",)


@pytest.mark.parametrize(
    "data",
    [b"", b"value", bytes(64), b"\xcc" * 100, bytearray(seal()), memoryview(seal()), "a", 5, None],
)
def test_what_is_no_envelope(data: Any) -> None:
    assert opened(data) == ("foreign",)
    assert peek_written(data) is None


def test_reasons() -> None:
    names = "FOREIGN DAMAGED OTHER_KEY OTHER_CODEC OTHER_GENERATION EXPIRED FORGED UNDECODABLE"
    assert tuple(getattr(_envelope, name) for name in names.split()) == REASONS


# --- codecs of one's own


class Mine(Codec):
    name = "mine"
    error: BaseException | None = None

    def encode(self, value: Any) -> bytes:
        return value[::-1]  # type: ignore[no-any-return]

    def decode(self, data: bytes | memoryview) -> Any:
        if self.error:
            raise self.error
        assert isinstance(data, memoryview)
        return bytes(data)[::-1]


def test_a_codec_of_ones_own() -> None:
    mine = Mine()
    data = seal(value=b"abc", codec=mine)
    assert opened(data, codec=mine) == b"abc"
    assert opened(data) == ("other codec",)
    for error in (ValueError(), MemoryError(), RecursionError(), SystemError()):
        mine.error = error
        assert opened(data, codec=mine) == ("undecodable",)
    mine.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        opened(data, codec=mine)
    with pytest.raises(TypeError, match=r"'mine' must encode to bytes, not list"):
        seal(value=[1], codec=mine)


def test_a_codec_without_a_name() -> None:
    class Nameless(Mine):
        name = ""

    with pytest.raises(TypeError, match="Nameless must have a str as its name"):
        seal(codec=Nameless())


# --- keys


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("k", b"k"), ("", b""), ("\u20ac\0", b"\xe2\x82\xac\0"), (b"\xff\0", b"\xff\0"), (0, b"0"),
        (-5, b"-5"), (2**64, b"18446744073709551616"), (1 << 2048, b"0x1" + b"0" * 512),
        (-(1 << 2048), b"-0x1" + b"0" * 512), ((1 << 2048) - 1, str((1 << 2048) - 1).encode()),
        (np.int64(5), b"5"), (np.uint8(5), b"5"), (np.str_("k"), b"k"), (np.bytes_(b"k"), b"k"),
        (np.str_("k\0"), b"k\0"), (np.bytes_(b"k\0"), b"k\0"), (-(2**63), b"-9223372036854775808"),
        (2**63 - 1, b"9223372036854775807"), (np.uint64(2**64 - 1), b"18446744073709551615"),
    ],
)  # fmt: skip
def test_wire_keys(key: Any, text: bytes) -> None:
    assert wire_key(b"ns:", key) == b"ns:" + text
    assert wire_keys(b"", (key, key)) == [text, text]
    plain = key if not isinstance(key, np.generic) else int(key) if text.isdigit() else text
    plain = text.decode() if isinstance(key, np.str_) else plain
    assert opened(seal(key), plain) == opened(seal(plain), key) == b"value"


@pytest.mark.parametrize(
    "key",
    [True, None, 1.0, (1,), bytearray(b"k"), memoryview(b"k"), np.True_, np.float64(1), object,
     np.timedelta64(1, "ns"), np.datetime64(1, "s"), type("S", (str,), {})("k"), np.arange(1)],
    ids=lambda key: type(key).__name__,
)  # fmt: skip
def test_other_types_are_no_keys(key: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: wire_key(b"", key), lambda: wire_keys(b"", ["k", key]), lambda: seal(key),
        lambda: opened(seal(), key),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(TypeError, match=r"^key must be a str, bytes or int"):
            call()


def test_text_that_utf8_has_no_bytes_for() -> None:
    for call in (lambda: wire_key(b"", "a\ud800"), lambda: seal("a\ud800")):
        with pytest.raises(ValueError, match=r"^key has lone surrogates: 'a\\ud800'"):
            call()


def test_an_array_that_is_reshaped_meanwhile() -> None:
    array = np.arange(6.0)

    class Reshaping(int):
        def __index__(self) -> int:
            array.resize((1, 1, 1, 6000), refcheck=False)
            return 5

        __int__ = __index__

    data = seal(value=array, tags=[(Reshaping(), Reshaping())])
    assert opened(data).shape == (6,)


def test_arguments_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="tags must be at most 65,535"):
        seal(tags=[(1, 2)] * 65_536)
    assert opened(seal(tags=[(1, 2)] * 65_535)) == b"value"
    for tags in ([(1,)], [(1, 2, 3)], [(-1, 2)], [(2**64, 2)], [1]):
        with pytest.raises((ValueError, TypeError, OverflowError)):
            seal(tags=tags)
    for call in (
        lambda: seal(codec="array"),  # type: ignore[arg-type]
        lambda: seal(hard=2**63), lambda: seal(written=None),
        lambda: seal(generation=-1), lambda: wire_key("ns", "k"),  # type: ignore[arg-type]
    ):  # fmt: skip
        with pytest.raises((TypeError, OverflowError)):
            call()


# --- references


def refused(call: Callable[[], object]) -> None:
    try:
        call()
    except TypeError:
        return
    raise AssertionError("it should have been refused")


def calls() -> list[Callable[[], object]]:
    """Some that end well and some that end otherwise."""
    array = np.arange(12, dtype=">f4").reshape(3, 4)
    data = seal(value=array)
    lies = changed(data[:-4])
    return [
        lambda: opened(data),
        lambda: opened(lies),
        lambda: opened(data, "other key"),
        lambda: seal(value=array[:, ::2]),
        lambda: opened(seal(value=[array, {"k": np.float32(1), "l": 2**70}])),
        lambda: opened(seal("\u20ac", "\u20ac", Pickle(SECRET)), "\u20ac", Pickle(SECRET)),
        lambda: refused(lambda: seal(value=[array, (array,)])),
        lambda: refused(lambda: seal(value=array, tags=[(1, 2), (3, "4")])),
        lambda: refused(lambda: opened(data, True)),
    ]


@pytest.mark.parametrize("call", calls())
def test_no_reference_is_kept(call: Callable[[], object]) -> None:
    for _ in range(2):  # once to warm up
        gc.collect()
        before = sys.getrefcount(np.dtype(">f4")), sys.getallocatedblocks()
        for _ in range(300):
            call()
        gc.collect()
        after = sys.getrefcount(np.dtype(">f4")), sys.getallocatedblocks()
    assert after[0] <= before[0] + 100
    assert after[1] <= before[1] + 100
