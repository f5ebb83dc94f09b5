"""Hit ratios of published policies, and of the optimum, by libcachesim where it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cachecore.plan.curve import adjusted
from cachecore.plan.sampling import places
from cachecore.plan.trace import Trace

# Names as they are published, and libcachesim's. The optimum knows the future: Belady, "A study of
# replacement algorithms for a virtual-storage computer", 1966.
POLICIES = {
    "LRU": "LRU",
    "LFU": "LFU",
    "S3-FIFO": "S3FIFO",
    "W-TinyLFU": "WTinyLFU",
    "optimum": "Belady",
}
MOST_REQUESTS = 1_000_000  # of the sample that is simulated: some 0.2 s a policy and size
LEAST_ENTRIES = 100  # with fewer, its windows and small queues hold nothing
RECORD = np.dtype([("time", "<u4"), ("key", "<u8"), ("size", "<u4"), ("next", "<i8")])
SCRIPT = Path(__file__).with_name("libcachesim_run.py")


def libcachesim_is_installed() -> bool:
    """Whether `published_curves` can be called."""
    return find_spec("libcachesim") is not None


def published_curves(
    trace: Trace,
    sizes: Sequence[int],
    progress: Callable[[float], None],
    *,
    most: int = MOST_REQUESTS,
) -> dict[str, list[float | None]]:
    """Hit ratios by policy and size; None where a sample of `most` requests is too small.

    The processes run side by side, one a policy. RuntimeError if one fails.
    """
    keys, rate = trace.keys, trace.rate
    if len(keys) > most:
        share = most / len(keys)
        keys, rate = keys[places(keys, 0) < share], rate * share
    scaled = [round(size * rate) for size in sizes]
    distinct = len(np.unique(keys))
    run = sorted({size for size in scaled if LEAST_ENTRIES <= size < distinct})
    expected, done = trace.requests * rate, 0

    def simulated(policy: str) -> dict[int, float]:
        nonlocal done
        found = {}
        for size, ratio in zip(run, _hit_ratios(policy, path, run), strict=True):
            found[size] = min(max(adjusted(ratio, len(keys), expected), 0.0), 1.0)
            done += 1
            progress(done / (len(run) * len(POLICIES)))
        return found

    # Where all fit, only first requests miss.
    all_fit = {size: max(1 - distinct / expected, 0.0) for size in scaled if size >= distinct}
    with (
        tempfile.TemporaryDirectory(prefix="cachecore-") as folder,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        path = str(Path(folder) / "trace")
        write_trace(path, keys)
        slowest_first = reversed(POLICIES.items())
        curves = {name: pool.submit(simulated, known) for name, known in slowest_first if run}
        found = {name: all_fit | (curves[name].result() if run else {}) for name in POLICIES}
    return {name: [found[name].get(size) for size in scaled] for name in POLICIES}


def _hit_ratios(policy: str, path: str, sizes: list[int]) -> Iterator[float]:
    """Those of a policy at each of the sizes, as they come from a process of its own."""
    command = [sys.executable, "-P", str(SCRIPT), path, policy, *map(str, sizes)]
    said = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            if line.startswith("hit "):
                yield float(line[4:])
            else:
                said = line.strip() or said
    if process.returncode:
        raise RuntimeError(f"libcachesim's {policy} failed: {said or process.returncode}")


def write_trace(
    path: str, keys: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64] | int = 1
) -> None:
    """Writes oracleGeneral records, which tell when each key is asked for next."""
    order = np.argsort(keys, kind="stable")
    again = keys[order[1:]] == keys[order[:-1]]
    records = np.zeros(len(keys), RECORD)
    records["key"], records["size"], records["next"] = keys, sizes, -1
    records["next"][order[:-1][again]] = order[1:][again]
    records.tofile(path)
