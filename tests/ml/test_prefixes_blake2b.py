"""BLAKE2b and the chain of digests are those of hashlib."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachecore._prefix import blake2b
from cachecore.ml import PrefixCache

GOLDEN = ["6d0bb6abbedff9994fb82a4263ec23b7", "63fb6b9e878f2ffaac5e3dd063e3581e"]
TOKENS = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=100)


@given(st.binary(max_size=700))
@example(b"")
@example(bytes(127))
@example(bytes(128))
@example(bytes(129))
@example(bytes(256))
def test_the_digest_is_that_of_hashlib(data: bytes) -> None:
    assert blake2b(data) == hashlib.blake2b(data, digest_size=16).digest()


def test_the_digest_of_every_length_around_two_compressions() -> None:
    data = np.arange(400, dtype=np.uint8).tobytes()
    for size in range(400):
        expected = hashlib.blake2b(data[:size], digest_size=16).digest()
        assert blake2b(data[:size]) == expected


def framed(model: str, version: str, salt: bytes, block: int) -> bytes:
    """The digest above all blocks, as the documentation says it is made."""
    parts = [model.encode(), version.encode(), salt]
    data = block.to_bytes(8, "little")
    data += b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    return hashlib.blake2b(data, digest_size=16, person=b"cachecore prefix").digest()


@given(TOKENS, st.integers(1, 40), st.text(max_size=5), st.binary(max_size=5))
def test_the_chain_is_that_of_hashlib(
    tokens: list[int], block: int, model: str, salt: bytes
) -> None:
    cache = PrefixCache(block=block, max_bytes="1MB", model=model, version="7", salt=salt)
    above, expected = framed(model, "7", salt, block), []
    for at in range(0, len(tokens) - block + 1, block):
        words = np.array(tokens[at : at + block], "<i4").tobytes()
        above = hashlib.blake2b(above + words, digest_size=16).digest()
        expected.append(above)
    assert cache.digests(tokens) == expected


def test_a_chain_does_not_change_from_release_to_release() -> None:
    cache = PrefixCache(block=4, max_bytes="1MB", model="llama", version="3", salt=b"tenant")
    assert cache.digests(range(8)) == [bytes.fromhex(link) for link in GOLDEN]


SEEDS: list[dict[str, object]] = [
    {},
    {"salt": b"a"},
    {"model": "a"},
    {"version": "a"},
    {"block": 8},
    {"model": "a", "version": "b"},
    {"model": "ab"},
    {"model": "b", "version": "a"},
    {"version": "ab"},
    {"salt": b"ab"},
]


def test_whoever_differs_shares_no_digest() -> None:
    tokens = np.arange(64)
    chains = [
        PrefixCache(max_bytes="1MB", **settings).digests(tokens)  # type: ignore[arg-type]
        for settings in SEEDS
    ]
    assert len({link for chain in chains for link in chain}) == sum(map(len, chains))


def test_a_view_of_another_kind_is_refused() -> None:
    with pytest.raises((TypeError, BufferError, ValueError)):
        blake2b("text")


def test_importing_the_layer_loads_nothing_heavy() -> None:
    code = "import cachecore.ml, sys; print('cachecore.ml.prefixes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"False"
