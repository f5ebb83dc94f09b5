# Codecs as those see them who seal and open envelopes: a payload is planned first, then laid down
# where it belongs. No Python code may run in between: it could reshape the array.

from libc.stdint cimport uint64_t

cdef struct Plan:
    Py_ssize_t head   # bytes before the data: what kind it is, and of an array what array
    Py_ssize_t size   # bytes of data
    const char *data  # NULL: the items of an array that lie scattered
    const char *text  # of an array's dtype
    Py_ssize_t text_size
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
