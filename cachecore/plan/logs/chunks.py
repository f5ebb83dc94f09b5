"""What every reader of a log gives: chunks of requests; and how their fields are checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any, NamedTuple, Protocol

CHUNK = 1 << 14  # requests: milliseconds of look-ups, beside which a clock reading is nothing
MAX_DIGITS = 15  # of a size: a petabyte
UNKNOWN = -1  # size of an object that the log has not told
REMEMBERED = 1 << 20  # keys whose size a write told
READS = set("get gets read r fetch lookup load head".split())
WRITES = set("set put write w add store insert update replace cas".split())


class LogError(ValueError):
    """The log cannot be read; the message names the file and, where there is one, the line."""


class Chunk(NamedTuple):
    """Some requests in order, and what the log tells of them: lists as long as `keys`, or None.

    Keys are all int or all str within a log; sizes are bytes or UNKNOWN; times are seconds; costs
    are what a miss costs, relative to others.
    """

    keys: list[Any]
    sizes: list[int] | None = None
    times: list[float] | None = None
    costs: list[float] | None = None


class Log(Protocol):
    """An open log."""

    name: str
    format: str

    def share(self) -> float | None:
        """The share of the log that was read so far; None if its length is not known (a pipe)."""

    def chunks(self) -> Iterator[Chunk]:
        """The requests from the first on; a second time only if the log was opened for it."""


class Reads:
    """Tells reads, which are requests, from writes, whose sizes are those of later reads.

    Only the sizes of the keys written last are remembered.
    """

    def __init__(self) -> None:
        self._sizes: dict[Any, int] = {}

    def of(self, chunk: Chunk, operations: Sequence[str]) -> Chunk:
        """The requests of a chunk whose operations are named; what is neither is left out."""
        kept = []
        sizes = chunk.sizes or [UNKNOWN] * len(chunk.keys)
        for at, (key, size, name) in enumerate(zip(chunk.keys, sizes, operations, strict=True)):
            if name in READS:
                kept.append(at)
                if size <= 0:
                    sizes[at] = self._sizes.get(key, size)
            elif name in WRITES and size > 0:
                self._sizes[key] = size
                if len(self._sizes) > REMEMBERED:
                    del self._sizes[next(iter(self._sizes))]
        known = any(sizes[at] != UNKNOWN for at in kept)
        columns = (chunk.keys, sizes if known else None, chunk.times, chunk.costs)
        return Chunk(*(None if c is None else [c[at] for at in kept] for c in columns))  # type: ignore[arg-type]


def size_of(text: str) -> int:
    """A size in bytes; ValueError says what it is not."""
    digits = text.strip()
    if digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS:
        return int(digits)
    raise ValueError(f"size {digits[:40]!r} is not a number of bytes")


def seconds_of(text: str) -> float:
    """A time as seconds: a number, or ISO 8601, in UTC where no zone is named.

    Numbers as large as today's Unix time in milliseconds, microseconds or nanoseconds are that.
    """
    try:
        return in_seconds(float(text))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"time {text.strip()[:40]!r} is no time") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def in_seconds(number: float) -> float:
    """The same for a number."""
    if not isfinite(number):
        raise ValueError(f"time {number} is no time")
    for least, unit in ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3)):
        if abs(number) >= least:
            return number / unit
    return number


def cost_of(text: str) -> float:
    """A relative cost, above 0."""
    try:
        cost = float(text)
    except ValueError:
        cost = 0.0
    if cost > 0 and isfinite(cost):
        return cost
    raise ValueError(f"cost {text.strip()[:40]!r} is not a number above 0")


FIELDS = {"key": "key", "size": "size", "cost": "cost"} | dict.fromkeys(
    ("time", "timestamp", "ts"), "time"
)
FIELDS |= dict.fromkeys(("op", "operation"), "op")


def fields_of(names: Iterable[str]) -> dict[str, int]:
    """Which of the columns named is key, size, time, cost and op; the first of its kind."""
    found: dict[str, int] = {}
    for at, name in enumerate(names):
        field = FIELDS.get(name.strip().lower())
        if field is not None:
            found.setdefault(field, at)
    return found
