"""A line chart for the terminal: a logarithmic x axis, lines of braille named at their end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

# Braille characters hold 2 x 4 dots; the bit of each dot, by row and column.
DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


@dataclass(frozen=True)
class Line:
    """A line of the chart, all of its numbers positive, x rising."""

    label: str
    style: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]


def log_chart(
    lines: Sequence[Line],
    *,
    width: int,
    height: int,
    x_tick: Callable[[float], str],
    y_tick: Callable[[float], str],
    y_ticks: Sequence[float] = (),
) -> Text:
    """Draw the lines in `width` x `height` characters, axes and names included.

    The y axis is linear between the first and the last of `y_ticks` or, without them, logarithmic.
    Other ticks are powers of ten; where two lines meet, the later one is seen.
    """
    low_x, high_x = np.log10(_extent([line.x for line in lines]))
    high_x = max(high_x, low_x + 1e-9)
    scale: Callable[[float], float] = float
    if y_ticks:
        low_y, high_y = y_ticks[0], y_ticks[-1]
    else:
        scale = np.log10
        low_y, high_y = np.log10(_extent([line.y for line in lines]))
        low_y = np.floor(low_y + 1e-9)
        high_y = max(np.ceil(high_y - 1e-9), low_y + 1)  # whole decades
        y_ticks = [10.0**n for n in range(int(low_y), int(high_y) + 1)]
    ticks_y = {value: y_tick(value) for value in y_ticks}
    left = max(map(len, ticks_y.values())) + 2
    columns = width - left - max(len(line.label) for line in lines) - 1
    rows = height - 2

    def row_of(y: float) -> int:
        return int((high_y - scale(y)) / (high_y - low_y) * (rows * 4 - 1)) // 4

    bits = np.zeros((rows, columns), int)
    styles = np.full((rows, columns), -1)
    at = np.linspace(low_x, high_x, columns * 2)
    for number, line in enumerate(lines):
        y = np.interp(at, np.log10(line.x), [scale(value) for value in line.y])
        dots = ((high_y - y) / (high_y - low_y) * (rows * 4 - 1)).astype(int)
        ends_x = np.searchsorted(at, np.log10(line.x[[0, -1]]))
        for column, ends in enumerate(zip(dots, [dots[0], *dots[:-1]], strict=True)):
            if not ends_x[0] - 1 <= column <= ends_x[1]:
                continue
            for dot in range(min(ends), max(ends) + 1):
                bits[dot // 4, column // 2] |= DOTS[dot % 4, column % 2]
                styles[dot // 4, column // 2] = number

    names = _place([row_of(line.y[-1]) for line in lines], rows)
    tick_rows = {row_of(value): tick for value, tick in ticks_y.items()}
    chart = Text()
    for row in range(rows):
        tick = tick_rows.get(row, "")
        chart.append(f"{tick:>{left - 1}}{'┤' if tick else '│'}", "dim")
        for dot, number in zip(bits[row], styles[row], strict=True):
            chart.append(chr(0x2800 + dot) if dot else " ", lines[number].style if dot else "")
        if row in names:
            chart.append(f" {lines[names[row]].label}", lines[names[row]].style)
        chart.append("\n")
    chart.append(_x_axis(low_x, high_x, left, columns, x_tick), "dim")
    return chart


def _extent(arrays: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.array([min(a.min() for a in arrays), max(a.max() for a in arrays)])


def _place(wanted: list[int], rows: int) -> dict[int, int]:
    """A row of its own for each name, as near to the wanted one as a walk downwards gets."""
    placed: dict[int, int] = {}
    for number in sorted(range(len(wanted)), key=wanted.__getitem__):
        row = max([wanted[number], *(taken + 1 for taken in placed)])
        placed[row] = number
    over = max(placed) - rows + 1
    return {row - max(over, 0): number for row, number in placed.items()}


def _x_axis(low: float, high: float, left: int, columns: int, tick: Callable[[float], str]) -> str:
    line, names = ["─"] * columns, [" "] * (columns + 12)
    for power in range(int(np.ceil(low)), int(high) + 1):
        column = round((power - low) / (high - low) * (columns - 1))
        line[column] = "┬"
        name = tick(10.0**power)
        start = max(0, column - len(name) // 2)
        names[start : start + len(name)] = name
    return f"{' ' * (left - 1)}└{''.join(line)}\n{' ' * left}{''.join(names).rstrip()}"
