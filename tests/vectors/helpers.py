"""What the tests of VectorCache share: rows that say whose they are, and processes."""

from __future__ import annotations

import os
import select
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt

from cachecore import VectorCache

DIM = 16
DEADLINE = 60.0  # seconds: what takes so long hangs

Rows = npt.NDArray[Any]
MakeTable = Callable[..., VectorCache]  # the fixture `make`
Start = Callable[[Callable[["Child"], object]], "Child"]  # the fixture `start`


def rows_for(ids: Iterable[int], serial: Any = 0, dim: int = DIM) -> npt.NDArray[np.float32]:
    """Rows that tell their id, below 2**16, and their serial number."""
    numbers = np.fromiter(ids, np.int64)
    serials = np.broadcast_to(np.asarray(serial, np.int64), numbers.shape)
    items = np.add.outer(serials * 101 + numbers * 7, np.arange(dim)) % 65_521
    items[:, :2] = np.column_stack([numbers, serials])[:, :dim]
    rows: npt.NDArray[np.float32] = items.astype(np.float32)
    return rows


def whole(rows: Rows, ids: Iterable[int]) -> npt.NDArray[np.bool_]:
    """Which rows are such as were put for those ids, with any one serial number."""
    expected = rows_for(ids, rows[:, 1], rows.shape[1])
    return np.asarray((rows == expected).all(axis=1))


def check_counts(table: VectorCache) -> None:
    """What holds of every table that nobody else is using."""
    stats = table.stats()
    gone = stats.evictions + stats.rejections + stats.expirations + stats.deletions
    assert stats.inserts == stats.entries + gone, stats
    assert stats.entries == len(table) <= table.capacity
    assert stats.bytes == len(table) * (table.dim or 1) * table.dtype.itemsize


def works(table: VectorCache, first: int = 50_000) -> None:
    """Rows can be put, found and deleted."""
    ids = np.arange(first, first + min(100, table.capacity))
    table.put(ids, rows_for(ids, 9, table.dim or 1))
    rows, found = table.gather(ids)
    assert whole(rows[found], ids[found]).all()
    assert found.any()
    assert table.delete(ids) == found.sum()
    assert not table.find(ids).any()


class Child:
    """A forked process that runs a function; killed at the end of the test if it still runs."""

    def __init__(self, act: Callable[[Child], object], number: int = 0) -> None:
        self.number = number
        self._heard, writer = os.pipe()
        reader, self._told = os.pipe()
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._heard)
            os.close(self._told)
            self._heard, self._told = reader, writer
            status = 1
            try:
                act(self)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(reader)
        os.close(writer)

    def tell(self, word: bytes = b".") -> None:
        """Send the other side a byte."""
        os.write(self._told, word)

    def hear(self, seconds: float = DEADLINE) -> bytes:
        """A byte that the other side sent; b"" when it has gone."""
        assert select.select([self._heard], [], [], seconds)[0], "the other process says nothing"
        return os.read(self._heard, 1)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; SIGSTOP has taken effect when this returns."""
        os.kill(self.pid, number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def kill(self) -> None:
        """Kill it at once; it is gone when this returns."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.end()

    def end(self, seconds: float = DEADLINE) -> int:
        """Wait until it has ended and give its exit status, or minus the signal's number."""
        if self.status is None:
            pidfd = os.pidfd_open(self.pid)
            try:
                ended = select.select([pidfd], [], [], seconds)[0]
            finally:
                os.close(pidfd)
            assert ended, "the other process does not end"
            _, status = os.waitpid(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(status)
            os.close(self._heard)
            os.close(self._told)
        return self.status


def attempts(seconds: float = DEADLINE) -> Iterator[int]:
    """0, 1, 2 ... for a loop that tries until something comes true; fails when it does not."""
    end = monotonic() + seconds
    for attempt in count():
        assert monotonic() < end, "it never came true"
        yield attempt
