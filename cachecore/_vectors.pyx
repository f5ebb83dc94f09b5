"""VectorCache: rows of fixed width by int64 id, for threads and processes.

The table is C (src/core/cc_vectors*.c) and works without the GIL; here are the argument checks, and
what keeps its memory while somebody looks at it.
"""

cimport cython
cimport numpy as cnp
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, PyTypeObject
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cachecore.cc_vectors cimport *

import os
from functools import partial
from weakref import WeakSet

import numpy as np

from cachecore.progress import reporting
from cachecore.rows import described, fields_of, id_of, ids_of, out_of, path_of, rows_of, shape_of
from cachecore.settings import positive_int
from cachecore.stats import VectorStats

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    cnp.ndarray PyArray_Empty(int nd, const cnp.npy_intp *shape, cnp.dtype kind, int fortran)
    cnp.ndarray PyArray_NewFromDescr(PyTypeObject *type, cnp.dtype kind, int nd,
                                     const cnp.npy_intp *shape, const cnp.npy_intp *strides,
                                     void *data, int flags, PyObject *like)

cdef enum:
    LOAD_BYTES = 16 << 20  # of rows in one step of a bulk load


# --- the table, and who holds it ------------------------------------------------------------------

tables = WeakSet()  # of this process, for its forks


def mend_after_fork():
    cdef Table table
    for table in tables:
        if table.ready:
            cc_vectors_forked(&table.vectors)


os.register_at_fork(after_in_child=mend_after_fork)


@cython.final
cdef class Table:
    """A table in C; it goes when the cache, every view and every call that used it have gone."""

    cdef cc_vectors vectors
    cdef bint ready
    cdef object __weakref__

    def __dealloc__(self):
        if self.ready:
            self.ready = False  # a fork meanwhile finds it still, and has nothing to mend
            with nogil:
                cc_vectors_close(&self.vectors)


cdef Table private_table(object shape, cc_vectors_shape *wanted):
    cdef Table table = Table.__new__(Table)
    if not cc_vectors_anonymous(&table.vectors, wanted, int.from_bytes(os.urandom(8), "little")):
        raise MemoryError(f"no memory for {shape.capacity} rows of {shape.width} bytes")
    table.ready = True
    tables.add(table)
    return table


cdef Table file_table(object shape, cc_vectors_shape *wanted, bytes path):
    cdef Table table = Table.__new__(Table)
    cdef cc_vectors_shape made
    cdef uint64_t version[2]
    cdef uint64_t seed = int.from_bytes(os.urandom(8), "little")
    cdef const char *name = path
    cdef cc_segment_result result
    cdef int error
    memcpy(version, <char *><bytes>shape.version, sizeof(version))
    while True:
        with nogil:
            result = cc_vectors_file(&table.vectors, name, wanted, version, seed, &made)
            error = errno
        if result == CC_SEGMENT_OK:
            break
        if result != CC_SEGMENT_FAILED or error != EINTR:
            raise refusal(result, error, os.fsdecode(path), wanted, &made)
        PyErr_CheckSignals()
    table.ready = True
    tables.add(table)
    return table


cdef str words_of(const cc_vectors_shape *shape):
    return described(shape.capacity, shape.ttl, shape.codec == CC_ROWS_INT8, shape.sums,
                     (<const char *>shape.kind)[:sizeof(shape.kind)])


cdef object refusal(cc_segment_result result, int error, str path, const cc_vectors_shape *wanted,
                    const cc_vectors_shape *made):
    """The exception that says why a file was not opened."""
    if result == CC_SEGMENT_FAILED:
        if error == EAGAIN:
            return TimeoutError(f"{path!r} is being opened by a process that does not go on")
        return OSError(error, os.strerror(error), path)
    if result == CC_SEGMENT_OWNER:
        return PermissionError(1, "path must be a file of the same user", path)
    if result == CC_SEGMENT_MODE:
        return PermissionError(1, "path must be a file that no other user may read or write", path)
    if result == CC_SEGMENT_GEOMETRY:
        return ValueError(f"{path!r} was made for {words_of(made)}; not for {words_of(wanted)}")
    return ValueError(f"{path!r} " + {
        CC_SEGMENT_KIND: "is no regular file; symbolic links are not followed",
        CC_SEGMENT_FOREIGN: "is not a table of vectors",
        CC_SEGMENT_VERSION: "is a table of another version of cachecore",
        CC_SEGMENT_ORDER: "is a table of a machine with another byte order",
        CC_SEGMENT_DAMAGED: "is a damaged table",
    }[result])


@cython.final
@cython.no_gc
cdef class PinnedRow:
    """A row of a private table, exported read-only: it stays as it is while there are views."""

    cdef Table table
    cdef const unsigned char *row
    cdef uint64_t number

    def __dealloc__(self):
        if self.row != NULL:
            cc_vectors_unpin(&self.table.vectors, self.number)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, <void *>self.row, self.table.vectors.shape.width, 1, flags)


# --- arguments ------------------------------------------------------------------------------------

cdef inline cnp.ndarray ids_in(object ids):
    """`ids` as a contiguous array of int64: itself if it is one."""
    cdef cnp.ndarray array
    if cnp.PyArray_CheckExact(ids):
        array = <cnp.ndarray>ids
        if (cnp.PyArray_TYPE(array) == cnp.NPY_INT64 and cnp.PyArray_NDIM(array) == 1
                and cnp.PyArray_IS_C_CONTIGUOUS(array) and cnp.PyArray_ISBEHAVED_RO(array)):
            return array
    return ids_of(ids)


cdef inline int64_t id_in(object id) except? -1:
    if type(id) is int:
        try:
            return id
        except OverflowError:
            pass
    return id_of(id)


cdef inline bint fits(VectorCache cache, object rows, cnp.npy_intp n, int flags) noexcept:
    """Whether this is an array of n of the table's rows as they lie in memory."""
    if not cnp.PyArray_CheckExact(rows):
        return False
    cdef cnp.ndarray array = <cnp.ndarray>rows
    if (<PyObject *>cnp.PyArray_DESCR(array) != <PyObject *>cache.kind
            or cnp.PyArray_NDIM(array) != (2 if cache.columns else 1)
            or cnp.PyArray_DIM(array, 0) != n or not cnp.PyArray_CHKFLAGS(array, flags)):
        return False
    return cache.columns == 0 or cnp.PyArray_DIM(array, 1) == cache.columns


cdef inline cnp.ndarray rows_in(VectorCache cache, object rows, cnp.npy_intp n):
    if fits(cache, rows, n, cnp.NPY_ARRAY_CARRAY_RO) and not cache.coded:
        return <cnp.ndarray>rows
    return rows_of(rows, cache.shape, n)


cdef inline cnp.ndarray out_in(VectorCache cache, object out, cnp.npy_intp n):
    if fits(cache, out, n, cnp.NPY_ARRAY_CARRAY):
        return <cnp.ndarray>out
    return out_of(out, cache.shape, n)


cdef inline cnp.ndarray empty_rows(VectorCache cache, cnp.npy_intp n):
    cdef cnp.npy_intp shape[2]
    shape[0], shape[1] = n, cache.columns
    Py_INCREF(cache.kind)  # PyArray_Empty steals it
    return PyArray_Empty(2 if cache.columns else 1, shape, cache.kind, 0)


cdef inline cnp.ndarray empty_flags(cnp.npy_intp n):
    return cnp.PyArray_EMPTY(1, &n, cnp.NPY_BOOL, 0)


cdef object copy_of(VectorCache cache, Table table, int64_t id):
    """The row of an id as a read-only array of its own, or None."""
    cdef cc_bool found
    Py_INCREF(cache.kind)
    cdef cnp.ndarray row = PyArray_Empty(cache.columns != 0, &cache.columns, cache.kind, 0)
    cdef unsigned char *to = <unsigned char *>cnp.PyArray_DATA(row)
    with nogil:
        cc_vectors_gather(&table.vectors, &id, 1, to, &found, 1)
    cnp.PyArray_CLEARFLAGS(row, cnp.NPY_ARRAY_WRITEABLE)
    return row if found else None


cdef object view_of(VectorCache cache, PinnedRow pin):
    """A pinned row as a read-only array."""
    Py_INCREF(cache.kind)  # PyArray_NewFromDescr steals it
    cdef cnp.ndarray row = PyArray_NewFromDescr(
        <PyTypeObject *>cnp.ndarray, cache.kind, cache.columns != 0, &cache.columns, NULL,
        <void *>pin.row, cnp.NPY_ARRAY_CARRAY_RO, NULL)
    cnp.set_array_base(row, pin)
    return row


cdef inline Table opened(VectorCache cache):
    if cache.table is None:
        raise ValueError("this VectorCache is closed")
    return cache.table


cdef inline bint overlap(cnp.ndarray one, cnp.ndarray other):
    cdef char *a = <char *>cnp.PyArray_DATA(one)
    cdef char *b = <char *>cnp.PyArray_DATA(other)
    return a < b + cnp.PyArray_NBYTES(other) and b < a + cnp.PyArray_NBYTES(one)


cdef int raise_for(cc_vectors_result result, str what) except -1:
    """What could not be done at all; an outdated handle's writes are counted and go nowhere."""
    if result == CC_VECTORS_BUSY:
        raise TimeoutError(f"{what}: a process that does not go on holds a lock")
    if result == CC_VECTORS_MEMORY:
        raise MemoryError(f"{what}: no memory")
    return 0


# --- the cache ------------------------------------------------------------------------------------

cdef class VectorCache:
    """Rows of fixed width by int64 id, bounded, gathered without the GIL.

    Args:
        dim: items of a row; None for a structured dtype: a record is a row.
        dtype: of the items, of fixed width: any of NumPy's without objects; "bfloat16" and its like
            with ml_dtypes installed.
        capacity: most rows, below 2**32; exactly so many fit.
        path: a file, on a disk or in /dev/shm, that holds the table; made with all its bytes if
            there is none. Processes that open it share the rows; it outlives them. None: private
            memory.
        ttl: seconds a row lives, to 10 ms; None: until it is evicted. In a file, by the wall clock.
        version: of what the rows were computed with. A file that was last opened for another one
            is emptied, in constant time; whoever has it open for that finds nothing any more,
            and its rows are refused.
        checksums: look for damage whenever a row is read: a miss, and counted. 4 bytes a row.
        codec: "int8" keeps float32 rows as int8 with a scale for each, in a quarter of the memory;
            an item is off by at most 1/254 of its row's largest absolute value.

    Which rows stay is decided by the policy of `Cache`. Threads and processes may do anything at
    any time; readers take no lock. A writer that is killed leaves each row as it was or as it was
    to be; one that is stopped holds others up for a second, then they raise TimeoutError. To pickle
    one with a path is to open the file again, in another process as a rule.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong kind; it is named. Or
            `path` is no such table, or one for other arguments; it is left alone.
        PermissionError: `path` belongs to another user, or others may read or write it.
        OSError: no room on the disk, no such folder, and so on.
    """

    cdef Table table
    cdef object shape
    cdef cnp.dtype kind
    cdef cnp.npy_intp columns  # 0: a record is a row
    cdef bint coded
    cdef readonly object path
    cdef readonly str version
    cdef object __weakref__

    def __init__(self, dim, dtype="float32", *, capacity, path=None, ttl=None, version="",
                 checksums=False, codec=None):
        cdef cc_vectors_shape wanted
        if self.table is not None:
            raise RuntimeError("this VectorCache is initialised already")
        shape = shape_of(dim, dtype, capacity, ttl, version, checksums, codec)
        cdef bytes kind = shape.kind
        wanted.capacity, wanted.width, wanted.ttl = shape.capacity, shape.width, shape.ttl_units
        wanted.codec = CC_ROWS_INT8 if shape.coded else CC_ROWS_PLAIN
        wanted.sums = shape.checksums
        memcpy(wanted.kind, <char *>kind, sizeof(wanted.kind))
        if path is None:
            table = private_table(shape, &wanted)
        else:
            table = file_table(shape, &wanted, path_of(path))
        self.shape, self.kind, self.columns = shape, shape.dtype, shape.dim or 0
        self.coded, self.path, self.version = shape.coded, path, version
        self.table = table

    # --- many rows

    def gather(self, ids, out=None, threads=1):
        """Copies the rows of `ids` to an array, one after another; those not here become zeros.

        Args:
            ids: n integers; the same id may come more than once.
            out: where to, instead of to a new array: a writable C-contiguous array of the table's
                dtype and shape (n, dim), or buffer of so many bytes.
            threads: how many share the work, where it is enough for them.

        Returns:
            rows, found: the array, and a bool array of n. Each row is whole, as somebody put it.
        """
        cdef Table table = opened(self)
        cdef cnp.ndarray keys = ids_in(ids)
        cdef cnp.npy_intp n = cnp.PyArray_DIM(keys, 0)
        cdef uint32_t workers = 1
        cdef cnp.ndarray rows
        if threads is not 1:
            workers = min(positive_int(threads, "threads"), 1024)
        if out is None:
            rows = empty_rows(self, n)
        else:
            rows = out_in(self, out, n)
            if overlap(keys, rows):
                keys = keys.copy()
        cdef cnp.ndarray found = empty_flags(n)
        cdef const int64_t *first = <const int64_t *>cnp.PyArray_DATA(keys)
        cdef unsigned char *to = <unsigned char *>cnp.PyArray_DATA(rows)
        cdef cc_bool *flags = <cc_bool *>cnp.PyArray_DATA(found)
        with nogil:
            cc_vectors_gather(&table.vectors, first, n, to, flags, workers)
        return rows, found

    def find(self, ids):
        """Which of `ids` are here, as a bool array of n. Not a look-up: nothing is counted."""
        cdef Table table = opened(self)
        cdef cnp.ndarray keys = ids_in(ids)
        cdef cnp.npy_intp n = cnp.PyArray_DIM(keys, 0)
        cdef cnp.ndarray found = empty_flags(n)
        cdef const int64_t *first = <const int64_t *>cnp.PyArray_DATA(keys)
        cdef cc_bool *flags = <cc_bool *>cnp.PyArray_DATA(found)
        with nogil:
            cc_vectors_find(&table.vectors, first, n, flags)
        return found

    def put(self, ids, rows):
        """Sets the rows of `ids`; of an id that comes more than once, the last row stays.

        Args:
            ids: n integers.
            rows: an array of the table's dtype and shape (n, dim), or what NumPy makes one of.

        Raises:
            TypeError, ValueError: an argument is not of that kind; nothing was put.
            TimeoutError: a stopped process holds some of the rows; the others were put.
        """
        cdef Table table = opened(self)
        cdef cnp.ndarray keys = ids_in(ids)
        cdef cnp.npy_intp n = cnp.PyArray_DIM(keys, 0)
        cdef cnp.ndarray array = rows_in(self, rows, n)
        cdef const int64_t *first = <const int64_t *>cnp.PyArray_DATA(keys)
        cdef const unsigned char *start = <const unsigned char *>cnp.PyArray_DATA(array)
        cdef size_t done = 0
        cdef cc_vectors_result result
        with nogil:
            result = cc_vectors_put(&table.vectors, first, n, start, &done)
        raise_for(result, f"put {done} of {n} rows")

    def delete(self, ids):
        """Removes `ids`; how many were here. Raises TimeoutError as `put` does."""
        cdef Table table = opened(self)
        cdef cnp.ndarray keys = ids_in(ids)
        cdef cnp.npy_intp n = cnp.PyArray_DIM(keys, 0)
        cdef const int64_t *first = <const int64_t *>cnp.PyArray_DATA(keys)
        cdef size_t removed = 0
        cdef cc_vectors_result result
        with nogil:
            result = cc_vectors_delete(&table.vectors, first, n, &removed)
        raise_for(result, f"deleted {removed} rows")
        return removed

    def get_or_load(self, ids, loader, *, threads=1):
        """The rows of `ids`, those not here from one call of `loader`, which are then put.

        Args:
            loader: called as loader(missing), an int64 array of distinct ids in order of
                appearance, if there are any; returns their rows.

        Returns:
            rows: as `gather` does, complete. A row that could not be put is returned all the same.
        """
        if not callable(loader):
            raise TypeError(f"loader must be callable, not {type(loader).__name__}")
        keys = ids_in(ids)
        rows, found = self.gather(keys, threads=threads)
        if found.all():
            return rows
        absent = ~found
        distinct, first, inverse = np.unique(keys[absent], return_index=True, return_inverse=True)
        order = np.argsort(first)
        missing = distinct[order]
        loaded = rows_of(loader(missing.copy()), self.shape, len(missing), "what loader returns")
        places = np.empty(len(order), np.intp)
        places[order] = np.arange(len(order))
        rows[absent] = loaded[places[inverse]]
        try:
            self.put(missing, loaded)
        except TimeoutError:
            pass  # counted as refused
        return rows

    def load(self, ids, rows, *, progress=None):
        """Puts many rows, step by step: `rows` may be a memory-mapped array larger than memory.

        Args:
            ids, rows: as for `put`; `rows` an array, or what has a length and slices as one.
            progress: called as progress(done, total) after each step; None: a bar on a terminal,
                if rich is installed.

        Returns:
            n: rows put.
        """
        keys = ids_in(ids)
        total = len(keys)
        if not hasattr(rows, "__len__"):
            raise TypeError(f"rows must have a length, as {type(rows).__name__} has not")
        if len(rows) != total:
            raise ValueError(f"rows must be {total}, one for each id, not {len(rows)}")
        step = max(1, LOAD_BYTES // self.shape.width)
        with reporting(progress, total, "rows") as report:
            for start in range(0, total, step):
                self.put(keys[start:start + step], rows[start:start + step])
                report(min(start + step, total), total)
        return total

    # --- one row

    def view(self, id):
        """The row of an id as a read-only array, or None. A look-up.

        In private memory this is the row itself, kept as it is for as long as the array lives, also
        after eviction and `close`; from a file, or of codec="int8", it is a copy.

        Raises:
            BufferError: views hold as many rows as they may: a quarter of the capacity.
        """
        cdef Table table = opened(self)
        cdef PinnedRow pin
        cdef cc_vectors_result result
        cdef int64_t key = id_in(id)
        if table.vectors.shared or self.coded:
            return copy_of(self, table, key)
        pin = PinnedRow.__new__(PinnedRow)
        pin.table = table
        with nogil:
            result = cc_vectors_pin(&table.vectors, key, &pin.row, &pin.number)
        raise_for(result, "view")
        if result == CC_VECTORS_PINNED:
            raise BufferError("views hold as many rows as they may: let go of some, or copy rows")
        return view_of(self, pin) if result == CC_VECTORS_OK else None

    # --- all of it

    def __len__(self):
        return cc_vectors_live(&opened(self).vectors)

    def clear(self):
        """Makes every row missing, in constant time; not if another version has replaced ours."""
        cc_vectors_clear(&opened(self).vectors)

    def close(self):
        """Lets go of the table. A file stays; the last to close it writes it to the disk.

        Views and running calls keep their memory until they end.
        """
        # To drop the last reference lets go of the GIL, and Cython would drop it before it stores
        # None: others would find what is gone.
        cdef Table _dropped_last = self.table
        self.table = None

    def collapse(self):
        """Puts the table into huge pages, for all processes that have it open: some three seconds a
        GB, once; gathering from a file in /dev/shm then takes three quarters of the time. Private
        memory has them from the start.

        Returns:
            done: False if the kernel does not do that here: Linux before 6.1, or most disks.
        """
        cdef Table table = opened(self)
        cdef bint done = not table.vectors.shared
        with nogil:
            done = done or cc_segment_collapse(&table.vectors.segment)
        return done

    def __enter__(self):
        opened(self)
        return self

    def __exit__(self, *exc):
        self.close()

    def stats(self):
        """What was counted since the table was made, by all processes, as a VectorStats."""
        cdef Table table = opened(self)
        cdef cc_vectors_counts counts
        cc_vectors_count(&table.vectors, &counts)
        return VectorStats(counts.gathered - counts.misses, counts.misses, counts.inserts,
                           counts.left[<int>CC_EVICTED], counts.left[<int>CC_REJECTED],
                           counts.refused, counts.left[<int>CC_EXPIRED],
                           counts.left[<int>CC_DELETED], counts.live,
                           counts.live * <uint64_t>self.shape.width, counts.damaged,
                           counts.pinned * table.vectors.layout.stride)

    @property
    def dim(self):
        """Items of a row; None: a record is a row."""
        return self.shape.dim

    @property
    def dtype(self):
        """Of the items."""
        return self.kind

    @property
    def capacity(self):
        """Most rows."""
        return self.shape.capacity

    @property
    def ttl(self):
        """Seconds a row lives, or None."""
        return self.shape.ttl

    @property
    def closed(self):
        """Whether `close` was called."""
        return self.table is None

    @property
    def nbytes(self):
        """Bytes of the file, or of the memory of a table that is full; without rows for views."""
        cdef Table table = opened(self)
        cdef size_t views = <size_t>table.vectors.layout.stripes * table.vectors.layout.pins
        return table.vectors.segment.size - views * table.vectors.layout.stride

    def __reduce__(self):
        if self.path is None:
            raise TypeError("a VectorCache without a path cannot be pickled: its memory is private")
        shape = self.shape
        options = {"capacity": shape.capacity, "path": self.path, "ttl": shape.ttl,
                   "version": self.version, "checksums": shape.checksums,
                   "codec": "int8" if shape.coded else None}
        return partial(type(self), shape.dim, self.kind, **options), ()

    def __repr__(self):
        items = f"{self.dim}, {str(self.kind)!r}" if self.dim else fields_of(self.kind)
        where = f", path={self.path!r}" if self.path is not None else ""
        state = ", closed" if self.closed else f", {len(self)} rows"
        return f"<{type(self).__name__}({items}, capacity={self.capacity}{where}){state}>"

    def _advance(self, seconds):  # for tests: this handle's clock
        cdef Table table = opened(self)
        table.vectors.ahead_ms += round(seconds * 1000)
