"""A tier in memory-mapped files, on LMDB: on this machine's SSD, for all of its processes.

The files are described in mmap_files.py, the tables and the eviction in mmap_tables.py, how
processes share them in mmap_store.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from cachecore.errors import TierError
from cachecore.settings import seconds, size_in_bytes
from cachecore.tiers.base import Item, Tier
from cachecore.tiers.mmap_store import ClosedStore, Store, lmdb, open_store
from cachecore.tiers.mmap_tables import (
    CHECK,
    HEAD,
    HITS,
    LONGEST,
    PAGE,
    Entry,
    Tables,
    alive,
    entry,
    stored,
    unpack_head,
    whole,
)

LEAST = 256 * PAGE  # bytes of a bound; of a smaller one, most would have to be kept free
ROUNDS = 4  # times that room is made anew for what finds none
RETRY = 30.0  # seconds after which a disk that was full is tried again
SCANNED = 1000  # keys that a scan reads at a time

K = TypeVar("K")
T = TypeVar("T")
Get = Callable[[bytes], bytes | None]  # of a transaction
_DISK = {errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT, errno.EROFS}


class MmapTier(Tier):
    """Keeps bytes in memory-mapped files, which survive restarts and which processes share.

    path: a folder of its own, made with mode 0700 if it is not there. It and its files must belong
        to this user and be closed to others; symlinks are refused.
    max_bytes: what the data file never exceeds, at least 1 MiB; an int or text such as "10GB".
        All who share a folder give the same.
    timeout: seconds to wait for other processes that write. Reads never wait for them.

    What was written survives the end of the process at any moment, `kill -9` included: whole, or
    not at all. It does not survive the loss of power: after a reboot that came before `close()`
    the tier begins empty. A flipped byte in what is kept beside the data is a miss; in the data it
    is for those to find who gave them. In LMDB's own pages, where the keys are, it is beyond what
    can be checked cheaply: it may lead to another key's data, raise `TierError` or end the process.

    At the bound, what expired and what is asked for least is evicted. A value that takes more than
    half of it is refused, as is one that finds no room because a reader of another process holds
    on to old pages or because free ones are too scattered: it is counted, and nothing is kept
    under its key. Where a read of this process holds on to them for longer than `timeout`, or a
    page to write to is nowhere to be had, the tier begins empty, unless other processes use its
    files: `emptied` counts it. Values of more than 2,000 bytes take whole pages of 4 KiB. When the
    disk is full or fails, writes raise `TierError`, for 30 s without trying; reads go on, deletes
    are tried.

    Opening raises `TierError` for a folder that holds something else, another layout or truncated
    files, and `TierTimeoutError` when another process keeps it locked. Thread safe. A child opens
    the files anew when it first uses the tier after a fork.
    """

    shared = False
    quick = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int | str,
        name: str = "mmap",
        timeout: float = 0.25,
    ) -> None:
        bound = size_in_bytes(max_bytes, "max_bytes")
        if bound < LEAST:
            raise ValueError(f"max_bytes must be at least {LEAST}, not {bound}")
        if not isinstance(name, str) or not name:
            raise TypeError("name must be a str of at least one character")
        patience = min(seconds(timeout, "timeout"), 1e6)
        self.name = name
        self._off_until = 0.0
        self._write_errors = 0
        self._store: Store | ClosedStore = open_store(
            os.path.abspath(os.fspath(path)), bound - bound % PAGE, patience
        )
        self._tables = Tables(self._store)
        self._hits = self._tables.hits

    # --- reading

    def get(self, key: bytes) -> bytes | None:
        """The same as `get_many` for one key."""
        store = self._store
        try:
            txn = store.begin(store.data)
            try:
                return self._read(txn.get, key)
            except BaseException as error:  # as in _reading, whose call takes 80 ns
                del txn
                error.__traceback__ = None
                raise
        except lmdb.Error as error:
            raise self._fault(error) from error

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if len(keys) == 1:
            return [self.get(keys[0])]
        try:
            values, fault = self._reading(self._read_many, keys)
        except lmdb.Error as error:
            raise self._fault(error) from error
        if fault is not None:
            failed = self._fault(fault)
            failed.values = values
            raise failed from fault
        return values

    def _reading(self, read: Callable[[Get, K], T], wanted: K) -> T:
        """What `read` makes of the `get` of a transaction.

        As long as one is open, no page that is freed can be used again. So it ends with the call,
        even if an exception is kept: its traceback tells of no frame that refers to it.
        """
        store = self._store
        txn = store.begin(store.data)
        try:
            return read(txn.get, wanted)
        except BaseException as error:
            del txn
            error.__traceback__ = None
            raise

    def _read_many(
        self, get: Get, keys: Sequence[bytes]
    ) -> tuple[list[bytes | None], lmdb.Error | None]:
        values: list[bytes | None] = []
        fault = None
        for key in keys:
            value = None
            try:
                value = self._read(get, key)
            except lmdb.Error as error:
                fault = error.with_traceback(None)
            values.append(value)
        return values, fault

    def _read(self, get: Get, key: bytes) -> bytes | None:
        """What `get`, of a transaction, finds under a key, if it has not expired."""
        if len(key) > LONGEST:
            key = stored(key)
            record = get(key)
            if record is None or not self._alive(record, True):
                return None
        else:
            record = get(key)
            if record is None:
                return None
            try:
                expiry, check = unpack_head(record)
            except struct.error:
                expiry = check = 0
            if expiry ^ check != CHECK or (expiry and expiry <= time.time() * 1000):
                self._alive(record, False)
                return None
        self._hits.append(key)
        return record[HEAD:]

    def _alive(self, record: bytes, long: bool) -> bool:
        if not whole(record):
            self._tables.counts["damaged"] += 1
        return alive(record, long)

    def scan(self, prefix: bytes = b"") -> Iterator[bytes]:
        start: bytes | None = prefix
        while start is not None:
            keys, start = self._scan(prefix, start)
            yield from keys

    def _scan(self, prefix: bytes, start: bytes) -> tuple[list[bytes], bytes | None]:
        """Some keys, and where to go on: an open transaction keeps pages from being reused."""
        store, seen = self._store, 0
        keys: list[bytes] = []
        try:
            with store.begin(store.data) as txn, txn.cursor() as cursor:
                if not (cursor.set_range(start) if start else cursor.first()):
                    return keys, None
                for key, record in islice(cursor, SCANNED):
                    if not key.startswith(prefix):
                        return keys, None
                    if self._alive(record, False):
                        keys.append(key)
                    seen += 1
        except lmdb.Error as error:
            raise self._fault(error) from error
        return keys, key + b"\0" if seen == SCANNED else None

    # --- writing

    def set_many(self, items: Sequence[Item]) -> None:
        self._keep([entry(item) for item in items])

    def demote_many(self, items: Sequence[Item], frequencies: Sequence[int]) -> None:
        pairs = zip(items, frequencies, strict=True)
        self._keep([entry(item, max(1, frequency)) for item, frequency in pairs])

    def add(self, item: Item) -> bool:
        return self.get(item.key) is None and self._put_all([entry(item)], absent=True) > 0

    def delete_many(self, keys: Sequence[bytes]) -> int:
        wanted = [(stored(key), len(key) > LONGEST) for key in dict.fromkeys(keys)]
        try:
            return self._drop(self._reading(_held, wanted))
        except lmdb.Error as error:
            raise self._fault(error, writing=True) from error

    def _drop(self, wanted: Sequence[tuple[bytes, bool]]) -> int:
        """Take out what is stored under such bytes; how many could have been read."""
        count, most = 0, self._tables.victims
        for start in range(0, len(wanted), most):
            count += self._drop_some(wanted[start : start + most])
        return count

    def _drop_some(self, wanted: Sequence[tuple[bytes, bool]]) -> int:
        for round in range(ROUNDS + 1):
            era, count = self._store.era, 0
            try:
                with self._tables.writing() as txn:
                    for key, long in wanted:
                        record = self._tables.drop(txn, key)
                        count += record is not None and alive(record, long)
                break
            except lmdb.MapFullError:
                if round == ROUNDS or not self._make_room(era, 0, round):
                    raise
        return count

    def _keep(self, entries: Sequence[Entry]) -> None:
        """Keep entries, of one key the last, in transactions of a bounded size."""
        for part in self._tables.chunks({each.key: each for each in entries}.values()):
            self._put_all(part)

    def _put_all(self, entries: list[Entry], *, absent: bool = False) -> int:
        """Put entries in one transaction, in more where room is scarce; how many were put."""
        if time.monotonic() < self._off_until:
            raise TierError(f"{self.name} is off for writes: its disk was full or failed")
        try:
            for round in range(ROUNDS + 1):
                era = self._store.era
                try:
                    with self._tables.writing() as txn:
                        count = self._tables.put_all(txn, entries, absent)
                except lmdb.MapFullError:
                    need = sum(each.size for each in entries)
                    if round == ROUNDS or not self._make_room(era, need, round):
                        break
                else:
                    self._off_until = 0.0
                    with contextlib.suppress(lmdb.MapFullError):
                        self._tables.settle()
                    return count
            if len(entries) > 1 and not self._store.pinned():
                return sum(self._put_all([each], absent=absent) for each in entries)
            self._tables.counts["refused"] += len(entries)
            if not absent:
                self._drop([(each.key, each.long) for each in entries])
        except lmdb.Error as error:
            raise self._fault(error, writing=True) from error
        return 0

    def _make_room(self, era: int, need: int, round: int) -> bool:
        """Wait for readers, then evict beyond what is due, for free pages are scattered.

        Where that cannot be done for want of a page, or a read of this process does not end, begin
        anew. False: others use the files, and it may be one of them that reads.
        """
        if not self._store.pinned():
            with contextlib.suppress(lmdb.MapFullError):
                if round:
                    self._tables.shed(max(need, self._tables.chunk) << round - 1)
                with self._tables.writing() as txn:  # what one frees is free for the next but one
                    self._tables.touch(txn)
                return True
        if not self._store.renew(era):
            return False
        self._tables.forgive()
        return True

    # --- the rest

    def stats(self) -> dict[str, int]:
        """`bytes`: of the pages in use; counts: of this object. `writes_off`: 1 while it is."""
        store, entries, used = self._store, 0, 0
        with contextlib.suppress(TierError, lmdb.Error), store.begin(store.data) as txn:
            entries, used = txn.stat(store.data)["entries"], self._tables.used(txn)
        return {
            "entries": entries,
            "bytes": used,
            "emptied": store.era,
            **self._tables.counts,
            "write_errors": self._write_errors,
            "writes_off": int(time.monotonic() < self._off_until),
        }

    def close(self) -> None:
        store = self._store
        if isinstance(store, ClosedStore):
            return
        with contextlib.suppress(TierError, lmdb.Error):
            if self._hits:
                with self._tables.writing() as txn:
                    self._tables.touch(txn, HITS)
        self._store = ClosedStore(store.era)
        store.close()

    def _fault(self, error: lmdb.Error, *, writing: bool = False) -> TierError:
        """What to raise for an error of LMDB's."""
        error.__traceback__ = None  # whose frames would keep the environment for who keeps it
        self._write_errors += writing
        if writing and getattr(error, "code", 0) in _DISK:
            self._off_until = time.monotonic() + RETRY
        if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError)):
            self._tables.counts["damaged"] += 1
        elif isinstance(error, lmdb.PanicError):
            self._store.reopen()
        elif isinstance(error, (lmdb.ReadersFullError, lmdb.MapFullError)):
            self._store.reader_check()
        return TierError(f"{self.name}: {error}")


def _held(get: Get, wanted: list[tuple[bytes, bool]]) -> list[tuple[bytes, bool]]:
    return [each for each in wanted if get(each[0]) is not None]
