"""Four worker processes on one table of vectors; one of them is killed while it puts rows.

    python docs/examples/shared_vectors.py

All four put and gather the same ids. Each item of a row is its row's stamp, which tells the id, who
put it and in which turn, so whoever gathers a row sees whether it is whole. The second worker puts
all rows again and again until SIGKILL ends it in the middle; the others never notice. Takes some
four seconds; the table lies in /dev/shm and is removed in the end.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from ctypes import Array, c_int64
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cachecore import VectorCache

IDS = np.arange(20_000)
DIM = 128
CAPACITY = 15_000  # three rows in four fit: there are evictions all the time
WORKERS, VICTIM = 4, 1
TURNS = 10**9

# What each worker counts, in memory that they share with this process.
PUT, GATHERED, FOUND, BROKEN, SLOWEST_US, TURN, PUTTING = range(7)

Ints = npt.NDArray[np.int64]


def open_table(path: str) -> VectorCache:
    """Open the table, or make it: whoever comes first."""
    return VectorCache(DIM, "int64", capacity=CAPACITY, path=path)


def stamps(ids: Ints, worker: int, turn: int) -> Ints:
    """Return a stamp for each id."""
    return (ids * WORKERS + worker) * TURNS + turn


def put(table: VectorCache, ids: Ints, worker: int, counts: Array[c_int64]) -> None:
    """Put a row for each id, all of whose items are its stamp."""
    counts[TURN] += 1
    rows = np.repeat(stamps(ids, worker, counts[TURN])[:, None], DIM, axis=1)
    counts[PUTTING] = 1
    table.put(ids, rows)
    counts[PUTTING] = 0
    counts[PUT] += len(ids)


def broken(ids: Ints, rows: Ints) -> int:
    """Return how many rows are not exactly what somebody put for their ids."""
    whole = (rows == rows[:, :1]).all(axis=1) & (rows[:, 0] // TURNS // WORKERS == ids)
    return int((~whole).sum())


def work(path: str, worker: int, counts: Array[c_int64], stop: Array[c_int64]) -> None:
    """Put some rows, gather others and look at them, until told to stop."""
    random = np.random.default_rng(worker)
    with open_table(path) as table:
        while not stop[0]:
            if worker == VICTIM:
                put(table, IDS, worker, counts)
                continue
            start = time.perf_counter()
            put(table, random.choice(IDS, 200), worker, counts)
            asked = random.choice(IDS, 1_000)
            rows, found = table.gather(asked)
            slowest = int(1e6 * (time.perf_counter() - start))
            counts[SLOWEST_US] = max(counts[SLOWEST_US], slowest)
            counts[GATHERED] += len(asked)
            counts[FOUND] += int(found.sum())
            counts[BROKEN] += broken(asked[found], rows[found])


def kill_in_the_middle(
    process: multiprocessing.process.BaseProcess, counts: Array[c_int64]
) -> None:
    """Kill a process while it puts rows."""
    while not counts[PUTTING]:
        pass
    time.sleep(0.002)  # it has begun
    process.kill()
    process.join()


def main() -> int:
    """Run the workers and say what happened; 1 if any row was broken."""
    shared = "/dev/shm" if os.path.isdir("/dev/shm") else None  # else on the disk
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="cachecore-example-", dir=shared) as folder:
        path = str(Path(folder, "vectors"))
        stop = context.RawArray(c_int64, 1)
        counts = [context.RawArray(c_int64, 7) for _ in range(WORKERS)]
        processes = [
            context.Process(target=work, args=(path, number, counts[number], stop))
            for number in range(WORKERS)
        ]
        for process in processes:
            process.start()
        while not all(count[TURN] for count in counts):
            time.sleep(0.01)
        time.sleep(1)

        victim = counts[VICTIM]
        kill_in_the_middle(processes[VICTIM], victim)
        with open_table(path) as table:
            rows, found = table.gather(IDS)
        last = rows[:, 0] == stamps(IDS, VICTIM, victim[TURN])
        torn = broken(IDS[found], rows[found])
        gathered = sum(count[GATHERED] for count in counts)

        time.sleep(1)
        stop[0] = 1
        for process in processes:
            process.join()
        after = sum(count[GATHERED] for count in counts) - gathered
        with open_table(path) as table:
            rows, found = table.gather(IDS)
            torn += broken(IDS[found], rows[found])
            stats = table.stats()

    print("worker    rows put    gathered       found  broken  slowest put + gather, ms  end")
    for number, (process, count) in enumerate(zip(processes, counts, strict=True)):
        end = f"killed by {signal.Signals(-process.exitcode).name}" if process.exitcode else "done"
        slowest = f"{count[SLOWEST_US] / 1000:.1f}" if count[SLOWEST_US] else "-"
        print(
            f"{number + 1:6}{count[PUT]:12,}{count[GATHERED]:12,}{count[FOUND]:12,}"
            f"{count[BROKEN]:8}{slowest:>26}  {end}"
        )
    where = "in the middle of" if victim[PUTTING] else "between two calls of"
    print(f"\nWorker {VICTIM + 1} was killed {where} put, in turn {victim[TURN]:,}.")
    print(f"Of that turn's {len(IDS):,} rows, {last.sum():,} were in the table then, all whole.")
    print(f"The others gathered {after:,} rows afterwards.")
    print(f"In the end there are {stats.entries:,} rows, after {stats.evictions:,} evictions.")
    torn += sum(count[BROKEN] for count in counts)
    print(f"Broken rows: {torn}.")
    return 1 if torn else 0


if __name__ == "__main__":
    sys.exit(main())
