"""The chart of VectorCache: gather beside np.take over sizes, and beside other places for rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bars import OURS
from chart import GRID, OUR_COLOUR, THEIR_COLOUR
from timing import Ratio
from vector_gather import Cell
from vector_peers import LMDB, REDIS, STACK

SHADES = {100: "#fdba74", 1_000: "#ea580c", 10_000: "#7c2d12"}  # of batches
LABELS = {
    OURS: "VectorCache.gather",
    "take": "np.take from an array\n(neither bound nor ids)",
    STACK: "dict and np.stack",
    LMDB: "LMDB",
    REDIS: "Redis: redis-py MGET,\nloopback",
}


def _rows(value: float, _: object = None) -> str:
    """Write a number of rows: 100k, 20M."""
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k"


def _plain(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(which="both", labelsize=8, length=0)
    axes.set_axisbelow(True)


def _peers(axes: Axes, seen: Mapping[str, tuple[Ratio, float]]) -> None:
    """A dot for each way to get 1,000 rows of 4 KB."""
    order = sorted(seen, key=lambda name: seen[name][1])
    for y, name in enumerate(order):
        us = seen[name][1]  # ns for a row are us for 1,000
        colour = OUR_COLOUR if name == OURS else THEIR_COLOUR
        axes.axhline(y, color=GRID, linewidth=0.8, zorder=0)
        axes.plot(us, y, "o", color=colour, markersize=8 if name == OURS else 6)
        axes.annotate(
            f"{us / 1000:.2f} ms",
            (us, y),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=colour,
            fontweight="bold" if name == OURS else "normal",
        )
    axes.set_yticks(range(len(order)), [LABELS.get(name, name) for name in order], fontsize=8)
    axes.invert_yaxis()
    times = [seen[name][1] for name in order]
    axes.set_xscale("log")
    axes.set_xlim(min(times) / 1.5, max(times) * 3)  # room for the labels
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=99))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda us, _: f"{us / 1000:g} ms"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_title("1,000 rows of 4 KB: further left is better", fontsize=10, loc="left")
    _plain(axes)


def _shape(axes: Axes, dim: int, cells: Sequence[Cell]) -> None:
    """A line for each batch over the number of rows."""
    axes.axhline(1, color=THEIR_COLOUR, linewidth=1, linestyle="--", zorder=1)
    for batch, shade in SHADES.items():
        points = [(c.rows, c.ratio) for c in cells if (c.dim, c.batch) == (dim, batch)]
        rows = [x for x, _ in points]
        axes.fill_between(
            rows, [r.low for _, r in points], [r.high for _, r in points], color=shade, alpha=0.12
        )
        medians = [r.median for _, r in points]
        axes.plot(rows, medians, "o-", color=shade, markersize=5, label=f"batches of {batch:,}")
    axes.set_xscale("log")
    axes.set_xticks(sorted({c.rows for c in cells if c.dim == dim}))
    axes.xaxis.set_major_formatter(FuncFormatter(_rows))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_xlabel("rows in the table", fontsize=8)
    axes.set_title(f"rows of {dim:,} float32", fontsize=10, loc="left")
    _plain(axes)


def draw(
    cells: Sequence[Cell], seen: Mapping[str, tuple[Ratio, float]], machine: str, path: Path
) -> None:
    """Write the chart."""
    mpl.rcParams |= {"svg.hashsalt": "vectors", "svg.fonttype": "path"}
    dims = sorted({cell.dim for cell in cells})
    figure, panels = plt.subplots(
        1,
        1 + len(dims),
        figsize=(13, 3.9),
        width_ratios=[1.5, *(1 for _ in dims)],
        layout="constrained",
    )
    _peers(panels[0], seen)
    for axes, dim in zip(panels[1:], dims, strict=True):
        _shape(axes, dim, cells)
        axes.sharey(panels[1])
    panels[1].set_ylim(0, max(2, *(1.1 * cell.ratio.median for cell in cells)))
    panels[1].set_ylabel("gather: time / time of np.take", fontsize=8)
    panels[1].legend(frameon=False, fontsize=8, loc="lower left")
    figure.supxlabel(
        f"Medians of interleaved rounds, quartiles shaded; one thread. {machine}",
        fontsize=8,
        x=0.005,
        ha="left",
        color="#64748b",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
