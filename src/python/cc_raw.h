/* cc_raw.h — look-ups of bytes keys by their bytes, without an object. */
#ifndef CC_RAW_H
#define CC_RAW_H

#include "cc_hit.h"

typedef struct {
    const char *bytes;
    size_t size;
} cc_raw;

#if PY_VERSION_HEX >= 0x030E0000
#define cc_raw_full_hash(raw) Py_HashBuffer((raw).bytes, (Py_ssize_t)(raw).size)
#else
extern Py_hash_t _Py_HashBytes(const void *, Py_ssize_t); /* exported by every version before */
#define cc_raw_full_hash(raw) _Py_HashBytes((raw).bytes, (Py_ssize_t)(raw).size)
#endif

CC_INLINE uint32_t cc_raw_hash(const cc_table *table, cc_raw raw)
{
    return cc_key_fold(cc_raw_full_hash(raw), table->secret);
}

CC_INLINE cc_equality cc_raw_compare(const cc_record *record, uint32_t hash, const void *wanted)
{
    const cc_raw *raw = wanted;
    PyObject *key = cc_record_key(record);
    return record->meta.hash == hash && PyBytes_CheckExact(key)
                   && (size_t)PyBytes_GET_SIZE(key) == raw->size
                   && memcmp(PyBytes_AS_STRING(key), raw->bytes, raw->size) == 0
               ? CC_EQUAL
               : CC_DIFFERENT;
}

/* Finds a key without accounting, expired or not. The record is good until Python code runs. */
CC_INLINE cc_record *cc_raw_find(const cc_table *table, cc_raw raw, uint32_t hash)
{
    cc_record *record;
    return cc_table_walk(table, hash, cc_raw_compare, &raw, &record) == CC_FOUND ? record : NULL;
}

#endif
