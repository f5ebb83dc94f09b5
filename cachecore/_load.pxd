# What a cache with tiers has under way, and what it knows of each tier.

cimport cython
from libc.stdint cimport int64_t, uint64_t

from cachecore._backlog cimport Backlog

# Of the calls that _load.pyx names, those that are made in C.
cdef enum:
    OP_GET = 0
    OP_RUN = 7
    OP_WAIT = 8


@cython.final
cdef class Load:
    cdef public dict values    # by key: what was found, or MISSING
    cdef public dict errors    # by key: what the loader raised instead; None: nothing
    cdef public object failure  # what ended it before its end
    cdef public object refresh  # keys that are to be refreshed behind the caller's back; or None
    cdef public object known   # of a refresh, by key: the soft expiry that is to be improved on
    cdef public dict fallback  # by key: what to return where the loader fails; None: nothing
    cdef public object doubtful  # what a tier had, whose tags are to be looked at
    cdef public bint writing   # its tiers are being written: no write may overtake it
    cdef public bint write     # it brings a value of the caller's, or takes one away
    cdef public bint ended
    cdef public list waiters   # called at its end
    cdef public object loop    # the event loop of its task; None: it is a thread's
    cdef public list keys      # what its loader is to load
    cdef public object parent  # the load whose loader began this one; None: nobody's
    cdef public list waits     # loads that its end waits for
    cdef public dict sealed    # by key: what a tier had
    cdef public set voided     # keys overtaken while its tiers were being written; None: none
    cdef public unsigned long thread  # the one that runs it, where `loop` is None; 0: none yet
    cdef readonly unsigned long era


@cython.final
cdef class Tagged:
    cdef readonly object value
    cdef readonly tuple tags
    cdef readonly int64_t soft  # Unix ms
    cdef uint64_t epoch


@cython.final
cdef class Latencies:
    cdef uint64_t counts[32]       # item i: of 2^i ... 2^(i + 1) - 1 us
    cdef readonly double seconds   # all together
    cpdef void add(self, double seconds) noexcept


@cython.final
cdef class Level:
    cdef readonly object tier
    cdef object get_many, set_many    # of the tier
    cdef bint lazy                    # the tier takes functions for data
    cdef public Backlog backlog       # where what is written to it waits; None: it does not
    cdef public object ledger         # the writes it has missed; None: none
    cdef public bint exclusive        # it keeps what left the innermost cache, and only that
    cdef public uint64_t generation
    cdef public int64_t generation_read  # Unix ms; 0: not yet
    cdef public bytes generation_key
    cdef public dict tags             # by tag id: (generation, when it was read)
    cdef public uint64_t hits, misses, errors, timeouts, writes, deletes
    cdef public uint64_t bytes_read, bytes_written
    cdef public dict refused          # what was no value of ours: counts by reason
    cdef readonly Latencies latencies  # of look-ups that were answered


cdef bint is_over(Load load) noexcept
cpdef tuple claim(dict flights, Load load, object keys)
cpdef object land(dict flights, Load load, object keys)
