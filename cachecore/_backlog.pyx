"""Backlog: the operations that wait to be done on a tier, the last one of each key, bounded.

Operations leave in the order in which their keys came. While they are being done they stay here
for those who read; what comes for their keys meanwhile is done after them.

Thread safe under the GIL: between two steps that belong together no Python code runs, and what is
taken out is released last. In the child of a fork a backlog is empty: its parent does the work.
"""

cimport cython
from cpython.exc cimport PyErr_SetObject, PyErr_WriteUnraisable
from libc.stdint cimport int64_t

from cachecore._flight cimport current_era

cdef extern from "cc_clock.h":
    int64_t cc_clock_ms() noexcept nogil

cdef enum:
    SPARE = 1024  # places before `head` that are kept at least
cdef int64_t MAX_LIFETIME = 1 << 62  # milliseconds; what is longer is for ever


def tell_of(error, where):
    """Let `sys.unraisablehook` know of an error that no caller hears of."""
    PyErr_SetObject(type(error), error)
    PyErr_WriteUnraisable(where)


@cython.final
@cython.freelist(256)
cdef class Operation:
    """What is to be done under a key: keep `data`, or delete what is kept."""

    cdef readonly object data  # None: delete
    cdef int64_t end  # of its lifetime, in milliseconds of the coarse clock; 0: never
    cdef readonly Py_ssize_t size  # of key and data, in bytes

    @property
    def lifetime(self):
        """The milliseconds that are left of it; None: for ever."""
        return None if self.end == 0 else self.end - cc_clock_ms()

    @property
    def is_item(self):
        """Whether there is something to read: it is no deletion, and its lifetime is not over."""
        return self.data is not None and (self.end == 0 or self.end > cc_clock_ms())


@cython.final
cdef class Backlog:
    """At most `max_items` operations and `max_size` bytes of keys and data.

    `drops`: whether the oldest operations make room for what comes; not those being done.
    """

    cdef readonly Py_ssize_t size
    cdef public unsigned long long lost, lost_bytes  # operations that were not done
    cdef Py_ssize_t max_items, max_size
    cdef public bint idle  # nobody is at work, or about to be: `put` tells
    cdef bint drops
    cdef unsigned long era
    cdef dict operations
    cdef list order  # keys from `head` on: each once, but not those of what is being done
    cdef Py_ssize_t head

    def __init__(self, Py_ssize_t max_items, Py_ssize_t max_size, bint drops):
        self.max_items, self.max_size, self.drops = max_items, max_size, drops
        self.begin()

    cdef int begin(self) except -1:
        self.operations, self.order = {}, []
        self.head = self.size = 0
        self.idle = True
        self.era = current_era()
        return 0

    cdef int here(self) except -1:
        return self.begin() if self.era != current_era() else 0

    def __len__(self):
        return len(self.operations) if self.era == current_era() else 0

    # --- those who have something to be done

    def put(self, items, Py_ssize_t start=0):
        """Take items from `start` on, each a key, data (None: delete) and a lifetime in ms.

        -1 when that is all. Else how many of all items have been taken: the caller finds room for
        the next, or, when it is `idle`, somebody to do the work.
        """
        cdef Py_ssize_t at, count = len(items)
        self.here()
        for at in range(start, count):
            key, data, lifetime = items[at]
            if not self.put_one(key, data, lifetime):
                return at
        return count if self.idle and count else -1

    cdef bint put_one(self, bytes key, object data, object lifetime) except -1:
        cdef Operation new = Operation.__new__(Operation)
        cdef Operation old
        cdef Py_ssize_t held
        cdef int64_t left = 0 if lifetime is None else lifetime
        new.data = data
        new.size = len(key)
        if type(data) is bytes:
            new.size += len(<bytes>data)
        elif data is not None:
            new.size += <Py_ssize_t>data.nbytes
        if lifetime is not None and left < MAX_LIFETIME:
            new.end = cc_clock_ms() + left
        if not 0 <= new.size <= self.max_size:
            return False
        while True:  # no Python code runs from here on, but to release what is dropped
            old = <Operation>self.operations.get(key)
            held = 0 if old is None else old.size
            if (
                self.size - held + new.size <= self.max_size
                and (old is not None or len(self.operations) < self.max_items)
            ):
                break
            if not (self.drops and self.drop()):
                return False
        if old is None:
            self.order.append(key)
        self.operations[key] = new
        self.size += new.size - held
        return True

    cdef bint drop(self) except -1:
        """Drop the oldest operation; False: there is none that can be."""
        cdef Operation oldest
        while self.head < len(self.order):
            key = self.next_key()
            oldest = <Operation>self.operations.get(key)
            if oldest is not None:
                self.size -= oldest.size
                self.lost += 1
                self.lost_bytes += oldest.size
                del self.operations[key]
                return True
        return False

    cdef object next_key(self):
        key = self.order[self.head]
        self.order[self.head] = None
        self.head += 1
        if self.head >= SPARE and 2 * self.head >= len(self.order):
            del self.order[:self.head]
            self.head = 0
        return key

    # --- those who read

    def look(self, keys):
        """What waits under each key, or None; None when nothing does under any."""
        if not len(self):
            return None
        found = [self.operations.get(key) for key in keys]
        return found if any(found) else None

    # --- those who do the work, one at a time

    def waiting(self):
        """How many operations can be taken."""
        self.here()
        return len(self.order) - self.head

    def take(self, Py_ssize_t most):
        """The next operations, with their keys; to be given to `done` or `back` afterwards."""
        self.here()
        taken = []
        while self.head < len(self.order) and len(taken) < most:
            key = self.next_key()
            operation = self.operations.get(key)
            if operation is not None:
                taken.append((key, operation))
        return taken

    def done(self, taken):
        """They need not be done any more."""
        cdef Operation operation
        self.here()
        for key, operation in taken:
            now = self.operations.get(key)
            if now is operation:
                self.size -= operation.size
                del self.operations[key]
            elif now is not None:  # it came meanwhile
                self.order.append(key)

    def back(self, taken):
        """They could not be done, and are the next again."""
        self.here()
        self.order[:self.head] = [key for key, _ in taken if key in self.operations]
        self.head = 0

    def rest(self):
        """Whether there is nothing to do; then it is `idle`."""
        self.here()
        self.idle = not self.operations
        return self.idle

    def close(self):
        """Take nothing any more, and forget what waits; how many operations are lost so."""
        count = len(self)
        self.lost += count
        self.lost_bytes += self.size if count else 0
        self.max_size = -1
        self.begin()
        return count
