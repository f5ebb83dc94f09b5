# Envelopes, as other compiled modules see them.

cimport cython
from libc.stdint cimport int64_t, uint64_t

from cachecore._payload cimport Codec


@cython.final
@cython.no_gc  # said in the .pyx too: Cython wants both
cdef class Sealed:
    cdef readonly object value
    cdef readonly int64_t written
    cdef readonly int64_t soft
    cdef readonly int64_t hard
    cdef readonly float load
    cdef readonly tuple tags


@cython.final
@cython.no_gc
cdef class Later:
    cdef object key
    cdef object value
    cdef Codec codec
    cdef int64_t written
    cdef int64_t soft
    cdef int64_t hard
    cdef uint64_t generation
    cdef bytes namespace
    cdef readonly Py_ssize_t nbytes


# `unseal` and `wire_key` of _envelope.pyx.
cdef object opened(object data, object key, Codec codec, int64_t now, uint64_t generation,
                   bytes namespace)
cdef bytes joined(bytes prefix, object key)
cdef Later later_of(object key, object value, Py_ssize_t nbytes, Codec codec, bytes namespace,
                    int64_t written, int64_t soft, int64_t hard, uint64_t generation)
