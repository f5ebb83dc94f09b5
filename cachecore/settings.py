"""How settings are read: sizes such as "4GB", bounds, lifetimes. Errors name the argument."""

from __future__ import annotations

import inspect
import math
import operator
import re
from typing import Any

import numpy as np

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:I?B)?\s*", re.IGNORECASE)
_UNITS = {unit: 1024**power for power, unit in enumerate(("", "K", "M", "G", "T", "P"))}


def awaits(function: object) -> bool:
    """Whether what a call of it returns is to be awaited; of a function, or an object like one."""
    call = getattr(type(function), "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


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
    whole, unit = match[1].isdigit(), _UNITS[match[2].upper()]
    size = int(match[1]) * unit if whole and len(match[1]) < 20 else float(match[1]) * unit
    return positive_int(2**63 if size >= 2**63 else int(size), name)


def sketch_size(value: Any) -> int:
    """`sketch_bytes`: 0, which follows the capacity, for None; else 64 bytes ... 128 GB."""
    if value is None:
        return 0
    size = size_in_bytes(value, "sketch_bytes")
    if not 64 <= size <= 2**37:
        raise ValueError(f"sketch_bytes must be between 64 and 2**37, not {size}")
    return size


def _number(value: Any, name: str, what: str) -> float:
    """`value` as a float; what is too large for one is infinite."""
    kind = type(value)
    try:
        if kind is not bool and (hasattr(kind, "__float__") or hasattr(kind, "__index__")):
            return float(value)
    except OverflowError:
        return math.inf
    except TypeError:  # of an array with many items
        pass
    raise TypeError(f"{name} must be {what}, not {kind.__name__}")


def seconds(value: Any, name: str) -> float:
    """A lifetime in seconds, greater than 0; infinity is allowed and means: for ever."""
    number = _number(value, name, "a number of seconds")
    if not number > 0:
        raise ValueError(f"{name} must be greater than 0 seconds, not {value!r}")
    return number


def deadline(value: Any, name: str) -> float:
    """How many seconds something may take: more than 0, and few enough for any clock."""
    number = seconds(value, name)
    if number > 1e6:
        raise ValueError(f"{name} must be at most 1,000,000 seconds, not {value!r}")
    return number


def price(value: Any, name: str) -> float:
    """A relative cost, greater than 0."""
    number = _number(value, name, "a number")
    if not number > 0:
        raise ValueError(f"{name} must be greater than 0, not {value!r}")
    return number


def share(value: Any, name: str) -> float:
    """A number of 0 ... 1."""
    number = _number(value, name, "a number")
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must be between 0 and 1, not {value!r}")
    return number


def value_size(value: Any) -> int:
    """What a `getsizeof` function returned, as a number of bytes."""
    if isinstance(value, float):
        value = math.ceil(value) if math.isfinite(value) else -1
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"getsizeof must return an int, not {type(value).__name__}")
    size = operator.index(value)
    if not 0 <= size < 2**62:
        raise ValueError(f"getsizeof must return 0 ... 2**62 bytes, not {size}")
    return size


def bounds(maxsize: Any, max_bytes: Any) -> tuple[int | None, int | None]:
    """The two bounds of a cache, one of which is required."""
    if maxsize is None and max_bytes is None:
        raise ValueError("maxsize or max_bytes is required: a cache has a bound")
    return (
        None if maxsize is None else positive_int(maxsize, "maxsize"),
        None if max_bytes is None else size_in_bytes(max_bytes, "max_bytes"),
    )


def check_kinds(getsizeof: Any, on_evict: Any, timer: Any, copy_arrays: Any, name: Any) -> None:
    """Settings of a cache that are functions, a bool, and text."""
    functions = {"getsizeof": getsizeof, "on_evict": on_evict, "timer": timer}
    for label, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"{label} must be callable, not {type(function).__name__}")
    if not isinstance(copy_arrays, bool):
        raise TypeError(f"copy_arrays must be a bool, not {type(copy_arrays).__name__}")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")


def sequence_of(keys: Any) -> list[Any] | tuple[Any, ...]:
    """An iterable of keys as a list or tuple; one str is hardly meant as many keys."""
    if type(keys) is list or type(keys) is tuple:
        return keys
    if isinstance(keys, (str, bytes)) or not hasattr(type(keys), "__iter__"):
        raise TypeError(f"keys must be an iterable of keys, not {type(keys).__name__}")
    return list(keys)


def check_rows(out: Any, count: int) -> None:
    """`out` is an array that takes a row of plain items for each of `count` keys."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, not {type(out).__name__}")
    if out.ndim < 1 or out.shape[0] != count:
        raise ValueError(f"out must have one row for each of {count} keys, not shape {out.shape}")
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError("out must be C-contiguous and writable")
    if out.dtype.hasobject:
        raise ValueError(f"out must not hold objects, as {out.dtype} does")
