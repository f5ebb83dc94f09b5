"""Tables of float32 rows for the measurements of VectorCache: ours and NumPy's, on equal pages."""

from __future__ import annotations

import functools
import mmap
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cachecore import VectorCache
from workloads import make_ids

Ids = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float32]

HUGE = 2 << 20
BLOCK = 4096  # rows that are made at once


def row_bytes(dim: int) -> int:
    """Return the bytes of a row."""
    return dim * np.dtype(np.float32).itemsize


def free_memory() -> int:
    """Return the bytes that the kernel could give away now."""
    text = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2]
    return int(text.split()[0]) * 1024


def fits(nbytes: int) -> bool:
    """Say whether so much takes at most half of the free memory."""
    return nbytes <= free_memory() // 2


class TooLargeError(Exception):
    """A measurement would take more memory than it may."""

    def __init__(self, nbytes: int) -> None:
        """Say how much that is."""
        half = free_memory() / 2**31
        super().__init__(f"{nbytes / 2**30:.1f} GB, and half of the free memory is {half:.1f}")


def must_fit(nbytes: int) -> None:
    """Raise TooLargeError where so much does not fit."""
    if not fits(nbytes):
        raise TooLargeError(nbytes)


def empty_paged(rows: int, dim: int) -> Rows:
    """Return an array on a boundary of 2 MiB, huge pages advised, as our private tables are."""
    size = rows * row_bytes(dim)
    memory = mmap.mmap(-1, size + HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared: 4 KB pages
    memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)
    start = -whole.ctypes.data % HUGE
    return whole[start : start + size].view(np.float32).reshape(rows, dim)


def filled(table: Rows) -> Rows:
    """Fill a table with rows that differ, and return it."""
    rows, dim = table.shape
    block = np.random.RandomState(1).random_sample((BLOCK, dim)).astype(np.float32)
    for start in range(0, rows, BLOCK):
        part = table[start : start + BLOCK]
        part[:] = block[: len(part)]
        part[:, 0] += np.arange(start, start + len(part))
    return table


@dataclass(frozen=True)
class Mapping:
    """A part of this process's memory, as /proc/self/smaps has it."""

    start: int
    end: int
    inode: int  # of its file; 0: none
    resident: int
    huge: int  # of that, in huge pages

    @property
    def huge_share(self) -> float:
        """Return which part of what is resident lies in huge pages."""
        return self.huge / max(1, self.resident)


def mappings() -> Iterator[Mapping]:
    """Yield this process's mappings."""
    parts = Path("/proc/self/smaps").read_text().split("VmFlags:")
    for part in parts[:-1]:
        lines = [line.split(maxsplit=5) for line in part.splitlines()]
        head = next(line for line in lines if line and "-" in line[0])
        kb = {line[0]: int(line[1]) for line in lines if len(line) == 3 and line[2] == "kB"}
        start, end = (int(number, 16) for number in head[0].split("-"))
        huge = kb["AnonHugePages:"] + kb["ShmemPmdMapped:"] + kb["FilePmdMapped:"]
        yield Mapping(start, end, int(head[4]), kb["Rss:"] * 1024, huge * 1024)


def mapping_at(address: int) -> Mapping:
    """Return the mapping around an address."""
    return next(one for one in mappings() if one.start <= address < one.end)


def mapping_of(path: str) -> Mapping:
    """Return the mapping of a file."""
    inode = Path(path).stat().st_ino  # a file made without a name keeps being called so
    return next(one for one in mappings() if one.inode == inode)


class Population:
    """The same rows in a VectorCache and in an array, the cache's ids by places in the array."""

    def __init__(self, rows: int, dim: int) -> None:
        """Make and fill both."""
        self.rows, self.dim = rows, dim
        self.ids = make_ids(rows)
        self.table = filled(empty_paged(rows, dim))
        self.cache = VectorCache(dim, capacity=rows)
        self.cache.load(self.ids, self.table)

    @staticmethod
    def nbytes(rows: int, dim: int) -> int:
        """Return about how much both take."""
        return rows * (2 * row_bytes(dim) + 128)

    def places(self, batch: int, count: int, seed: int = 1) -> list[npt.NDArray[np.intp]]:
        """Draw `count` batches of places in the array, with replacement."""
        return list(np.random.RandomState(seed).randint(self.rows, size=(count, batch)))

    @property
    def pages(self) -> str:
        """Say which parts of both lie in huge pages."""
        row = self.cache.view(int(self.ids[0]))
        assert row is not None
        cache, array = (mapping_at(one.ctypes.data).huge_share for one in (row, self.table))
        return f"huge pages: cache {cache:.0%}, array {array:.0%}"


_held: dict[tuple[int, int], Population] = {}
_segments: dict[tuple[int, int], VectorCache] = {}


def population(rows: int, dim: int) -> Population:
    """Return a population; only the last one is kept: they are large. TooLargeError: it is too."""
    if (rows, dim) not in _held:
        release()
        must_fit(Population.nbytes(rows, dim))
        _held[rows, dim] = Population(rows, dim)
    return _held[rows, dim]


def release() -> None:
    """Drop what is kept, and remove its files."""
    _held.clear()
    for cache in _segments.values():
        Path(str(cache.path)).unlink()
    _segments.clear()


@functools.cache
def _folder(parent: str) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="cachecore-bench-", dir=parent)


def segment_path(nbytes: int, name: str) -> str:
    """Return a path for a segment: in /dev/shm if there is room, else on the disk; gone at exit."""
    shared = Path("/dev/shm")
    room = shutil.disk_usage(shared).free if shared.is_dir() else 0
    parent = str(shared) if room > 1.2 * nbytes else tempfile.gettempdir()
    return str(Path(_folder(parent).name, name))


def segment(rows: int, dim: int) -> VectorCache:
    """Return a full table in a file, of a population's ids; kept for as long as the population."""
    if (rows, dim) in _segments:
        return _segments[rows, dim]
    nbytes = rows * (row_bytes(dim) + 128)
    must_fit(nbytes)
    cache = VectorCache(dim, capacity=rows, path=segment_path(nbytes, f"{rows}x{dim}"))
    ids = make_ids(rows)
    block = 100 * BLOCK
    for start in range(0, rows, block):
        stop = min(start + block, rows)
        part = filled(np.empty((stop - start, dim), np.float32))
        part[:, 0] += start
        cache.put(ids[start:stop], part)
    _segments[rows, dim] = cache
    return cache
