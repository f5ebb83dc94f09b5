"""What is shown of mapped weights: NumPy arrays and PyTorch tensors, neither of them a copy."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cachecore._safetensors import Place
from cachecore.ml.shards import DTYPES

Array = npt.NDArray[Any]


def dtype_name(place: Place) -> str:
    """The name of a tensor's dtype in NumPy, or in ml_dtypes."""
    return DTYPES[place.dtype].name if isinstance(place.dtype, str) else str(place.dtype)


def array(name: str, place: Place) -> Array:
    """A tensor as a read-only array on the map of its file."""
    dtype = place.dtype
    if isinstance(dtype, str):
        try:
            dtype = _numpy_dtype(dtype)
        except (ImportError, TypeError) as error:
            raise type(error)(f"tensor {name!r:.80} {error}") from None
    return _array(place, dtype)


def _array(place: Place, dtype: np.dtype[Any]) -> Array:
    return np.ndarray(
        place.shape, dtype, place.shard.map, place.offset, order="F" if place.fortran else "C"
    )


@cache
def _numpy_dtype(code: str) -> np.dtype[Any]:
    kind = DTYPES[code]
    if kind.bits % 8:
        raise TypeError(f"is of {kind.name}, several items to a byte: take raw(name)")
    try:
        return np.dtype(kind.name)
    except TypeError:
        pass
    try:
        import ml_dtypes

        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, kind.name))
    except (ImportError, AttributeError):  # an old one lacks some
        raise ImportError(
            f'is of {kind.name}: install ml_dtypes (pip install -U "cachecore-ml[ml]" ml_dtypes),'
            " or take raw(name) or torch(name)"
        ) from None
    return dtype


def bits(place: Place) -> Array:
    """What a tensor's bits are, see `WeightStore.raw`."""
    kind = place.dtype
    width = DTYPES[kind].bits if isinstance(kind, str) else 8 * kind.itemsize
    if width not in (8, 16, 32, 64):
        return np.ndarray((place.nbytes,), np.uint8, place.shard.map, place.offset)
    return _array(place, np.dtype(f"u{width // 8}"))


def tensor(name: str, place: Place) -> Any:
    """A tensor on the private map of its shard, see `WeightStore.torch`."""
    try:
        import torch
    except ImportError:
        raise ImportError("torch(name) needs PyTorch: pip install torch") from None
    shape = list(place.shape)
    if isinstance(place.dtype, str):
        code = DTYPES[place.dtype].torch
    else:
        code = place.dtype.name if place.dtype.isnative else ""
    dtype = getattr(torch, code, None)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"tensor {name!r:.80}: this PyTorch has no dtype for {dtype_name(place)}")
    if code.endswith("_x2"):
        if not shape or shape[-1] % 2:
            raise ValueError(f"tensor {name!r:.80}: its last dimension, {shape}, has half a byte")
        shape[-1] //= 2
    if place.fortran:
        shape.reverse()
    if not place.nbytes:
        flat = torch.empty(0, dtype=dtype)
    else:
        flat = torch.frombuffer(
            place.shard.private_map, dtype=dtype, count=math.prod(shape), offset=place.offset
        )
    found = flat.reshape(shape)
    return found.permute(*reversed(range(len(shape)))) if place.fortran else found
