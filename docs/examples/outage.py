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
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cachecore import TieredCache
from cachecore.tiers import Breaker, RedisTier

KEYS, IN_MEMORY = 20_000, 2_000
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
        counts = np.array([
            (last - first)
            for first, last in (
                (inside[0].memory, inside[-1].memory),
                (inside[0].redis, inside[-1].redis),
                (inside[0].loader, inside[-1].loader),
            )
        ])
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
    try:
        import outage_plot
    except ImportError:
        print("\nNo picture: pip install matplotlib")
    else:
        outage_plot.draw(load.seen, samples, PHASES, OUTAGES, options.seconds, options.plot)
        print(f"\nPicture: {options.plot}")
    return 1 if load.wrong or load.errors or samples[-1].owed else 0


if __name__ == "__main__":
    sys.exit(main())
