# The hit path of memoized functions, of src/python/cc_memo.h.

from cpython.object cimport PyObject, PyTypeObject

cdef extern from "cc_memo.h":
    ctypedef PyObject *const *cc_arguments
    ctypedef object (*cc_memo_missed)(object memo, object key, cc_arguments args, size_t flags,
                                      PyObject *names)
    int cc_memo_install(PyTypeObject *memo_type, size_t head_size,
                        cc_memo_missed missed) except -1
    void cc_memo_prepare(PyObject *memo) noexcept
    object cc_memo_key(object memo, cc_arguments args, Py_ssize_t positional, PyObject *names)
    object cc_ready(PyObject *value)  # takes over the reference
