"""The attention state of transformers' models as blocks of a PrefixCache, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cachecore.settings import positive_int


def blocks_of_past(past: Any, block: int, start: int = 0) -> list[npt.NDArray[Any]]:
    """Cut `past_key_values` of one sequence into blocks for `PrefixCache.put`.

    Args:
        past: a `DynamicCache` of transformers, of layers that attend to all tokens and are alike,
            and of a batch of 1; on any device.
        block: tokens in a block; those of the last whole block are the last that are returned.
        start: how many tokens to leave out at the beginning, a multiple of `block`.

    Returns arrays of (layers, 2, heads, block, head dimension): keys and values. They are views of
    one copy. Items of bfloat16, which NumPy does not have, are their 16 bits as int16.

    Raises:
        ValueError: `past` is of another kind or holds NaN or infinities, which would reach whoever
            shares the prefix; or `start` is no multiple of `block`.
    """
    import torch

    positive_int(block, "block")
    if start < 0 or start % block:
        raise ValueError(f"start must be a multiple of {block}, not {start}")
    held = getattr(past, "layers", None)
    if not isinstance(held, list):
        raise ValueError(f"past must be a DynamicCache of transformers, not {type(past).__name__}")
    if any(getattr(layer, "is_sliding", False) for layer in held):
        raise ValueError("past must not have layers that attend to a window only")
    pairs: list[Any] = [
        (getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in held
    ]
    shapes = {tuple(getattr(part, "shape", ())) for pair in pairs for part in pair}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 4 or shape[0] != 1:
        raise ValueError("past must hold one sequence, in layers that are alike")
    if shape[2] != past.get_seq_length():  # as a StaticCache does: its layers have room for more
        raise ValueError("past must hold the state of its tokens alone, as a DynamicCache does")
    until = shape[2] // block * block
    if until <= start:
        return []
    state = torch.stack([torch.cat(pair)[:, :, start:until] for pair in pairs]).detach()
    if not bool(state.isfinite().all()):
        raise ValueError("past must be finite: it holds NaN or infinities")
    state = state.cpu()
    if state.dtype == torch.bfloat16:
        state = state.view(torch.int16)
    layers, kinds, heads, tokens, width = state.shape
    cut = state.view(layers, kinds, heads, tokens // block, block, width)
    return list(np.moveaxis(cut.numpy(), 3, 0))


def past_of_blocks(
    blocks: Sequence[npt.NDArray[Any]], *, dtype: Any = None, device: Any = None
) -> Any:
    """Join blocks of `PrefixCache.match` to a `DynamicCache` that a model goes on from.

    Args:
        blocks: as `blocks_of_past` has cut them; none: an empty cache.
        dtype: the model's; what was cut from bfloat16 needs it.
        device: where to; None: where tensors of NumPy arrays lie, in main memory.

    The state is copied: the model may append to it. Blocks stay as they are.

    Raises:
        ValueError: blocks are none that `blocks_of_past` has cut of one model, or are of bfloat16
            and `dtype` is not.
    """
    import torch
    from transformers import DynamicCache

    past = DynamicCache()
    if not blocks:
        return past
    shapes = {np.shape(block)[:3] + np.shape(block)[4:] for block in blocks}
    arrays = all(isinstance(block, np.ndarray) for block in blocks)
    if not arrays or len(shapes) != 1 or len(shape := shapes.pop()) != 4 or shape[1] != 2:
        raise ValueError("blocks must be arrays that blocks_of_past has cut of one model's state")
    state = torch.from_numpy(np.concatenate(blocks, axis=3))
    if state.dtype == torch.int16:
        if dtype != torch.bfloat16:
            raise ValueError(f"dtype must be torch.bfloat16, as the blocks are, not {dtype}")
        state = state.view(torch.bfloat16)
    for at, (keys, values) in enumerate(state.to(device=device, dtype=dtype)):
        past.update(keys[None], values[None], at)
    return past
