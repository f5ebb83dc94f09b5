# The C slots of Cache, of src/python/cc_slots.h.

from cpython.object cimport PyObject, PyTypeObject

from cachecore.cc_table cimport cc_table

cdef extern from "cc_slots.h":
    object cc_owned(PyObject *reference)  # hands a new reference over to Cython
    object cc_cache_subscript(PyObject *cache, PyObject *key)
    double cc_table_jitter(cc_table *table) noexcept
    int cc_cache_install(PyTypeObject *cache_type, PyTypeObject *array_type, size_t table_offset,
                         size_t plain_offset) except -1
