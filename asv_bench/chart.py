"""The PNG of cachecore against its peers: a panel per measure, a dot per peer, logarithmic axes.

Dots, not bars: the length of a bar on a logarithmic axis means nothing.
"""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bars import OURS
from compare import Comparison

PANELS = {
    "hit": "hit",
    "miss": "miss",
    "set": "set of a new key\nat capacity",
    "mixed": "mixed stream\n(hit ratio beside)",
    "memory": "memory per entry",
}
OUR_COLOUR, THEIR_COLOUR, GRID = "#c2410c", "#475569", "#e2e8f0"


def _short(value: float, unit: str) -> str:
    """Write a tick: 300 ns, 1 us, 100 B."""
    return f"{value / 1000:g} µs" if unit == "ns" and value >= 1000 else f"{value:g} {unit}"


def _panel(axes: Axes, column: str, title: str, comparisons: list[Comparison]) -> None:
    seen = [c.values[column] for c in comparisons if column in c.values]
    unit = "B" if column == "memory" else "ns"
    axes.set_xscale("log")
    decades = math.log10(max(seen) / min(seen)) or 1.0
    axes.set_xlim(min(seen) / 1.5, max(seen) * 10 ** (0.75 * decades))  # room for the labels
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    for y, comparison in enumerate(comparisons):
        ours = comparison.peer.name == OURS
        colour = OUR_COLOUR if ours else THEIR_COLOUR
        axes.axhline(y, color=GRID, linewidth=0.8, zorder=0)
        value = comparison.values.get(column)
        if value is None:
            axes.text(
                0.02,
                y,
                "n/a",
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=8,
                color="#94a3b8",
            )
            continue
        axes.plot(value, y, "o", color=colour, markersize=8 if ours else 6)
        text = f"{value:,.0f} {unit}"
        if column == "mixed":
            text += f" ({comparison.values['hits']:.1f} %)"
        axes.annotate(
            text,
            (value, y),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=colour,
            fontweight="bold" if ours else "normal",
        )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if decades < 2 else (1,), numticks=99))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x, unit)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("log scale", fontsize=8)
    axes.tick_params(labelsize=8, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def draw(comparisons: list[Comparison], machine: str, path: Path) -> None:
    """Write the chart; further left is better in every panel."""
    figure, panels = plt.subplots(
        1, len(PANELS), figsize=(17, 5.6), sharey=True, layout="constrained"
    )
    for axes, (column, title) in zip(panels, PANELS.items(), strict=True):
        _panel(axes, column, title, comparisons)
    panels[0].set_yticks(range(len(comparisons)), [c.peer.label for c in comparisons], fontsize=9)
    panels[0].get_yticklabels()[0].set(color=OUR_COLOUR, fontweight="bold")
    panels[0].invert_yaxis()
    figure.suptitle(
        "cachecore and its peers, 10,000 str keys: further left is better",
        x=0.005,
        ha="left",
        fontsize=13,
    )
    figure.supxlabel(
        "Medians of interleaved rounds in one process; "
        "memory is RSS growth beyond key and value objects; n/a: it has no such operation. "
        + machine,
        fontsize=8,
        x=0.005,
        ha="left",
        color="#64748b",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
