"""What a model may not be asked, and may not return, if its results are to be kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_SEEDS = ("seed", "random_state")
_TRAINING = ("dropout", "train", "training")


def refuse_stochastic(params: Mapping[str, Any], seeded: bool = False) -> None:
    """Raise ValueError for a parameter with which a model draws lots."""
    seeded = seeded or any(params.get(name) is not None for name in _SEEDS)
    sampling = params.get("do_sample", True)
    for name, value in params.items():
        positive = isinstance(value, (bool, int, float, np.bool_, np.number)) and bool(value > 0)
        if isinstance(value, Mapping):
            refuse_stochastic(value, seeded)
        elif (
            (name in _SEEDS and value is None)
            or (name in _TRAINING and positive)
            or (name == "temperature" and positive and sampling and not seeded)
            or (name == "do_sample" and value and not seeded)
        ):
            raise ValueError(
                f"{name}={value!r} makes the model stochastic: its results are not for a cache "
                "(allow_stochastic=True keeps them nevertheless)"
            )


def refuse_nan(results: Any, who: str) -> None:
    """Raise ValueError for a NaN in an array, or in one of a list of results."""
    if isinstance(results, np.ndarray) and results.dtype.names:
        for name in results.dtype.names:
            refuse_nan(results[name], who)
        return
    if isinstance(results, (list, tuple)):
        floats = (float, np.generic, np.ndarray)
        flags = [isinstance(result, floats) and _has_nan(result) for result in results]
    elif _has_nan(results):
        flags = [_has_nan(row) for row in results] if np.ndim(results) else [True]
    else:
        return
    if any(flags):
        raise ValueError(
            f"{who} returned NaN for {sum(flags)} of the {len(flags)} inputs it was given, "
            f"the first at {flags.index(True)}; nothing was cached"
        )


def _has_nan(result: Any) -> bool:
    try:
        return bool(np.isnan(result).any())
    except TypeError:  # no numbers
        return False
