"""Backlog: the operations that wait to be done on a tier, the last one of each key, bounded.

What a cache sets one by one is only noted, 88 bytes in an array, and becomes an operation when
somebody looks. Operations leave in the order in which their keys came. While they are being done
they stay here for those who read; what comes for their keys meanwhile is done after them.

Thread safe under the GIL: between two steps that belong together no Python code runs, and what is
taken out is released last. In the child of a fork a backlog is empty: its parent does the work.
"""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetObject, PyErr_WriteUnraisable
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove

from cachecore._envelope cimport later_of
from cachecore._flight cimport current_era
from cachecore._payload cimport Codec

cdef extern from "cc_clock.h":
    int64_t cc_clock_ms() noexcept nogil

cdef enum:
    SPARE = 1024  # places before `head` that are kept at least

cdef int64_t MAX_LIFETIME = <int64_t>1 << 62  # milliseconds; what is longer is for ever


cdef int64_t end_of(int64_t lifetime) noexcept:
    return 0 if lifetime >= MAX_LIFETIME else cc_clock_ms() + lifetime


def tell_of(error, where):
    """Let `sys.unraisablehook` know of an error that no caller hears of."""
    PyErr_SetObject(type(error), error)
    PyErr_WriteUnraisable(where)


@cython.final
@cython.no_gc  # so that making one runs no Python code; it leaves, whatever refers to it
@cython.freelist(256)
cdef class Operation:
    """What is to be done under a key: keep `data`, or delete what is kept."""

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

    def __init__(self, Py_ssize_t max_items, Py_ssize_t max_size, bint drops):
        self.max_items, self.max_size, self.drops = max_items, max_size, drops
        self.begin()

    def __dealloc__(self):
        self.forget_notes(self.noted)
        free(self.notes)

    cdef int begin(self) except -1:
        self.forget_notes(self.noted)
        self.operations, self.order = {}, []
        self.head = self.bytes = 0
        self.idle = True
        self.era = current_era()
        return 0

    cdef int here(self) except -1:
        if self.era != current_era():
            self.begin()
        elif self.noted > 0:
            self.absorb()
        return 0

    def __len__(self):
        self.here()
        return len(self.operations)

    @property
    def size(self):
        """The bytes of keys and data that wait."""
        self.here()
        return self.bytes

    # --- those who have something to be done

    def put(self, items, Py_ssize_t start=0):
        """Take items from `start` on, each a key, data (None: delete) and a lifetime in ms.

        -1 when that is all. Else how many of all items have been taken: the caller finds room for
        the next, or, when it is `idle`, somebody to do the work.
        """
        cdef Py_ssize_t at, size, count = len(items)
        self.here()
        for at in range(start, count):
            key, data, lifetime = items[at]
            size = (len(<bytes>data) if type(data) is bytes
                    else 0 if data is None else <Py_ssize_t>data.nbytes)
            if not self.put_one(key, data, size, 0 if lifetime is None else end_of(lifetime)):
                return at
        return count if self.idle and count else -1

    cdef bint note(self, bytes wire, object key, object value, Py_ssize_t nbytes, Codec codec,
                   bytes namespace, int64_t written, int64_t soft, int64_t hard,
                   uint64_t generation) except -1:
        cdef Py_ssize_t size = nbytes + len(wire)
        cdef Note *place
        if self.idle or self.era != current_era() or not 0 <= size <= self.max_size:
            return False
        while (len(self.operations) + self.noted >= self.max_items
                or self.bytes + self.noted_bytes + size > self.max_size):
            if self.noted > 0:
                self.absorb()
            elif not (self.drops and self.drop()):
                return False
        if self.noted == self.places:
            place = <Note *>realloc(self.notes, <size_t>(2 * self.places + 64) * sizeof(Note))
            if place == NULL:
                raise MemoryError("no memory for what waits to be written")
            self.notes, self.places = place, 2 * self.places + 64
        place = &self.notes[self.noted]
        place.wire, place.key, place.value = <PyObject *>wire, <PyObject *>key, <PyObject *>value
        place.codec, place.namespace = <PyObject *>codec, <PyObject *>namespace
        Py_INCREF(wire)
        Py_INCREF(key)
        Py_INCREF(value)
        Py_INCREF(codec)
        Py_INCREF(namespace)
        place.nbytes, place.generation = nbytes, generation
        place.written, place.soft, place.hard = written, soft, hard
        place.end = 0 if hard == INT64_MAX else end_of(max(1, hard - written))
        self.noted += 1
        self.noted_bytes += size
        return True

    cdef int absorb(self) except -1:
        """Makes operations of what was noted. Nothing that it makes can start the garbage
        collector, and what it replaces is released last: no Python code runs amid it."""
        cdef Py_ssize_t at = 0
        cdef Note *note
        replaced = []
        try:
            while at < self.noted:
                note = &self.notes[at]
                later = later_of(
                    <object>note.key, <object>note.value, note.nbytes, <Codec>note.codec,
                    <bytes>note.namespace, note.written, note.soft, note.hard, note.generation,
                )
                wire = <bytes>note.wire
                replaced.append(self.operations.get(wire))
                self.put_one(wire, later, note.nbytes, note.end)  # `note` has seen to room for it
                at += 1
        finally:
            self.forget_notes(at)
        return 0

    cdef int forget_notes(self, Py_ssize_t count) noexcept:
        """Lets go of the first notes."""
        cdef Py_ssize_t at
        cdef Note *note
        for at in range(count):
            note = &self.notes[at]
            self.noted_bytes -= note.nbytes + PyBytes_GET_SIZE(<bytes>note.wire)
            Py_DECREF(<object>note.wire)
            Py_DECREF(<object>note.key)
            Py_DECREF(<object>note.value)
            Py_DECREF(<object>note.codec)
            Py_DECREF(<object>note.namespace)
        self.noted -= count
        if self.noted > 0:
            memmove(self.notes, &self.notes[count], <size_t>self.noted * sizeof(Note))
        return 0

    cdef bint put_one(self, bytes key, object data, Py_ssize_t size, int64_t end) except -1:
        cdef Operation new = Operation.__new__(Operation)
        cdef Operation old
        cdef Py_ssize_t held
        new.data = data
        new.size = len(key) + size
        new.end = end
        if not 0 <= new.size <= self.max_size:
            return False
        while True:  # no Python code runs from here on, but to release what is dropped
            old = <Operation>self.operations.get(key)
            held = 0 if old is None else old.size
            if (
                self.bytes - held + new.size <= self.max_size
                and (old is not None or len(self.operations) < self.max_items)
            ):
                break
            if not (self.drops and self.drop()):
                return False
        if old is None:
            self.order.append(key)
        self.operations[key] = new
        self.bytes += new.size - held
        return True

    cdef bint drop(self) except -1:
        """Drop the oldest operation; False: there is none that can be."""
        cdef Operation oldest
        while self.head < len(self.order):
            key = self.next_key()
            oldest = <Operation>self.operations.get(key)
            if oldest is not None:
                self.bytes -= oldest.size
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
                self.bytes -= operation.size
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
        self.lost_bytes += self.bytes if count else 0
        self.max_size = -1
        self.begin()
        return count
