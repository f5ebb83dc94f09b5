"""What an encoding model returns, as rows that may be kept, or an error that says what is wrong."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import numpy.typing as npt


def checked_rows(result: Any, count: int, dim: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A read-only copy of `count` rows of `dim` numbers each, of the dtype and all finite.

    `result` is an array, a torch tensor, or a sequence of rows. Numbers are cast within their kind,
    as NumPy calls it, integers to floats too, and to integers only integers that fit.

    Raises:
        TypeError: it is no array of numbers, or of numbers that cannot be cast.
        ValueError: another shape, ragged rows, masked items, NaN, infinity (also by the cast).
    """
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError("encode returned an awaitable: make it a coroutine function")
    try:
        array = array_of(result)
    except ValueError as error:  # ragged rows
        raise ValueError(f"encode must return rows of {dim} numbers each: {error}") from None
    if np.ma.is_masked(result):
        raise ValueError("encode returned an array with masked items")
    if array.dtype.kind in "OUSMm":
        raise TypeError(f"encode must return rows of numbers, not {_kind(result, array)}")
    if array.shape != (count, dim):
        raise ValueError(
            f"encode returned an array of shape {array.shape} for {count} inputs; "
            f"expected {(count, dim)}"
        )
    integers = dtype.kind in "iu" and array.dtype.kind in "iu"
    if not integers and not np.can_cast(array.dtype, dtype, "same_kind"):
        raise TypeError(f"encode returned {array.dtype}, which cannot be cast to {dtype} safely")
    with np.errstate(over="ignore"):  # it becomes infinity
        rows = array.astype(dtype, order="C")
    if integers and not np.array_equal(rows, array):
        raise ValueError(f"encode returned integers that {dtype} does not hold")
    finite = np.isfinite(rows)
    if not finite.all():
        first = int(np.argmin(finite.all(axis=1)))
        raise ValueError(f"encode returned NaN or infinity for input {first} of {count}")
    rows.flags.writeable = False
    return rows


def array_of(result: Any) -> npt.NDArray[Any]:
    """What a model returned, as an array; of tensors on any device and with a gradient, too."""
    if hasattr(result, "detach"):  # a torch tensor, maybe with a gradient, maybe elsewhere
        result = result.detach().cpu()
        try:
            return np.asarray(result.numpy())
        except TypeError:  # bfloat16, which NumPy does not know
            return np.asarray(result.float().numpy())
    if isinstance(result, (list, tuple)) and any(hasattr(row, "detach") for row in result):
        return np.asarray([array_of(row) for row in result])
    return np.asarray(result)


def _kind(result: Any, array: npt.NDArray[Any]) -> str:
    return type(result).__name__ if array.ndim == 0 else f"an array of {array.dtype}"
