"""What the tests of codecs and envelopes share: values, comparison, envelopes made by hand."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from cachecore import _envelope
from cachecore._envelope import Sealed, unseal
from cachecore.codecs import Codec, codec_of

DEFAULT = codec_of(None)
LONG_INT = 2**200 + 1
NAN = struct.unpack("d", b"\x01\x02\x03\x04\x05\x06\xf8\xff")[0]  # with a payload of its own
PLAIN: list[Any] = [
    None, True, False, 0, 1, -1, 2**63 - 1, -(2**63), 2**64 - 1, 0.0, -0.0, 1.5, NAN,
    float("inf"), float("-inf"), 5e-324, b"", b"\0\xff", "", "a", "h\u00e9\u20ac\U0001f600\0", [],
    {}, [[[]], {}], {"": None, "k": [1, {"\u20ac": b"\0"}]}, list(range(1000)), "x" * 100_000,
]  # fmt: skip
BEYOND: list[Any] = [2**64, -(2**63) - 1, LONG_INT, -LONG_INT, [1 << 100_000], [LONG_INT, 1]]
NOW, GENERATION = 1_000_000, 7
HEAD = struct.Struct("<IBcHQQqqqQfI")
FIELDS = "magic layout kind tags sum codec written soft hard generation load key".split()


def same(one: Any, other: Any) -> bool:
    """Whether `other`, which came back, is equal to `one` with the same types, bit for bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray | np.generic):
        fortran = one.flags.f_contiguous and not one.flags.c_contiguous
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and bool(other.flags.f_contiguous if fortran else other.flags.c_contiguous)
            # What lies in gaps between fields may be lost.
            and (one.tobytes() == other.tobytes() or one.tolist() == other.tolist())
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


def seal(key: Any = "k", value: Any = b"value", codec: Codec = DEFAULT, **changed: Any) -> bytes:
    settings = {
        "written": NOW - 10, "soft": NOW + 5, "hard": NOW + 10, "load": 0.25,
        "generation": GENERATION, **changed,
    }  # fmt: skip
    return _envelope.seal(key, value, codec, **settings)


def opened(data: Any, key: Any = "k", codec: Codec = DEFAULT, **changed: Any) -> Any:
    """The value, or the reason in a tuple."""
    settings = {"now": NOW, "generation": GENERATION, **changed}
    found = unseal(data, key, codec, **settings)
    return found.value if isinstance(found, Sealed) else (found,)


def sum_of(data: bytes, seed: int) -> int:
    """What src/core/cc_sum.c makes of bytes, on any machine."""
    half, ones = 2**64, 2**64 - 1

    def mix(one: int, other: int) -> int:
        product = (one ^ other) * 0x9E3779B97F4A7C15
        return (product % half) ^ (product >> 64)

    sums, keys = [0] * 8, [0xD6E8FEB86659FD93 * (2 * lane + 1) & ones for lane in range(8)]
    for words in struct.iter_unpack("<8Q", data + bytes(-len(data) % 64)):
        for lane, word in enumerate(words):
            keyed = word ^ keys[lane]
            sums[lane ^ 1] += word
            sums[lane] += (keyed & 0xFFFFFFFF) * (keyed >> 32)
            keys[lane] = keys[lane] + 0xA24BAED4963EE407 & ones
    total = mix(seed, len(data))
    for each in sums:
        total = mix(total, each & ones)
    return total


def summed(data: bytes) -> bytes:
    """An envelope with the checksum made right: what an attacker would send."""
    (seed,) = struct.unpack_from("<Q", data)
    return data[:8] + struct.pack("<Q", sum_of(data[16:], seed)) + data[16:]


def changed(data: bytes, **fields: Any) -> bytes:
    """An envelope with other fields in its head, and the checksum made right."""
    head = dict(zip(FIELDS, HEAD.unpack_from(data), strict=True)) | fields
    return summed(HEAD.pack(*head.values()) + data[HEAD.size :])
