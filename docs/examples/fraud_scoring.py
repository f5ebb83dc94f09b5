"""Fraud scoring: transactions that are scored more than once go to the model once.

    python docs/examples/fraud_scoring.py [--requests 1000] [--plot fraud_scoring.svg]

A gradient boosting model of scikit-learn (100 trees, 30 features, made-up transactions) scores each
transaction when it is authorised, and again when a terminal repeats its request, when the sum is
captured, when an analyst opens the case. How many requests repeat one of the last 500 transactions
is varied, as that is what a cache lives on. Every answer is compared with the model's own. Then
the model is trained anew: its next version finds nothing of the old one. Prints a table and what
was saved, and draws it where matplotlib is installed. Each stream is played three times, each time
with an empty cache, and of each request the shortest time counts: the rest is the machine's.
"""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier

from cachecore.ml import ResultCache

SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99)  # of requests that repeat a transaction
SHOWN = 0.75
RECENT = 500  # transactions that may come again
SCREEN = 100  # transactions of a request of an analyst's screen
TIMES = 3
GPU_COST = 2.5  # an hour

Rows = npt.NDArray[np.float64]


@dataclass
class Played:
    """A stream of requests, answered by the model itself and through a cache."""

    name: str
    share: float
    alone: Rows
    """Seconds of each request."""
    cached: Rows
    rows_computed: int
    wrong: int


def trained(seed: int) -> tuple[GradientBoostingClassifier, Rows]:
    """Return a model, and transactions that it has not seen."""
    rows, labels = make_classification(
        12_000, 30, n_informative=12, weights=[0.97], class_sep=1.5, random_state=0
    )
    model = GradientBoostingClassifier(random_state=seed, subsample=0.8)
    return model.fit(rows[:2_000], labels[:2_000]), rows[2_000:]


def stream(share: float, requests: int, size: int) -> npt.NDArray[np.int64]:
    """Return which transactions each request is about: new ones, or a share of recent ones."""
    draw = np.random.default_rng(7)
    asked, newest = np.empty(requests * size, np.int64), 0
    for at in range(len(asked)):
        if newest and draw.random() < share:
            asked[at] = newest - 1 - draw.integers(min(newest, RECENT))
        else:
            asked[at], newest = newest, newest + 1
    return asked.reshape(requests, size)


def cache_of(model: GradientBoostingClassifier, version: str) -> ResultCache:
    """Return a cache of a model's probabilities."""
    return ResultCache(model.predict_proba, model="fraud", version=version, maxsize=10_000)


def play(
    name: str, model: GradientBoostingClassifier, pool: Rows, share: float, requests: int, size: int
) -> tuple[Played, ResultCache]:
    """Answer the requests one after another, by the model and through a cache in turns."""
    alone, cached, wrong = np.full(requests, np.inf), np.full(requests, np.inf), 0
    for _ in range(TIMES):
        cache = cache_of(model, "1")
        for at, places in enumerate(stream(share, requests, size)):
            rows = pool[places % len(pool)]
            start = perf_counter()
            expected = model.predict_proba(rows)
            middle = perf_counter()
            answer = cache.predict(rows)
            cached[at] = min(cached[at], perf_counter() - middle)
            alone[at] = min(alone[at], middle - start)
            wrong += not np.array_equal(answer, expected)
    computed = cache.savings().total.rows_computed
    return Played(name, share, alone, cached, computed, wrong), cache


def table(played: list[Played]) -> str:
    """Return a line for each stream."""
    heads = "repeats", "scored", "alone: p50", "p99", "cached: p50", "p99", "mean", "time"
    widths = 7, 7, 11, 8, 12, 8, 8, 7
    names = [f"{head:>{width}}" for head, width in zip(heads, widths, strict=True)]
    lines = [" ".join([f"{'requests of':<18}", *names])]
    for each in played:
        a50, a99 = np.percentile(each.alone, (50, 99)) * 1e6
        c50, c99 = np.percentile(each.cached, (50, 99)) * 1e6
        lines.append(
            f"{each.name:<18} {each.share:>7.0%} {each.rows_computed:>7,} "
            f"{a50:>8,.0f} µs {a99:>5,.0f} µs {c50:>9,.1f} µs {c99:>5,.0f} µs "
            f"{each.cached.mean() * 1e6:>5,.0f} µs {each.cached.sum() / each.alone.sum():>6.2f}x"
        )
    return "\n".join(lines)


def draw(path: Path, played: list[Played]) -> None:
    """Draw time by share of repeats, and how long single requests take."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": "fraud", "font.size": 9})
    ours, theirs = "#c2410c", "#475569"
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    single = [each for each in played if each.name == "one transaction"]
    shares = [100 * each.share for each in single]
    left.plot(shares, [each.alone.mean() * 1e6 for each in single], "o-", color=theirs)
    left.plot(shares, [each.cached.mean() * 1e6 for each in single], "o-", color=ours)
    left.set(xlabel="% of requests that repeat a transaction", ylabel="µs a request, mean")
    left.set_ylim(0)
    left.set_title("One transaction a request", loc="left", fontsize=10)
    shown = next(each for each in single if each.share == SHOWN)
    for times, colour, label in (
        (shown.alone, theirs, "the model alone"),
        (shown.cached, ours, "through ResultCache"),
    ):
        right.plot(np.sort(times) * 1e6, np.linspace(0, 100, len(times)), color=colour, label=label)
    right.set_xscale("log")
    right.set(xlabel="µs a request, log scale", ylabel="% of requests that take no longer")
    right.set_title(f"{SHOWN:.0%} of requests repeat a transaction", loc="left", fontsize=10)
    right.legend(loc="center", frameon=False)
    for axes in (left, right):
        axes.grid(color="#e2e8f0")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Play the streams and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=1_000, help="of a stream (%(default)s)")
    parser.add_argument(
        "--plot", type=Path, default=Path("fraud_scoring.svg"), help="a file (%(default)s)"
    )
    options = parser.parse_args()
    model, pool = trained(1)
    kinds: list[Any] = [("one transaction", share, options.requests, 1) for share in SHARES]
    kinds += [(f"{SCREEN} transactions", share, options.requests // 10, SCREEN) for share in SHARES]
    played, caches = [], []
    for name, share, requests, size in kinds:
        result, cache = play(name, model, pool, share, requests, size)
        played.append(result)
        caches.append(cache)
    print(table(played))
    at = SHARES.index(SHOWN)
    print(f"\nSaved, of one transaction a request, {SHOWN:.0%} repeats, at {GPU_COST} an hour:")
    print(caches[at].savings(gpu_cost_per_hour=GPU_COST))

    newer, _ = trained(2)
    cache, rows = cache_of(newer, "2"), pool[:1_000]
    caches[at].predict(rows)
    stale = int((cache.predict(rows) != newer.predict_proba(rows)).any(axis=1).sum())
    changed = int((newer.predict_proba(rows) != model.predict_proba(rows)).any(axis=1).sum())
    print(
        f"\nVersion 2 scores {changed:,} of {len(rows):,} differently. Old scores served: {stale}."
    )
    print(f"Wrong answers: {sum(each.wrong for each in played)}.")
    if importlib.util.find_spec("matplotlib"):
        draw(options.plot, played)
        print(f"Plot: {options.plot}")
    else:
        print("No picture: pip install matplotlib")


if __name__ == "__main__":
    main()
