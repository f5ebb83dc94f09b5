"""Processes that hold rows and gather on command: their speed together, and their memory."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from cachecore import VectorCache
from vector_tables import filled
from workloads import make_ids

BATCH = 1_000


def work(pipe: Connection, path: str, rows: int, dim: int) -> None:
    """Open the segment, or without a path fill a dict; then gather for the seconds it is told.

    Answers with the rows a second; None ends it.
    """
    ids = make_ids(rows)
    out = np.empty((BATCH, dim), np.float32)
    if path:
        cache = VectorCache(dim, capacity=rows, path=path)
        cache.gather(ids, np.empty((rows, dim), np.float32))  # maps every page
    else:
        table = filled(np.empty((rows, dim), np.float32))
        plain = {key: row.copy() for key, row in zip(ids.tolist(), table, strict=True)}
        del table
    batches = [ids[at] for at in np.random.RandomState(1).randint(rows, size=(50, BATCH))]
    pipe.send(None)
    while (seconds := pipe.recv()) is not None:
        count = 0
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            batch = batches[count % len(batches)]
            if path:
                cache.gather(batch, out)
            else:
                np.stack([plain[key] for key in batch.tolist()], out=out)
            count += 1
        pipe.send(count * BATCH / (time.perf_counter() - start))


class Workers:
    """Some such processes; not forked, like those of a server that preloads nothing."""

    def __init__(self, count: int, path: str, rows: int, dim: int) -> None:
        """Start them and wait until they hold their rows."""
        context = multiprocessing.get_context("spawn")
        ends = [context.Pipe() for _ in range(count)]
        self._pipes = [ours for ours, _ in ends]
        self._processes = [
            context.Process(target=work, args=(theirs, path, rows, dim)) for _, theirs in ends
        ]
        for process in self._processes:
            process.start()
        for pipe in self._pipes:
            pipe.recv()

    def gather(self, count: int, seconds: float) -> float:
        """Let `count` of them gather at the same time, and return the rows a second of all."""
        for pipe in self._pipes[:count]:
            pipe.send(seconds)
        return float(sum(pipe.recv() for pipe in self._pipes[:count]))

    def memory(self) -> int:
        """Return the bytes of all of them; what several share counts once (PSS)."""
        paths = [Path(f"/proc/{process.pid}/smaps_rollup") for process in self._processes]
        kb = [path.read_text().partition("\nPss:")[2].split()[0] for path in paths]
        return 1024 * sum(map(int, kb))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join()
