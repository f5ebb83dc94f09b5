# Many look-ups at once, of src/python/cc_batch.h.

from cpython.object cimport PyObject, PyTypeObject

from cachecore.cc_table cimport cc_table

cdef extern from "cc_batch.h":
    ctypedef struct cc_rows:
        char *start
        Py_ssize_t count, row_size, items
        PyObject *descr
        PyTypeObject *array_type
        PyObject *out

    object cc_table_get_many(cc_table *table, PyObject *keys, PyObject *absent)
    bint cc_table_gather(cc_table *table, PyObject *keys, const cc_rows *rows,
                         char *found) except 0
