"""What a measurement reports: a line of the table of bars, and how tables are printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from timing import Ratio


@dataclass(frozen=True)
class Line:
    """One measured value beside its bar. A ratio is time over time, so less is better."""

    measure: str
    against: str  # the peer of a ratio, the unit of an absolute value
    value: float
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
        value = f"{self.value:.2f}"
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
