"""The policy on generated streams, beside theine's W-TinyLFU: `ci/bench.sh scale`, four tables.

python asv_bench/scale.py [--quick] [TABLE ...]

drift      a drifting Zipf 0.9 stream, capacities of 5,000 to a million entries
keys       10^5 ... 10^8 keys: hit ratios, and how good the sketch's estimates are
evictions  time of a set that evicts at 10^4 ... 10^7 entries, and memory per entry
recovery   the whole popular set replaced at once: requests until the hit ratio is back

All of them take half an hour; --quick does the smaller cases, in two minutes.
"""

from __future__ import annotations

import argparse
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cachebox
import numpy as np
import numpy.typing as npt
from lru import LRU

from cachecore import Cache
from cachecore.plan import simulate
from report import HEADINGS, Line, markdown
from streams import Keys, drifting, replaced, tiny_lfu_hits

SEED = 1
FULL_SKETCH = 512 * 1024
WINDOW = 5_000  # requests over which a hit ratio is seen to be back
REPLACED_KEYS = 100_000
EXACT = 16  # bytes of sketch for each key: hardly any two share a counter


def note(text: str) -> None:
    """Say on stderr what is being done."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def percent(ratio: float) -> str:
    """Return a hit ratio as the tables show it."""
    return f"{100 * ratio:.2f}"


def drift(quick: bool) -> Iterator[str]:
    """Hit ratios by capacity, beside W-TinyLFU's."""
    streams = (
        [(3_000_000, 8_000_000)] if quick else [(3_000_000, 8_000_000), (5_000_000, 20_000_000)]
    )
    capacities = (5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000)
    for keys, requests in streams:
        stream = np.concatenate(list(drifting(keys, requests, SEED)))
        rows, lines = [], []
        for capacity in capacities[:: 3 if quick else 1]:
            note(f"drift: {keys:,} keys, {capacity:,} entries")
            ours = simulate(stream, capacity).hit_ratio
            pinned = simulate(stream, capacity, sketch_bytes=FULL_SKETCH).hit_ratio
            theirs = tiny_lfu_hits(iter([stream]), capacity) / requests
            rows.append([f"{capacity:,}", *map(percent, (ours, pinned, theirs))])
            bar = 0.5 if capacity <= 50_000 else 0.01
            lines.append(
                Line(
                    f"{keys:,} keys, {capacity:,} entries",
                    "points above W-TinyLFU",
                    100 * (ours - theirs),
                    bar,
                    at_least=True,
                )
            )
        yield f"{requests:,} requests for {keys:,} keys, Zipf 0.9 with drift; hit ratio in percent"
        yield markdown(["entries", "cachecore", "with a 512 KiB sketch", "W-TinyLFU"], rows)
        yield markdown(HEADINGS, [line.cells() for line in lines])


def sketch_error(binary: Path, stream: Keys, keys: int, capacity: int) -> list[str]:
    """What sketch_error.c prints, as cells: mean count, mean error, share of exact estimates."""
    command = [str(binary), str(keys), str(capacity), "0"]
    done = subprocess.run(command, input=stream.data, capture_output=True, check=True)
    _, count, error, exact = map(float, done.stdout.split())
    return [f"{count:.2f}", f"{error:.3f}", percent(exact)]


def keys(quick: bool) -> Iterator[str]:
    """Hit ratios and the sketch's accuracy by the number of keys, at 1 % of them."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "sketch_error"
        sources = sorted(map(str, Path("src/core").glob("*.c")))
        compiled = ["asv_bench/sketch_error.c", *sources, "-lm", "-o", str(binary)]
        subprocess.run(["cc", "-O3", "-std=gnu11", "-Isrc/core", *compiled], check=True)
        for power in range(5, 8 if quick else 9):
            count, capacity = 10**power, 10 ** (power - 2)
            requests = max(2 * count, 4_000_000)
            note(f"keys: {count:,}")
            stream = np.concatenate(list(drifting(count, requests, SEED)))
            ratios = [
                simulate(stream, capacity, sketch_bytes=size).hit_ratio
                for size in (None, FULL_SKETCH, EXACT * count)
            ]
            ratios.append(tiny_lfu_hits(iter([stream]), capacity) / requests)
            distinct = len(np.unique(stream))
            error = sketch_error(binary, stream, count, capacity)
            cells = [f"{count:,}", f"{distinct:,}", f"{capacity:,}"]
            rows.append([*cells, *map(percent, ratios), *error])
    yield "Zipf 0.9 with drift, two requests a key and at least 4 million, capacity 1 % of the keys"
    ratios_of = ["cachecore, %", "512 KiB sketch", "no collisions", "W-TinyLFU"]
    errors = ["count of those who return", "mean error of its estimate", "exact, %"]
    yield markdown(["keys", "asked for", "entries", *ratios_of, *errors], rows)


def set_ns(make: Callable[[int], Any], capacity: int, sets: int) -> float:
    """Nanoseconds of setting a key of four times as many as fit, when it is full."""
    rng = random.Random(SEED)
    cache = make(capacity)
    cache.update(dict.fromkeys(range(capacity)))
    draws = iter(lambda: rng.randrange(4 * capacity), None)
    for key in islice(draws, capacity):
        cache[key] = None
    asked = list(islice(draws, sets))
    start = time.perf_counter_ns()
    for key in asked:
        cache[key] = None
    return (time.perf_counter_ns() - start) / sets


def evictions(quick: bool) -> Iterator[str]:
    """Time of a set by capacity, beside cachebox's LFU, and what the policy itself takes."""
    rows = []
    for power in range(4, 7 if quick else 8):
        capacity = 10**power
        note(f"evictions: {capacity:,} entries")
        sets = 1_000_000
        ours = set_ns(Cache, capacity, sets)
        theirs = set_ns(cachebox.LFUCache, capacity, sets)
        cache: Cache[int, None] = Cache(capacity)
        cache.update(dict.fromkeys(range(capacity + 1)))
        cells = [f"{ours:.0f}", f"{ours / theirs:.2f}", f"{cache.__sizeof__() / capacity:.1f}"]
        rows.append([f"{capacity:,}", *cells])
    yield "a set of a key drawn from four times as many as fit"
    measures = ["set, ns", "x cachebox LFU", "bytes an entry"]
    yield markdown(["entries", *measures], rows)


def hits(cache: Any, stream: Keys) -> npt.NDArray[np.bool_]:
    """Look every key of a stream up, set it on a miss, and return which were hits."""
    found = np.zeros(len(stream), bool)
    for place, key in enumerate(stream.tolist()):
        if cache.get(key):
            found[place] = True
        else:
            cache[key] = True
    return found


def regained(found: npt.NDArray[np.bool_], ratio: float) -> float:
    """Return the requests after which a sliding window of WINDOW reached a hit ratio."""
    sums = np.cumsum(np.concatenate([[0], found]))
    reached = np.flatnonzero(sums[WINDOW:] - sums[:-WINDOW] >= ratio * WINDOW)
    return float(reached[0] + WINDOW) if len(reached) else math.inf


def recovery(quick: bool) -> Iterator[str]:
    """Requests until the hit ratio is back when all popular keys are others."""
    rows, lines, waits = [], [], {}
    for capacity in (1_000, 5_000, 10_000, 50_000)[:: 2 if quick else 1]:
        counts = []
        for seed in range(1, 4):
            note(f"recovery: {capacity:,} entries, seed {seed}")
            stream = replaced(REPLACED_KEYS, 2_000_000, seed)
            half = len(stream) // 2
            ours, lru = hits(Cache(capacity), stream), hits(LRU(capacity), stream[half:])
            own, lru_own = 0.9 * ours[half // 2 : half].mean(), 0.9 * lru[half // 2 :].mean()
            waits = {
                "to that of LRU: cachecore": regained(ours[half:], lru_own),
                "a new LRU": regained(lru, lru_own),
                "to its own: cachecore": regained(ours[half:], own),
                "a new cachecore": regained(hits(Cache(capacity), stream[half:]), own),
                "a cache without bound": regained(hits({}, stream[half:]), own),
            }
            counts.append([own, lru_own, *waits.values()])
        own, lru_own, *after = np.mean(counts, axis=0)
        cells = [percent(own), percent(lru_own), *(f"{wait:,.0f}" for wait in after)]
        rows.append([f"{capacity:,}", *cells])
        measure = f"requests until it recovers, {capacity:,} entries"
        lines.append(Line(measure, "a new LRU, to its own level", after[0] / after[1], 1.2))
    yield "Zipf 0.9, 100,000 keys, all replaced at once: requests until 90 % of a steady hit ratio"
    yield markdown(["entries", "90 % of its own, %", "of LRU's, %", *waits], rows)
    yield markdown(HEADINGS, [line.cells() for line in lines])


TABLES: dict[str, Callable[[bool], Iterator[str]]] = {
    "drift": drift,
    "keys": keys,
    "evictions": evictions,
    "recovery": recovery,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("tables", nargs="*", metavar="TABLE", default=list(TABLES))
    options = parser.parse_args()
    unknown = set(options.tables) - set(TABLES)
    if unknown:
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    for name in options.tables:
        for part in TABLES[name](options.quick):
            print(part, end="\n\n", flush=True)


if __name__ == "__main__":
    main()
