/* cc_batch.h — many look-ups at once: hash, prefetch, compare, prefetch the values, then collect.
 *
 * Blocks of 16 keys go through four short loops, so that the cache misses of one stage overlap.
 * Only keys that are exact str, bytes or int take that way; others, and whatever needs a Python
 * comparison, are looked up one by one in their turn. */
#ifndef CC_BATCH_H
#define CC_BATCH_H

#include "cc_table.h"

/* Looks up every key of a list or tuple and counts hits and misses: values[i] is a new reference,
   or NULL for an absent key. `values` has `count` places, NULL at first. false: an exception is set, and the
   values so far are the caller's to release. */
bool cc_table_look_up_many(cc_table *table, PyObject *keys, PyObject **values, Py_ssize_t count);

/* A list aligned with the keys (list or tuple), `absent` where there is no value; NULL: failed. */
PyObject *cc_table_get_many(cc_table *table, PyObject *keys, PyObject *absent);

/* Where rows go: `count` rows of `items` items, C-contiguous, all of them of type `descr`. */
typedef struct {
    char *start;
    Py_ssize_t count, row_size, items;
    PyObject *descr;
    PyTypeObject *array_type;
    PyObject *out; /* the array whose memory this is */
} cc_rows;

/* Copies the cached arrays of keys into rows, zeroes the rows of absent keys, and sets found[i].
   Values are checked before anything is written. false: an exception is set. */
bool cc_table_gather(cc_table *table, PyObject *keys, const cc_rows *rows, char *found);

#endif
