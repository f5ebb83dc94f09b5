"""Measurements that need a process of their own: memory, pauses, import time.

Run as `python isolated.py NAME ARGUMENT ...`; prints one JSON object. `run` does that from another
program.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter_ns, thread_time_ns
from typing import Any

import numpy as np

from workloads import make_keys

PAGE = resource.getpagesize()
BLOCK = 10_000  # sets between two looks at the bare clock


def run(name: str, *arguments: object) -> dict[str, Any]:
    """Run a measurement in a fresh process and return its figures."""
    command = [sys.executable, __file__, name, *map(str, arguments)]
    figures: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, capture_output=True).stdout
    )
    return figures


def _resident() -> int:
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE


def overhead(peer: str, entries: int) -> dict[str, float]:
    """Measure the resident memory of a full cache after evictions of half as many entries.

    Keys exist before, live on and are their own values, so all growth is the cache's: table,
    policy, sketch, ghosts, page rounding, and whatever its allocator keeps.
    """
    from peers import PEERS

    kind = PEERS[peer]
    kind.filled(16, make_keys(kind.keys, 32))  # imports and first-use allocations are not per entry
    sets = entries + entries // 2 if kind.bounded else entries
    keys = make_keys(kind.keys, sets)
    before = _resident()
    cache = kind.filled(entries, keys)
    growth = _resident() - before
    held = len(cache) if hasattr(cache, "__len__") else entries
    return {"bytes_per_entry": growth / entries, "entries": held, "sets": sets}


def pauses(capacity: int, sets: int) -> dict[str, float]:
    """Time each set alone, in microseconds: while the cache fills, then at capacity.

    `max_us` is the longest by this thread's CPU time, because a process that waits for a processor
    pauses too; beside it the wall clock's longest, and that of an empty pair of clock reads.
    """
    from peers import PEERS

    cache = PEERS["cachecore"].make(capacity)
    keys = make_keys("str", capacity + sets)
    gc.freeze()
    gc.disable()
    filling = _each_set(cache, keys[:capacity])
    at_capacity, empty = [], []
    for start in range(capacity, capacity + sets, BLOCK):
        at_capacity.append(_each_set(cache, keys[start : start + BLOCK]))
        empty.append(_each_nothing(BLOCK))
    wall = np.array(at_capacity)[:, :, 0]
    return {
        "max_us": max(min(pair) for block in at_capacity for pair in block) / 1000,
        "filling_max_us": max(map(min, filling)) / 1000,
        "wall_max_us": float(wall.max()) / 1000,
        "p999_us": _p999(wall),
        "empty_max_us": float(np.max(empty)) / 1000,
        "empty_p999_us": _p999(np.array(empty)),
    }


def _p999(blocks: np.ndarray) -> float:
    """Return the median of the blocks' 99.9th percentiles in microseconds: a typical block's."""
    return float(np.median(np.percentile(blocks, 99.9, axis=1))) / 1000


def _each_set(cache: Any, keys: list[str]) -> list[tuple[int, int]]:
    """Return (wall clock, CPU) nanoseconds of each set."""
    seen = []
    for key in keys:
        cpu = thread_time_ns()
        wall = perf_counter_ns()
        cache[key] = key
        wall = perf_counter_ns() - wall
        cpu = thread_time_ns() - cpu
        seen.append((wall, cpu))
    return seen


def _each_nothing(times: int) -> list[int]:
    seen = []
    for _ in range(times):
        wall = perf_counter_ns()
        wall = perf_counter_ns() - wall
        seen.append(wall)
    return seen


def imports() -> dict[str, float]:
    """Time the import of the core's names after `import numpy`."""
    import numpy  # noqa: F401

    start = perf_counter_ns()
    from cachecore import Cache, VectorCache, memoize  # noqa: F401

    return {"ms": (perf_counter_ns() - start) / 1e6}


if __name__ == "__main__":
    measurements: dict[str, Callable[..., dict[str, float]]] = {
        "overhead": overhead,
        "pauses": pauses,
        "imports": imports,
    }
    print(
        json.dumps(measurements[sys.argv[1]](*(int(a) if a.isdigit() else a for a in sys.argv[2:])))
    )
