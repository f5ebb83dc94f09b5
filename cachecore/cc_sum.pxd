# The checksum of src/core/cc_sum.h.

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

cdef extern from "cc_sum.h":
    uint64_t cc_sum(const void *data, size_t size, uint64_t seed) noexcept nogil
