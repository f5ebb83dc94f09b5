/* cc_slots.h — the type slots and the method of Cache that are C: garbage collection, and `get`. */
#ifndef CC_SLOTS_H
#define CC_SLOTS_H

#include "cc_table.h"

/* What every Cache begins with; its Cython declaration puts the table first. */
typedef struct {
    PyObject_HEAD
    cc_table table;
    int plain; /* no lifetimes, sizes or callback: a set needs nothing of the other fields */
} cc_cache_head;

/* Completes the type that Cython made: `tp_traverse`, `tp_clear` and `tp_dealloc` that know the table
   (Cython does not look into C arrays of objects), no sequence slots, and the C versions of `cache[key]`,
   `cache[key] = value` and `get`. -1: an exception is set. */
int cc_cache_install(PyTypeObject *type, PyTypeObject *array_type, size_t table_offset,
                     size_t plain_offset);

/* `cache[key]`: a look-up; KeyError, or what a subclass's __missing__ returns, when it is absent. */
PyObject *cc_cache_subscript(PyObject *self, PyObject *key);

/* A random share of 0 ... 1. */
static inline double cc_table_jitter(cc_table *table)
{
    return cc_random(&table->policy.random) / 4294967296.0;
}

/* A new reference as one that Cython owns. */
static inline PyObject *cc_owned(PyObject *reference)
{
    return reference;
}

#endif
