"""The index beside a cache of the same keys: what leaves the cache leaves the index, by any way."""

from __future__ import annotations

import os
import weakref
from threading import Lock, RLock
from typing import Any

from cachecore._core import Cache
from cachecore.ml.index import Found, Index, Rows

_all: weakref.WeakValueDictionary[int, Neighbours] = weakref.WeakValueDictionary()


class Neighbours:
    """The rows of a cache's keys, to look up the nearest.

    A key is put after it was set in the cache, and dropped after it has left. Both look whether it
    is in the cache now, under the lock: of a set and an eviction in two threads, whichever comes
    last here leaves the index as the cache is. The cache itself is never changed under the lock,
    for then it may run any code.
    """

    def __init__(self, cache: Cache[str, Any], kind: type[Index]) -> None:
        self._cache, self._kind = cache, kind
        self._index: Index | None = None
        # Reentrant, since a finalizer may run anywhere.
        self.lock = RLock()
        _all[id(self)] = self

    def __len__(self) -> int:
        return 0 if self._index is None else len(self._index)

    def put(self, key: str, row: Rows) -> None:
        """Put the row of a key that was set in the cache just now."""
        with self.lock:
            if self._index is None:
                self._index = self._kind(len(row))
            self._index.put(key, row)
            self.left(key)

    def left(self, key: str) -> None:
        """Drop a key, unless the cache has it."""
        with self.lock:
            if self._index is not None and key not in self._cache:
                self._index.drop(key)

    def clear(self) -> None:
        """Drop all that has left."""
        with self.lock:
            for key in [] if self._index is None else self._index.keys():
                self.left(key)

    def nearest(self, rows: Rows) -> list[Found | None]:
        """The nearest key of each row that the cache still has; what it has not, is dropped."""
        while True:
            with self.lock:
                index = self._index
                if index is None:
                    return [None] * len(rows)
                nearest = index.nearest(rows)
                gone = {
                    found.place: found.key
                    for found in nearest
                    if found is not None and found.key not in self._cache
                }
                for place, key in gone.items():
                    index.forget(key, place)
            if not gone:
                return nearest
            self._cache.expire()  # so that what has expired is not found one by one


# A child must not find a lock held by a thread that it does not have, nor an index half written.
_forking = Lock()
_held: list[Any] = []


def _before_fork() -> None:
    _forking.acquire()
    # One step: another thread may be making one. All take them in one order.
    there = [each for ref in _all.valuerefs() if (each := ref()) is not None]
    _held[:] = [each.lock for each in sorted(there, key=id)]
    for lock in _held:
        lock.acquire()


def _after_fork() -> None:
    while _held:
        _held.pop().release()
    _forking.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
