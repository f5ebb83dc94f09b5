# The coarse clocks, of src/core/cc_clock.h.

from libc.stdint cimport int64_t

from posix.time cimport clockid_t

cdef extern from "cc_clock.h":
    clockid_t CC_CLOCK_MONOTONIC, CC_CLOCK_UNIX
    int64_t cc_clock_ms() noexcept nogil
    int64_t cc_nanoseconds() noexcept nogil
