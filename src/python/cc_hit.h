/* cc_hit.h — the pieces of a hit, of which `cache[key]`, `get` and memoized calls are made. */
#ifndef CC_HIT_H
#define CC_HIT_H

#include "cc_table.h"

/* The hash of a key that holds it ready; false: it must be asked for. */
CC_INLINE bool cc_hash_at_hand(const cc_table *table, PyObject *key, uint32_t *hash)
{
    Py_hash_t full;
    if (CC_LIKELY(PyUnicode_CheckExact(key)))
        full = ((PyASCIIObject *)key)->hash;
    else if (CC_LIKELY(PyLong_CheckExact(key)))
        full = cc_int_hash(key);
    else if (PyBytes_CheckExact(key))
        full = cc_bytes_hash(key);
    else
        return false;
    *hash = cc_key_fold(full, table->secret);
    return CC_LIKELY(full != -1);
}

/* The live record of this very key object in its home chunk. NULL: it is not there, and *absent
   when nothing else can be equal to it either. */
CC_INLINE cc_record *cc_find_identical(const cc_table *table, PyObject *key, uint32_t hash,
                                       bool *absent)
{
    const cc_index *index = &table->index;
    const cc_chunk *chunk = &index->chunks[cc_index_home(index, hash)];
    cc_matches matches = cc_chunk_match(chunk, cc_index_tag(hash));
    *absent = matches == 0 && chunk->overflow == 0;
    while (CC_LIKELY(matches != 0)) {
        cc_record *record = &table->policy.records[chunk->slot[cc_matches_first(matches)]];
        if (CC_LIKELY(cc_record_key(record) == key))
            return record;
        matches &= matches - 1;
    }
    return NULL;
}

CC_INLINE PyObject *cc_hit(cc_table *table, cc_record *record)
{
    PyObject *value = Py_NewRef(cc_record_value(record));
    cc_policy_hit(&table->policy, &record->meta);
    return value;
}

#endif
