"""memoize: keeps a function's results in a Cache, at the speed of the Cache.

A hit is C from the call to the result (src/python/cc_memo.c). Here is what surrounds it: the
decorator and its arguments, what happens on a miss, and the methods of a decorated function.
"""

cimport cython
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uint64_t

from cachecore._arrays cimport is_array, snapshot
from cachecore._core cimport Cache, put
from cachecore._flight cimport Flight, fly
from cachecore.cc_memo cimport (
    cc_arguments, cc_memo_install, cc_memo_key, cc_memo_prepare, cc_ready,
)

import inspect
from collections import namedtuple
from functools import update_wrapper
from types import GenericAlias

from cachecore import async_flight
from cachecore.sentinel import MISSING
from cachecore.settings import awaits

cdef extern from "Python.h":
    ctypedef void *vectorcallfunc
    object PyMethod_New(object function, object instance)
    object PyObject_Vectorcall(object function, PyObject *const *args, size_t flags,
                               PyObject *names)
    object PyVectorcall_Call(object function, object args, object kwargs)
    Py_ssize_t PyVectorcall_NARGS(size_t flags)
    PyObject **PySequence_Fast_ITEMS(object fast)
    PyObject *Py_NewRef(PyObject *value)

CacheInfo = namedtuple("CacheInfo", ["hits", "misses", "maxsize", "currsize"], module=__name__)


# --- a miss ---------------------------------------------------------------------------------------

@cython.final
@cython.no_gc  # see Flight
cdef class _Miss(Flight):
    """A call whose result is not there. What points into the call is good until it returns."""

    cdef Memoized memo
    cdef object key
    cdef cc_arguments args
    cdef size_t flags
    cdef PyObject *names
    cdef uint64_t version  # of the table when the look-up failed

    cdef object compute(self):
        if self.version != self.memo.cache.table.version:
            value = self.memo.cache.peek(self.key, MISSING)
            if value is not MISSING:
                return value
        value = PyObject_Vectorcall(self.memo.function, self.args, self.flags, self.names)
        return keep(self.memo, self.key, self, value)


cdef object keep(Memoized memo, object key, object flight, object value):
    """The value as all callers get it; kept, unless it was invalidated while it was computed."""
    if is_array(value):
        value = snapshot(value)
    if memo.flights.get(key) is flight:
        put(memo.cache, key, value, memo.cache.lifetime, 1)
        if memo.flights.get(key) is not flight:  # comparing keys may have let another thread in
            memo.cache.delete(key)
    return value


def _share(Memoized memo, key, args, kwargs):
    """A coroutine for the result of a call that others may be waiting for too."""
    def look():
        return memo.cache.peek(key, MISSING)

    async def call(flight):
        return keep(memo, key, flight, await memo.function(*args, **kwargs))

    return async_flight.fly(memo.flights, key, look, call)


cdef object missed(object self, object key, cc_arguments args, size_t flags, PyObject *names):
    """Goes on where C found nothing: counts, or finds what only Python can compare; else calls."""
    cdef Memoized memo = <Memoized>self
    cdef _Miss miss
    value = memo.cache.get(key, MISSING)
    if memo.awaits:
        if value is not MISSING:
            return cc_ready(Py_NewRef(<PyObject *>value))
        given = [<object>args[i] for i in range(PyVectorcall_NARGS(flags))]
        named = () if names == NULL else <object>names
        values = {name: <object>args[len(given) + i] for i, name in enumerate(named)}
        return _share(memo, key, given, values)
    if value is not MISSING:
        return value
    miss = _Miss()
    miss.memo = memo
    miss.key = key
    miss.args = args
    miss.flags = flags
    miss.names = names
    miss.version = memo.cache.table.version
    return fly(memo.flights, key, miss)


# --- a decorated function -------------------------------------------------------------------------

@cython.final
@cython.no_gc_clear  # a cycle passes through something else that can be cleared, as with tuples
cdef class Memoized:
    """A function whose results are kept in a cache; made by `memoize`."""

    cdef vectorcallfunc vectorcall  # the first five: cc_memo.h declares them too
    cdef readonly Cache cache
    cdef object key
    cdef int typed
    cdef int awaits
    cdef uint64_t hits_before, misses_before  # the last cache_clear()
    cdef object function
    cdef dict flights  # calls under way, by key
    cdef dict __dict__
    cdef object __weakref__

    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(self, function, maxsize, max_bytes, ttl, key, typed):
        if not callable(function):
            raise TypeError(f"function must be callable, not {type(function).__name__}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("function must not be a generator function: its result is used up once")
        name = getattr(function, "__qualname__", None)
        self.cache = Cache(maxsize, max_bytes=max_bytes, ttl=ttl,
                           name=name if isinstance(name, str) else None)
        self.function = function
        self.key = key
        self.typed = typed
        self.awaits = awaits(function)
        self.flights = {}
        update_wrapper(self, function)
        if self.awaits:
            mark(self, function)
        cc_memo_prepare(<PyObject *>self)

    def __call__(self, *args, **kwargs):
        return PyVectorcall_Call(self, args, kwargs)

    def __get__(self, instance, owner):
        return self if instance is None else PyMethod_New(self, instance)

    def __reduce__(self):
        return self.__qualname__

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def cache_info(self):
        """Hits, misses, maxsize and current size, as `functools` reports them.

        A call that waited for another's result is a miss. Look-ups in `cache` count too.
        """
        cdef uint64_t hits = self.cache.table.policy.tick - self.cache.table.insert_ticks
        return CacheInfo(hits - self.hits_before, self.cache.table.misses - self.misses_before,
                         self.cache.maxsize, len(self.cache))

    def cache_clear(self):
        """Forgets all results and the counts of `cache_info`. Calls under way are not kept."""
        self.flights.clear()
        self.cache.clear()
        self.hits_before = self.cache.table.policy.tick - self.cache.table.insert_ticks
        self.misses_before = self.cache.table.misses

    def cache_parameters(self):
        """The arguments of `memoize`, as they are now."""
        return {"maxsize": self.cache.maxsize, "max_bytes": self.cache.max_bytes,
                "ttl": self.cache.ttl, "key": self.key, "typed": bool(self.typed)}

    def cache_key(self, /, *args, **kwargs):
        """The key of `cache` under which the result of that call is kept."""
        cdef list values = [*args, *kwargs.values()]
        cdef tuple names = tuple(kwargs)
        return cc_memo_key(self, PySequence_Fast_ITEMS(values), len(args),
                           <PyObject *>names if names else NULL)

    def cache_invalidate(self, /, *args, **kwargs):
        """Forgets the result of that call; False: there was none.

        If it is under way, its result will not be kept, nor do those who call from now on wait
        for it.
        """
        key = self.cache_key(*args, **kwargs)
        self.flights.pop(key, None)
        return self.cache.delete(key)


cdef int mark(Memoized memo, object function) except -1:
    """Has `inspect.iscoroutinefunction` say of the decorated function what it says of its own."""
    if hasattr(inspect, "markcoroutinefunction"):
        inspect.markcoroutinefunction(memo)
        return 0
    for name in ("__code__", "__defaults__", "__kwdefaults__"):  # what Python 3.11 looks at
        if hasattr(function, name):
            setattr(memo, name, getattr(function, name))
    return 0


# --- the decorator --------------------------------------------------------------------------------

def memoize(maxsize=128, *, max_bytes=None, ttl=None, key=None, typed=False):
    """Decorates a function, method or coroutine function: its results are kept in a `Cache`.

    Used as `@memoize` or `@memoize(...)`. A hit runs no Python code, nor the coroutine.

    Args:
        maxsize: most results; None: no bound of their number, then `max_bytes` is required.
        max_bytes: most bytes of results and keys, beside `maxsize`: an int or a size like "4GB".
        ttl: seconds a result is good for; None: until it is evicted.
        key: makes the key of a call from its arguments, as a method's may that leaves out self.
            By default a call is known by its arguments, which must be hashable, as they were
            written: f(1) and f(x=1) are distinct calls, and so are two orders of keywords.
        typed: arguments that are equal but of different types, as 3 and 3.0, always make distinct
            calls; otherwise they do when one of them is the only argument.

    A key is computed by one call at a time: threads, or tasks on any event loop, that ask for it
    meanwhile wait and share the result, or the exception, which is not kept. Only who would wait
    for himself (a function that calls itself with the same arguments), or for an event loop that
    stands still, calls on his own. The coroutine runs as a task: no waiter's cancellation stops
    it. Values are returned as the cache keeps them: the same object each time, to the first caller
    too; NumPy arrays as read-only snapshots.

    The decorated function has the attributes of the function, and `__wrapped__`, `cache`,
    `cache_info()`, `cache_clear()`, `cache_parameters()`; with the arguments of a call,
    `cache_key(...)` and `cache_invalidate(...)`, after which no result from before is returned.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong kind; it is named.
    """
    if callable(maxsize):
        return memoize(max_bytes=max_bytes, ttl=ttl, key=key, typed=typed)(maxsize)
    Cache(maxsize, max_bytes=max_bytes, ttl=ttl)  # raises what there is to say of its arguments
    if key is not None and not callable(key):
        raise TypeError(f"key must be callable, not {type(key).__name__}")
    if not isinstance(typed, bool):
        raise TypeError(f"typed must be a bool, not {type(typed).__name__}")
    if typed and key is not None:
        raise ValueError("typed does not go with key, which makes the whole key")

    def decorate(function):
        return Memoized(function, maxsize, max_bytes, ttl, key, typed)

    return decorate


cdef int install() except -1:
    cdef Memoized memo = Memoized(len, 1, None, None, None, False)
    cdef size_t head_size = <size_t>&memo.hits_before - <size_t><PyObject *>memo
    return cc_memo_install(<PyTypeObject *>Memoized, head_size, missed)


install()
