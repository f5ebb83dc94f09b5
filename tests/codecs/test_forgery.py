"""Envelopes that were damaged or forged: a reason, and nothing executed."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachecore._envelope import (
    NEVER,
    REASONS,
    Sealed,
    peek_written,
    unseal,
)
from cachecore.codecs import Codec, Pickle, codec_of
from envelopes import DEFAULT, GENERATION, NOW, changed, opened, seal, summed

SECRET = b"sixteen bytes ok"
SAMPLES: list[tuple[Any, Any, Codec]] = [
    ("k", b"value", DEFAULT),
    (5, np.arange(6, dtype="f4").reshape(2, 3), DEFAULT),
    (b"key of bytes", {"a": [1, np.arange(3)]}, DEFAULT),
    ("k", {1, 2}, Pickle(SECRET)),
]


@pytest.mark.parametrize(("key", "value", "codec"), SAMPLES)
def test_every_flipped_bit_and_every_cut(key: Any, value: Any, codec: Codec) -> None:
    data = seal(key, value, codec, tags=[(1, 2)])
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert opened(bytes(flipped), key, codec) in [("damaged",), ("foreign",)]
    for size in range(len(data)):
        assert opened(data[:size], key, codec) in [("damaged",), ("foreign",)]
        assert opened(data[size + 1 :], key, codec) in [("damaged",), ("foreign",)]
    for more in (b"\0", bytes(16), data):
        assert opened(data + more, key, codec) == ("damaged",)
    for one in range(0, len(data) - 32, 8):  # words that changed places
        moved = bytearray(data)
        moved[one : one + 16] = data[one + 8 : one + 16] + data[one : one + 8]
        if bytes(moved) != data:
            assert opened(bytes(moved), key, codec) in [("damaged",), ("foreign",)]


@pytest.mark.parametrize("key", [0, 1, 16, 17, 2**31, 2**32 - 1])
@pytest.mark.parametrize("tags", [0, 1, 2, 2**16 - 1])
def test_lengths_that_lie(key: int, tags: int) -> None:
    data = seal("k" * 16, b"value", tags=[(1, 2)])
    found = opened(changed(data, key=key, tags=tags), "k" * 16)
    assert found in [("damaged",), ("other key",), ("undecodable",)] or (key, tags) == (16, 1)


mutations = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from([b"s", b"b", b"i", b"\0"]),
        "tags": st.integers(0, 2**16 - 1) | st.integers(0, 3),
        "key": st.integers(0, 2**32 - 1) | st.integers(0, 40),
        "hard": st.integers(-(2**63), 2**63 - 1),
        "load": st.floats(width=32),
    },
)


@given(st.sampled_from(SAMPLES), mutations, st.binary(max_size=60), st.integers(0, 200))
def test_what_an_attacker_sends(sample: Any, fields: Any, payload: bytes, at: int) -> None:
    """Whatever it is: a value or a reason, and of a signed codec only what was signed."""
    key, value, codec = sample
    data = seal(key, value, codec, tags=[(1, 2)])
    data = changed(data[:at].ljust(64, b"\0") + payload, **fields)
    found = unseal(data, key, codec, NOW, GENERATION)
    assert isinstance(found, Sealed) or found in REASONS
    if codec.signs:
        assert not isinstance(found, Sealed) or found.value == value
    assert peek_written(data) is None or isinstance(peek_written(data), int)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    for codec in (DEFAULT, codec_of("pickle"), Pickle(SECRET)):
        assert opened(data, codec=codec) in [("foreign",), ("damaged",)]


# --- signatures


class Bomb:
    """A pickle of it raises when it is read."""

    def __reduce__(self) -> Any:
        return exec, ("raise AssertionError('it was executed')",)


def test_signed_pickles() -> None:
    codec = Pickle(SECRET)
    data = seal(value={1, 2}, codec=codec, namespace=b"ns")
    assert opened(data, codec=codec, namespace=b"ns") == {1, 2}
    assert opened(data, codec=Pickle(SECRET), namespace=b"ns") == {1, 2}
    assert opened(data, codec=codec, namespace=b"other") == ("forged",)
    assert opened(data, codec=Pickle(SECRET + b"!"), namespace=b"ns") == ("forged",)
    assert opened(data, codec=Pickle()) == ("other codec",)
    assert opened(seal(value=1, codec=Pickle()), codec=codec) == ("other codec",)
    # Namespace and key do not run into one another.
    data = seal("bk", 1, codec, namespace=b"a")
    assert opened(data, "k", codec, namespace=b"ab") == ("other key",)


def test_nothing_is_executed_before_its_signature_is_checked() -> None:
    codec = Pickle(SECRET)
    data = seal(value=b"x" * 100, codec=codec, tags=[(1, 2)])
    start = len(data) - len(codec.encode(b"x" * 100)) - 32
    bomb = pickle.dumps(Bomb())
    for forged in (data[:start] + bomb, data[:start] + bomb + data[-32:], data[:start], data[:-32]):
        assert opened(summed(forged), codec=codec) == ("forged",)
    for fields in (
        {"hard": NEVER}, {"soft": NOW + 6}, {"written": 0}, {"load": 1.0}, {"tags": 0, "key": 17},
    ):  # fmt: skip
        found = opened(changed(data, **fields), codec=codec)
        assert found == ("other key",) if "key" in fields else found == ("forged",)
    # One that is signed, by one who knows the secret, is executed: and fails as a value.
    assert opened(seal(value=Bomb(), codec=codec), codec=codec) == ("undecodable",)


@pytest.mark.parametrize("made", [b"", b"s" * 31, bytearray(32), None])
def test_signatures_have_32_bytes(made: Any) -> None:
    class Signing(Pickle):
        def sign(self, namespace: bytes, *parts: bytes | memoryview) -> bytes:
            return made  # type: ignore[no-any-return]

    with pytest.raises(TypeError, match="must sign with 32 bytes"):
        seal(codec=Signing(SECRET))
