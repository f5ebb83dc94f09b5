"""Durations, sizes and amounts of money as text, and durations from text."""

from __future__ import annotations

import re

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(ns|us|µs|μs|ms|s|min|m|h|d)\s*")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0} | {
    "min": 60.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
}


def seconds_in(text: str, name: str) -> float:
    """Seconds from text such as "200ns" or "1.5 ms"; ValueError naming the argument."""
    match = _DURATION.fullmatch(text)
    if match is None or not float(match[1]) > 0:
        raise ValueError(
            f'{name} must be a duration above 0 with its unit, like "5ms", not {text!r}'
        )
    return float(match[1]) * _SECONDS[match[2]]


def duration(ns: float) -> str:
    """Nanoseconds in a readable unit, three digits."""
    if ns == 0:
        return "0"
    for unit, scale in (("ns", 1), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)):
        if ns < 999.5 * scale or unit == "s":
            break
    return f"{_three_digits(ns / scale)} {unit}"


def size(n: float) -> str:
    """Bytes in a readable unit of 1024, three digits."""
    units = (("B", 1), ("KB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30))
    for unit, scale in units:
        if abs(n) < 999.5 * scale or unit == "GB":
            break
    return f"{_three_digits(n / scale)} {unit}"


def span(seconds: float) -> str:
    """A duration in seconds, in minutes, hours or days where it is longer."""
    for unit, scale in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * scale:
            return f"{seconds / scale:,.3g} {unit}"
    return duration(seconds * 1e9)


def amount(money: float) -> str:
    """An amount of money, in any currency; a tiny one with two digits."""
    return f"{money:,.2f}" if abs(money) >= 0.1 or money == 0 else f"{money:.2g}"


def _three_digits(value: float) -> str:
    digits = 0 if abs(value) >= 99.95 or value == int(value) else 1 if abs(value) >= 9.995 else 2
    return f"{value:,.{digits}f}"
