"""Redis is killed, and later stopped, under load: what the callers of a TieredCache notice.

    python docs/examples/outage.py [--seconds 18] [--plot outage.svg]

Starts a redis-server, and threads that look up keys as users do, a few of them very often, and now
and then write one. Values come from this process's memory, else from Redis, else from a loader that
takes 5 ms. The server is killed and started again, empty; later it is stopped and continued. Each
value tells its key and its version, so that a wrong or an old one is noticed. Prints a table, and
draws what happened where matplotlib is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cachecore import TieredCache
from cachecore.tiers import Breaker, RedisTier

KEYS, IN_MEMORY = 4_000, 400
THREADS, RATE = 8, 250  # look-ups a second of each thread
WRITES = 0.02  # of the look-ups: writes in their place
LOADING = 0.005  # seconds that the loader takes
DEADLINE = 0.05  # seconds that Redis may take
SAMPLED = 0.05  # seconds

# What happens, from which share of the time on.
PHASES = [
    (0.0, "all is well"),
    (0.22, "killed"),
    (0.44, "back, empty"),
    (0.68, "stopped"),
    (0.86, "back"),
]
OUTAGES = ("killed", "stopped")

Row = npt.NDArray[np.int64]


class Redis:
    """A redis-server on a free port, which is killed, started again, stopped and continued."""

    def __init__(self, folder: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        options = f"--port {self.port} --bind 127.0.0.1 --appendonly no --dir {folder} --save"
        self._command = ["redis-server", *options.split(), ""]
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        for _ in range(500):
            try:
                return socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                time.sleep(0.01)
        raise SystemExit("redis-server does not start")

    def enter(self, phase: str) -> None:
        """Do what a phase begins with."""
        if phase == "killed":
            self.kill()
        elif phase == "back, empty":
            self._start()
        elif phase == "stopped":
            self._process.send_signal(signal.SIGSTOP)
        elif phase == "back":
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()


class Source:
    """What is true: the version of each key. To ask it takes 5 ms, of however many keys."""

    def __init__(self) -> None:
        self.versions = [0] * KEYS
        self.written = [0] * KEYS  # versions whose set() has returned

    def load(self, keys: list[int]) -> list[Row]:
        """Load values, as a feature store or a model would."""
        time.sleep(LOADING)
        return [self.value(key) for key in keys]

    def value(self, key: int) -> Row:
        """Return the present value of a key, 1 KB."""
        row = np.zeros(128, np.int64)
        row[:2] = key, self.versions[key]
        return row


@dataclass
class Load:
    """Threads that look keys up and write them, and what they saw."""

    cache: TieredCache
    source: Source
    begin: float = 0.0
    seen: list[tuple[float, float]] = field(default_factory=list)  # when, and seconds it took
    wrong: int = 0
    errors: int = 0
    writes: int = 0

    def work(self, number: int, stop: threading.Event) -> None:
        """Look up RATE keys a second until told to stop; each thread writes keys of its own."""
        random = np.random.default_rng(number)
        popularity = np.cumsum(1 / np.arange(1, KEYS + 1))
        due = time.perf_counter()
        while not stop.is_set():
            due += random.exponential(1 / RATE)
            time.sleep(max(0.0, due - time.perf_counter()))
            key = int(np.searchsorted(popularity, random.random() * popularity[-1]))
            try:
                if random.random() < WRITES:
                    self.write(key - key % THREADS + number)
                else:
                    self.look_up(key)
            except Exception:
                self.errors += 1

    def write(self, key: int) -> None:
        """Change a value at its source, then here and in Redis."""
        self.writes += 1
        self.source.versions[key] += 1
        self.cache.set(key, self.source.value(key))
        self.source.written[key] = self.source.versions[key]

    def look_up(self, key: int) -> None:
        """Look a key up, and see whether its value is right and not older than it may be."""
        least = self.source.written[key]
        start = time.perf_counter()
        row = self.cache.get(key)
        spent = time.perf_counter() - start
        self.seen.append((start - self.begin, spent))
        self.wrong += int(row[0]) != key or int(row[1]) < least


@dataclass(frozen=True)
class Sample:
    """What is the case at a moment, and what was counted until then."""

    at: float
    memory: int
    redis: int
    loader: int
    owed: int
    breaker: str


def sample(cache: TieredCache, breaker: Breaker, begin: float) -> Sample:
    """Look at a cache."""
    stats = cache.stats()
    [tier] = stats.tiers
    at = time.perf_counter() - begin
    return Sample(at, stats.l0.hits, tier.hits, stats.loads, tier.owed, breaker.state)


def play(seconds: float) -> tuple[Load, list[Sample]]:
    """Run the load through all phases."""
    source = Source()
    with tempfile.TemporaryDirectory(prefix="cachecore-example-") as folder:
        server = Redis(folder)
        # One probe after 0.3 s, then ever less often, as this is short; the default is a second.
        redis = RedisTier(f"redis://127.0.0.1:{server.port}", timeout=DEADLINE)
        breaker = Breaker(redis, pause=0.3, most=1)
        cache = TieredCache(IN_MEMORY, tiers=[breaker], loader_many=source.load)
        try:
            cache.warm(range(KEYS - 1, -1, -1), batch=1000)
            load, samples = Load(cache, source), []
            stop = threading.Event()
            threads = [
                threading.Thread(target=load.work, args=(number, stop)) for number in range(THREADS)
            ]
            load.begin = begin = time.perf_counter()
            for thread in threads:
                thread.start()
            ends = [share * seconds for share, _ in PHASES[1:]] + [seconds]
            for (_, phase), end in zip(PHASES, ends, strict=True):
                print(f"{time.perf_counter() - begin:5.1f} s  {phase}", flush=True)
                server.enter(phase)
                while time.perf_counter() - begin < end:
                    samples.append(sample(cache, breaker, begin))
                    time.sleep(SAMPLED)
            stop.set()
            for thread in threads:
                thread.join()
            deadline = time.perf_counter() + 5
            while samples[-1].owed and time.perf_counter() < deadline:
                samples.append(sample(cache, breaker, begin))
                time.sleep(SAMPLED)
            return load, samples
        finally:
            cache.close()
            server.kill()


def table(load: Load, samples: list[Sample], seconds: float) -> None:
    """Print what happened in each phase."""
    print("\nphase         look-ups  memory  Redis  loader    p50, us    p99, ms    max, ms  owed")
    ends = [share * seconds for share, _ in PHASES[1:]] + [math.inf]
    for (share, phase), end in zip(PHASES, ends, strict=True):
        spent = [took for at, took in load.seen if share * seconds <= at < end]
        inside = [each for each in samples if share * seconds <= each.at < end]
        if not spent or len(inside) < 2:
            continue
        counts = np.array(
            [
                (last - first)
                for first, last in (
                    (inside[0].memory, inside[-1].memory),
                    (inside[0].redis, inside[-1].redis),
                    (inside[0].loader, inside[-1].loader),
                )
            ]
        )
        memory, redis, loader = counts / max(1, counts.sum())
        p50, p99 = np.percentile(spent, (50, 99))
        print(
            f"{phase:12}{len(spent):10,}{memory:8.1%}{redis:7.1%}{loader:8.1%}"
            f"{1e6 * p50:11.1f}{1e3 * p99:11.2f}{1e3 * max(spent):11.1f}"
            f"{max(each.owed for each in inside):6}"
        )
    print(f"\n{len(load.seen):,} look-ups and {load.writes:,} writes; errors: {load.errors}.")
    print(f"Values that were wrong, or older than a write before: {load.wrong}.")
    print(f"Writes that Redis missed and was given later: {load.cache.stats().replayed}.")
    print(f"Writes still owed to it: {samples[-1].owed}.")


# --- the picture

INK, GRID, OUTAGE = "#334155", "#e2e8f0", "#fee2e2"
ANSWERS = {"this process's memory": "#0f766e", "Redis": "#7dd3fc", "the loader": "#fb923c"}
STATES = {"closed": "#86efac", "half-open": "#fde047", "open": "#ef4444"}


def draw(load: Load, samples: list[Sample], seconds: float, path: Path) -> None:
    """Draw latency, who answered, and what Redis was owed."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK})
    mpl.rcParams.update({"svg.hashsalt": "outage", "font.size": 9})
    figure, axes = plt.subplots(
        3, 1, sharex=True, figsize=(9, 8), height_ratios=(3, 2, 2), layout="constrained"
    )
    _draw_latencies(axes[0], load, seconds)
    _draw_answers(axes[1], samples)
    _draw_owed(axes[2], samples)
    ends = [share for share, _ in PHASES[1:]] + [1.0]
    for (share, phase), end in zip(PHASES, ends, strict=True):
        at = (share + end) / 2 * seconds
        name = {"killed": "Redis is killed", "stopped": "Redis is stopped: it hangs"}
        axes[0].text(
            at, 1.03, name.get(phase, phase), transform=axes[0].get_xaxis_transform(),
            ha="center", color="#b91c1c" if phase in OUTAGES else INK,
        )  # fmt: skip
        for each in axes if phase in OUTAGES else ():
            each.axvspan(share * seconds, end * seconds, color=OUTAGE, zorder=0, linewidth=0)
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(axis="y", color=GRID, linewidth=0.8)
        each.set_axisbelow(True)
        each.set_xlim(0, seconds)
    axes[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)


def _title(axes: Any, text: str, pad: float = 8) -> None:
    axes.set_title(text, loc="left", fontsize=10, fontweight="bold", pad=pad)


def _draw_latencies(axes: Any, load: Load, seconds: float) -> None:
    at, spent = np.array(load.seen).T
    width = seconds / 72
    bins = [spent[(at >= start) & (at < start + width)] for start in np.arange(0, seconds, width)]
    places = [(number + 0.5) * width for number, each in enumerate(bins) if len(each)]
    bins = [each for each in bins if len(each)]
    for share, label, style in (
        (100, "slowest", {"color": "#b91c1c", "linestyle": "", "marker": ".", "markersize": 5}),
        (99, "99 of 100 are faster", {"color": "#ea580c"}),
        (50, "median", {"color": "#0f766e", "linewidth": 2}),
    ):
        axes.plot(places, [np.percentile(each, share) for each in bins], label=label, **style)
    axes.set_yscale("log")
    ticks = {
        1e-6: "1 µs",
        1e-5: "10 µs",
        1e-4: "100 µs",
        1e-3: "1 ms",
        1e-2: "10 ms",
        0.1: "100 ms",
    }
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.set_ylim(3e-7, 0.3)
    axes.axhline(DEADLINE, color=INK, linewidth=0.8, linestyle=":")
    axes.text(
        0.56 * seconds, 1.15 * DEADLINE, "deadline of a call of Redis", ha="center", fontsize=8
    )
    axes.legend(loc="center", bbox_to_anchor=(0.5, 0.3), ncols=3, frameon=False, fontsize=8)
    slowest = 1e3 * spent.max()
    half = f"half of {len(spent):,} take {1e6 * np.median(spent):.1f} µs"
    _title(axes, f"Latency: {half}, the slowest {slowest:.0f} ms; {load.errors} fail", 24)


def _draw_answers(axes: Any, samples: list[Sample]) -> None:
    step = max(1, len(samples) // 72)
    some = samples[::step]
    at = [(a.at + b.at) / 2 for a, b in pairwise(some)]
    counts = np.array([(each.memory, each.redis, each.loader) for each in some], float)
    shares = np.diff(counts, axis=0).T
    shares = 100 * shares / np.maximum(1, shares.sum(axis=0))
    axes.stackplot(at, shares, labels=list(ANSWERS), colors=list(ANSWERS.values()), zorder=1)
    axes.set_ylim(0, 100)
    axes.set_ylabel("% of look-ups")
    axes.legend(loc="lower right", ncols=3, fontsize=8, framealpha=0.9)
    _title(axes, "Who answers: without Redis the loader, which takes 5 ms")


def _draw_owed(axes: Any, samples: list[Sample]) -> None:
    at = [each.at for each in samples]
    axes.plot(at, [each.owed for each in samples], color=INK, label="writes owed to Redis")
    top = 1.25 * max(1, *(each.owed for each in samples))
    axes.set_ylim(0, top)
    changes = [b for a, b in pairwise(samples) if a.breaker != b.breaker]
    for state, colour in STATES.items():
        spans = [
            (a.at, b.at - a.at)
            for a, b in pairwise([samples[0], *changes, samples[-1]])
            if a.breaker == state
        ]
        bar = (0.92 * top, 0.08 * top)
        axes.broken_barh(spans, bar, color=colour, linewidth=0, label=f"breaker {state}")
    axes.set_ylabel("writes")
    axes.legend(loc="center", bbox_to_anchor=(0.575, 0.5), fontsize=8, framealpha=0.9)
    _title(axes, "What Redis misses is owed, and made up for when it is back")


def main() -> int:
    """Run the demo; 1 if a caller noticed more than time."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=18.0, help="how long (%(default)s)")
    parser.add_argument(
        "--plot", type=Path, default=Path("outage.svg"), help="an SVG or PNG file (%(default)s)"
    )
    options = parser.parse_args()
    if shutil.which("redis-server") is None:
        print("redis-server is not installed; on Debian and Ubuntu: apt-get install redis-server")
        return 2
    load, samples = play(options.seconds)
    table(load, samples, options.seconds)
    if importlib.util.find_spec("matplotlib"):
        draw(load, samples, options.seconds, options.plot)
        print(f"\nPicture: {options.plot}")
    else:
        print("\nNo picture: pip install matplotlib")
    return 1 if load.wrong or load.errors or samples[-1].owed else 0


if __name__ == "__main__":
    sys.exit(main())
