"""Entries of a server's cache as bytes, and back.

A part of a snapshot is a run of entries, in the order of their slots, little-endian and packed:

    u8 kind  u16 frequency  u32 size of the key  u64 size of the value  i64 deadline  key  value

A kind is a string (0) or a hash (1), whose value is a run of u32 size, field, u32 size, value. A
deadline is in Unix milliseconds; NEVER: there is none. Keys are bytes, values bytes or dicts.

Thread safety: the GIL.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.math cimport INFINITY
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cachecore._core cimport Cache
from cachecore.cc_table cimport *

from sys import getsizeof

cdef extern from *:
    """
    #include <stdint.h>
    #pragma pack(push, 1)
    typedef struct {
        uint8_t kind;
        uint16_t frequency;
        uint32_t key;
        uint64_t value;
        int64_t deadline;
    } cc_entry_head;
    #pragma pack(pop)
    """
    ctypedef struct cc_entry_head:
        uint8_t kind
        uint16_t frequency
        uint32_t key
        uint64_t value
        int64_t deadline

cdef enum:
    STRING = 0
    HASH = 1
    LARGE = 64 * 1024   # bytes from which on a value is not copied, but handed out itself
    MOST_FREQUENT = 65535
    EMPTY = 33          # bytes of an empty bytes object

NEVER = INT64_MAX  # the deadline of what does not expire
FREQUENCIES = MOST_FREQUENT + 1  # how many different ones there are


def pack(Cache cache, uint64_t cursor, size_t most_bytes, int64_t unix_ms):
    """Some entries as bytes, and where to go on.

    Args:
        cursor: 0, or what the previous call returned.
        most_bytes: as soon as there are so many, it is enough.
        unix_ms: the time now.

    Returns:
        (cursor, count, parts): 0 at the end; `parts` are bytes-like and belong together. An entry
        that is there from the beginning to the end is in one of the parts at least, even if others
        come and go meanwhile: entries keep their slots, and when the table moves them all, which
        is rare, the walk begins again.
    """
    cdef int64_t now, deadline
    cdef cc_record *record
    cdef uint64_t era = cache.table.moves & 0x7FFFFFFF
    cdef uint32_t slot = <uint32_t>cursor if cursor >> 32 == era else 0
    cdef size_t packed = 0, count = 0, value_size
    cdef cc_entry_head head
    cdef bytearray part = bytearray()
    cdef list parts = [part]
    cc_table_now(&cache.table, &now)
    while packed < most_bytes:
        record = cc_table_next(&cache.table, now, &slot)
        if record == NULL:
            return 0, count, parts
        key, value = <bytes>cc_record_key(record), <object>cc_record_value(record)
        deadline = cc_table_deadline(&cache.table, record)
        head.kind = HASH if isinstance(value, dict) else STRING
        head.frequency = min(cc_table_frequency(&cache.table, record), <uint32_t>MOST_FREQUENT)
        head.deadline = INT64_MAX if deadline == INT64_MAX else deadline - now + unix_ms
        head.key = PyBytes_GET_SIZE(key)
        value_size = size_of_hash(value) if head.kind == HASH else len(<bytes>value)
        head.value = value_size
        append(part, <char *>&head, sizeof(head))
        append(part, PyBytes_AS_STRING(key), head.key)
        if head.kind == HASH:
            for field, content in (<dict>value).items():
                append_sized(part, field)
                append_sized(part, content)
        elif value_size >= LARGE:
            part = bytearray()
            parts += value, part
        else:
            append(part, PyBytes_AS_STRING(value), value_size)
        packed += sizeof(head) + head.key + value_size
        count += 1
    return era << 32 | slot, count, parts


cdef int append(bytearray part, const char *data, size_t size) except -1:
    cdef Py_ssize_t at = len(part)
    PyByteArray_Resize(part, at + size)
    memcpy(PyByteArray_AS_STRING(part) + at, data, size)
    return 0


cdef int append_sized(bytearray part, bytes text) except -1:
    cdef uint32_t size = len(text)
    append(part, <char *>&size, sizeof(size))
    return append(part, PyBytes_AS_STRING(text), size)


cdef size_t size_of_hash(dict pairs) except? 0:
    cdef size_t size = 0
    for field, value in pairs.items():
        size += 8 + len(<bytes>field) + len(<bytes>value)
    return size


def weigh(const uint8_t[::1] part, double[::1] bytes_of):
    """Adds up what entries will count for, by their frequency.

    Args:
        part: the parts of one call of `pack`, joined.
        bytes_of: FREQUENCIES sums.

    Returns:
        How many entries it has; -1: they do not fit together.
    """
    cdef size_t at = 0, size = part.shape[0]
    cdef cc_entry_head head
    cdef int64_t count = 0
    while at < size:
        if not read_head(part, at, &head):
            return -1
        at += sizeof(head) + head.key + head.value
        bytes_of[head.frequency] += weight(&head)
        count += 1
    return count


cdef bint read_head(const uint8_t[::1] part, size_t at, cc_entry_head *head) noexcept:
    cdef size_t left = part.shape[0] - at
    if left < sizeof(head[0]):
        return False
    memcpy(head, &part[at], sizeof(head[0]))
    left -= sizeof(head[0])
    return (head.kind <= HASH and head.key >= 1 and head.key <= left
            and head.value <= left - head.key)


cdef double weight(const cc_entry_head *head) noexcept:
    """Bytes that an entry counts for, if it is a string."""
    return <double>head.key + head.value + CC_ENTRY_OVERHEAD + 2 * EMPTY


def unpack(Cache cache, const uint8_t[::1] part, int64_t unix_ms, uint32_t least, double room,
           hash_of):
    """Sets the entries that `pack` has packed, with their deadlines and frequencies.

    Args:
        part: the parts of one call, joined; `weigh` has found them good.
        unix_ms: the time now; what has expired is left out.
        least: entries of a lower frequency are left out.
        room: bytes that those of exactly that frequency may count for; the rest is left out.
        hash_of: makes a hash of a list of (field, value).

    Returns:
        (set, expired, room, databases): two counts, the room that is left, and the first bytes
        of the keys that were set.
    """
    cdef size_t at = 0, size = part.shape[0]
    cdef int64_t count = 0, expired = 0
    cdef cc_entry_head head
    cdef cc_item item
    cdef const char *data
    cdef PyObject *on_evict = NULL if cache.on_evict is None else <PyObject *>cache.on_evict
    databases = set()
    while at < size:
        if not read_head(part, at, &head):
            raise ValueError("part must be what pack() returned")
        data = <const char *>&part[at] + sizeof(head)
        at += sizeof(head) + head.key + head.value
        if head.frequency < least:
            continue
        if head.deadline <= unix_ms:
            expired += 1
            continue
        if head.frequency == least:
            room -= weight(&head)
            if room < 0:
                continue
        key = PyBytes_FromStringAndSize(data, head.key)
        if head.kind == HASH:
            value = hash_of(pairs_of(data + head.key, head.value))
        else:
            value = PyBytes_FromStringAndSize(data + head.key, head.value)
        item.key, item.value = <PyObject *>key, <PyObject *>value
        item.size = 0
        if cache.table.sized:
            item.size = (getsizeof(value) if cache.getsizeof is None else cache.getsizeof(value)
                         ) + getsizeof(key) + CC_ENTRY_OVERHEAD
        item.ttl = INFINITY
        if head.deadline != INT64_MAX:
            item.ttl = <double>(head.deadline - unix_ms) / 1000
        item.soft, item.cost, item.frequency = 0, 1, head.frequency
        item.keep, item.missed, item.kept = False, False, NULL
        cc_table_set(&cache.table, &item, on_evict)
        databases.add(<uint8_t>data[0])
        count += 1
    return count, expired, room, databases


cdef list pairs_of(const char *data, size_t size):
    cdef size_t at = 0
    cdef uint32_t length
    cdef list texts = []
    while at < size:
        if size - at < sizeof(length):
            raise ValueError("a hash is cut short")
        memcpy(&length, data + at, sizeof(length))
        at += sizeof(length)
        if length > size - at:
            raise ValueError("a hash is cut short")
        texts.append(PyBytes_FromStringAndSize(data + at, length))
        at += length
    if len(texts) % 2:
        raise ValueError("a hash is cut short")
    return list(zip(texts[::2], texts[1::2]))
