"""What a model may not be asked, and may not return, if its results are to be kept."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Iterator, Mapping
from typing import Any

import numpy as np

_SEEDS = ("seed", "random_state")
_TRAINING = ("dropout", "train", "training")


def refuse_stochastic(params: Mapping[str, Any], seeded: bool = False) -> None:
    """Raise ValueError for a parameter with which a model draws lots."""
    seeded = seeded or any(params.get(name) is not None for name in _SEEDS)
    sampling = _positive(params.get("do_sample", True))
    for name, value in params.items():
        positive = _positive(value)
        if isinstance(value, Mapping):
            refuse_stochastic(value, seeded)
        elif (
            (name in _SEEDS and value is None)
            or (name in _TRAINING and positive)
            or (name == "temperature" and positive and sampling and not seeded)
            or (name == "do_sample" and positive and not seeded)
        ):
            raise ValueError(
                f"{name}={value!r} makes the model stochastic: its results are not for a cache "
                "(allow_stochastic=True keeps them nevertheless)"
            )


def _positive(value: Any) -> bool:
    """It is a number above 0, or has one: an array with one for each input, say."""
    if isinstance(value, (list, tuple)):
        return any(map(_positive, value))
    number = isinstance(value, (int, float)) or hasattr(value, "__array__")
    return number and bool(np.any(np.asarray(value) > 0))


def refuse_unkeepable(results: Any, who: str, allow_nan: bool = False) -> None:
    """Raise for results, in an array or a list, that are not the same when they are read again.

    Raises:
        TypeError: one is a generator or another iterator, or is to be awaited.
        ValueError: one is NaN or holds it: a number, an array, a tensor, or a list, tuple or dict
            of these.
    """
    listed = results if isinstance(results, list) else []
    once = [result for result in listed if isinstance(result, (Iterator, Awaitable))]
    for result in once:
        if inspect.iscoroutine(result):
            result.close()  # without a warning that nobody awaited it
    if once:
        raise TypeError(f"{who} returned a {type(once[0]).__name__}, which can be read once only")
    if allow_nan or not _has_nan(results):
        return
    flags = [_has_nan(result) for result in results]
    raise ValueError(
        f"{who} returned NaN for {sum(flags)} of the {len(flags)} inputs it was given, "
        f"the first at {flags.index(True)}; nothing was cached"
    )


def _has_nan(value: Any) -> bool:
    kind = type(value)  # what is most frequent in lists comes first
    if kind is float or kind is complex:
        return bool(value != value)
    if kind is str or kind is int:
        return False
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.names:
            return any(_has_nan(value[name]) for name in value.dtype.names)  # type: ignore[index]
        if value.dtype.hasobject:
            return any(map(_has_nan, value.flat))
        try:
            return bool(np.isnan(value).any())
        except TypeError:  # no numbers
            return False
    if isinstance(value, (list, tuple)):
        return any(map(_has_nan, value))
    if isinstance(value, dict):
        return any(map(_has_nan, value.values()))
    isnan = getattr(value, "isnan", None)  # of a tensor
    return isnan is not None and hasattr(value, "detach") and bool(isnan().any())
