# Caches with tiers below them: their fields, for the compiled modules that share them.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cachecore._core cimport Cache
from cachecore._envelope cimport Sealed
from cachecore._load cimport Latencies, Level, Load
from cachecore._payload cimport Codec

cdef enum:
    BELIEVED_MS = 1000  # how long a generation that was read is believed


cdef class Tiered:
    cdef public Cache l0  # these two first: cc_tiered.h declares them too
    cdef public int slow
    cdef public bint closed
    cdef public bint distrusted    # invalidations may be missed: l0 is neither read nor filled
    cdef public bint awaits        # the loader is a coroutine function
    cdef public bint raw           # values are bytes without envelopes
    cdef public dict flights
    cdef public list levels
    cdef public object absent      # keys known to have no value, a Cache; None: not remembered
    cdef public object cooling     # keys whose refresh has failed just now, a Cache
    cdef public object loader      # a Loader, or None
    cdef public dict leaving       # by key: what has left l0 and is to go to the first tier
    cdef public Codec codec
    cdef public bytes prefix       # of all wire keys
    cdef public object timer       # Unix seconds; None: the system's clock
    cdef public dict tag_epochs
    cdef public uint64_t epoch
    cdef public double lifetime, jitter, early  # seconds; shares; beta of XFetch
    cdef public int64_t revalidate_ms, error_ms  # how long after its expiry a value may be returned
    cdef public uint64_t loads, load_errors, stale_revalidated, stale_errors, early_refreshes
    cdef public uint64_t negative_hits, overtaken, refreshes_dropped, demotions, demotions_lost
    cdef public uint64_t replayed, ledgers_overflowed, invalidations, distrusts
    cdef readonly Latencies load_latencies  # of the loader's calls, those that failed included
    cdef public bint handing_down  # `leaving` will be looked at
    cdef public int lost           # invalidation sources that are not there
    cdef object __weakref__        # and no dict: a method that no dict can hide is found at once

    cdef int64_t now(self) except? -1
    cdef int64_t clock_ahead(self) except? -1
    cdef bint holds(self, Load load, object key) except -1
    cdef object look(self, object key, Load load)
    cdef object stale(self, object key, object value, int64_t soft, int64_t now, Load load)
    cdef bint accept(self, Load load, object key, object data, int64_t now, Level level) except -1
    cdef bint take(self, Load load, object key, Sealed sealed, int64_t now) except -1
    cdef object keep(self, Load load, object key, object value, int64_t now, int64_t soft,
                     int64_t hard, int64_t due, tuple tags=*)
    cdef int64_t ahead(self, double seconds)
    cdef object put_here(self, object key, object value, int64_t now, int64_t hard, int64_t due,
                         uint32_t frequency=*)
    cdef int64_t expiry(self, int64_t now, double seconds)
    cdef int64_t end(self, int64_t soft)
