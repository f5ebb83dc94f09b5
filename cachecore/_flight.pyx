"""Single flight: of all who want one key computed, one computes and the others wait for it.

Thread safe under the GIL: between two steps that belong together no Python code runs. `flights`
holds what is under way, by key; who takes a flight out of it before its end sees to it that those
who come later start one of their own.
"""

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident

from os import register_at_fork
from threading import Lock

# What each waiting thread waits for: of all flights, since threads may wait for each other across
# caches and functions. And the number of forks before: flights of another era have lost their
# thread, and are left to themselves.
cdef dict waiting = {}
cdef unsigned long era = 0


cdef unsigned long current_era() noexcept:
    return era


def _begin_era():
    """In a child process there is only the thread that forked."""
    global era
    era += 1
    waiting.clear()


register_at_fork(after_in_child=_begin_era)


def _waiters():
    """How many threads wait for another's computation. For tests."""
    return len(waiting)


@cython.no_gc  # said in the .pxd too: Cython wants both
cdef class Flight:
    """One computation under way, and what became of it."""

    def __cinit__(self):
        self.owner = PyThread_get_thread_ident()
        self.era = era

    cdef object compute(self):
        raise NotImplementedError


cdef bint depends(Flight flight, unsigned long thread):
    """True when the end of `flight` depends on `thread`."""
    cdef Py_ssize_t seen = 0
    while flight is not None and seen <= len(waiting):
        if flight.owner == thread:
            return True
        flight = waiting.get(flight.owner)
        seen += 1
    return False


cdef bint wait(Flight flight) except -1:
    """True when it has ended; False: it would not, as it waits for this very thread."""
    cdef unsigned long me = PyThread_get_thread_ident()
    if flight.gate is None and not flight.ended:
        gate = Lock()
        gate.acquire()
        if flight.gate is None:  # making a lock may have run other code
            flight.gate = gate
    if flight.ended:
        return True
    if depends(flight, me):
        return False
    outer = waiting.get(me)  # of the wait that a signal handler interrupted with this one
    waiting[me] = flight
    try:
        with flight.gate:
            pass
    finally:
        if outer is None:
            waiting.pop(me, None)
        else:
            waiting[me] = outer
    return True


cdef int discard(dict flights, object key, Flight flight) except -1:
    if flights.get(key) is flight:
        del flights[key]
    return 0


cdef object lead(dict flights, object key, Flight mine):
    try:
        mine.value = mine.compute()
    except BaseException as error:
        mine.error = error
        raise
    finally:
        try:
            discard(flights, key, mine)
        finally:
            mine.ended = True
            if mine.gate is not None:
                mine.gate.release()
    return mine.value


cdef object fly(dict flights, object key, Flight mine):
    cdef Flight flight
    while True:
        flight = <Flight>flights.setdefault(key, mine)
        if flight is mine:
            return lead(flights, key, mine)
        if flight.era != era:
            discard(flights, key, flight)
        elif not wait(flight):
            return mine.compute()
        elif flight.error is None:
            return flight.value
        elif isinstance(flight.error, Exception):
            raise flight.error


@cython.no_gc
cdef class _Call(Flight):
    cdef object function

    cdef object compute(self):
        return self.function()


@cython.final
cdef class Flights:
    """The computations under way, by key."""

    cdef dict flights

    def __cinit__(self):
        self.flights = {}

    def run(self, key, compute):
        """The result of `compute()`, called once however many threads ask at a time.

        An exception reaches everyone who waited. When the computing thread is stopped by something
        that is not an `Exception` (KeyboardInterrupt, say), a waiter takes over. A thread that
        would wait for itself, directly or through others, computes on its own instead.
        """
        cdef _Call mine = _Call()
        mine.function = compute
        return fly(self.flights, key, mine)
