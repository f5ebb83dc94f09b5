"""Line and bar charts as inline SVG; colours come from the page's style sheet by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log, log10

WIDTH, HEIGHT = 760, 320
LEFT, RIGHT, TOP, BOTTOM = 68, 28, 14, 48
Format = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """Points to draw as a line, or as `bars` from the ground; `style` is a CSS class."""

    label: str
    style: str
    points: Sequence[tuple[float, float]]
    bars: bool = False
    dots: bool = True


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis from a number to a larger one, its name, how numbers are shown.

    Its ticks are powers of `unit`, or round multiples of it.
    """

    name: str
    low: float
    high: float
    show: Format
    log: bool = False
    unit: float = 10.0

    def share(self, value: float) -> float:
        """Where a value lies between low and high."""
        if self.log:
            return log10(max(value, self.low) / self.low) / log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def marks(self) -> list[float]:
        """The values that get a tick."""
        if self.log:
            first = ceil(log(self.low, self.unit) - 1e-9)
            last = floor(log(self.high, self.unit) + 1e-9)
            every = max(1, (last - first) // 6)
            return [self.unit**power for power in range(first, last + 1, every)]
        span = (self.high - self.low) / self.unit
        decade = 10.0 ** floor(log10(span / 3))
        step: float = self.unit * max(n * decade for n in (1, 2, 2.5, 5) if n * decade <= span / 3)
        return [self.low + n * step for n in range(floor((self.high - self.low) / step + 1e-9) + 1)]


def chart(
    title: str, x: Axis, y: Axis, series: Sequence[Series], mark: tuple[str, float] | None = None
) -> str:
    """An SVG element; `mark` is a vertical line with a name. All text is escaped."""

    def across(value: float) -> float:
        return LEFT + x.share(value) * (WIDTH - LEFT - RIGHT)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - y.share(value) * (HEIGHT - TOP - BOTTOM)

    ground, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
    ]
    for value in y.marks():
        at = up(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(LEFT - 8, at + 4, y.show(value), "end"))
    for value in x.marks():
        at = across(value)
        parts.append(
            f'<line class="tick" x1="{at:.1f}" x2="{at:.1f}" y1="{ground}" y2="{ground + 5}"/>'
        )
        parts.append(_text(at, ground + 20, x.show(value), "middle"))
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{ground}" y2="{ground}"/>')
    parts.append(_text((LEFT + right) / 2, HEIGHT - 8, x.name, "middle"))
    if mark is not None:
        label, value = mark
        at = across(value)
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{ground}"/>')
        side = "end" if at > WIDTH / 2 else "start"
        parts.append(_text(at + (-6 if side == "end" else 6), TOP + 22, label, side))
    for line in series:
        places = [(across(a), up(b)) for a, b in line.points]
        hints = [f"{line.label}: {y.show(b)} at {x.show(a)}" for a, b in line.points]
        if line.bars:
            parts += _bars(line, places, hints, ground)
            continue
        joined = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(f'<polyline class="line {line.style}" points="{joined}"/>')
        for (a, b), hint in zip(places, hints, strict=True):
            dot = f'<circle class="dot {line.style}" cx="{a:.1f}" cy="{b:.1f}" r="2.6">'
            parts.append(f"{dot}<title>{escape(hint)}</title></circle>" if line.dots else "")
    return "\n".join([*filter(None, parts), "</svg>"])


def legend(series: Sequence[Series]) -> str:
    """The names of the lines, each beside its colour."""
    items = (f'<li class="{line.style}">{escape(line.label)}</li>' for line in series)
    return f'<ul class="legend">{"".join(items)}</ul>'


def _bars(
    line: Series, places: list[tuple[float, float]], hints: list[str], ground: float
) -> list[str]:
    width = max(1.0, (WIDTH - LEFT - RIGHT) / len(places) - 2)
    return [
        f'<rect class="bar {line.style}" x="{a:.1f}" y="{b:.1f}" width="{width:.1f}"'
        f' height="{ground - b:.1f}"><title>{escape(hint)}</title></rect>'
        for (a, b), hint in zip(places, hints, strict=True)
    ]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
