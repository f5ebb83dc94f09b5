"""What a cache with tiers has under way, and what it knows of each of its tiers."""

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport uint64_t

from cachecore._flight cimport current_era

# What the generators of a cache yield: (one of these, a Level or a Load, what it is about).
GET, SET, DELETE, ADD, DEMOTE, LOAD, SLEEP, RUN, WAIT = range(9)

cdef enum:
    LATENCIES = 32


@cython.final
@cython.freelist(16)
cdef class Load:
    """Some keys that one thread or task loads or writes, and what became of them."""

    def __cinit__(self):
        self.thread = PyThread_get_thread_ident()
        self.era = current_era()

    def await_end(self, wake):
        """Have `wake()` called at the end; False: it has ended, and it will not be called."""
        if self.ended:
            return False
        if self.waiters is None:
            self.waiters = []
        self.waiters.append(wake)
        return True

    def remember(self, key, value):
        """A value to return if the loader fails."""
        if self.fallback is None:
            self.fallback = {}
        self.fallback[key] = value

    def end_with(self, error, keys):
        """An error is everyone's who waits; of what stops a thread or a task, only its own."""
        if isinstance(error, Exception):
            self.errors = dict.fromkeys(keys, error)
        else:
            self.failure = error

    def error(self):
        """What the loader raised for some key, or None."""
        return next(iter(self.errors.values())) if self.errors else None

    @property
    def lost(self):
        """Whether it began before this process was forked."""
        return self.era != current_era()


cdef bint is_over(Load load) noexcept:
    """Whether nobody is at it any more: it is none, its thread was not forked, its loop is gone."""
    return load is None or load.era != current_era() or load.failure is not None


cpdef tuple claim(dict flights, Load load, object keys):
    """The keys that nobody has under way in `flights`, now this load's; (key, load) of the others.

    Like `land`, one step under the GIL where keys compare without running Python code.
    """
    cdef list mine = [], others = []
    cdef Load other
    for key in keys:
        other = flights.get(key)
        if is_over(other):
            flights[key] = load
            mine.append(key)
        else:
            others.append((key, other))
    return mine, others


cpdef object land(dict flights, Load load, object keys):
    """End a load: its keys are free, and who waited goes on."""
    cdef list waiters
    for key in keys:
        if flights.get(key) is load:
            del flights[key]
    load.ended = True
    waiters, load.waiters = load.waiters, None
    if waiters is not None:
        for wake in waiters:
            wake()


@cython.final
cdef class Tagged:
    """A value with tags, as the innermost cache keeps it: a look-up of it is never plain C."""


@cython.final
cdef class Failed:
    """In place of one value of a batch: why it could not be loaded."""

    cdef readonly object error

    def __init__(self, error):
        self.error = error


@cython.final
cdef class Latencies:
    """How long calls took, by powers of two of a microsecond."""

    cpdef void add(self, double seconds) noexcept:
        """Count a call that took that long."""
        cdef uint64_t micros = <uint64_t>(max(seconds, 0) * 1e6)
        cdef int bucket = 0
        while micros > 1 and bucket < LATENCIES - 1:
            micros >>= 1
            bucket += 1
        self.counts[bucket] += 1
        self.seconds += seconds

    def histogram(self):
        """Calls by how long they took: item i counts those of 2^i ... 2^(i + 1) - 1 us."""
        return [self.counts[i] for i in range(LATENCIES)]


@cython.final
cdef class Level:
    """A tier as one cache sees it: its counts, its generation, and the writes it has missed."""

    def __init__(self, tier, bytes prefix, exclusive):
        self.tier = tier
        self.get_many, self.set_many, self.lazy = tier.get_many, tier.set_many, tier.lazy
        self.exclusive = exclusive
        self.generation_key = prefix + b"\0generation"
        self.tags = {}
        self.refused = {}
        self.latencies = Latencies()

    def failed(self, error):
        """Count a failure. It may have forgotten its generation: that is read before it is used."""
        self.errors += 1
        self.generation_read = 0
        if isinstance(error, TimeoutError):
            self.timeouts += 1

    def settle(self):
        """Let go of a ledger in which nothing stands any more; whether there is none. No Python
        code runs here: nobody can note something meanwhile."""
        cdef object ledger = self.ledger
        if ledger is not None and not (ledger.missed or ledger.overflowed or ledger.tags
                                       or ledger.renewal is not None):
            self.ledger = None
        return self.ledger is None
