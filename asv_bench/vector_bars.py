"""The bars of VectorCache: what is measured, against whom, and the ratio that is asked for.

`vector_gather.py` says how gathers are compared; `vector_scaling.py` has the rest of the rows.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from bars import LARGE, OURS
from cachecore import VectorCache
from report import Line, absolute_line, left_out, ratio_line
from timing import Effort, Samples, cold
from vector_gather import Side, cells, ours, play, take
from vector_tables import (
    Population,
    TooLargeError,
    filled,
    fits,
    mapping_of,
    population,
    release,
    row_bytes,
    segment,
    segment_path,
)  # fmt: skip
from workloads import make_ids

TAKE = "np.take(out=, clip)"


def gather(effort: Effort) -> list[Line]:
    """1,000 of a million rows."""
    lines = []
    for dim, bar in ((64, 1.6), (1024, 0.95), (256, 1.1)):
        name = f"gather(1,000 x {dim}) of 1M rows, per row"
        try:
            seen = next(cell for cell in cells(LARGE, dim, effort) if cell.batch == 1_000)
        except TooLargeError as error:
            lines.append(left_out(name, TAKE, str(error), bar))
        else:
            lines.append(ratio_line(name, TAKE, seen.ratio, bar, note=seen.pages))
    return lines


def threads(effort: Effort) -> list[Line]:
    """10,000 rows by two threads of one call."""
    here = population(LARGE, 256)
    samples = play(here, 10_000, effort, (ours(here, ", threads=2"), take(here)))
    name = "gather(10,000 x 256, threads=2) of 1M rows, per row"
    return [ratio_line(name, TAKE, samples.ratio(OURS, "take"), 0.65)]


def find(effort: Effort) -> list[Line]:
    """Which of 10,000 ids are among a million; a dict is asked id by id."""
    here = population(LARGE, 64)
    plain = dict.fromkeys(here.ids.tolist())
    places = here.places(10_000, 48)
    batches = [here.ids[at] for at in places]
    parts = [batches[start : start + 8] for start in range(0, 48, 8)]
    lists = [[batch.tolist()] for batch in batches]
    contenders = [
        cold(OURS, "c.find(k)", here.cache, parts, 0, 10_000),
        cold("dict", "[i in c for i in k]", plain, lists, 20, 10_000),
    ]
    samples = Samples()
    samples.play(contenders, effort.large_rounds)
    name = "find, 1M rows, batch 10,000, per id"
    detail = f"`i in dict`: {samples.median('dict'):.0f} ns"
    return [absolute_line(name, "ns", samples.times(OURS), 15, detail)]


def put(effort: Effort) -> list[Line]:
    """Rows of new ids into a full table; what copying them to random places takes is taken off."""
    dim, lines = 64, []
    for capacity, bar in ((LARGE, 200.0), (LARGE // 2, 150.0)):
        release()
        here = Population(capacity, dim)
        here.cache.put(make_ids(capacity // 4, start=9 * LARGE), here.table[: capacity // 4])
        for batch in (10_000, 1_000):
            each = max(1, 4_000 // batch)
            rounds = effort.large_rounds
            fresh = make_ids((rounds + 1) * each * batch, start=batch * LARGE)
            ids = [list(part) for part in fresh.reshape(-1, each, batch)]
            places = [here.places(batch, each, seed) for seed in range(24)]
            rows = filled(np.empty((batch, dim), np.float32))
            contenders = [
                cold(OURS, "c[0].put(k, c[1])", (here.cache, rows), ids, 0, batch),
                cold("copy", "c[0][k] = c[1]", (here.table, rows), places, 0, batch),
            ]
            samples = Samples()
            samples.play(contenders, rounds)
            beyond = samples.times(OURS) - samples.times("copy")
            copied = samples.median("copy")
            name = f"put at {capacity:,} rows, batch {batch:,}, beyond the copy, per row"
            detail = f"of {samples.median(OURS):.0f} ns; table[places] = rows: {copied:.0f} ns"
            wanted = bar if batch == 10_000 else None
            lines.append(absolute_line(name, "ns", beyond, wanted, detail))
        del here
    return lines


def overhead(effort: Effort) -> list[Line]:
    """What a table in a file takes beside its rows, by two widths of them."""
    sizes = []
    for dim in (16, 32):
        path = segment_path(2 * LARGE * row_bytes(dim), f"overhead {dim}")
        with VectorCache(dim, capacity=LARGE, path=path) as cache:
            sizes.append(cache.nbytes - 4096)
        Path(path).unlink()
    narrow, wide = sizes
    rows = (wide - narrow) / row_bytes(16)
    beside = (narrow - rows * row_bytes(16)) / LARGE
    spare = rows / LARGE - 1
    detail = f"and room for {spare:.1%} more rows than the capacity: stripes fill unequally"
    return [
        Line("overhead per row beyond the row, 1M rows", "bytes", beside, 48, detail=detail),
        *[
            Line(f"the same with that room, rows of {dim} float32", "bytes", whole)
            for dim in (64, 1024)
            for whole in [beside + spare * row_bytes(dim)]
        ],
    ]


def opening(effort: Effort) -> list[Line]:
    """Opening a file that nobody else has open, and then the first batch from it."""
    rows = 2 * effort.peer_entries
    rows = rows if fits(rows * row_bytes(1100)) else rows // 10
    nbytes = rows * row_bytes(1100)
    path = segment_path(nbytes, "opening")
    block = filled(np.empty((10_000, 1024), np.float32))
    ids = make_ids(rows)
    out = np.empty((1_000, 1024), np.float32)
    with VectorCache(1024, capacity=rows, path=path) as cache:
        for start in range(0, rows, len(block)):
            cache.put(ids[start : start + len(block)], block)
        size = cache.nbytes
    opened, first = [], []
    for turn in range(effort.imports):
        batch = ids[np.random.RandomState(turn).randint(rows, size=len(out))]
        start = time.perf_counter_ns()
        cache = VectorCache(1024, capacity=rows, path=path)
        opened.append(time.perf_counter_ns() - start)
        start = time.perf_counter_ns()
        _, found = cache.gather(batch, out)
        first.append(time.perf_counter_ns() - start)
        assert found.all()
        cache.close()
    Path(path).unlink()
    where = f"{size / 2**30:.2f} GB in {Path(path).parents[1]}"
    name = "opening a segment file"
    after = "first gather(1,000 x 1024) after opening, every page new to the process"
    return [
        absolute_line(name, "ms", np.array(opened) / 1e6, 10, f"{where}, {rows:,} rows"),
        absolute_line(after, "ms", np.array(first) / 1e6),
    ]


def shared(effort: Effort) -> list[Line]:
    """A table in /dev/shm beside a private one: with the pages it has, then with huge ones."""
    here = population(LARGE, 256)
    cache = segment(LARGE, 256)
    path = str(cache.path)
    name = "gather(1,000 x 256) of 1M rows, shared"

    def measured(bar: float, note: str) -> Line:
        side = Side("shared", "c[0].gather(k, c[1])", cache, lambda at: here.ids[at])
        ratio = play(here, 1_000, effort, (side, ours(here))).ratio("shared", OURS)
        huge = f"{mapping_of(path).huge_share:.0%} of its pages are huge"
        return ratio_line(name, f"private, {note}", ratio, bar, note=huge)

    lines = [measured(1.25, "pages as they come")]
    if not cache.collapse():
        return [*lines, left_out(name, "private, after collapse()", "not with this kernel", 1.1)]
    cache.gather(here.ids)  # maps them
    return [*lines, measured(1.1, "after collapse()")]
