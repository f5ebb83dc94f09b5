"""Files of weights for the tests: good ones, and bytes of any header over any data."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]

# What the safetensors library calls the dtypes that NumPy or ml_dtypes have.
CODES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "I32": "int32",
    "U32": "uint32", "I64": "int64", "U64": "uint64", "F16": "float16", "F32": "float32",
    "F64": "float64", "C64": "complex64", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip


def numpy_dtype(code: str) -> np.dtype[Any]:
    name = CODES[code]
    return np.dtype(getattr(ml_dtypes, name, name))


def described(code: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    """What a header says of a tensor."""
    return {"dtype": code, "shape": shape, "data_offsets": [begin, end]}


def packed(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file: the header as text, as bytes, or of what JSON can write."""
    if isinstance(header, str):
        header = header.encode()
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    text: bytes = header
    return struct.pack("<Q", len(text)) + text + data


def of_arrays(arrays: Mapping[str, tuple[str, npt.NDArray[Any]]], **metadata: str) -> bytes:
    """A safetensors file of arrays and the codes of their dtypes."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, (code, array) in arrays.items():
        end = len(data) + array.nbytes
        header[name] = described(code, list(array.shape), len(data), end)
        data += array.tobytes()
    return packed(header, data)


def layers(count: int = 4, width: int = 64) -> Arrays:
    """Arrays such as a model has; no two are equal."""
    random = np.random.default_rng(count * width)
    return {
        f"layer.{at}.{part}": random.standard_normal((width, size)).astype(np.float32)
        for at in range(count)
        for part, size in (("attn.weight", width), ("mlp.weight", 2 * width), ("bias", 1))
    }


def write_shards(folder: Path, arrays: Arrays, count: int = 2) -> Path:
    """A folder of `count` shards and their index, as transformers writes them."""
    from safetensors.numpy import save_file

    folder.mkdir()
    weight_map: dict[str, str] = {}
    for at in range(count):
        file = f"model-{at + 1:05}-of-{count:05}.safetensors"
        part = {name: arrays[name] for name in list(arrays)[at::count]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(array.nbytes for array in arrays.values())
    write_index(folder, weight_map, metadata={"total_size": total})
    return folder


def write_index(folder: Path, weight_map: Any, **more: Any) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": weight_map, **more}))
    return path


@contextmanager
def little_memory(most: int = 1_000_000) -> Iterator[None]:
    """What is done within allocates no more bytes than these, at any time."""
    tracemalloc.start()
    try:
        yield
    finally:
        allocated = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert allocated < most


def total(weights: Mapping[str, npt.NDArray[Any]]) -> float:
    """The sum of all that is in them; here, for another process to find."""
    return float(sum(float(array.sum()) for array in weights.values()))
