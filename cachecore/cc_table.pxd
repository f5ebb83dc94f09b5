# The object table of src/python/cc_table.h; what the fields and functions mean is said there.

from cpython.object cimport PyObject, visitproc
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "cc_table.h":
    uint64_t CC_NO_BOUND
    int64_t CC_NO_TIME
    int CC_ENTRY_OVERHEAD

    ctypedef struct cc_policy:
        uint64_t tick
        uint64_t random
        uint32_t used
        uint32_t live
        uint32_t limit
        uint64_t sketch_bytes

    ctypedef struct cc_meta:
        uint32_t tick, expiry

    ctypedef struct cc_record:
        cc_meta meta

    ctypedef struct cc_table:
        cc_policy policy
        uint64_t version, writes, moves
        uint64_t misses, inserts, refused
        uint64_t left[4]
        uint64_t insert_ticks, expiring
        uint64_t maxsize, max_bytes
        bint sized, detailed
        PyObject *timer

    ctypedef struct cc_item:
        PyObject *key
        PyObject *value
        uint64_t size
        double ttl
        double soft
        double cost
        uint32_t frequency
        bint keep
        bint missed
        PyObject *kept

    ctypedef struct cc_leaver:
        PyObject *key
        PyObject *value

    ctypedef struct cc_leavers:
        unsigned int count
        cc_leaver at[8]

    # CC_FAILED: an exception is set.
    ctypedef enum cc_result:
        CC_FAILED
        CC_ABSENT
        CC_FOUND
        CC_AGAIN

    ctypedef enum cc_reason:
        CC_EVICTED
        CC_REJECTED
        CC_EXPIRED
        CC_DELETED

    void cc_table_init(cc_table *table, uint64_t maxsize, uint64_t max_bytes, bint sized,
                       uint64_t seed) noexcept
    void cc_table_clear(cc_table *table) noexcept
    void cc_table_free(cc_table *table) noexcept
    int cc_table_traverse(const cc_table *table, visitproc visit, void *arg) noexcept
    size_t cc_table_memory(const cc_table *table) noexcept
    bint cc_table_now(cc_table *table, int64_t *now) except 0
    bint cc_table_now_if_expiring(cc_table *table, int64_t *now) except 0
    cc_result cc_table_look_up(cc_table *table, PyObject *key, PyObject **value) except CC_FAILED
    cc_result cc_table_peek(cc_table *table, PyObject *key, int64_t *now,
                            cc_record **record) except CC_FAILED
    cc_result cc_table_set(cc_table *table, cc_item *item, PyObject *on_evict) except CC_FAILED
    cc_result cc_table_remove(cc_table *table, PyObject *key,
                              cc_leavers *leavers) except CC_FAILED
    bint cc_table_resize(cc_table *table, uint64_t maxsize, uint64_t max_bytes,
                         PyObject *on_evict) except 0
    cc_result cc_table_expire(cc_table *table, int64_t now, uint32_t *start, uint32_t until,
                              cc_leavers *leavers) noexcept
    void cc_table_take(cc_table *table, cc_record *record, cc_reason reason,
                       cc_leaver *leaver) noexcept
    void cc_leavers_release(cc_leavers *leavers, PyObject *on_evict) noexcept
    cc_record *cc_table_next(cc_table *table, int64_t now, uint32_t *slot) noexcept
    cc_record *cc_table_last(cc_table *table, int64_t now) noexcept
    bint cc_table_stale(const cc_table *table, const cc_record *record, int64_t now) noexcept
    int64_t cc_table_soft(const cc_table *table, const cc_record *record) noexcept
    int64_t cc_table_deadline(const cc_table *table, const cc_record *record) noexcept
    bint cc_table_set_ttl(cc_table *table, cc_record *record, int64_t now, double ttl) noexcept
    double cc_table_ttl(const cc_table *table, const cc_record *record, int64_t now) noexcept
    bint cc_table_count_bytes(cc_table *table, const uint64_t *sizes) noexcept
    const char *cc_table_fault(const cc_table *table) noexcept
    PyObject *cc_record_key(const cc_record *record) noexcept
    PyObject *cc_record_value(const cc_record *record) noexcept
    uint64_t cc_table_bytes(const cc_table *table) noexcept
    double cc_table_cost(const cc_table *table, const cc_record *record) noexcept
    uint32_t cc_table_frequency(const cc_table *table, const cc_record *record) noexcept
