# Operations that wait to be done on a tier, for the compiled module that adds to them.

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from cachecore._payload cimport Codec


# A value that is to be sealed and kept under a wire key.
cdef struct Note:
    PyObject *wire
    PyObject *key
    PyObject *value
    PyObject *codec
    PyObject *namespace
    Py_ssize_t nbytes
    int64_t written, soft, hard, end
    uint64_t generation


@cython.final
@cython.no_gc
cdef class Operation:
    cdef readonly object data  # None: delete
    cdef int64_t end  # of its lifetime, in milliseconds of the coarse clock; 0: never
    cdef readonly Py_ssize_t size  # of key and data, in bytes


@cython.final
cdef class Backlog:
    cdef Py_ssize_t bytes
    cdef public unsigned long long lost, lost_bytes  # operations that were not done
    cdef Py_ssize_t max_items, max_size
    cdef public bint idle  # nobody is at work, or about to be: `put` tells
    cdef bint drops
    cdef unsigned long era
    cdef dict operations
    cdef list order  # keys from `head` on: each once, but not those of what is being done
    cdef Py_ssize_t head
    cdef Note *notes  # what came last, and is not among the operations yet
    cdef Py_ssize_t noted, places, noted_bytes

    cdef int begin(self) except -1
    cdef int here(self) except -1
    cdef bint put_one(self, bytes key, object data, Py_ssize_t size, int64_t end) except -1
    cdef bint drop(self) except -1
    cdef object next_key(self)

    cdef int absorb(self) except -1
    cdef int forget_notes(self, Py_ssize_t count) noexcept

    # Takes a bytes or array value, where that is all there is to do: somebody is at work, and there
    # is room. Times in Unix ms, INT64_MAX: for ever. False: it was not taken.
    cdef bint note(self, bytes wire, object key, object value, Py_ssize_t nbytes, Codec codec,
                   bytes namespace, int64_t written, int64_t soft, int64_t hard,
                   uint64_t generation) except -1
