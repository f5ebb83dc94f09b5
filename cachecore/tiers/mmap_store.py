"""An LMDB environment as the tiers of a process share it: opening, locking, fork, closing.

Among processes, writers take turns by a lock of our own, on a byte of the mark (mmap_files.py):
LMDB's cannot be waited for with a deadline, and a stopped process may hold it. Readers take none.

Nobody closes an environment under a reader: whoever uses one refers to it, and LMDB's is closed
with the last reference. LMDB knows no fork, so a child drops what it inherited, which touches
nothing of the parent's, and opens its own when it is first used.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers import mmap_files as files

try:
    import lmdb as lmdb  # for mmap.py, too
except ImportError as error:
    raise ImportError('MmapTier needs lmdb: pip install "cachecore-ml[mmap]"') from error

OTHERS_PATIENCE = 0.005  # seconds that readers of other processes are waited for
FORK_PATIENCE = 0.1  # seconds that a fork waits for other threads' reads

_stores: weakref.WeakValueDictionary[tuple[int, int], Store] = weakref.WeakValueDictionary()
_opening = threading.RLock()


def open_store(folder: str, bound: int, timeout: float) -> Store:
    """The store in a folder; one for all who open it in this process.

    Raises `TierError` for a folder that holds something else, that is damaged, or that others can
    write to, and `TierTimeoutError` when another process keeps it locked.
    """
    with _opening:
        files.prepare_folder(folder)
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(os.path.join(folder, files.MARK))
            store = _stores.get((found.st_dev, found.st_ino))
            if store is not None:
                if store.bound != bound:
                    raise TierError(f"{folder} is open with max_bytes={store.bound}, not {bound}")
                store.users += 1
                return store
        store = Store(folder, bound, timeout)
        _stores[store.place] = store
        return store


class Store:
    """One environment. `begin(data)` begins a transaction that reads."""

    def __init__(self, folder: str, bound: int, timeout: float) -> None:
        self.folder, self.bound, self.timeout = folder, bound, timeout
        self.users = 1
        self.era = 0  # times that it was begun anew
        self.identity = b""
        self.env: Any = None
        self.data: Any = None
        self.meta: Any = None
        self.begin: Any = _closed
        self.place = (0, 0)
        self._mark = -1
        self._mutex = threading.Lock()
        self._running = threading.Event()  # clear while a fork waits for reads to end
        self._running.set()
        self._kept: Any = None
        self._paused = False
        self._references = 0  # to the environment while nobody uses it
        with self._mutex:
            self._open(time.monotonic() + timeout)

    def __del__(self) -> None:
        self._let_go()

    # --- opening

    def _open(self, deadline: float) -> None:
        self._mark = files.open_mark(self.folder)
        found = os.fstat(self._mark)
        self.place = (found.st_dev, found.st_ino)
        try:
            if not files.lock_byte(self._mark, files.WRITER, fcntl.LOCK_EX, deadline):
                raise TierTimeoutError(f"{self.folder} is locked by another process")
            try:
                alone = files.lock_byte(self._mark, files.USER, fcntl.LOCK_EX, 0)
                new = self._prepare(alone)
                if alone:
                    files.reserve_lock_file(self.folder)
                if not files.wait_for_lock_file(self.folder, deadline):
                    raise TierTimeoutError(f"{self.folder} is locked by another program")
                self._open_lmdb(new)
                files.lock_byte(self._mark, files.USER, fcntl.LOCK_SH, deadline)
            finally:
                files.unlock_byte(self._mark, files.WRITER)
        except BaseException as error:
            self._let_go()
            if isinstance(error, (lmdb.Error, OSError)) and not isinstance(error, TierError):
                raise TierError(f"{self.folder} cannot be opened: {error}") from error
            raise
        self.begin = self.env.begin
        self._references = sys.getrefcount(self.env)

    def _prepare(self, alone: bool) -> bool:
        """Check what is there, or remove what is of no use; whether the store is new."""
        mark, boot = files.read_mark(self._mark, self.folder), files.this_boot()
        if alone and mark is not None and mark.boot not in (boot, files.SYNCED):
            os.ftruncate(self._mark, 0)  # the machine went down: what reached the disk is unknown
            mark = None
        if mark is None:  # new, or whoever created it was killed
            files.remove_data(self.folder)
            self.identity = os.urandom(16)
            return True
        used = files.check_data(self.folder, mark.bound)
        if mark.bound != self.bound:
            if not alone:
                raise TierError(f"others have {self.folder} open with max_bytes={mark.bound}")
            if used > self.bound:
                raise TierError(
                    f"{self.folder} holds {used} bytes, more than max_bytes={self.bound}: "
                    f"open it with max_bytes={mark.bound}, or remove it"
                )
        self.identity = bytes.fromhex(mark.identity)
        if mark.bound != self.bound or mark.boot != boot:
            if mark.bound < self.bound:
                self._resize()
            self._write_mark(boot)
        if mark.bound > self.bound:
            self._resize()
        return False

    def _open_lmdb(self, new: bool) -> None:
        self.env = lmdb.open(
            self.folder,
            map_size=self.bound,
            mode=0o600,
            sync=False,
            metasync=False,
            max_dbs=2,
            max_spare_txns=64,
            readahead=False,
        )
        if new:
            with self.env.begin(write=True) as txn:
                txn.put(b"identity", self.identity)
        else:
            with self.env.begin() as txn:
                if txn.get(b"identity") != self.identity:
                    raise TierError(f"{self.folder}: the data are not those of the mark")
        self.data = self.env.open_db(b"data", create=new)
        self.meta = self.env.open_db(b"meta", create=new)
        self.env.reader_check()
        if new:
            self._resize()
            self._write_mark(files.this_boot())

    def _resize(self) -> None:
        """Give the file its length, so that a shorter one is known to be truncated."""
        os.truncate(os.path.join(self.folder, files.DATA), self.bound)

    def _write_mark(self, boot: str) -> None:
        os.pwrite(self._mark, files.Mark(self.bound, self.identity.hex(), boot).line(), 0)

    # --- writing

    @contextlib.contextmanager
    def writing(self) -> Iterator[Any]:
        """A transaction that writes, alone among all processes; committed if nothing is raised.

        Raises `TierTimeoutError` when another process keeps the lock, and what LMDB raises.
        """
        deadline = time.monotonic() + self.timeout
        with self._mutex:
            self._opened()
            try:
                if not files.lock_byte(self._mark, files.WRITER, fcntl.LOCK_EX, deadline):
                    raise TierTimeoutError(f"another process keeps {self.folder} locked")
                with self.env.begin(write=True) as txn:
                    try:
                        yield txn
                    except BaseException:
                        # py-lmdb's abort waits for a moment in which nobody reads, which under
                        # steady reads never comes: those that begin now wait for it instead.
                        self.begin = self._begin_later
                        raise
            finally:
                if self.begin == self._begin_later and self._running.is_set():
                    self.begin = self.env.begin
                if self._mark >= 0:
                    files.unlock_byte(self._mark, files.WRITER)

    def _opened(self) -> Any:
        """The environment, opened if that was put off."""
        if self.env is None:
            if self.begin is _closed:
                _closed()
            self._open(time.monotonic() + self.timeout)
        return self.env

    def _begin_later(self, *_: object) -> Any:
        """In place of `begin` while the environment is not open, or must be left alone."""
        self._running.wait()
        if not self._mutex.acquire(timeout=self.timeout):
            raise TierTimeoutError(f"{self.folder} is being written to")
        try:
            return self._opened().begin(self.data)
        finally:
            self._mutex.release()

    def reader_check(self) -> None:
        """Forget the readers whose processes are gone."""
        with self._mutex, contextlib.suppress(lmdb.Error):
            self._opened().reader_check()

    def pinned(self) -> bool:
        """Whether a reader holds on to pages that were freed a while ago, and does not end."""
        self.reader_check()
        began = time.monotonic()
        while pids := _holding(self.env):
            patience = self.timeout if pids == {os.getpid()} else OTHERS_PATIENCE
            if time.monotonic() - began > patience:
                return True
            time.sleep(1e-3)
        return False

    def renew(self, era: int) -> bool:
        """Begin anew, empty, unless that was done since that era; False: others use the files."""
        with self._mutex:
            if self.era != era:
                return True
            self._opened()
            deadline = time.monotonic() + self.timeout
            if not files.lock_byte(self._mark, files.WRITER, fcntl.LOCK_EX, deadline):
                return False
            try:
                alone = files.lock_byte(self._mark, files.USER, fcntl.LOCK_EX, 0)
                if not alone or _holding(self.env) - {os.getpid()}:
                    return False
                os.ftruncate(self._mark, 0)  # whoever opens the store next takes it for a new one
                self.era += 1
                self.begin = self._begin_later
                self._let_go()
                return True
            finally:
                if self._mark >= 0:
                    files.lock_byte(self._mark, files.USER, fcntl.LOCK_SH, 0)
                    files.unlock_byte(self._mark, files.WRITER)

    def reopen(self) -> None:
        """Leave an environment that LMDB has given up; the next who uses it opens it again."""
        with self._mutex:
            if self.begin is not _closed:
                self._let_go()
                self.begin = self._begin_later

    # --- closing

    def close(self) -> None:
        """One user less; with the last of them the environment is closed.

        With the last of all processes' the data reach the disk, which may take a while.
        """
        with _opening, self._mutex:
            self.users -= 1
            if self.users or self.begin is _closed:
                return
            self.begin = _closed
            _stores.pop(self.place, None)
            with contextlib.suppress(lmdb.Error, OSError):
                if self.env is not None:
                    self._sync()
            self._let_go()

    def _sync(self) -> None:
        """Bring the data to the disk and say so, unless other processes have them open."""
        self.env.sync(True)  # most of it before others are kept waiting
        deadline = time.monotonic() + self.timeout
        if files.lock_byte(self._mark, files.WRITER, fcntl.LOCK_EX, deadline):
            if files.lock_byte(self._mark, files.USER, fcntl.LOCK_EX, 0):
                self.env.sync(True)
                self._write_mark(files.SYNCED)
            files.unlock_byte(self._mark, files.WRITER)

    def _let_go(self) -> None:
        self.env = self.data = self.meta = self._kept = None
        mark, self._mark = self._mark, -1
        if mark >= 0:
            os.close(mark)  # and with it go the locks

    # --- fork

    def before_fork(self) -> None:
        """Let nothing be under way: a child could not end what another thread has begun."""
        self._paused = self._mutex.acquire(timeout=self.timeout)
        if self.env is None:
            return
        self._running.clear()
        env, self.begin = self.env, self._begin_later
        deadline = time.monotonic() + FORK_PATIENCE
        # Whatever of other threads' still refers to it, of a transaction that has ended too, would
        # do so in the child without end, and py-lmdb opens no environment twice.
        while sys.getrefcount(env) > self._references and time.monotonic() < deadline:
            time.sleep(1e-4)
        self._kept = env.begin()  # py-lmdb's spare one: in the child it must not be closed

    def after_fork_in_parent(self) -> None:
        self._kept = None
        if self.env is not None:
            self.begin = self.env.begin
        self._running.set()
        if self._paused:
            self._mutex.release()

    def after_fork_in_child(self) -> None:
        self._mutex, self._running = threading.Lock(), threading.Event()
        self._running.set()
        if self.begin is not _closed:
            self._let_go()
            self.begin = self._begin_later


def _holding(env: Any) -> set[int]:
    """The processes whose readers hold on to pages that were freed a while ago."""
    if env is None:
        return set()
    latest = env.info()["last_txnid"]
    lines = [line.split() for line in env.readers().splitlines()]
    return {
        int(line[0]) for line in lines if line and line[-1].isdigit() and int(line[-1]) < latest - 1
    }


def _closed(*_: object) -> Any:
    raise TierError("the tier is closed")


class ClosedStore:
    """In place of the store of a tier that is closed."""

    env: Any = None
    data: Any = None
    begin = writing = pinned = renew = reader_check = reopen = staticmethod(_closed)

    def __init__(self, era: int) -> None:
        self.era = era


def _before_fork() -> None:
    _opening.acquire()
    for store in list(_stores.values()):
        store.before_fork()


def _after_fork_in_parent() -> None:
    for store in list(_stores.values()):
        store.after_fork_in_parent()
    _opening.release()


def _after_fork_in_child() -> None:
    global _opening  # noqa: PLW0603
    _opening = threading.RLock()
    for store in list(_stores.values()):
        store.after_fork_in_child()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
