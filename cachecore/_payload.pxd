# Codecs as what seals and opens envelopes sees them: a payload is measured first, then laid down
# where it belongs.

from libc.stdint cimport uint64_t

cdef struct Plan:
    Py_ssize_t head   # bytes before the data: what kind it is, and of an array what array
    Py_ssize_t size   # bytes of data
    const char *data  # NULL: the items of an array that lie scattered
    char kind         # 0: no head

cdef class Codec:
    cdef uint64_t _id  # 0: not known yet
    cdef public bint signs

    # Says how the payload of a value will lie, and returns what keeps its data alive.
    cdef object plan(self, object value, Plan *plan)
    # The value of the payload at data[start:end].
    cdef object read(self, bytes data, Py_ssize_t start, Py_ssize_t end)
    cdef uint64_t id(self) except 0

cdef int lay(char *to, const Plan *plan, object owner) except -1
