"""What lies in the folder of a memory-mapped tier, and what is checked of it before it is mapped.

    cachecore.mark   one line: magic, layout, bound, identity, boot; also what processes lock
    data.mdb         LMDB's data: as long as the bound, but only what is used takes room on the disk
    lock.mdb         LMDB's readers and its mutexes

LMDB trusts its file: a page that is missing ends the process. So whatever can be told from outside
is told here, and nothing of a file that is refused is changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import struct
import time
from typing import NamedTuple

from cachecore.errors import TierError

MARK, DATA, LOCK = "cachecore.mark", "data.mdb", "lock.mdb"
LAYOUT = 1
SYNCED = "-" * 36  # in place of the boot: the disk has all of it
WRITER, USER = 0, 1  # bytes of the mark that are locked: to write; while the store is open

LOCK_LENGTH = 1 << 16  # some 1,000 transactions that read

_LINE = re.compile(
    r"cachecore mmap tier (\d{4}) (\d{20}) ([0-9a-f]{32}) ([0-9a-f-]{36})\n", re.ASCII
)
_PAGE = struct.Struct("=QHHHH")  # number, padding, flags, bounds of the free space
_META = struct.Struct("=II16xI84xQQ8x")  # magic, version, size of pages, root, last page
_META_PAGE, _LMDB, _NO_PAGE = 0x08, 0xBEEFC0DE, 2**64 - 1


class Mark(NamedTuple):
    """What the line says."""

    bound: int
    identity: str
    boot: str

    def line(self) -> bytes:
        """As it is written; all lines are of one length."""
        text = f"cachecore mmap tier {LAYOUT:04} {self.bound:020} {self.identity} {self.boot}\n"
        return text.encode()


def this_boot() -> str:
    """What tells this boot of the machine from others."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return SYNCED


def prepare_folder(folder: str) -> None:
    """Make sure that the folder is there, and that nobody else can write to it."""
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        found = os.lstat(folder)
    except FileExistsError:
        found = os.lstat(folder)
    except OSError as error:
        raise TierError(f"{folder} cannot be created: {error}") from error
    if not stat.S_ISDIR(found.st_mode):
        kind = "a symlink" if stat.S_ISLNK(found.st_mode) else "no folder"
        raise TierError(f"{folder} is {kind}; the path of a tier must be a folder")
    _check_owner(folder, found, 0o022)


def open_mark(folder: str) -> int:
    """The descriptor of the mark, which is created where there is no LMDB data yet."""
    path, data = os.path.join(folder, MARK), os.path.join(folder, DATA)
    if os.path.lexists(data) and not os.path.lexists(path):
        raise TierError(f"{data} is not of a tier of this kind; choose another folder")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        mark = os.open(path, flags, 0o600)
    except OSError as error:
        raise TierError(f"{path} cannot be opened: {error}") from error
    try:
        check_file(path, os.fstat(mark))
    except TierError:
        os.close(mark)
        raise
    return mark


def read_mark(mark: int, folder: str) -> Mark | None:
    """What the mark says; None: nothing yet, the store is new."""
    line = os.pread(mark, 200, 0)
    if not line:
        return None
    match = _LINE.fullmatch(line.decode("latin-1"))
    if match is None:
        raise TierError(f"{os.path.join(folder, MARK)} is damaged, or of something else")
    if int(match[1]) != LAYOUT:
        raise TierError(f"{folder} has layout {int(match[1])}; this version knows layout {LAYOUT}")
    return Mark(int(match[2]), match[3], match[4])


def remove_data(folder: str) -> None:
    """Remove what LMDB wrote."""
    for name in (DATA, LOCK):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))


def check_file(path: str, found: os.stat_result) -> None:
    """Refuse what is no plain file, or is not ours alone."""
    if not stat.S_ISREG(found.st_mode):
        kind = "a symlink" if stat.S_ISLNK(found.st_mode) else "no plain file"
        raise TierError(f"{path} is {kind}")
    _check_owner(path, found, 0o077)
    if found.st_nlink > 1:
        raise TierError(f"{path} has another name elsewhere")


def _check_owner(path: str, found: os.stat_result, forbidden: int) -> None:
    if found.st_uid != os.geteuid():
        raise TierError(f"{path} belongs to another user")
    if found.st_mode & forbidden:
        raise TierError(f"{path} must not be open to others: its mode is {found.st_mode & 0o777:o}")


def check_data(folder: str, bound: int) -> int:
    """Refuse data that LMDB could not map safely; how many bytes of it are in use."""
    path = os.path.join(folder, DATA)
    try:
        check_file(path, os.lstat(path))
        with open(path, "rb", buffering=0, opener=_open_plainly) as file:
            first = _read_meta(os.pread(file.fileno(), 4096, 0))
            size = first[2] if first else 0
            if size & (size - 1) or not 512 <= size <= 65536:
                raise TierError(f"{path} holds no data of LMDB, or damaged ones")
            second = _read_meta(os.pread(file.fileno(), 4096, size))
            length = os.fstat(file.fileno()).st_size
        lock = os.path.join(folder, LOCK)
        if os.path.lexists(lock):
            check_file(lock, os.lstat(lock))
    except OSError as error:
        if isinstance(error, TierError):
            raise
        raise TierError(f"{path} cannot be read: {error}") from error
    used = 0
    for meta in (first, second):
        if meta is None or meta[2] != size or meta[4] < meta[3] != _NO_PAGE:
            raise TierError(f"the head of {path} is damaged")
        used = max(used, (meta[4] + 1) * size)
    if length < max(bound, used):
        raise TierError(f"{path} is truncated: {length} bytes of {max(bound, used)}")
    return used


def _open_plainly(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)


def _read_meta(page: bytes) -> tuple[int, ...] | None:
    if len(page) < _PAGE.size + _META.size:
        return None
    flags = _PAGE.unpack_from(page)[2]
    meta = _META.unpack_from(page, _PAGE.size)
    return meta if flags == _META_PAGE and meta[:2] == (_LMDB, 1) else None


def reserve_lock_file(folder: str) -> None:
    """Give LMDB's lock file its room on the disk: in want of it, using it would end the process.

    Only for who has the store alone. Its length says how many may read at a time.
    """
    path = os.path.join(folder, LOCK)
    file = _open_plainly(path, os.O_RDWR | os.O_CREAT)
    try:
        os.posix_fallocate(file, 0, LOCK_LENGTH)
    finally:
        os.close(file)


def lock_byte(file: int, byte: int, kind: int, deadline: float) -> bool:
    """Lock a byte among processes until it is unlocked, the file is closed or the process ends.

    kind: fcntl.LOCK_EX or LOCK_SH. False: somebody else had it until the deadline, a time of
    `time.monotonic`.
    """
    pause = 2e-5
    while True:
        try:
            fcntl.lockf(file, kind | fcntl.LOCK_NB, 1, byte)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        except OSError as error:
            raise TierError(f"a file cannot be locked: {error}") from error
        time.sleep(pause)
        pause = min(2 * pause, 1e-3)


def unlock_byte(file: int, byte: int) -> None:
    """Unlock a byte, if it was locked."""
    fcntl.lockf(file, fcntl.LOCK_UN, 1, byte)


def wait_for_lock_file(folder: str, deadline: float) -> bool:
    """Whether LMDB can lock its own lock file without waiting; it would wait without end.

    Not for a process that has it open: its locks would be gone.
    """
    file = _open_plainly(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT)
    try:
        return lock_byte(file, 0, fcntl.LOCK_SH, deadline)
    finally:
        os.close(file)
