"""The encoding of fingerprints read back, and what makes two values one to them.

What can be read back to all that counts of a value is no other value's encoding.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as nst

from cachecore._fingerprint import encode
from cachecore.dtypes import dtype_of, text_of

MODEL: dict[str, Any] = {"model": "m", "version": "1"}
NAN = struct.pack("<Q", 0x7FF8000000000000)


def encoded(
    *inputs: object,
    params: object = None,
    domain: str = "",
    digest: str = "sha3_256",
    salt: bytes | str = b"",
) -> bytes:
    """What `fingerprint` takes the digest of."""
    model, version = MODEL["model"], MODEL["version"]
    return encode(lambda *_: None, True, digest, salt, domain, model, version, params, inputs)


def essence(value: Any) -> Any:
    """All that counts of a value: two essences are equal if and only if the values are one."""
    if isinstance(value, float):
        return ("f", NAN if value != value else struct.pack("<d", value))
    if isinstance(value, list | tuple):
        return ("l" if isinstance(value, list) else "t", tuple(map(essence, value)))
    if isinstance(value, dict):
        return ("d", frozenset((essence(key), essence(item)) for key, item in value.items()))
    if isinstance(value, set | frozenset):
        return ("s", tuple(sorted(map(repr, map(essence, value)))))
    if isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<"))
        return ("a", text_of(little.dtype), value.shape, little.tobytes())
    return (type(value).__name__, value)


class Reader:
    """Reads values, as essences, from an encoding."""

    def __init__(self, data: bytes) -> None:
        assert data.startswith(b"cachecore.1")
        self.rest = data.removeprefix(b"cachecore.1")

    def take(self, size: int) -> bytes:
        assert size <= len(self.rest)
        data, self.rest = self.rest[:size], self.rest[size:]
        return data

    def length(self) -> int:
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    def framed(self) -> bytes:
        return self.take(self.length())

    def value(self) -> Any:
        tag = self.take(1).decode()
        match tag:
            case "N" | "T" | "F":
                return essence({"N": None, "T": True, "F": False}[tag])
            case "i":
                return essence(int.from_bytes(self.framed(), "little", signed=True))
            case "f":
                return ("f", self.take(8))
            case "u":
                return essence(self.framed().decode("utf-8", "surrogatepass"))
            case "b":
                return essence(self.framed())
            case "l" | "t":
                return (tag, tuple(self.value() for _ in range(self.length())))
            case "d":
                return (tag, frozenset((self.value(), self.value()) for _ in range(self.length())))
            case "s":
                items = [self.value() for _ in range(self.length())]
                return (tag, tuple(sorted(map(repr, items))))
            case "a":
                text = self.framed().decode()
                shape = tuple(self.length() for _ in range(self.length()))
                size = dtype_of(text).itemsize * int(np.prod(shape))
                return (tag, text, shape, self.take(size))
        raise AssertionError(f"no value begins with {tag!r}")


def read(data: bytes) -> list[Any]:
    """Essences of digest, salt, domain, model, version, params and the tuple of inputs."""
    reader = Reader(data)
    parts = [reader.value() for _ in range(7)]
    assert reader.rest == b""
    return parts


# Small alphabets: parts that could be mistaken for one another come up often.
_TEXT = st.text("ab\x00\x01é\ud800", max_size=4)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-300, 300), st.integers(), st.floats(), _TEXT,
    st.sampled_from([0, 1, -1, 0.0, -0.0, 1.0, True, "1", b"1", "", b"", float("nan"), 2**63]),
    st.binary(max_size=4),
)  # fmt: skip
ARRAYS = nst.arrays(
    st.sampled_from(["?", "i1", "u1", "<i2", ">i2", "<f4", ">f8", "<c8", "S2", "<U1", "M8[s]"]),
    nst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
KEYS = st.one_of(SCALARS.filter(lambda key: key == key), st.tuples(_TEXT, st.integers(0, 2)))
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS | ARRAYS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.frozensets(KEYS, max_size=4),
    ),
    max_leaves=12,
)
