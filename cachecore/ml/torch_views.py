"""PyTorch tensors on mapped weights."""

from __future__ import annotations

import math
from typing import Any

from cachecore._safetensors import Place
from cachecore.ml.shards import DTYPES


def tensor(name: str, place: Place) -> Any:
    """A tensor on the private map of its shard, see `WeightStore.torch`."""
    try:
        import torch
    except ImportError:
        raise ImportError("torch(name) needs PyTorch: pip install torch") from None
    shape = list(place.shape)
    if isinstance(place.dtype, str):
        kind = DTYPES[place.dtype]
        code, wanted = kind.torch, kind.name
    else:
        code = wanted = place.dtype.name if place.dtype.isnative else f"byte-swapped {place.dtype}"
    dtype = getattr(torch, code, None)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"tensor {name!r:.80}: this PyTorch has no dtype for {wanted}")
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
