"""How settings are read: sizes such as "4GB", bounds, lifetimes. Bad ones are named in the error."""

from __future__ import annotations

import math
import operator
import re
from typing import Any

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:I?B)?\s*", re.IGNORECASE)
_UNITS = {unit: 1024**power for power, unit in enumerate(("", "K", "M", "G", "T", "P"))}


def positive_int(value: Any, name: str) -> int:
    """`value` as an int of 1 ... 2^63 - 1; TypeError or ValueError naming the argument."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not bool")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, not {type(value).__name__}") from None
    if not 1 <= number < 2**63:
        raise ValueError(f"{name} must be between 1 and 2**63 - 1, not {number}")
    return number


def size_in_bytes(value: Any, name: str) -> int:
    """Bytes from an int or from text such as "512MB" or "1.5 GiB"; every unit is one of 1024."""
    if not isinstance(value, str):
        return positive_int(value, name)
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError(f'{name} must be a number of bytes or a size like "4GB", not {value!r}')
    size = float(match[1]) * _UNITS[match[2].upper()]
    return positive_int(2**63 if size >= 2**63 else int(size), name)


def seconds(value: Any, name: str) -> float:
    """A lifetime in seconds, greater than 0; infinity is allowed and means: for ever."""
    if isinstance(value, (bool, str, bytes)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    try:
        number = float(value)
    except TypeError:
        raise TypeError(
            f"{name} must be a number of seconds, not {type(value).__name__}"
        ) from None
    except OverflowError:
        return math.inf
    if not number > 0:
        raise ValueError(f"{name} must be greater than 0 seconds, not {value!r}")
    return number


def share(value: Any, name: str) -> float:
    """A number of 0 ... 1."""
    if isinstance(value, (bool, str, bytes)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    try:
        number = float(value)
    except TypeError:
        raise TypeError(f"{name} must be a number, not {type(value).__name__}") from None
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must be between 0 and 1, not {value!r}")
    return number
