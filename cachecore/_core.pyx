"""Cache: a bounded mapping in the process's own memory, at the speed of dict.

The table, its policy and the hit path are C (src/); here are the Python-facing methods: argument
checks, what is slow by nature, and nothing a hit passes through but one call.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.math cimport INFINITY, isinf
from libc.stdint cimport UINT32_MAX, int64_t, uint32_t, uint64_t

from cachecore._arrays cimport is_array, snapshot
from cachecore.cc_batch cimport cc_rows, cc_table_gather, cc_table_get_many
from cachecore.cc_slots cimport cc_cache_install, cc_cache_subscript, cc_owned, cc_table_jitter
from cachecore.cc_table cimport *

from collections.abc import Mapping, MutableMapping
from heapq import heappush, heapreplace
from os import urandom
from sys import getsizeof as sys_getsizeof
from types import GenericAlias

import numpy as np

from cachecore._flight import Flights
from cachecore.sentinel import MISSING
from cachecore.settings import (
    bounds, check_kinds, check_rows, positive_int, price, seconds, sequence_of, share,
    sketch_size, value_size,
)
from cachecore.stats import CacheStats
from cachecore.views import CacheItems, CacheKeys, CacheValues, text_of

cdef extern from "Python.h":
    bint PyObject_CheckBuffer(object value)

cdef enum:
    MOST_ROUNDS = 10_000  # of work that callbacks undo


# --- what the methods share -----------------------------------------------------------------------

cdef inline PyObject *callback(Cache cache) noexcept:
    return NULL if cache.on_evict is None else <PyObject *>cache.on_evict


cdef uint64_t size_of(Cache cache, object key, object value) except? 0xFFFFFFFFFFFFFFFF:
    """Bytes that an entry counts for: key (the one that is there already), value, overhead."""
    cdef int64_t now
    cdef cc_record *record
    if cc_table_peek(&cache.table, <PyObject *>key, &now, &record) == CC_FOUND:
        key = <object>cc_record_key(record)
    cdef object size
    if cache.getsizeof is not None:
        size = value_size(cache.getsizeof(value))
    elif is_array(value):  # not all dtypes can be exported as buffers
        size = value.nbytes
    elif PyObject_CheckBuffer(value):
        size = memoryview(value).nbytes
    else:
        size = sys_getsizeof(value)
    return <uint64_t>size + <uint64_t>sys_getsizeof(key) + CC_ENTRY_OVERHEAD


cdef double lifetime_of(Cache cache, object ttl) except -1:
    """Seconds that an entry set now is to live: the argument, or the cache's own with jitter."""
    cdef double lifetime = cache.lifetime if ttl is None else <double>seconds(ttl, "ttl")
    if cache.jitter != 0 and not isinf(lifetime):
        lifetime *= 1 - cache.jitter * cc_table_jitter(&cache.table)
    return lifetime


cdef object put(Cache cache, object key, object value, double ttl, double cost, bint keep=False,
                uint32_t frequency=0, double soft=0):
    """Sets a key and returns the value that is kept, of an array the snapshot. With `keep` this is
    a look-up first, and what it finds stays and is returned."""
    cdef cc_item item
    if not cache.ready:
        raise RuntimeError("Cache.__init__ was not called")
    if cache.copy_arrays and is_array(value):
        value = snapshot(value)
    item.key = <PyObject *>key
    item.value = <PyObject *>value
    item.size = size_of(cache, key, value) if cache.table.sized else 0
    item.ttl, item.soft = ttl, soft
    item.cost, item.frequency = cost, frequency
    item.keep, item.missed, item.kept = keep, False, NULL
    cc_table_set(&cache.table, &item, callback(cache))
    return value if item.kept == NULL else cc_owned(item.kept)


# --- iteration ------------------------------------------------------------------------------------

cdef enum:
    KEYS, VALUES, ITEMS  # views.py counts on these


cdef class CacheIterator:
    """Walks a cache in table order; RuntimeError when the cache changed in structure since."""

    cdef Cache cache
    cdef uint64_t version
    cdef uint32_t slot
    cdef int kind

    def __iter__(self):
        return self

    def __next__(self):
        cdef int64_t now
        cdef cc_record *record
        cdef Cache cache = self.cache  # a timer may end this very iterator meanwhile
        if cache is None:
            raise StopIteration
        cc_table_now_if_expiring(&cache.table, &now)
        if self.version != cache.table.version:
            self.cache = None
            raise RuntimeError("cache changed during iteration")
        record = cc_table_next(&cache.table, now, &self.slot)
        if record == NULL:
            self.cache = None
            raise StopIteration
        # References first: what is allocated afterwards may start the garbage collector, and that
        # any code.
        key, value = <object>cc_record_key(record), <object>cc_record_value(record)
        return key if self.kind == KEYS else value if self.kind == VALUES else (key, value)


cdef CacheIterator iterate(Cache cache, int kind):
    cdef CacheIterator iterator = CacheIterator.__new__(CacheIterator)
    iterator.cache = cache
    iterator.version = cache.table.version
    iterator.slot = 0
    iterator.kind = kind
    return iterator


cdef int configure(Cache cache, object maxsize, object max_bytes, object timer,
                   uint64_t sketch_bytes) except -1:
    """Gives a new cache its bounds, its clock and its sketch's size."""
    if cache.ready:
        raise RuntimeError("this cache is initialised already; see resize() and clear()")
    cdef bint sized = max_bytes is not None or cache.getsizeof is not None
    cc_table_init(&cache.table, maxsize or 0, CC_NO_BOUND if max_bytes is None else max_bytes,
                  sized, int.from_bytes(urandom(8), "little"))
    cache.table.policy.sketch_bytes = sketch_bytes
    if timer is not None:
        Py_INCREF(timer)
        cache.table.timer = <PyObject *>timer
    cache.ready = True
    notice_plainness(cache)
    return 0


cdef int notice_plainness(Cache cache) except -1:
    cache.plain = (cache.ready and not cache.table.sized and isinf(cache.lifetime)
                   and cache.on_evict is None)
    return 0


# --- the cache ------------------------------------------------------------------------------------

cdef class Cache:
    """A bounded mapping that keeps what is worth keeping.

    Args:
        maxsize: most entries; None: no bound of their number. One bound is required.
        max_bytes: most bytes of keys, values and entry overhead: an int or a size like "4GB".
        ttl: seconds an entry lives; None: until it is evicted.
        ttl_jitter: share of its lifetime, 0 ... 1, by which an entry may expire earlier, at random.
        getsizeof: bytes of a value; by default `nbytes` of buffers, `sys.getsizeof` of others.
        on_evict: called as on_evict(key, value, reason) after an entry was "evicted", "rejected"
            or "expired". What it raises goes to `sys.unraisablehook`.
        copy_arrays: keep a read-only copy of a NumPy array that somebody could still write to.
        timer: a function of no arguments that returns seconds and never goes backwards; by
            default the system's coarse monotonic clock.
        name: for people and metrics.
        sketch_bytes: memory of the sketch that remembers how often absent keys were asked for;
            None: 512 KiB, from 65,536 entries on 8 bytes an entry, below 2,048 less.

    Keys are hashable objects, values any. Like a dict's, every operation is atomic under the GIL,
    and O(1) on average; unlike a dict's, entries may leave at any insertion, though never the one
    that was just set. Values are returned as they are kept: the same object each time.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong kind; it is named.
    """

    __class_getitem__ = classmethod(GenericAlias)
    __hash__ = None

    def __cinit__(self, *args, **kwargs):
        cc_table_init(&self.table, 1, CC_NO_BOUND, False, 1)
        self.lifetime = INFINITY

    def __init__(self, maxsize=None, *, max_bytes=None, ttl=None, ttl_jitter=0.0, getsizeof=None,
                 on_evict=None, copy_arrays=True, timer=None, name=None, sketch_bytes=None):
        maxsize, max_bytes = bounds(maxsize, max_bytes)
        sketch = sketch_size(sketch_bytes)
        lifetime = INFINITY if ttl is None else seconds(ttl, "ttl")
        jitter = share(ttl_jitter, "ttl_jitter")
        check_kinds(getsizeof, on_evict, timer, copy_arrays, name)
        self.lifetime, self.jitter = lifetime, jitter
        self.getsizeof, self.on_evict = getsizeof, on_evict
        self.copy_arrays, self.name = copy_arrays, name
        configure(self, maxsize, max_bytes, timer, sketch)

    # --- one key

    def __getitem__(self, key):  # cc_slots.c puts the function into the slot itself, and adds `get`
        return cc_cache_subscript(<PyObject *>self, <PyObject *>key)

    def __setitem__(self, key, value):
        put(self, key, value, lifetime_of(self, None), 1)

    def __delitem__(self, key):
        if not Cache.delete(self, key):
            raise KeyError(key)

    def __contains__(self, key):
        cdef int64_t now
        cdef cc_record *record
        return cc_table_peek(&self.table, <PyObject *>key, &now, &record) == CC_FOUND

    def __len__(self):
        return self.table.policy.live

    def peek(self, key, default=None):
        """The value of a key, or `default`, without counting as a look-up."""
        cdef int64_t now
        cdef cc_record *record
        if cc_table_peek(&self.table, <PyObject *>key, &now, &record) == CC_FOUND:
            return <object>cc_record_value(record)
        return default

    def set(self, key, value, *, ttl=None, cost=None):
        """Sets a key.

        Args:
            ttl: seconds this entry lives; None: the cache's own; math.inf: until it is evicted.
            cost: price of computing the value relative to others, 1e-9 ... 1e9, 1 by default; an
                entry of cost 10 is kept as if it were asked for ten times as often.
        """
        put(self, key, value, lifetime_of(self, ttl), 1 if cost is None else price(cost, "cost"))

    def setdefault(self, key, default=None):
        """The value of a key, which is set to `default` first if it is absent."""
        return put(self, key, default, lifetime_of(self, None), 1, keep=True)

    def get_or_set(self, key, factory, *, ttl=None):
        """The value of a key, or what `factory()` returns, which is then set.

        Threads that ask for an absent key at the same time call one factory and share its result
        or its exception, which is not kept. A factory may use this cache.
        """
        cdef PyObject *found
        if cc_table_look_up(&self.table, <PyObject *>key, &found) == CC_FOUND:
            return cc_owned(found)
        if not callable(factory):
            raise TypeError(f"factory must be callable, not {type(factory).__name__}")
        cdef double lifetime = lifetime_of(self, ttl)
        flights = Flights()
        if self.flights is None:  # another thread may have been first
            self.flights = flights

        def compute():
            value = self.peek(key, MISSING)  # it may have landed since the look-up
            return put(self, key, factory(), lifetime, 1) if value is MISSING else value

        return self.flights.run(key, compute)

    def pop(self, key, *default):
        """Removes a key and returns its value, or `default` if it is absent, else KeyError."""
        cdef cc_leavers leavers
        if len(default) > 1:
            raise TypeError(f"pop expected at most 2 arguments, got {1 + len(default)}")
        leavers.count = 0
        if cc_table_remove(&self.table, <PyObject *>key, &leavers) == CC_FOUND:
            self.table.policy.tick += 1  # a hit, on an entry that is gone
            value = <object>leavers.at[0].value
            cc_leavers_release(&leavers, NULL)
            return value
        self.table.misses += 1
        cc_leavers_release(&leavers, callback(self))
        if default:
            return default[0]
        raise KeyError(key)

    def popitem(self):
        """Removes the last (key, value) in table order and returns it; KeyError when empty."""
        cdef int64_t now
        cdef cc_leavers leavers
        cdef tuple item = PyTuple_New(2)  # allocated before anything is taken out
        cc_table_now_if_expiring(&self.table, &now)
        cdef cc_record *record = cc_table_last(&self.table, now)
        if record == NULL:
            raise KeyError("popitem(): cache is empty")
        leavers.count = 1
        cc_table_take(&self.table, record, CC_DELETED, &leavers.at[0])
        PyTuple_SET_ITEM(item, 0, <object>leavers.at[0].key)  # steals the references
        PyTuple_SET_ITEM(item, 1, <object>leavers.at[0].value)
        return item

    def delete(self, key):
        """Removes a key; False if it was absent."""
        cdef cc_leavers leavers
        leavers.count = 0
        cdef bint found = cc_table_remove(&self.table, <PyObject *>key, &leavers) == CC_FOUND
        cc_leavers_release(&leavers, callback(self))
        return found

    # --- many keys

    def get_many(self, keys, default=None):
        """The values of an iterable of keys, as a list aligned with it; `default` where absent."""
        fast = sequence_of(keys)
        return cc_table_get_many(&self.table, <PyObject *>fast, <PyObject *>default)

    def set_many(self, items, *, ttl=None):
        """Sets every pair of a mapping, or of an iterable of (key, value), in order."""
        if ttl is not None:
            seconds(ttl, "ttl")
        if hasattr(items, "keys"):
            for key in items.keys():
                put(self, key, items[key], lifetime_of(self, ttl), 1)
            return
        for pair in items:
            key, value = pair
            put(self, key, value, lifetime_of(self, ttl), 1)

    def delete_many(self, keys):
        """Removes every key of an iterable; how many were there."""
        return sum([self.delete(key) for key in sequence_of(keys)])

    def gather(self, keys, out):
        """Copies the cached arrays of `keys` into the rows of `out`; absent rows become zeros.

        Args:
            keys: n keys.
            out: writable C-contiguous array of shape (n, ...). A value's dtype must be that of
                `out`, and its number of items that of a row; a `bytes` value must be as long as
                a row. `out` must not share memory with arrays that the cache has adopted.

        Returns:
            found: bool array of n.

        Raises:
            ValueError, TypeError: `out` or a value is not of that kind; nothing was written.
        """
        cdef cc_rows rows
        fast = sequence_of(keys)
        check_rows(out, len(fast))
        found = np.zeros(len(fast), dtype=np.bool_)
        cdef char[::1] flags = found.view(np.int8)
        dtype = out.dtype
        rows.start = <char *><size_t>out.ctypes.data
        rows.count = len(fast)
        rows.descr = <PyObject *>dtype
        rows.array_type = <PyTypeObject *>np.ndarray
        rows.out = <PyObject *>out
        if rows.count:
            rows.row_size = out.nbytes // rows.count
            rows.items = out.size // rows.count
            cc_table_gather(&self.table, <PyObject *>fast, &rows, &flags[0])
        return found

    def update(self, other=(), /, **kwargs):
        """Sets the pairs of a mapping or iterable, and those of the keyword arguments."""
        self.set_many(other)
        if kwargs:
            self.set_many(kwargs)

    def clear(self):
        """Removes everything. What the policy learned is forgotten too; counts go on."""
        cc_table_clear(&self.table)

    # --- lifetimes and bounds

    @property
    def ttl(self):
        """Seconds a new entry lives; None: until it is evicted."""
        return None if isinf(self.lifetime) else self.lifetime

    @ttl.setter
    def ttl(self, value):
        self.lifetime = INFINITY if value is None else seconds(value, "ttl")
        notice_plainness(self)

    @property
    def maxsize(self):
        """Most entries, or None."""
        return self.table.maxsize or None

    @property
    def max_bytes(self):
        """Most bytes, or None."""
        return None if self.table.max_bytes == CC_NO_BOUND else self.table.max_bytes

    def touch(self, key, ttl):
        """Gives a key a new lifetime of `ttl` seconds from now (math.inf: for ever; None: the
        cache's own); False if it is absent. Not a look-up."""
        cdef int64_t start, now
        cdef cc_record *record
        cdef double lifetime = lifetime_of(self, ttl)
        cc_table_now(&self.table, &start)  # first: a timer runs Python code, a peek may need none
        if cc_table_peek(&self.table, <PyObject *>key, &now, &record) != CC_FOUND:
            return False
        now = now if now > start else start  # 0 where nothing expires yet
        if not cc_table_set_ttl(&self.table, record, now, lifetime):
            raise MemoryError("no memory for a far deadline")
        return True

    def get_ttl(self, key):
        """Seconds until a key expires; None: it does not. KeyError if it is absent."""
        cdef int64_t now
        cdef cc_record *record
        if cc_table_peek(&self.table, <PyObject *>key, &now, &record) != CC_FOUND:
            raise KeyError(key)
        cdef double left = cc_table_ttl(&self.table, record, now)
        return None if isinf(left) else left

    def expire(self):
        """Removes all that has expired; how many entries that was. O(entries)."""
        cdef int64_t now
        cdef uint32_t slot = 0
        cdef cc_leavers leavers
        cdef cc_result result = CC_AGAIN
        cdef uint64_t moves, before = self.table.left[<int>CC_EXPIRED]
        leavers.count = 0
        if self.table.policy.live:
            cc_table_now(&self.table, &now)
            while result == CC_AGAIN:
                moves = self.table.moves
                result = cc_table_expire(&self.table, now, &slot, UINT32_MAX, &leavers)
                cc_leavers_release(&leavers, callback(self))
                if moves != self.table.moves:
                    slot, result = 0, CC_AGAIN
        return self.table.left[<int>CC_EXPIRED] - before

    def resize(self, maxsize=None, max_bytes=None):
        """Changes the bounds that are given; what no longer fits is evicted."""
        maxsize, max_bytes = bounds(maxsize, max_bytes)
        if not self.ready:
            raise RuntimeError("Cache.__init__ was not called")
        if max_bytes is not None and not self.table.sized:
            count_bytes(self)
            notice_plainness(self)
        cc_table_resize(&self.table, maxsize or 0, max_bytes or 0, callback(self))

    # --- looking at all of it

    def __iter__(self):
        return iterate(self, KEYS)

    def _walk(self, kind):  # for the views
        return iterate(self, kind)

    def keys(self):
        """A live, set-like view of the keys."""
        return CacheKeys(self)

    def values(self):
        """A live view of the values."""
        return CacheValues(self)

    def items(self):
        """A live view of the (key, value) pairs."""
        return CacheItems(self)

    def __eq__(self, other):
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(iterate(self, ITEMS)) == dict(other.items())

    def __repr__(self):
        return text_of(self)

    def __sizeof__(self):
        return object.__sizeof__(self) + cc_table_memory(&self.table)

    def hottest(self, n):
        """The `n` entries asked for most often of late: a list of (key, frequency), highest first.

        A frequency counts look-ups, halved every 60 x capacity accesses, from what was remembered
        of the key when it came. O(entries).
        """
        cdef int64_t now
        cdef uint32_t slot = 0
        cdef cc_record *record
        n = positive_int(n, "n")
        cc_table_now_if_expiring(&self.table, &now)
        ranking = []
        while (record := cc_table_next(&self.table, now, &slot)) != NULL:
            frequency = cc_table_frequency(&self.table, record)
            key = <object>cc_record_key(record)  # drops another key, which may run any code
            if len(ranking) < n:
                heappush(ranking, (frequency, -<int64_t>slot, key))
            elif frequency > ranking[0][0]:
                heapreplace(ranking, (frequency, -<int64_t>slot, key))
        return [(key, frequency) for frequency, _, key in sorted(ranking, reverse=True)]

    def stats(self):
        """What was counted so far, as a CacheStats."""
        cdef cc_table *table = &self.table
        return CacheStats(table.policy.tick - table.insert_ticks, table.misses, table.inserts,
                          table.left[<int>CC_EVICTED], table.left[<int>CC_REJECTED], table.refused,
                          table.left[<int>CC_EXPIRED], table.left[<int>CC_DELETED],
                          table.policy.live, cc_table_bytes(table))

    def copy(self):
        """A cache of the same type, configuration, entries and lifetimes, with counts of its own.

        The new object's __init__ is not called; a subclass's attributes are copied as they are.
        """
        cdef Cache other = type(self).__new__(type(self))
        other.lifetime, other.jitter = self.lifetime, self.jitter
        other.getsizeof, other.on_evict = self.getsizeof, self.on_evict
        other.copy_arrays, other.name = self.copy_arrays, self.name
        if self.ready:
            configure(other, self.maxsize, self.max_bytes,
                      None if self.table.timer == NULL else <object>self.table.timer,
                      self.table.policy.sketch_bytes)
            for key, value, left, cost, frequency in entries(self):
                put(other, key, value, left, cost, False, frequency)
        if hasattr(self, "__dict__"):
            other.__dict__.update(self.__dict__)
        return other

    __copy__ = copy

    @classmethod
    def fromkeys(cls, iterable, value=None):
        """A cache made by `cls()` with every key of `iterable` set to `value`: for subclasses that
        supply their own bound."""
        cache = cls()
        for key in iterable:
            cache[key] = value
        return cache

    def _check(self):
        """Raises AssertionError if the table contradicts itself. For tests. O(entries)."""
        cdef const char *fault = cc_table_fault(&self.table)
        if fault != NULL:
            raise AssertionError(fault.decode())


cdef list entries(Cache cache):
    """All entries as (key, value, seconds left, cost, frequency)."""
    cdef int64_t now
    cdef uint32_t slot = 0
    cdef cc_record *record
    cdef list found = []
    cc_table_now_if_expiring(&cache.table, &now)
    while (record := cc_table_next(&cache.table, now, &slot)) != NULL:
        key, value = <object>cc_record_key(record), <object>cc_record_value(record)
        left = cc_table_ttl(&cache.table, record, now)
        cost = cc_table_cost(&cache.table, record)
        frequency = cc_table_frequency(&cache.table, record)
        found.append((key, value, left, cost, frequency))
    return found


cdef int count_bytes(Cache cache) except -1:
    """Begins to count bytes in a cache. Sizing runs any code: until none changes it."""
    cdef uint64_t version
    cdef uint64_t *sizes
    cdef uint32_t slot
    cdef cc_record *record
    for _ in range(MOST_ROUNDS):
        version = cache.table.version + cache.table.writes
        sizes = <uint64_t *>PyMem_Malloc((cache.table.policy.used + 1) * sizeof(uint64_t))
        if sizes == NULL:
            raise MemoryError("no memory for the sizes of entries")
        try:
            slot = 0
            while (record := cc_table_next(&cache.table, CC_NO_TIME, &slot)) != NULL:
                key, value = <object>cc_record_key(record), <object>cc_record_value(record)
                sizes[slot - 1] = size_of(cache, key, value)
                if cache.table.version + cache.table.writes != version:
                    break
            if cache.table.version + cache.table.writes == version:
                if cache.table.sized or cc_table_count_bytes(&cache.table, sizes):
                    return 0
                raise MemoryError("no memory for the sizes of entries")
        finally:
            PyMem_Free(sizes)
    raise RuntimeError("the cache keeps changing while its entries are sized")


cdef int install() except -1:
    cdef Cache cache = Cache.__new__(Cache)
    cdef size_t start = <size_t><PyObject *>cache
    MutableMapping.register(Cache)
    return cc_cache_install(<PyTypeObject *>Cache, <PyTypeObject *>np.ndarray,
                            <size_t>&cache.table - start, <size_t>&cache.plain - start)


install()
