"""What `cachecore bench` prints: rates, percentiles, and the latencies as a histogram."""

from __future__ import annotations

import click
import numpy as np
from numpy.typing import NDArray

from cachecore._bench import bucket_bounds
from cachecore.cli.bench_load import Result
from cachecore.units import duration, size

WIDTH = 50  # of the longest bar
ROWS = 20  # most bars
LEAST_SHARE = 1e-4  # of a row at the ends that is drawn
EIGHTHS = " ▏▎▍▌▋▊▉█"


def report(result: Result) -> str:
    """All of it, as text."""
    work = result.work
    low, high = work.sizes
    values = size(low) if low == high else f"{size(low)} ... {size(high)}"
    how = work.distribution + (f" {work.exponent:g}" if work.distribution == "zipf" else "")
    clients = f"{work.clients} clients, pipeline {work.pipeline}, " if result.busy else ""
    rate, asked = result.requests / result.seconds, result.hits + result.misses
    total = f"{result.requests:,} in {result.seconds:.1f} s"
    lines = [
        f"{result.where}: {clients}{work.keys:,} keys ({how}), values of {values}",
        "",
        f"{_bold(f'{rate:,.0f}')} requests a second, {total}",
    ]
    if asked:
        lines.append(f"{_bold(f'{result.hits / asked:.1%}')} of the GETs are hits")
    if result.errors:
        lines.append(click.style(f"{result.errors:,} errors: {result.first_error}", fg="red"))
    if result.lost:
        lines.append(click.style(f"{result.lost} connections were closed", fg="red"))
    kinds = [("GET", 1), ("SET", 0)] if result.busy is not None else [("each", 1)]
    measured = [(name, result.latency(kind)) for name, kind in kinds if result.counts[kind].any()]
    if measured:
        lines += ["", "      " + "".join(f"{name:>10}" for name in measured[0][1])]
        lines += [
            f"{name:<6}" + "".join(f"{duration(us * 1e3):>10}" for us in latency.values())
            for name, latency in measured
        ]
        lines += ["", "All of them:", *histogram(result.counts.sum(axis=0))]
    lines += ["", *_notes(result)]
    return "\n".join(lines).rstrip()


def histogram(counts: NDArray[np.int64]) -> list[str]:
    """A bar for each range of latencies, which grow by the same factor; the rare ends left out."""
    bounds, total = bucket_bounds(), counts.sum()
    shares = counts.cumsum() / total
    low, high = np.searchsorted(shares, (LEAST_SHARE, 1 - LEAST_SHARE))
    first, last = float(bounds[low]), float(bounds[min(int(high) + 1, len(bounds) - 1)])
    edges = np.geomspace(max(first, 1), max(last, first + 2), ROWS + 1)
    rows = np.histogram(bounds, edges, weights=counts)[0] / total
    return [
        f"{duration(edge):>10} {_bar(share / rows.max())} {share:.1%}"
        for edge, share in zip(edges, rows, strict=False)
    ]


def _bar(share: float) -> str:
    eighths = round(share * WIDTH * 8)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _bold(text: str) -> str:
    return click.style(text, bold=True)


def _notes(result: Result) -> list[str]:
    if result.busy is None:
        return ["Each latency is the mean of 100 operations, Python's loop included."]
    if result.busy > 0.9:
        what = f"This client was busy for {result.busy:.0%} of the time: the server can do more."
        return [click.style(what, fg="yellow")]
    return [f"This client was busy for {result.busy:.0%} of the time."]
