"""How VectorCache scales: insertion, threads, processes and their memory, the grid of sizes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import cachebox
import cachetools
import numpy as np

from bars import LARGE, OURS
from cachecore import Cache, VectorCache
from report import Line, markdown, note, ratio_line
from timing import Contender, Effort, Ratio, Samples, cold
from vector_gather import BATCHES, Cell, cells
from vector_tables import (
    Population,
    filled,
    fits,
    free_memory,
    population,
    release,
    row_bytes,
    segment,
    segment_path,
)  # fmt: skip
from vector_workers import Workers
from workloads import make_ids

DIMS = (64, 256, 1024)
WORKERS = 4
MOST_BYTES = 8 << 30  # of a table of the grid


def later(turn: Callable[[int], float], rounds: int) -> Callable[[int], float]:
    """Shift a contender's rounds."""
    return lambda i: turn(i + rounds)


def insertion(effort: Effort) -> list[Line]:
    """Rows of new ids, each of which evicts another; the others keep a copy of each row."""
    capacity, dim, batch = effort.peer_entries // 5, 256, 1_000
    one_by_one = "for i, r in zip(k.tolist(), c[1]): c[0][i] = r.copy()"
    rows = filled(np.empty((batch, dim), np.float32))
    makes: dict[str, tuple[str, Callable[[], Any]]] = {
        OURS: ("c[0].put(k, c[1])", lambda: VectorCache(dim, capacity=capacity)),
        "cachetools LRU": (one_by_one, lambda: cachetools.LRUCache(capacity)),
        "cachebox LRU": (one_by_one, lambda: cachebox.LRUCache(capacity)),
        "Cache.set_many": ("c[0].set_many(zip(k.tolist(), c[1]))", lambda: Cache(capacity)),
    }
    filling = capacity // batch
    turns = filling + effort.large_rounds
    parts = [[part] for part in make_ids(turns * batch).reshape(turns, batch)]
    contenders = []
    for name, (body, make) in makes.items():
        contender = cold(name, body, (make(), rows), parts, 0, batch)
        for turn in range(1, filling):
            contender.turn(turn)
        contenders.append(replace(contender, turn=later(contender.turn, filling)))
    samples = Samples()
    samples.play(contenders, effort.large_rounds)
    measure = f"put(1,000 x {dim}) of new ids at {capacity:,} rows, per row"
    rate = f"{1e3 / samples.median(OURS):.2f} million rows a second"
    return [
        ratio_line(measure, name, samples.ratio(OURS, name), note=rate)
        for name in makes
        if name != OURS
    ]


def python_threads(effort: Effort) -> list[Line]:
    """Two Python threads that gather, beside one: time for a row, all threads together."""
    here = population(LARGE, 256)
    batches = [here.ids[at] for at in here.places(1_000, 40)]
    outs = [np.empty((1_000, 256), np.float32) for _ in range(2)]

    def gathers(thread: int) -> None:
        for batch in batches[20 * thread : 20 * thread + 20]:
            here.cache.gather(batch, outs[thread])

    with ThreadPoolExecutor(2) as pool:

        def turn(threads: int) -> float:
            start = perf_counter_ns()
            list(pool.map(gathers, range(threads)))
            return (perf_counter_ns() - start) / (threads * 20_000)

        contenders = [
            Contender("one", lambda _: turn(1)),
            Contender("two", lambda _: turn(2)),
        ]
        samples = Samples()
        samples.play(contenders, effort.large_rounds)
    ratio = samples.ratio("two", "one")
    measure = "gather(1,000 x 256), 2 Python threads, per row"
    return [ratio_line(measure, "1 thread", ratio, note=gain(ratio))]


def gain(ratio: Ratio) -> str:
    """Say what a ratio of times means for throughput."""
    return f"{1 / ratio.median:.2f} x the rows a second"


def processes(effort: Effort) -> list[Line]:
    """Two processes that gather from one segment, beside one of them."""
    path = str(segment(LARGE, 256).path)
    samples = Samples()
    with Workers(2, path, LARGE, 256) as workers:
        contenders = [
            Contender("one", lambda _: 1e9 / workers.gather(1, 0.05)),
            Contender("two", lambda _: 1e9 / workers.gather(2, 0.05)),
        ]
        samples.play(contenders, effort.large_rounds // 5)
    ratio = samples.ratio("two", "one")
    measure = "gather(1,000 x 256), 2 processes on one segment, per row"
    return [ratio_line(measure, "1 process", ratio, note=gain(ratio))]


def memory(effort: Effort) -> list[Line]:
    """Four worker processes with one segment, beside four with a dict of arrays each."""
    rows, dim = effort.peer_entries // 5, 1024
    path = segment_path(2 * rows * row_bytes(dim), "workers")
    table = filled(np.empty((rows, dim), np.float32))
    with VectorCache(dim, capacity=rows, path=path) as cache:
        cache.put(make_ids(rows), table)
    del table
    taken = []
    for where in (path, ""):
        with Workers(WORKERS, where, rows, dim) as workers:
            taken.append(workers.memory())
    Path(path).unlink()
    detail = f"{taken[0] / 2**20:,.0f} / {taken[1] / 2**20:,.0f} MB, interpreters included (PSS)"
    measure = f"memory of {WORKERS} workers, {rows:,} rows of 4 KB on one segment"
    against = f"{WORKERS} dicts of arrays"
    return [Line(measure, against, taken[0] / taken[1], detail=detail)]


def sizes(dim: int, effort: Effort) -> list[int]:
    """Return the grid's numbers of rows: 10^5, 10^6, and as many as fit, in steps of 1, 2 and 5."""
    release()
    steps = [step * 10**power for power in range(5, 9) for step in (1, 2, 5)]
    possible = [
        rows
        for rows in steps
        if rows * row_bytes(dim) <= MOST_BYTES
        and fits(Population.nbytes(rows, dim))
        and rows <= effort.table_rows
    ]
    return sorted({10**5, 10**6, max(possible)} & {*possible})


def grid(effort: Effort) -> list[Cell]:
    """Measure all shapes."""
    found = []
    for dim in DIMS:
        for rows in sizes(dim, effort):
            note(f"grid: {rows:,} rows of {dim}")
            found += cells(rows, dim, effort)
    release()
    return found


def grid_table(found: list[Cell]) -> str:
    """Return the grid: time of gather over that of np.take, and both per row."""
    shapes = dict.fromkeys((cell.dim, cell.rows) for cell in found)
    ratios = {(cell.dim, cell.rows, cell.batch): cell.ratio for cell in found}

    def text(ratio: Ratio) -> str:
        return f"{ratio.median:.2f} ({ratio.ours_ns:,.0f} / {ratio.theirs_ns:,.0f} ns)"

    rows = [
        [str(dim), f"{rows:,}", *(text(ratios[dim, rows, batch]) for batch in BATCHES)]
        for dim, rows in shapes
    ]
    return markdown(["dim", "rows", *(f"batch {batch:,}" for batch in BATCHES)], rows)


def grid_scope() -> str:
    """Say which sizes the grid has."""
    half = free_memory() / 2**31
    return (
        "gather over np.take, per row; the largest tables are 8 GB, or what fits with NumPy's copy "
        f"into half of the free memory, which is {half:.1f} GB"
    )
