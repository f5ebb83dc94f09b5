"""The policy against others on real traces: `ci/bench.sh policy`, tables and a PNG.

python asv_bench/policy.py [--traces FOLDER] [--seeds N] [--png FILE]

Runs `cachecore.plan.simulate` at the capacities of reference_hit_ratios.csv, which holds what
thirteen others hit there and where that was measured; the folder is ../shared/traces. Then under
bounds of bytes, beside libcachesim's GDSF and LRU, and with costs, beside a cache that is not told.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from cachecore import Cache
from cachecore.plan import simulate
from cachecore.plan.policies import write_trace
from report import HEADINGS, Line, markdown

PEERS = [
    "LRU", "LFU", "CLOCK", "ARC", "LIRS", "SIEVE", "S3-FIFO", "LHD", "Hyperbolic", "GDSF", "TwoQ",
    "SLRU", "W-TinyLFU",
]  # fmt: skip
SHOWN = ("S3-FIFO", "W-TinyLFU", "ARC")
HINDSIGHT = "best of 13"


class Case:
    """One trace at one capacity: hit ratios by policy."""

    def __init__(self, row: dict[str, str], keys: np.ndarray, seeds: int) -> None:
        """Simulate it."""
        self.trace, self.share = row["trace"], float(row["fraction"])
        self.capacity = int(row["capacity"])
        self.ratios = {name: float(row[name]) for name in [*PEERS, "Belady"]}
        self.ratios[HINDSIGHT] = max(self.ratios[name] for name in PEERS)
        seen = [simulate(keys, self.capacity, seed=seed).hit_ratio for seed in range(seeds)]
        self.ratios["cachecore"] = float(np.mean(seen))

    def reduction(self, name: str) -> float:
        """Return by how many percent a policy reduces the misses of LRU."""
        lru = self.ratios["LRU"]
        return 100 * (self.ratios[name] - lru) / (1 - lru)


def measure(folder: Path, seeds: int) -> list[Case]:
    """Return all cases of the reference, simulated."""
    with (folder / "reference_hit_ratios.csv").open() as file:
        rows = list(csv.DictReader(file))
    traces = {row["trace"]: np.load(folder / f"{row['trace']}.npz")["key"] for row in rows}
    return [Case(row, traces[row["trace"]], seeds) for row in rows]


def summary(cases: list[Case]) -> list[Line]:
    """Return the summary beside its bars."""

    def mean(name: str, among: list[Case]) -> float:
        return float(np.mean([case.reduction(name) for case in among]))

    large = [case for case in cases if case.capacity >= 100]
    behind = [c for c in cases if c.ratios["cachecore"] < c.ratios[HINDSIGHT] - 0.02]
    won = {
        name: float(np.mean([case.ratios["cachecore"] > case.ratios[name] for case in cases]))
        for name in PEERS
    }
    hardest = min(won, key=lambda name: won[name])
    where = ", ".join(f"{case.trace} {100 * case.share:g} %" for case in behind)
    return [
        Line("misses less than LRU's, mean", "%", mean("cachecore", cases), 8.5, at_least=True),
        Line("the same, capacity >= 100", "%", mean("cachecore", large)),
        Line("best of 13 for each case in hindsight", "%", mean(HINDSIGHT, cases)),
        *[Line(f"{name}, mean", "%", mean(name, cases)) for name in SHOWN],
        Line("clairvoyant optimum", "%", mean("Belady", cases)),
        Line("cases over 2 points behind the best of 13", "cases", len(behind), 3, detail=where),
        Line("least share of cases won", hardest, 100 * won[hardest], 75, at_least=True),
    ]


def by_trace(cases: list[Case]) -> dict[str, list[Case]]:
    """Return the cases of each trace, in the order of the reference."""
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[case.trace].append(case)
    return groups


def table(cases: list[Case]) -> str:
    """Return a row for each case, in percent."""
    names = ["cachecore", HINDSIGHT, "LRU", *SHOWN, "Belady"]
    headings = ["trace", "of its keys", "entries", *names, "misses less than LRU's", HINDSIGHT]
    rows = [
        [
            case.trace,
            f"{100 * case.share:g} %",
            f"{case.capacity:,}",
            *[f"{100 * case.ratios[name]:.2f}" for name in names],
            f"{case.reduction('cachecore'):.1f}",
            f"{case.reduction(HINDSIGHT):.1f}",
        ]
        for case in cases
    ]
    return markdown(headings, rows)


def draw(cases: list[Case], path: Path) -> None:
    """Draw a dot for each policy and trace: the mean reduction of LRU's misses."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from chart import GRID, OUR_COLOUR

    groups = by_trace(cases)
    figure, axes = plt.subplots(figsize=(8, 5.5), constrained_layout=True)
    marks = [
        ("cachecore", "o", OUR_COLOUR),
        (HINDSIGHT, "D", "#0f766e"),
        ("S3-FIFO", "s", "#64748b"),
    ]
    marks += [("W-TinyLFU", "^", "#94a3b8"), ("ARC", "v", "#cbd5e1")]
    for name, mark, colour in reversed(marks):
        means = [np.mean([case.reduction(name) for case in group]) for group in groups.values()]
        size = 9 if name == "cachecore" else 6
        axes.plot(means, range(len(means)), mark, color=colour, markersize=size, label=name)
    axes.axvline(0, color="#475569", linewidth=1)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("misses less than LRU's, %, mean over capacities (0: LRU)")
    axes.legend(reverse=True, frameon=False, fontsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def peer_ratios(path: str, max_bytes: int) -> dict[str, np.ndarray]:
    """Return the object and byte hit ratio of libcachesim's policies under a bound of bytes."""
    import libcachesim

    ratios = {}
    for name in ("GDSF", "LRU"):
        reader = libcachesim.TraceReader(
            path, libcachesim.TraceType.ORACLE_GENERAL_TRACE, libcachesim.ReaderInitParam()
        )
        missed = getattr(libcachesim, name)(max_bytes).process_trace(reader)
        ratios[name] = 1 - np.array(missed)
    return ratios


def by_size(folder: Path, seeds: int) -> list[Line]:
    """Return hit ratios under bounds of bytes beside their bars, and print all cases."""
    names, rows, cases = ("cachecore", "GDSF", "LRU"), [], []
    for trace in ("adaptsize", "cpio"):
        arrays = np.load(folder / f"{trace}.npz")
        keys, sizes = arrays["key"].astype(np.int64), arrays["size"].astype(np.int64)
        whole = int(sizes[np.unique(keys, return_index=True)[1]].sum())
        with tempfile.NamedTemporaryFile(suffix=".oracleGeneral") as file:
            write_trace(file.name, keys, sizes)
            for share in (0.01, 0.05, 0.10, 0.25):
                bound = int(whole * share)
                ratios = peer_ratios(file.name, bound)
                ours = [
                    simulate(keys, sizes=sizes, max_bytes=bound, seed=seed) for seed in range(seeds)
                ]
                ratios["cachecore"] = np.mean(
                    [(r.hit_ratio, r.byte_hit_ratio or 0) for r in ours], axis=0
                )
                cases.append([100 * ratios[name] for name in names])
                cells = [f"{case[0]:.1f} / {case[1]:.1f}" for case in cases[-1]]
                rows.append([trace, f"{100 * share:g} %", *cells])
    print(
        markdown(["trace", "of its bytes", *(f"{n}, object / byte %" for n in names)], rows), "\n"
    )
    (ours_object, ours_byte), gdsf, lru = np.mean(cases, axis=0)
    worst = min(case[0][0] - case[1][0] for case in cases)
    return [
        Line(
            "object hit ratio by bytes",
            "points above GDSF",
            ours_object - gdsf[0],
            1,
            at_least=True,
        ),
        Line("its worst case", "points above GDSF", worst, -1, at_least=True),
        Line("byte hit ratio", "points above GDSF", ours_byte - gdsf[1], 0, at_least=True),
        Line("byte hit ratio", "points above LRU", ours_byte - lru[1], 0, at_least=True),
    ]


def missed_cost(keys: np.ndarray, costs: np.ndarray, maxsize: int) -> float:
    """Return the cost of the misses of a cache that is told of no costs."""
    cache: Cache[int, float] = Cache(maxsize)
    total = 0.0
    for key, cost in zip(keys.tolist(), costs.tolist(), strict=True):
        if cache.get(key) is None:
            cache[key] = cost
            total += cost
    return total


def by_cost(folder: Path, seeds: int) -> list[Line]:
    """Return the cost of misses, keys costing 1, 10 or 100, over that of the blind policy."""
    lines = []
    for trace in ("oltp", "scarab_a", "reco_s1"):
        keys = np.load(folder / f"{trace}.npz")["key"].astype(np.int64)
        distinct, which = np.unique(keys, return_inverse=True)
        maxsize, shares = round(0.05 * len(distinct)), []
        for seed in range(seeds):
            rng = np.random.RandomState(seed)
            costs = rng.choice([1.0, 10.0, 100.0], len(distinct))[which]
            saved = simulate(keys, maxsize, costs=costs, seed=seed).cost_saved
            assert saved is not None
            shares.append((1 - saved) * costs.sum() / missed_cost(keys, costs, maxsize))
        against = "blind to costs"
        lines.append(Line(f"cost of misses, {trace}", against, float(np.mean(shares)), 0.85))
    return lines


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    parser.add_argument("--seeds", type=int, default=3, help="simulations of each case")
    parser.add_argument("--png", type=Path, default=Path("build/policy.png"))
    options = parser.parse_args()
    if not options.traces.is_dir():
        sys.exit(f"{options.traces} is not there: the real traces are not part of the project")
    start = time.perf_counter()
    cases = measure(options.traces, options.seeds)
    print(table(cases), "\n")
    lines = summary(cases) + by_size(options.traces, options.seeds)
    lines += by_cost(options.traces, options.seeds)
    print(markdown(HEADINGS, [line.cells() for line in lines]))
    draw(cases, options.png)
    print(f"\n{time.perf_counter() - start:.0f} s; chart: {options.png}")


if __name__ == "__main__":
    main()
