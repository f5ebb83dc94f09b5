# The hit path of caches with tiers, of src/python/cc_tiered.h.

from cpython.object cimport PyTypeObject
from libc.stdint cimport int64_t

from cachecore.cc_table cimport cc_record, cc_table

cdef extern from "cc_tiered.h":
    ctypedef object (*cc_tiered_missed)(object tiered, object key, object absent)
    int cc_tiered_install(PyTypeObject *tiered_type, size_t slow_offset,
                          cc_tiered_missed missed) except -1
    int cc_tiered_own_get(PyTypeObject *subclass) except -1
    bint cc_key_is_plain(object key) noexcept
    object cc_counted_hit(cc_table *table, cc_record *record)
    int64_t cc_nanoseconds() noexcept
    int64_t cc_clock_unix_ms() noexcept
