"""Snapshots of NumPy arrays: what a cache holds must not change under it.

An array is copied once, into memory that only a `FrozenBytes` owns. That object exports it
read-only, so NumPy refuses to lift the read-only flag of any array over it, and no older view of
that memory exists. An array whose memory is already of such a kind (`bytes`, a read-only `mmap`,
a `FrozenBytes`) is taken as it is: mapped weights stay mapped.
"""

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_CheckExact
from cpython.buffer cimport PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE
from cpython.memoryview cimport PyMemoryView_Check
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.ref cimport Py_INCREF, PyTypeObject
from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memcpy

import sys
from mmap import mmap

cnp.import_array()

cdef extern from *:
    """
    #include <numpy/ndarrayobject.h>
    #define CC_ARRAY_HOLDS_OBJECTS(a) \\
        (PyDataType_FLAGCHK(PyArray_DESCR(a), NPY_ITEM_REFCOUNT) \\
         || PyDataType_FLAGCHK(PyArray_DESCR(a), NPY_ITEM_IS_POINTER))
    """
    bint CC_ARRAY_HOLDS_OBJECTS(cnp.ndarray array)
    object PyArray_NewFromDescr(PyTypeObject *subtype, cnp.dtype descr, int nd, cnp.npy_intp *dims,
                                cnp.npy_intp *strides, void *data, int flags, PyObject *obj)

cdef extern from "Python.h":
    ctypedef struct PyObject
    PyObject *PyMemoryView_GET_BASE(object view)

cdef extern from *:
    """
    #ifdef CC_DEBUG
    enum { CC_KIND_BYTES = 0 }; /* a sanitizer is to see each block come and go */
    #else
    enum { CC_KIND_BYTES = 1 << 18 };
    #endif
    """
    enum: CC_KIND_BYTES

cdef enum:
    ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
    KINDS = 8  # sizes of which blocks are kept
    SPARES = 64  # blocks kept of each, and of them no more than CC_KIND_BYTES

# A cache at capacity frees one block for each that it needs, of the same size. malloc would merge
# it with its neighbours and split it again, and touch memory that is in no processor cache any
# more: a set of 4 KB takes 1.7 times as long with it. What is kept is 2 MB at most.
cdef struct Kind:
    Py_ssize_t size
    Py_ssize_t count
    void *blocks[SPARES]

cdef Kind[KINDS] kinds


cdef Kind *kind_of(Py_ssize_t size) noexcept:
    return &kinds[(<uint64_t>size * <uint64_t>0x9E3779B97F4A7C15) >> 61]


cdef void *take_block(Py_ssize_t size) noexcept:
    cdef Kind *kind = kind_of(size)
    if kind.size == size and kind.count > 0:
        kind.count -= 1
        return kind.blocks[kind.count]
    return PyMem_RawMalloc(<size_t>size + ALIGNMENT)


cdef void give_back(void *block, Py_ssize_t size) noexcept:
    cdef Kind *kind = kind_of(size)
    if kind.size != size:
        while kind.count > 0:
            kind.count -= 1
            PyMem_RawFree(kind.blocks[kind.count])
        kind.size = size
    if kind.count < SPARES and (kind.count + 1) * size <= CC_KIND_BYTES:
        kind.blocks[kind.count] = block
        kind.count += 1
    else:
        PyMem_RawFree(block)


@cython.final
@cython.no_gc
cdef class FrozenBytes:
    """Memory of a snapshot, exported read-only; freed when the last view of it is gone."""

    cdef void *block
    cdef char *start
    cdef Py_ssize_t size

    def __cinit__(self, Py_ssize_t size):
        self.block = take_block(size)
        if self.block == NULL:
            raise MemoryError(f"no memory for a snapshot of {size} bytes")
        self.start = <char *>((<uintptr_t>self.block + ALIGNMENT - 1) & ~<uintptr_t>(ALIGNMENT - 1))
        self.size = size

    def __dealloc__(self):
        if self.block != NULL:
            give_back(self.block, self.size)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.start, self.size, 1, flags)


cdef bint is_array(object value) noexcept:
    return cnp.PyArray_Check(value)


cdef bint holds_objects(object value) noexcept:
    return CC_ARRAY_HOLDS_OBJECTS(<cnp.ndarray>value)


cdef Py_ssize_t bytes_of(object value) noexcept:
    return cnp.PyArray_NBYTES(<cnp.ndarray>value)


cdef bint read_only(object buffer):
    """True when nobody can get a writable buffer of it."""
    cdef Py_buffer view
    try:
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    except (BufferError, ValueError, TypeError):
        return True
    PyBuffer_Release(&view)
    return False


cdef bint frozen(cnp.ndarray array):
    """True when the array's memory cannot be written by anyone. Its own flag proves nothing."""
    cdef object base = array
    while cnp.PyArray_Check(base):
        base = cnp.get_array_base(base)
    while PyMemoryView_Check(base):
        if PyMemoryView_GET_BASE(base) == NULL:  # memory that no object owns
            return False
        base = <object>PyMemoryView_GET_BASE(base)
    if PyBytes_CheckExact(base) or type(base) is FrozenBytes:
        return True
    return type(base) is mmap and read_only(base)


cdef object in_kind(cnp.ndarray copy, object value):
    """A frozen copy of a subclass's array as one of that subclass, which sees it only frozen. Of
    what else such an array has, the mask of a masked array is copied; the rest is shared."""
    like = copy.view(type(value))
    like.__array_finalize__(value)
    masked = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(value, masked.MaskedArray):
        like._mask = value._mask if value._mask is masked.nomask else snapshot(value._mask)
    return like


cdef object snapshot(object value):
    """The array `value` as one that cannot change: a copy, or itself where that is safe."""
    cdef cnp.ndarray array = <cnp.ndarray>value
    if CC_ARRAY_HOLDS_OBJECTS(array) or frozen(array):
        return value
    cdef bint fortran = (cnp.PyArray_IS_F_CONTIGUOUS(array)
                         and not cnp.PyArray_IS_C_CONTIGUOUS(array))
    cdef Py_ssize_t size = cnp.PyArray_NBYTES(array)
    cdef FrozenBytes memory = FrozenBytes(size)
    cdef cnp.dtype descr = array.descr
    Py_INCREF(descr)  # PyArray_NewFromDescr steals it
    cdef cnp.ndarray copy = PyArray_NewFromDescr(
        <PyTypeObject *>cnp.ndarray, descr, cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array), NULL,
        memory.start, cnp.NPY_ARRAY_FARRAY if fortran else cnp.NPY_ARRAY_CARRAY, NULL)
    if fortran or cnp.PyArray_IS_C_CONTIGUOUS(array):
        memcpy(memory.start, cnp.PyArray_DATA(array), <size_t>size)
    else:
        cnp.PyArray_CopyInto(copy, array)
    cnp.PyArray_CLEARFLAGS(copy, cnp.NPY_ARRAY_WRITEABLE)
    cnp.set_array_base(copy, memory)
    return copy if type(value) is cnp.ndarray else in_kind(copy, value)
