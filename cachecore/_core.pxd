# Cache as other compiled modules see it.

from libc.stdint cimport uint32_t

from cachecore.cc_table cimport cc_table


cdef class Cache:
    cdef cc_table table  # these two first: cc_slots.h declares them too
    cdef int plain
    cdef bint ready
    cdef bint copy_arrays
    cdef double lifetime  # seconds an entry lives; infinity: for ever
    cdef double jitter
    cdef object on_evict
    cdef object getsizeof
    cdef object flights
    cdef readonly object name
    cdef object __weakref__


cdef object put(Cache cache, object key, object value, double ttl, double cost, bint keep=*,
                uint32_t frequency=*, double soft=*)
