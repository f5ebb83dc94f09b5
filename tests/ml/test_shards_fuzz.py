"""Files with something wrong in them: refused, or the arrays that the formats' libraries read."""

from __future__ import annotations

import io
import json
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from safetensors import SafetensorError, deserialize

from cachecore.errors import ShardError
from cachecore.ml import WeightStore
from ml.weightfiles import described, little_memory, of_arrays, packed

MOST_ALLOCATED = 2_000_000  # bytes: for the fixed costs of parsers; the files have a few hundred

GOOD = of_arrays(
    {
        "layer.0.weight": ("F32", np.arange(6, dtype=np.float32).reshape(2, 3)),
        "empty": ("I64", np.empty((0, 3), np.int64)),
        "läyer": ("U8", np.arange(5, dtype=np.uint8)),
        "half": ("F16", np.ones((1, 2, 2), np.float16)),
    },
    format="pt",
)
NUMBERS = st.one_of(st.integers(-3, 40), st.sampled_from([2**31, 2**32, 2**53, 2**63 - 1, 2**64]))
PIECES = st.one_of(
    st.binary(max_size=6),
    NUMBERS.map(lambda number: str(number).encode()),
    st.sampled_from([b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"\0", b'"shape":']),
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes with some cut out, put in or written over, up to four times."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        cut = draw(st.integers(0, 6))
        content = content[:at] + draw(PIECES) + content[at + cut :]
    return content


@st.composite
def rewritten(draw: st.DrawFn) -> bytes:
    """A file whose length fits its header, into which something else was put."""
    length = int.from_bytes(GOOD[:8], "little")
    header = draw(mutated(GOOD[8 : 8 + length]))
    return packed(header, GOOD[8 + length :])


@st.composite
def invented(draw: st.DrawFn) -> bytes:
    """A file of any tensors, most of which do not fit."""
    shape = st.lists(st.integers(0, 5), max_size=3)
    header: dict[str, Any] = {}
    end = 0
    for name in draw(st.lists(st.text(max_size=3), max_size=4)):
        code, bits = draw(st.sampled_from([("U8", 8), ("BF16", 16), ("F64", 64), ("F4", 4)]))
        sizes = draw(shape)
        begin = end + draw(st.sampled_from([0, 0, 0, 0, 1, -1]))
        end = begin + int(np.prod(sizes)) * bits // 8
        header[name] = described(code, sizes, begin, end)
    items = list(header.items())
    rest = max(end, 0) + draw(st.sampled_from([0, 0, 0, 1]))
    return packed(dict(draw(st.permutations(items))), bytes(rest))


def opened(path: Path, content: bytes) -> dict[str, tuple[list[int], bytes]] | None:
    """What a store shows of a file; None if it refuses it. Either costs little memory."""
    path.write_bytes(content)
    try:
        with little_memory(MOST_ALLOCATED):
            store = WeightStore(path, verify=True)
    except ShardError as error:
        if str(path) not in str(error):
            raise
        return None
    return {name: (list(store.shape(name)), store.raw(name).tobytes("A")) for name in store}


@settings(max_examples=600)
@given(st.one_of(mutated(GOOD), rewritten(), invented()))
def test_safetensors(folder: Path, content: bytes) -> None:
    ours = opened(folder / "m.safetensors", content)
    try:
        theirs = {name: (said["shape"], bytes(said["data"])) for name, said in deserialize(content)}
    except SafetensorError:
        theirs = None
    if ours is not None:
        assert ours == theirs
    elif theirs is not None:
        assert stricter(content), content


def stricter(content: bytes) -> bool:
    """Whether a file is one of those that only the library takes."""
    length = int.from_bytes(content[:8], "little")
    strict = True

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal strict
        strict &= len(dict(pairs)) == len(pairs)
        return dict(pairs)

    header = json.loads(content[8 : 8 + length], object_pairs_hook=distinct)
    header.pop("__metadata__", None)
    fields = all(said.keys() == {"dtype", "shape", "data_offsets"} for said in header.values())
    return not (strict and fields)


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def agrees(path: Path, content: bytes, load: Callable[[], dict[str, Any]]) -> None:
    """What is not refused is what NumPy reads."""
    ours = opened(path, content)
    if ours is not None:
        theirs = {name: (list(a.shape), a.tobytes("A")) for name, a in load().items()}
        assert ours == theirs


SMALL = npy(np.arange(6, dtype="<i2").reshape(2, 3))


@settings(max_examples=300)
@given(mutated(SMALL))
def test_npy(folder: Path, content: bytes) -> None:
    path = folder / "m.npy"
    agrees(path, content, lambda: {"m": np.load(path)})


@settings(max_examples=300)
@given(mutated(npz(a=np.arange(6, dtype="<i2"), b=np.float32(3))))
def test_npz(folder: Path, content: bytes) -> None:
    path = folder / "m.npz"
    agrees(path, content, lambda: dict(np.load(path)))


@settings(max_examples=100)
@given(mutated(SMALL))
def test_npy_within_npz(folder: Path, content: bytes) -> None:
    """With a check sum that fits."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("m.npy", content)
    path = folder / "m.npz"
    agrees(path, file.getvalue(), lambda: dict(np.load(path)))


@settings(max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 220))
def test_any_bytes(folder: Path, content: bytes, length: int) -> None:
    for path in (folder / "m.safetensors", folder / "m.npy", folder / "m.npz"):
        opened(path, content)
    opened(folder / "m.safetensors", struct.pack("<Q", length) + content)


@settings(max_examples=100)
@given(mutated(b'{"metadata":{},"weight_map":{"a":"a.safetensors","b":"../b.safetensors"}}'))
def test_indexes(folder: Path, content: bytes) -> None:
    (folder / "a.safetensors").write_bytes(of_arrays({"a": ("U8", np.zeros(3, np.uint8))}))
    opened(folder / "m.safetensors.index.json", content)
