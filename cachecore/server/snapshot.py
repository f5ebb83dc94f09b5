r"""A snapshot of the server's cache in a file, so that the next process begins warm.

    head   b"cachecore snapshot\n", u32 layout, u64 Unix ms, u32 CRC of these three
    part   u64 size, u32 CRC of the content, content (entries, as _snapshot.pyx packs them)
    end    u64 0, u64 entries, u32 CRC of these two

All little-endian. The file is written beside its place, synced, and renamed into it: whatever
happens meanwhile, there is the old one or the new one. Everything in it is checked before anything
of it is used; what is cut short, damaged, of another version or of another user is refused.

It is written while the server serves, in slices: the loop packs some 256 KB of entries, a thread
checks and writes them. An entry is as it was when its slice was packed, so the whole is not the
cache at one moment. A forked child would have that, but forking stops the server: of 1.2 GB for 310
to 420 ms on a busy machine, where with slices no command took longer than 50 to 110 ms.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import math
import os
import stat
import struct
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import IO, Any, NamedTuple
from zlib import crc32

from cachecore._core import Cache
from cachecore._snapshot import FREQUENCIES, pack, unpack, weigh

MAGIC = b"cachecore snapshot\n"
LAYOUT = 1
SLICE = 256 * 1024  # bytes that are packed at once
_HEAD = struct.Struct(f"<{len(MAGIC)}sIQ")
_PART = struct.Struct("<QI")
_END = struct.Struct("<QQ")
_CRC = struct.Struct("<I")

Part = tuple[int, int, list[bytes | bytearray]]
log = logging.getLogger("cachecore.server")


class SnapshotError(Exception):
    """A snapshot that is not to be used; the message says why."""


class Loaded(NamedTuple):
    """What came of a snapshot."""

    entries: int = 0
    expired: int = 0
    left_out: int = 0
    """Entries that were asked for less often than those for which there was room."""
    databases: frozenset[int] = frozenset()


def now_ms() -> int:
    """Unix time."""
    return time.time_ns() // 1_000_000


# --- writing


class Writer:
    """A snapshot that is being written; `commit` puts it into its place, `discard` forgets it.

    Raises (all of it):
        OSError: no permission, no room.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        remove_leftovers(path)
        self._temporary = path.with_name(f".{path.name}.{token_hex(8)}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = open(os.open(self._temporary, flags, 0o600), "wb", buffering=0)  # noqa: SIM115
        self._entries = 0
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)  # it is no leftover while we live
            head = _HEAD.pack(MAGIC, LAYOUT, now_ms())
            self._put(head + _CRC.pack(crc32(head)))
        except BaseException:
            self.discard()
            raise

    def add(self, count: int, pieces: list[bytes | bytearray]) -> None:
        """Write the entries of one slice."""
        size, checksum = 0, 0
        for piece in pieces:
            size += len(piece)
            checksum = crc32(piece, checksum)
        if size:
            self._put(_PART.pack(size, checksum), *pieces)
            self._entries += count

    def commit(self) -> None:
        """Sync the file, and give it its name."""
        end = _END.pack(0, self._entries)
        self._put(end + _CRC.pack(crc32(end)))
        os.fsync(self._file.fileno())
        os.rename(self._temporary, self._path)
        self._file.close()
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        """Remove what was written."""
        with suppress(OSError):
            self._temporary.unlink()
        self._file.close()

    def _put(self, *pieces: bytes | bytearray) -> None:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[self._file.write(view) :]


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed have left of their snapshots."""
    for found in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(OSError):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(found, flags)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody is writing it
                found.unlink()
            finally:
                os.close(file)


def slices(cache: Cache[bytes, Any]) -> Iterator[Part]:
    """The entries of a cache, packed slice by slice; it may change between two of them."""
    cursor = 0
    while True:
        part = pack(cache, cursor, SLICE, now_ms())
        yield part
        cursor = part[0]
        if cursor == 0:
            return


# --- reading


def load(
    path: Path, cache: Cache[bytes, Any], hash_of: Callable[[list[tuple[bytes, bytes]]], Any] = dict
) -> Loaded:
    """Set the entries of a snapshot, the most asked for if there is no room for all.

    Raises:
        FileNotFoundError: there is none.
        SnapshotError: it is not to be used; nothing was set.
        OSError: it cannot be read.
    """
    with open_own(path) as file:
        weights = array("d", bytes(8 * FREQUENCIES))
        total = 0
        for part in parts_of(file):
            found = weigh(part, weights)
            if found < 0:
                raise SnapshotError("its entries are damaged")
            total += found
        least, room = _least_frequency(weights, cache.max_bytes)
        file.seek(0)
        entries = expired = 0
        databases: set[int] = set()
        for part in parts_of(file, total):
            done, old, room, numbers = unpack(cache, part, now_ms(), least, room, hash_of)
            entries, expired = entries + done, expired + old
            databases |= numbers
    return Loaded(entries, expired, total - entries - expired, frozenset(databases))


def _least_frequency(weights: array[float], max_bytes: int | None) -> tuple[int, float]:
    """The least frequency of entries for which there is room, and how much there is for those."""
    room = math.inf if max_bytes is None else float(max_bytes)
    for frequency in reversed(range(FREQUENCIES)):
        if weights[frequency] >= room:
            return frequency, room
        room -= weights[frequency]
    return 0, math.inf


def open_own(path: Path) -> IO[bytes]:
    """A file that is ours alone.

    Raises:
        FileNotFoundError: there is none.
        SnapshotError: it is a symlink or no file, another user's, or others may write to it.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise SnapshotError("it is a symlink") from None
        raise error
    file = open(descriptor, "rb")  # noqa: SIM115 (returned)
    found = os.fstat(descriptor)
    why = ""
    if not stat.S_ISREG(found.st_mode):
        why = "it is no plain file"
    elif found.st_uid != os.geteuid():
        why = "it belongs to another user"
    elif found.st_mode & 0o022:
        why = f"others may write to it: its mode is {stat.S_IMODE(found.st_mode):o}"
    if why:
        file.close()
        raise SnapshotError(why)
    return file


def parts_of(file: IO[bytes], entries: int | None = None) -> Iterator[memoryview]:
    """The contents of the parts of a snapshot, each checked before it is given.

    Raises:
        SnapshotError: it is foreign, damaged, or does not have as many entries.
    """
    head = file.read(_HEAD.size + _CRC.size)
    if head[: len(MAGIC)] != MAGIC:
        raise SnapshotError("it is no snapshot of cachecore")
    _checked(head)
    layout = _HEAD.unpack_from(head)[1]
    if layout != LAYOUT:
        raise SnapshotError(f"it has layout {layout}; this version knows layout {LAYOUT}")
    while True:
        size = int.from_bytes(_all_of(file, 8), "little")
        if size == 0:
            break
        if size > os.fstat(file.fileno()).st_size:
            raise SnapshotError("it is cut short")
        checksum = _CRC.unpack(_all_of(file, _CRC.size))[0]
        content = _all_of(file, size)
        if crc32(content) != checksum:
            raise SnapshotError("it is damaged: a checksum does not agree")
        yield memoryview(content)
    end = bytes(8) + _all_of(file, 8 + _CRC.size)
    _checked(end)
    if file.read(1):
        raise SnapshotError("it is damaged: it goes on after its end")
    if entries is not None and _END.unpack_from(end)[1] != entries:
        raise SnapshotError("it is damaged: entries are missing")


def _all_of(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise SnapshotError("it is cut short")
    return data


def _checked(data: bytes) -> None:
    if len(data) < _CRC.size or crc32(data[: -_CRC.size]) != _CRC.unpack(data[-_CRC.size :])[0]:
        raise SnapshotError("it is damaged: a checksum does not agree")


# --- of a server


class Saver:
    """Keeps a snapshot of a server's cache. Belongs to the server's loop.

    Attributes:
        taking: when the snapshot that is written now was begun; None: none is. Unix time, as
            `saved_at`, the time of the last one, or of the start.
        took: seconds that the last one took; -1: there was none.
        error: why the last one failed; None: it did not.
        saves: how many were written. loaded: what came of the one at the start.
    """

    def __init__(
        self,
        cache: Cache[bytes, Any],
        path: Path,
        hash_of: Callable[[list[tuple[bytes, bytes]]], Any] = dict,
    ) -> None:
        self._cache, self._path, self._hash_of = cache, path, hash_of
        self.taking: float | None = None
        self.saved_at = time.time()
        self.took = -1.0
        self.error: OSError | None = None
        self.saves = 0
        self.loaded = Loaded()
        self._task: asyncio.Task[OSError | None] | None = None

    def load(self) -> None:
        """Begin warm, if there is a snapshot; why not, is logged."""
        begin = time.monotonic()
        try:
            self.loaded = load(self._path, self._cache, self._hash_of)
        except FileNotFoundError:
            log.info("no snapshot at %s yet: a cold start", self._path)
        except (SnapshotError, OSError) as error:
            log.warning("the snapshot %s is not used: %s; a cold start", self._path, error)
        else:
            log.info(
                "%s entries of the snapshot %s in %.1f s; %s had expired, for %s there was no room",
                self.loaded.entries,
                self._path,
                time.monotonic() - begin,
                self.loaded.expired,
                self.loaded.left_out,
            )

    def begin(self) -> asyncio.Task[OSError | None]:
        """Write a snapshot while others are served, unless one is being written."""
        if self._task is None or self._task.done():
            self.taking = time.time()
            self._task = asyncio.get_running_loop().create_task(self._take())
        return self._task

    async def save(self) -> None:
        """The same, and wait for it. OSError: it was not written."""
        # Never cancelled: a thread may be writing to a file that would be closed under it.
        error = await asyncio.shield(self.begin())
        if error is not None:
            raise error

    async def _take(self) -> OSError | None:
        loop, begin = asyncio.get_running_loop(), time.monotonic()
        writer: Writer | None = None
        try:
            writer = await loop.run_in_executor(None, Writer, self._path)
            for _, count, pieces in slices(self._cache):
                await loop.run_in_executor(None, writer.add, count, pieces)
            await loop.run_in_executor(None, writer.commit)
        except OSError as error:
            if writer is not None:
                writer.discard()
            self.error = error
            log.error("the snapshot %s was not written: %s", self._path, error)
        else:
            self.saved_at, self.took, self.error = time.time(), time.monotonic() - begin, None
            self.saves += 1
            log.info("the snapshot %s was written in %.1f s", self._path, self.took)
        finally:
            self.taking = None
        return self.error

    async def save_last(self) -> None:
        """Write a snapshot after the last command; OSError: it was not written."""
        if self._task is not None:
            await self._task  # what it wrote may be older
        await self.save()
