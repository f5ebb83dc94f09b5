"""What the commands of a server need of its cache beyond the cache's own methods.

Keys are bytes: a byte for the number of a database, then the name. Times are Unix milliseconds;
the cache keeps its own, and what is set at a time is reported at that time until somebody sets the
system's clock.

Thread safety: the GIL.
"""

from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.object cimport PyObject
from libc cimport errno as c_errno
from libc.math cimport HUGE_VAL, INFINITY
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from posix.time cimport clock_gettime, timespec

from cachecore._core cimport Cache
from cachecore.cc_clock cimport CC_CLOCK_MONOTONIC, CC_CLOCK_UNIX
from cachecore.cc_glob cimport cc_glob
from cachecore.cc_table cimport *

from random import randrange
from sys import getsizeof

cdef extern from "<stdlib.h>":
    long double strtold(const char *text, char **end) nogil

cdef extern from "<math.h>":
    bint isfinite(long double value) nogil
    bint isnan(long double value) nogil

cdef enum:
    NUMBER_TEXT = 5 * 1024  # bytes that any long double fits into, written out
    SPARSE = 10             # entries looked at for each that is asked for
    DRAWS = 100             # slots tried for a random key

cdef Py_ssize_t EMPTY = getsizeof(b"")
cdef int64_t FOREVER = INT64_MAX, KEPT = -1, USUAL = -2
NEVER = FOREVER  # the deadline of what does not expire
KEEP = KEPT      # the deadline that a key has; of a new one the usual
OWN = USUAL      # the usual one, by the cache's own lifetime


# --- time -----------------------------------------------------------------------------------------

cdef int64_t nanoseconds(timespec time) noexcept:
    return <int64_t>time.tv_sec * 1_000_000_000 + time.tv_nsec


cdef int clocks(Cache cache, int64_t *now, int64_t *ahead) except -1:
    """The cache's time in ms, and how far Unix time is ahead of it: rounded up, lest 10 s until a
    deadline in Unix time be told as 10,001 ms."""
    cdef timespec before, unix, after
    cc_table_now(&cache.table, now)
    for _ in range(3):  # both clocks tick together: between two ticks their distance is exact
        clock_gettime(CC_CLOCK_MONOTONIC, &before)
        clock_gettime(CC_CLOCK_UNIX, &unix)
        clock_gettime(CC_CLOCK_MONOTONIC, &after)
        if nanoseconds(before) == nanoseconds(after):
            break
    if cache.table.timer == NULL:
        ahead[0] = (nanoseconds(unix) - nanoseconds(before) + 999_999) // 1_000_000
    else:
        ahead[0] = nanoseconds(unix) // 1_000_000 - now[0]
    return 0


def unix_time(Cache cache):
    """The time that deadlines are compared with."""
    cdef int64_t now, ahead
    clocks(cache, &now, &ahead)
    return now + ahead


def deadline_of(Cache cache, bytes key):
    """When a key expires; NEVER: it does not; None: it is absent."""
    cdef int64_t now, ahead, deadline
    cdef cc_record *record
    if cc_table_peek(&cache.table, <PyObject *>key, &now, &record) != CC_FOUND:
        return None
    deadline = cc_table_deadline(&cache.table, record)
    if deadline == FOREVER:
        return FOREVER
    clocks(cache, &now, &ahead)
    return deadline + ahead


cdef double seconds_until(int64_t deadline, int64_t now) noexcept:
    """A lifetime that ends at a deadline to the ms, both on the cache's clock."""
    return INFINITY if deadline == FOREVER else (<double>(deadline - now) - 0.5) / 1000


def expire_at(Cache cache, bytes key, int64_t deadline):
    """Gives a key another deadline, one that has passed too; False: it is absent."""
    cdef int64_t now, seen, ahead
    cdef cc_record *record
    clocks(cache, &now, &ahead)
    if deadline <= now + ahead:
        return cache.delete(key)
    if deadline != FOREVER:
        deadline -= ahead
    if cc_table_peek(&cache.table, <PyObject *>key, &seen, &record) != CC_FOUND:
        return False
    now = max(now, seen)  # nothing was read where nothing expires yet
    if not cc_table_set_ttl(&cache.table, record, now, seconds_until(deadline, now)):
        raise MemoryError("no memory for a far deadline")
    return True


# --- entries --------------------------------------------------------------------------------------

cdef class Hash(dict):
    """A hash: fields to values. Only `put` and `drop` change it.

    It knows its size, so that counting it anew after a change does not depend on how large it is.
    """

    cdef Py_ssize_t content  # bytes of its fields and values

    def __init__(self, pairs=()):
        for field, value in pairs:
            self.put(field, value)

    cpdef bytes put(self, bytes field, bytes value):
        """Sets a field; returns the value that it had, or None."""
        cdef bytes before = self.get(field)
        self[field] = value
        self.content += size_of_bytes(value)
        self.content += size_of_bytes(field) if before is None else -size_of_bytes(before)
        return before

    cpdef bytes drop(self, bytes field):
        """Removes a field; returns the value that it had, or None."""
        cdef bytes before = self.pop(field, None)
        if before is not None:
            self.content -= size_of_bytes(field) + size_of_bytes(before)
        return before

    def __sizeof__(self):
        return dict.__sizeof__(self) + self.content


cdef inline Py_ssize_t size_of_bytes(bytes text) noexcept:
    return PyBytes_GET_SIZE(text) + EMPTY


def size_of(Cache cache, bytes key, value):
    """Bytes that an entry counts for."""
    cdef Py_ssize_t size
    if PyBytes_CheckExact(value):
        size = size_of_bytes(value)
    else:
        size = getsizeof(value) if cache.getsizeof is None else cache.getsizeof(value)
    return size + size_of_bytes(key) + CC_ENTRY_OVERHEAD


def fits(Cache cache, bytes key, value):
    """Whether an entry would not be larger than the cache."""
    return not cache.table.sized or size_of(cache, key, value) <= cache.table.max_bytes


def store(Cache cache, bytes key, value, int64_t deadline=USUAL):
    """Sets a key, or counts its value anew after that has grown or shrunk.

    Args:
        deadline: OWN, NEVER, KEEP (the one it has, if it is there) or Unix milliseconds; of one
            that has passed the key is removed.

    Returns:
        False: it is larger than the cache; nothing was changed.
    """
    cdef cc_item item
    cdef int64_t now, seen, ahead
    cdef cc_record *record
    cdef uint64_t size = 0
    if cache.table.sized:
        size = size_of(cache, key, value)
        if size > cache.table.max_bytes:
            return False
    now = 0  # the time is read where it matters
    if deadline == KEPT:
        deadline = USUAL
        if cc_table_peek(&cache.table, <PyObject *>key, &now, &record) == CC_FOUND:
            deadline = cc_table_deadline(&cache.table, record)
    elif deadline != FOREVER and deadline != USUAL:
        clocks(cache, &now, &ahead)
        if deadline <= now + ahead:
            cache.delete(key)
            return True
        deadline -= ahead
    item.key, item.value, item.size = <PyObject *>key, <PyObject *>value, size
    item.ttl, item.soft = cache.lifetime if deadline == USUAL else seconds_until(deadline, now), 0
    item.cost, item.frequency = 1, 0
    item.keep, item.missed, item.kept = False, False, NULL
    cc_table_set(&cache.table, &item,
                 NULL if cache.on_evict is None else <PyObject *>cache.on_evict)
    if deadline != FOREVER and deadline != USUAL and cc_table_peek(
            &cache.table, <PyObject *>key, &seen, &record) == CC_FOUND and seen != now:
        cc_table_set_ttl(&cache.table, record, seen, seconds_until(deadline, seen))
    return True


def put_fields(Cache cache, bytes key, Hash value, list pairs):
    """Sets fields of a hash, new or kept at a key: [field, value, field, value, ...].

    Returns:
        How many are new; None: it would be larger than the cache; nothing was changed.
    """
    cdef Py_ssize_t at, count = 0
    cdef list before = []
    for at in range(0, len(pairs) - 1, 2):
        old = value.put(pairs[at], pairs[at + 1])
        before.append(old)
        count += old is None
    if store(cache, key, value, KEPT):
        return count
    for at in reversed(range(len(before))):
        if before[at] is None:
            value.drop(pairs[2 * at])
        else:
            value.put(pairs[2 * at], before[at])
    return None


def frequency_of(Cache cache, bytes key):
    """How often a key was asked for of late; None: it is absent."""
    cdef int64_t now
    cdef cc_record *record
    if cc_table_peek(&cache.table, <PyObject *>key, &now, &record) != CC_FOUND:
        return None
    return cc_table_frequency(&cache.table, record)


def age_of(Cache cache, bytes key):
    """The share of all accesses so far that came after the last of a key; None: it is absent."""
    cdef int64_t now
    cdef cc_record *record
    if cc_table_peek(&cache.table, <PyObject *>key, &now, &record) != CC_FOUND:
        return None
    cdef uint64_t all_of_them = cache.table.policy.tick or 1
    return <uint32_t>(<uint32_t>cache.table.policy.tick - record.meta.tick) / all_of_them


def expire(Cache cache, uint32_t slot, uint32_t most):
    """Removes what has expired in `most` slots; the slot to go on with, 0 after the last one."""
    cdef int64_t now
    cdef uint32_t end = slot + most
    cdef cc_leavers leavers
    cdef cc_result result = CC_AGAIN
    leavers.count = 0
    cc_table_now(&cache.table, &now)
    while result == CC_AGAIN:  # should entries move meanwhile, others are met, or later
        result = cc_table_expire(&cache.table, now, &slot, end, &leavers)
        cc_leavers_release(&leavers, NULL if cache.on_evict is None else <PyObject *>cache.on_evict)
    return slot if slot < cache.table.policy.used else 0


# --- databases ------------------------------------------------------------------------------------

def glob(bytes pattern, bytes text):
    """Whether a text is what a pattern of KEYS and SCAN describes."""
    return pattern == b"*" or cc_glob(pattern, len(pattern), text, len(text))


cdef inline bint is_in(cc_record *record, int database) noexcept:
    cdef object key = <object>cc_record_key(record)
    return (PyBytes_CheckExact(key) and PyBytes_GET_SIZE(key) > 0
            and <unsigned char>PyBytes_AS_STRING(key)[0] == database)


def scan(Cache cache, int database, uint64_t cursor, uint64_t count, bytes pattern=None, kind=None):
    """Some keys of a database, and where to go on.

    Args:
        cursor: 0, or what the previous call returned.
        count: how many keys to look at.
        pattern, kind: only keys that match, and whose values are instances of a class.

    Returns:
        (cursor, names): 0 at the end. A key that is there from the beginning to the end is among
        the names of one call at least, whatever else comes and goes: entries keep their slots, and
        when the table moves them all, which is rare, a scan under way begins again.
    """
    cdef int64_t now
    cdef cc_record *record
    cdef uint64_t seen = 0, most = max(count, count * SPARSE)
    cdef uint64_t era = cache.table.moves & 0x7FFFFFFF
    cdef uint32_t slot = <uint32_t>cursor if cursor >> 32 == era else 0
    cdef bint all_names = pattern is None or pattern == b"*"
    cdef const char *name
    cdef Py_ssize_t size
    cdef list names = []
    cc_table_now_if_expiring(&cache.table, &now)
    while seen < count and most:
        record = cc_table_next(&cache.table, now, &slot)
        if record == NULL:
            return 0, names
        most -= 1
        if not is_in(record, database):
            continue
        seen += 1
        name = PyBytes_AS_STRING(<object>cc_record_key(record)) + 1
        size = PyBytes_GET_SIZE(<object>cc_record_key(record)) - 1
        if (all_names or cc_glob(pattern, len(pattern), name, size)) and (
                kind is None or isinstance(<object>cc_record_value(record), kind)):
            names.append(PyBytes_FromStringAndSize(name, size))
    return era << 32 | slot, names


def count_keys(Cache cache, int database):
    """How many keys a database has. O(entries)."""
    cdef int64_t now
    cdef uint32_t slot = 0
    cdef cc_record *record
    cdef uint64_t count = 0
    cc_table_now_if_expiring(&cache.table, &now)
    while (record := cc_table_next(&cache.table, now, &slot)) != NULL:
        count += is_in(record, database)
    return count


def random_key(Cache cache, int database):
    """The name of some key of a database; None: it has none."""
    cdef int64_t now
    cdef cc_record *record
    cdef uint32_t slot, drawn
    cc_table_now_if_expiring(&cache.table, &now)
    for _ in range(DRAWS if cache.table.policy.used else 0):
        slot = drawn = randrange(cache.table.policy.used)
        record = cc_table_next(&cache.table, now, &slot)
        if record != NULL and slot == drawn + 1 and is_in(record, database):
            return (<bytes>cc_record_key(record))[1:]
    slot = 0  # a small database, or a table that was larger once
    while (record := cc_table_next(&cache.table, now, &slot)) != NULL:
        if is_in(record, database):
            return (<bytes>cc_record_key(record))[1:]
    return None


# --- floats, as long as C has them ----------------------------------------------------------------

cdef bint read_float(bytes text, long double *number) except -1:
    cdef char *end
    if not 0 < len(text) < NUMBER_TEXT or text[:1].isspace():
        return False
    c_errno.errno = 0
    number[0] = strtold(text, &end)
    if end - <char *>text != len(text) or isnan(number[0]) or c_errno.errno == c_errno.EINVAL:
        return False
    return c_errno.errno != c_errno.ERANGE or not (
        number[0] == HUGE_VAL or number[0] == -HUGE_VAL or number[0] == 0)


def is_float(bytes text):
    """Whether a text is a number for `add_floats`: as strtold() reads it, infinity too."""
    cdef long double number
    return read_float(text, &number)


def add_floats(bytes left, bytes right):
    """The sum of two numbers, computed in C's long double, as Redis writes it: at most 17 decimal
    places, no exponent. None: it is not finite. ValueError: one of them is no number."""
    cdef long double first, second
    cdef char text[NUMBER_TEXT]
    if not read_float(left, &first) or not read_float(right, &second):
        raise ValueError("not a number")
    first += second
    if not isfinite(first):
        return None
    cdef int size = snprintf(text, NUMBER_TEXT, "%.17Lf", first)
    written = text[:size].rstrip(b"0").rstrip(b".")
    return b"0" if written == b"-0" else written
