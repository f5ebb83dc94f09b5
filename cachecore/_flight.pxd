# Single flight, for compiled modules that bring computations of their own.

cimport cython

# Forks before now: what began in another era has lost its thread.
cdef unsigned long current_era() noexcept


@cython.no_gc  # reached from C only, and short-lived: no cycle can form
cdef class Flight:
    cdef unsigned long owner  # the thread that computes
    cdef unsigned long era
    cdef bint ended
    cdef object gate  # held until the end, once somebody waits; else None
    cdef object value
    cdef object error

    # What the flight is for. Runs in the thread that called fly().
    cdef object compute(self)


# The result of `mine.compute()`, or of the flight that is under way for `key` already.
cdef object fly(dict flights, object key, Flight mine)
