"""What a measurement reports: a line of the table of bars, tables, and where it ran."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from timing import Ratio


@dataclass(frozen=True)
class Line:
    """One measured value beside its bar. A ratio is time over time, so less is better."""

    measure: str
    against: str  # the peer of a ratio, the unit of an absolute value
    value: float  # NaN: it was left out, and `detail` says why
    bar: float | None = None  # None: for information
    goal: float | None = None  # "then <= goal"
    at_least: bool = False  # the bar is a lower bound
    spread: tuple[float, float] | None = None  # quartiles over the rounds
    detail: str = ""

    def meets(self, bound: float) -> bool:
        """Say whether the value, as printed, is on the right side of the bound."""
        value = round(self.value, 2)
        return value >= bound if self.at_least else value <= bound

    @property
    def verdict(self) -> str:
        """pass, miss, or nothing without a bar; noisy: measure again on a quieter machine."""
        if math.isnan(self.value):
            return "left out"
        if self.bar is None:
            return ""
        verdict = "pass" if self.meets(self.bar) else "MISS"
        if self.goal is not None and verdict == "pass":
            verdict += ", goal too" if self.meets(self.goal) else ", goal missed"
        noisy = self.spread is not None and self.spread[1] > 1.5 * self.spread[0]
        return f"{verdict} (noisy)" if noisy else verdict

    def cells(self) -> list[str]:
        """Return the row of the printed table."""
        sign = ">=" if self.at_least else "<="
        bar = "" if self.bar is None else f"{sign} {self.bar:g}"
        if self.goal is not None:
            bar += f", then {self.goal:g}"
        spread = "" if self.spread is None else f"{self.spread[0]:.2f}-{self.spread[1]:.2f}"
        value = "-" if math.isnan(self.value) else f"{self.value:.2f}"
        return [self.measure, self.against, value, spread, bar, self.verdict, self.detail]


HEADINGS = ["measure", "against / unit", "measured", "quartiles", "bar", "verdict", "detail"]


def ratio_line(
    measure: str,
    against: str,
    ratio: Ratio,
    bar: float | None = None,
    goal: float | None = None,
    note: str = "",
) -> Line:
    """Make a line of a ratio of gross times (loop included); the net ratio goes into the detail."""
    detail = f"{ratio.ours_ns:.1f} / {ratio.theirs_ns:.1f} ns"
    if ratio.net is not None:
        detail += f", net of the loop {ratio.net:.2f}"
    if note:
        detail += f"; {note}"
    return Line(
        measure, against, ratio.median, bar, goal, spread=(ratio.low, ratio.high), detail=detail
    )


def absolute_line(
    measure: str,
    unit: str,
    values: npt.NDArray[np.float64],
    bar: float | None = None,
    detail: str = "",
) -> Line:
    """Make a line of an absolute value: the median of what the rounds have shown."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return Line(measure, unit, median, bar, spread=(low, high), detail=detail)


def left_out(measure: str, against: str, why: str, bar: float | None = None) -> Line:
    """Make a line that says why something was not measured."""
    return Line(measure, against, math.nan, bar, detail=f"left out: {why}")


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned Markdown table."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [headings, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def note(text: str) -> None:
    """Say on stderr what is being done."""
    print(f"... {text}", file=sys.stderr, flush=True)


def machine() -> str:
    """Say what the numbers were measured on."""
    described = Path("/proc/cpuinfo").read_text().partition("model name")[2]
    cpu = described.partition("\n")[0].lstrip("\t: ") or platform.machine()
    return f"{cpu}, CPython {platform.python_version()}, NumPy {np.__version__}"


def busy() -> str:
    """Say how busy the machine is: the measurement itself is a load of about 1."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"


def chosen(names: Sequence[str], every: Sequence[str]) -> list[str]:
    """Return the rows that are meant; an exact name wins over parts of names."""
    if not names:
        return list(every)
    rows = [
        row
        for name in names
        for row in ([name] if name in every else [r for r in every if name in r])
    ]
    if not rows:
        sys.exit(f"no row is named {' or '.join(names)}; rows: {', '.join(every)}")
    return list(dict.fromkeys(rows))
