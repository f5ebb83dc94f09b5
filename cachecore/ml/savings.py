"""What a cache of computations saved: calls, rows, seconds of the model, and their price."""

from __future__ import annotations

import math
import os
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from threading import Lock
from typing import Any

import numpy as np

from cachecore.ml.versions import version_text
from cachecore.settings import price

_RECENT = 256  # calls of a model that its time is estimated from
_ledgers: weakref.WeakSet[Ledger] = weakref.WeakSet()


class Ledger:
    """Counts of one model or stage. Thread safe.

    How long a call of `n` rows would have taken is estimated as `fixed + n * per_row` from the last
    256 calls. The slope is the median of those of all pairs of calls (Theil 1950, Sen 1968), so a
    first call that takes seconds changes little. While all calls had the same number of rows
    the parts cannot be told apart, and all of it counts as fixed: that claims too little, if wrong.
    """

    def __init__(self, name: str, version: str | int) -> None:
        self.name, self.version = name, version
        self.requests = self.rows = self.calls = self.rows_computed = 0
        self.seconds = 0.0
        self._recent: deque[tuple[int, float]] = deque(maxlen=_RECENT)
        self._lock = Lock()
        _ledgers.add(self)

    def asked(self, rows: int) -> None:
        """Note a request."""
        with self._lock:
            self.requests += 1
            self.rows += rows

    def computed(self, rows: int, seconds: float) -> None:
        """Note a call of the model, and the seconds it took."""
        with self._lock:
            self.calls += 1
            self.rows_computed += rows
            self.seconds += seconds
            self._recent.append((rows, seconds))

    def line(self, per_second: float | None) -> SavingsLine:
        """What was saved so far; `per_second` is the price of a second."""
        with self._lock:
            counts = self.requests, self.rows, self.calls, self.rows_computed
            seconds, recent = self.seconds, list(self._recent)
        requests, rows, calls, computed = counts
        fixed, per_row = _fit(recent)
        # A request that failed was not noted, what it had computed before was.
        saved = fixed * max(0, requests - calls) + per_row * max(0, rows - computed)
        return SavingsLine(
            self.name, version_text(self.version), *counts,
            seconds, saved, _money(saved, per_second),
        )  # fmt: skip


def _begin_anew() -> None:
    """In a child process, where who held a lock may be gone."""
    for ledger in list(_ledgers):
        ledger._lock = Lock()


os.register_at_fork(after_in_child=_begin_anew)


def _fit(calls: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Seconds of a call, and of each of its rows."""
    if not calls:
        return 0.0, 0.0
    rows, seconds = np.array(calls, dtype=float).T
    first, second = np.triu_indices(len(calls), 1)
    apart = rows[first] != rows[second]
    first, second = first[apart], second[apart]
    slope = 0.0
    if len(first):
        slopes = (seconds[first] - seconds[second]) / (rows[first] - rows[second])
        slope = max(0.0, float(np.median(slopes)))
    return max(0.0, float(np.median(seconds - slope * rows))), slope


def _money(seconds: float, per_second: float | None) -> float | None:
    return None if per_second is None else seconds * per_second


@dataclass(frozen=True)
class SavingsLine:
    """What one model or stage did, and did not have to do."""

    name: str
    version: str
    requests: int
    """Calls of the cache."""
    rows: int
    """Inputs that were asked for."""
    calls: int
    """Calls of the model."""
    rows_computed: int
    """Inputs that the model computed."""
    seconds: float
    """How long it took for these."""
    seconds_saved: float
    """How long it would have taken for the others, as an estimate."""
    money_saved: float | None
    """What that would have cost; None without a price."""


@dataclass(frozen=True)
class Savings:
    """A report: a line for each model or stage, and their total. `print` shows it as a table."""

    lines: tuple[SavingsLine, ...]
    total: SavingsLine
    gpu_cost_per_hour: float | None

    def as_dict(self) -> dict[str, Any]:
        """All of it as dicts, lists, text and numbers."""
        return asdict(self) | {"lines": [asdict(line) for line in self.lines]}

    def __str__(self) -> str:
        names = [field.name.replace("_", " ") for field in fields(SavingsLine)]
        table = [names, *(_cells(line) for line in (*self.lines, self.total))]
        if self.gpu_cost_per_hour is None:
            table = [row[:-1] for row in table]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if at > 1 else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in table
        )


def _cells(line: SavingsLine) -> list[str]:
    counts = (line.requests, line.rows, line.calls, line.rows_computed)
    money = "" if line.money_saved is None else f"{line.money_saved:,.4g}"
    return [
        line.name, line.version, *(f"{count:,}" for count in counts),
        f"{line.seconds:,.3f}", f"{line.seconds_saved:,.3f}", money,
    ]  # fmt: skip


def report(ledgers: Iterable[Ledger], gpu_cost_per_hour: float | None) -> Savings:
    """What lies in ledgers that all the requests of one cache went through.

    Raises:
        ValueError, TypeError: the price is not a finite number greater than 0.
    """
    per_second = None
    if gpu_cost_per_hour is not None:
        gpu_cost_per_hour = price(gpu_cost_per_hour, "gpu_cost_per_hour")
        if math.isinf(gpu_cost_per_hour):
            raise ValueError("gpu_cost_per_hour must be finite")
        per_second = gpu_cost_per_hour / 3600
    lines = tuple(ledger.line(per_second) for ledger in ledgers)
    saved = sum(line.seconds_saved for line in lines)
    total = SavingsLine(
        "total", "",
        max((line.requests for line in lines), default=0),
        max((line.rows for line in lines), default=0),
        sum(line.calls for line in lines),
        sum(line.rows_computed for line in lines),
        sum(line.seconds for line in lines),
        saved,
        _money(saved, per_second),
    )  # fmt: skip
    return Savings(lines, total, gpu_cost_per_hour)
