"""Pages of mapped files: which are in memory, keeping some there, letting go of others.

The pages of a file are in memory once, whoever maps it. `Keeper` asks the kernel to read them in
(MADV_WILLNEED, MADV_POPULATE_READ) and to keep them (mlock), or takes them off this process's
tables (MADV_DONTNEED, MADV_PAGEOUT) and out of memory (posix_fadvise), where nobody else maps them.
None of that changes what a view shows: a page that was let go is read again when it is touched.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cachecore._safetensors import Place
from cachecore.ml.shards import Places, Shard, shards_of

PAGE = mmap.PAGESIZE
_PAGEOUT, _POPULATE_READ = 21, 22  # Linux 5.4 and 5.14; the module mmap has no names for them
_ON_FAULT = 1  # of mlock2: lock what comes in, and read nothing now


class Resident(NamedTuple):
    """How much of a tensor is in memory, for whatever process."""

    resident: int
    """Bytes."""
    total: int
    """Bytes."""


class Keeper:
    """Keeps tensors in memory. Not for two threads at a time: its owner has a lock."""

    def __init__(self) -> None:
        self.kept: dict[Place, bool] = {}
        """The places that are kept, and whether they are locked."""
        self._edges: dict[tuple[Shard, int], int] = {}
        """How many locks there are of pages that neighbours may share."""

    def keep(self, place: Place, wait: bool) -> None:
        """Have a tensor read in, and lock it where that is allowed; `wait`: until that is done."""
        if place.nbytes:
            start, end = _pages_around(place)
            if not wait:
                _advise(place.shard.map, mmap.MADV_WILLNEED, start * PAGE, (end - start) * PAGE)
            locked = _lock(place.shard, start, end, 0 if wait else _ON_FAULT)
        else:
            locked = True
        if locked and not self.kept.get(place):
            for edge in _edges(place):
                self._edges[edge] = self._edges.get(edge, 0) + 1
        self.kept[place] = self.kept.get(place, False) or locked

    def release(self, place: Place) -> None:
        """Unlock a tensor; whether it stays in memory is the kernel's business again."""
        if self.kept.pop(place, False) and place.nbytes:
            for edge in _edges(place):
                self._edges[edge] -= 1
                if not self._edges[edge]:
                    del self._edges[edge]
            start, end = _pages_around(place)
            # A page of two tensors is locked but once.
            start += (place.shard, start) in self._edges
            end -= (place.shard, end - 1) in self._edges
            if start < end:
                _libc().munlock(_address(place.shard.map) + start * PAGE, (end - start) * PAGE)

    def drop(self, place: Place) -> int:
        """Let go of a tensor's memory: of its pages, but those that it shares with neighbours.

        Returns how many bytes were let go: none where they are locked by somebody else, as by
        mlockall. Pages that another process maps stay in memory.
        """
        self.release(place)
        start, end = -(-place.offset // PAGE) * PAGE, (place.offset + place.nbytes) // PAGE * PAGE
        if start >= end:
            return 0
        # The kernel has pages in groups, of up to some MB: this takes apart those which reach into
        # a neighbour. It keeps what was written to a private map; the next advice would not.
        for mapped in place.shard.maps:
            _advise(mapped, _PAGEOUT, start, end - start)
        if not _advise(place.shard.map, mmap.MADV_DONTNEED, start, end - start):
            return 0
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(place.shard.fd, start, end - start, os.POSIX_FADV_DONTNEED)
        return end - start

    def forget_locks(self) -> None:
        """In a process that was forked: locks are not inherited."""
        self.kept = dict.fromkeys(self.kept, False)
        self._edges.clear()


def read_in(place: Place) -> None:
    """Have a tensor read in, and wait for it; Linux before 5.14 and others only begin.

    Raises:
        OSError: It cannot be read.
    """
    if place.nbytes:
        start, end = _pages_around(place)
        where = start * PAGE, (end - start) * PAGE
        _advise(place.shard.map, mmap.MADV_WILLNEED, *where)
        try:
            _advise(place.shard.map, _POPULATE_READ, *where)
        except OSError as error:
            what = "a tensor cannot be read: the file was truncated, or its disk fails"
            raise OSError(error.errno, what, place.shard.path) from None


def residency(places: Places) -> dict[str, Resident]:
    """How much of each tensor is in memory, as mincore tells it.

    Raises:
        PermissionError: The kernel tells it only to who owns the file or may write to it.
    """
    pages = {shard: _resident_pages(shard) for shard in shards_of(places)}
    return {
        name: Resident(_resident_bytes(place, pages[place.shard]), place.nbytes)
        for name, place in places.items()
    }


def _pages_around(place: Place) -> tuple[int, int]:
    """The numbers of the first page of a tensor that is not empty, and of the one after it."""
    return place.offset // PAGE, (place.offset + place.nbytes - 1) // PAGE + 1


def _edges(place: Place) -> set[tuple[Shard, int]]:
    if not place.nbytes:
        return set()
    start, end = _pages_around(place)
    return {(place.shard, start), (place.shard, end - 1)}


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_size_t
    for name, arguments in {
        "madvise": [size, size, ctypes.c_int],
        "mincore": [size, size, ctypes.c_void_p],
        "mlock": [size, size],
        "mlock2": [size, size, ctypes.c_int],
        "munlock": [size, size],
    }.items():
        if hasattr(libc, name):
            getattr(libc, name).argtypes = arguments
    return libc


def _address(mapped: mmap.mmap) -> int:
    return int(np.frombuffer(mapped, np.uint8).__array_interface__["data"][0])


def _lock(shard: Shard, start: int, end: int, flags: int) -> bool:
    """Lock pages; False where RLIMIT_MEMLOCK, or the system, does not let us."""
    where = _address(shard.map) + start * PAGE, (end - start) * PAGE
    libc = _libc()
    done = libc.mlock2(*where, flags) if hasattr(libc, "mlock2") else libc.mlock(*where)
    return bool(done == 0)


def _advise(mapped: mmap.mmap, advice: int, start: int, size: int) -> bool:
    """Give an advice; False where the kernel does not know it, or the pages are locked.

    Other threads run meanwhile: gigabytes may be read. With `mmap.madvise` none would.
    """
    if advice in (_PAGEOUT, _POPULATE_READ) and sys.platform != "linux":
        return False
    if _libc().madvise(_address(mapped) + start, size, advice) == 0:
        return True
    code = ctypes.get_errno()
    if code != errno.EINVAL:
        raise OSError(code, os.strerror(code))
    return False


def _resident_pages(shard: Shard) -> npt.NDArray[np.bool_]:
    """Which pages of a file are in memory."""
    if not _may_know(shard.fd):  # mincore would say that all are
        raise PermissionError(
            f"{shard.path}: the kernel tells what is in memory only to who owns a file or may"
            " write to it"
        )
    seen = np.empty(-(-shard.size // PAGE), np.uint8)
    if _libc().mincore(_address(shard.map), shard.size, seen.ctypes.data):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), shard.path)
    return (seen & 1).astype(bool)


def _may_know(file: int) -> bool:
    if os.geteuid() in (0, os.fstat(file).st_uid) or sys.platform != "linux":
        return True
    return os.access(f"/proc/self/fd/{file}", os.W_OK, effective_ids=True)


def _resident_bytes(place: Place, pages: npt.NDArray[np.bool_]) -> int:
    if not place.nbytes:
        return 0
    start, end = _pages_around(place)
    begin, stop = place.offset, place.offset + place.nbytes
    total = int(np.count_nonzero(pages[start:end])) * PAGE
    # Of the first and the last page only a part is the tensor's.
    total -= bool(pages[start]) * (begin - start * PAGE)
    total -= bool(pages[end - 1]) * (end * PAGE - stop)
    return total
