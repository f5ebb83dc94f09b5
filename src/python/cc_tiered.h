/* cc_tiered.h — `get` of a cache with tiers below it, as far as a hit goes. */
#ifndef CC_TIERED_H
#define CC_TIERED_H

#include "cc_hit.h"

/* What every Tiered begins with, as its Cython declaration says too. */
typedef struct {
    PyObject_HEAD
    void *methods; /* Cython's */
    PyObject *l0;  /* a Cache */
    int slow;     /* what the cache holds is not all there is to a look-up just now */
} cc_tiered;

/* What is called when the cache alone does not tell; what it returns is what `get` returns. */
typedef PyObject *(*cc_tiered_missed)(PyObject *tiered, PyObject *key, PyObject *absent);

/* Gives the type that Cython made its `get`. The offset tells whether both declare the same fields.
   -1: an exception is set. */
int cc_tiered_install(PyTypeObject *type, size_t slow_offset, cc_tiered_missed missed);

/* Gives a subclass a `get` of its own: the interpreter calls one that is inherited through two more
   functions. -1: an exception is set. */
int cc_tiered_own_get(PyTypeObject *type);

/* True for keys that tiers can write down: exactly str, bytes or int. */
static inline bool cc_key_is_plain(PyObject *key)
{
    return cc_key_plain(Py_TYPE(key));
}

/* A hit on what `cc_table_peek` found; a new reference. */
static inline PyObject *cc_counted_hit(cc_table *table, cc_record *record)
{
    return cc_hit(table, record);
}

#endif
