"""Threads: the GIL is let go, calls outlive close, and nobody sees half a row."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachecore import VectorCache
from support import LONG
from vectors.helpers import (
    DEADLINE,
    DIM,
    Child,
    MakeTable,
    Start,
    attempts,
    check_counts,
    rows_for,
    whole,
)

WIDE = 1 << 16
MANY = np.arange(400)

LONG_CALLS: dict[str, Callable[[VectorCache, Any], object]] = {
    "gather": lambda table, rows: table.gather(MANY, out=rows),
    "gather, 2 threads": lambda table, rows: table.gather(MANY, out=rows, threads=2),
    "put": lambda table, rows: table.put(MANY, rows),
    "find": lambda table, rows: table.find(np.arange(5_000_000)),
    "delete": lambda table, rows: table.delete(np.arange(2_000_000)),
}


@pytest.mark.parametrize("call", LONG_CALLS)
def test_the_gil_is_let_go(make: MakeTable, start: Start, call: str) -> None:
    """Another thread runs during one call, though the interpreter never switches by itself."""
    table = make(WIDE, capacity=400)
    rows = np.ones((400, WIDE), np.float32)
    table.put(MANY, rows)

    def feed(child: Child) -> None:
        while True:
            child.tell()

    feeder, heard = start(feed), [0]

    def listen() -> None:
        while feeder.hear():
            heard[0] += 1

    other = threading.Thread(target=listen)
    other.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        for _ in attempts():
            before = heard[0]
            LONG_CALLS[call](table, rows)
            if heard[0] > before + 10:
                break
    finally:
        sys.setswitchinterval(interval)
        os.kill(feeder.pid, signal.SIGKILL)
        other.join(DEADLINE)


@pytest.mark.parametrize("shared", [False, True], ids=["private", "file"])
def test_close_while_others_gather(make: MakeTable, shm: Path, shared: bool) -> None:
    """A call that has begun ends as if nothing had happened."""
    ids = np.arange(2000)
    for _ in range(30 if LONG else 5):
        table = make(256, capacity=2000, path=shm / "t" if shared else None)
        table.put(ids, rows_for(ids, 1, 256))
        begun = threading.Barrier(3)

        def gather(table: VectorCache, begun: threading.Barrier) -> int:
            begun.wait(DEADLINE)
            for calls in attempts():
                try:
                    rows, found = table.gather(ids, threads=2)
                    table.put(ids[:100], rows_for(ids[:100], 1, 256))
                except ValueError:
                    return calls
                assert found.all()
                assert whole(rows[::100], ids[::100]).all()
            raise AssertionError

        with ThreadPoolExecutor(2) as pool:
            others = [pool.submit(gather, table, begun) for _ in range(2)]
            begun.wait(DEADLINE)
            rows = table.gather(ids)[0]
            table.close()
            gc.collect()
            for other in others:
                other.result(DEADLINE)
        assert whole(rows[::100], ids[::100]).all()


def test_close_while_others_ask(make: MakeTable) -> None:
    """To close lets go of the GIL: who asks meanwhile is told that it is closed."""

    def ask(table: VectorCache, begun: threading.Barrier) -> None:
        begun.wait(DEADLINE)
        with suppress(ValueError):
            while True:
                table.stats()
                len(table)
        assert table.closed

    with ThreadPoolExecutor(2) as pool:
        for _ in range(2000 if LONG else 200):
            table, begun = make(4, capacity=100_000), threading.Barrier(3)
            table.put(np.arange(1000), rows_for(np.arange(1000), 1, 4))
            others = [pool.submit(ask, table, begun) for _ in range(2)]
            begun.wait(DEADLINE)
            table.close()
            for other in others:
                other.result(DEADLINE)


@pytest.mark.parametrize(
    "settings",
    [{}, {"checksums": True}, {"capacity": 70_000}, {"ttl": 1000}],
    ids=["plain", "checked", "stripes", "ttl"],
)
def test_threads_put_gather_and_delete(make: MakeTable, settings: dict[str, Any]) -> None:
    table = make(**{"dim": 128, "capacity": 500, **settings})
    ids = np.arange(700 if table.capacity < 700 else 30_000)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(5000 if LONG else 400):
            some = rng.choice(ids, 30)
            act = rng.integers(0, 10)
            if act < 3:
                table.put(some, rows_for(some, int(rng.integers(1000)), 128))
            elif act == 3:
                table.delete(some[:5])
            elif act == 4 and rng.random() < 0.05:
                table.clear()
            else:
                rows, found = table.gather(some)
                assert whole(rows[found], some[found]).all()
                assert not rows[~found].any()

    with ThreadPoolExecutor(4) as pool:
        for worker in [pool.submit(work, seed) for seed in range(4)]:
            worker.result(DEADLINE * 5)
    assert table.stats().damaged == 0
    check_counts(table)


def test_an_argument_that_changes_meanwhile(make: MakeTable) -> None:
    """Ids and rows are the caller's memory: what another thread writes there breaks no table."""
    table = make(DIM, capacity=300, checksums=True)
    ids, rows = np.arange(200), rows_for(range(200))
    stop = threading.Event()

    def scribble() -> None:
        rng = np.random.default_rng(1)
        while not stop.is_set():
            ids[:] = rng.integers(-1000, 1000, 200)
            rows[:] = rng.random()

    other = threading.Thread(target=scribble)
    other.start()
    try:
        for _ in range(2000 if LONG else 300):
            table.put(ids, rows)
            table.gather(ids)
            table.find(ids)
            table.delete(ids[:50])
    finally:
        stop.set()
        other.join(DEADLINE)
    everything = np.arange(-1000, 1000)
    assert table.find(everything).sum() == table.gather(everything)[1].sum() == len(table)
    check_counts(table)
