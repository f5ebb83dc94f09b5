"""Envelopes: what tiers keep, so that no reader takes it for something else.

In little-endian order:

     0  magic 4 | layout 1 | kind of key 1 | number of tags 2 | checksum 8
    16  codec 8, from its name | written 8 | soft 8 | hard 8, times in Unix ms
    48  generation of the namespace 8 | seconds to load, a float 4 | length of the key 4
    64  tags, each a number 8 and a generation 8 | key | zeros up to a multiple of 16
        payload (_payload.pyx) | the codec's signature 32, if it signs

The checksum is of everything but itself and covers the length: what was cut off, flipped or moved
is not read. It is no secret: whoever can write to a tier can make envelopes. So nothing that is
read here is executed, and a codec that would execute something signs: everything but the signature
and the checksum, in its namespace.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8String
from libc.stdint cimport INT64_MIN, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from cachecore._payload cimport Codec, Plan, lay
from cachecore.cc_sum cimport cc_sum

from hmac import compare_digest

import numpy as np

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    void *PyUnicode_DATA(object text)
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow)

cdef enum:
    MAGIC = 0x65_6F_63_CC  # CC "coe"
    LAYOUT = 1
    ALIGNMENT = 16
    SUMMED_FROM = 16  # what stands before is the seed
    SIGNATURE = 32
    LARGE = 1 << 18  # bytes whose sum is worth letting go of the GIL
    DECIMAL_BITS = 2048  # longer ints are written in hexadecimal: Python may refuse more digits

NEVER = 2**63 - 1  # as `hard`: it does not expire

# Why there is no value, as `unseal` says it.
FOREIGN = "foreign"  # no envelope, or one of another layout
DAMAGED = "damaged"
OTHER_KEY = "other key"
OTHER_CODEC = "other codec"
OTHER_GENERATION = "other generation"
EXPIRED = "expired"
FORGED = "forged"
UNDECODABLE = "undecodable"
REASONS = (FOREIGN, DAMAGED, OTHER_KEY, OTHER_CODEC, OTHER_GENERATION, EXPIRED, FORGED, UNDECODABLE)


cdef packed struct Head:
    uint32_t magic
    uint8_t layout
    char key_kind
    uint16_t tags
    uint64_t sum
    uint64_t codec
    int64_t written
    int64_t soft
    int64_t hard
    uint64_t generation
    float load
    uint32_t key

cdef packed struct Tag:
    uint64_t tag
    uint64_t generation


# --- keys -----------------------------------------------------------------------------------------

cdef struct Text:
    const char *data
    Py_ssize_t size
    char kind  # of key: str, bytes or int
    char digits[20]

cdef bint in_digits(object key, Text *text) except -1:
    """An int of 64 bits in decimal; False when it has more."""
    cdef int overflow
    cdef int64_t number = PyLong_AsLongLongAndOverflow(key, &overflow)
    cdef uint64_t rest = <uint64_t>number if number >= 0 else 0 - <uint64_t>number
    cdef char *at = text.digits + sizeof(text.digits)
    if overflow != 0:
        return False
    while True:
        at -= 1
        at[0] = <char>(48 + rest % 10)
        rest //= 10
        if rest == 0:
            break
    if number < 0:
        at -= 1
        at[0] = b"-"
    text.data = at
    text.size = text.digits + sizeof(text.digits) - at
    return True


cdef object key_text(object key, Text *text):
    """A key as bytes, in `text` or in what is returned to keep them alive."""
    cdef object owner = key
    if type(key) is str:
        text.kind = b"s"
        if not PyUnicode_IS_COMPACT_ASCII(key):
            try:
                owner = PyUnicode_AsUTF8String(key)
            except UnicodeEncodeError:
                raise ValueError(f"key has lone surrogates: {key!r:.80}") from None
    elif type(key) is bytes:
        text.kind = b"b"
    elif type(key) is int:
        text.kind = b"i"
        if in_digits(key, text):
            return key
        owner = str(key) if key.bit_length() <= DECIMAL_BITS else hex(key)
    # NumPy's scalars are equal to these, with the same hash; their item() drops zeros at the end.
    elif isinstance(key, np.integer) and not isinstance(key, np.timedelta64):
        return key_text(int(key), text)
    elif type(key) is np.str_:
        return key_text(str.__str__(key), text)
    elif type(key) is np.bytes_:
        return key_text(b"".join((key,)), text)
    else:
        raise TypeError(f"key must be a str, bytes or int for a tier, not {type(key).__name__}")
    if type(owner) is bytes:
        text.data = PyBytes_AS_STRING(owner)
        text.size = PyBytes_GET_SIZE(owner)
    else:
        text.data = <const char *>PyUnicode_DATA(owner)
        text.size = PyUnicode_GET_LENGTH(owner)
    return owner


cdef bytes joined(bytes prefix, object key):
    cdef Text text
    _owner = key_text(key, &text)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(prefix)
    whole = PyBytes_FromStringAndSize(NULL, size + text.size)
    memcpy(PyBytes_AS_STRING(whole), PyBytes_AS_STRING(prefix), <size_t>size)
    memcpy(PyBytes_AS_STRING(whole) + size, text.data, <size_t>text.size)
    return whole


def wire_key(bytes prefix not None, key):
    """The key under which a tier keeps something: the prefix, and the key as text.

    UTF-8 of a str, the bytes, decimal digits of an int (hexadecimal ones beyond 2,048 bits). So 1,
    "1" and b"1" are one to a tier, and envelopes tell them apart. NumPy's scalars count as what
    they are equal to. TypeError for any other key, bool and subclasses included; ValueError for
    text with lone surrogates.
    """
    return joined(prefix, key)


def wire_keys(bytes prefix not None, keys):
    """`wire_key` of each, as a list."""
    return [joined(prefix, key) for key in keys]


# --- sealing --------------------------------------------------------------------------------------

cdef uint64_t sum_of(const char *data, Py_ssize_t size) noexcept:
    cdef uint64_t seed
    cdef uint64_t total
    memcpy(&seed, data, sizeof(seed))
    if size < LARGE:
        return cc_sum(data + SUMMED_FROM, <size_t>(size - SUMMED_FROM), seed)
    with nogil:
        total = cc_sum(data + SUMMED_FROM, <size_t>(size - SUMMED_FROM), seed)
    return total


cdef bytes signature(Codec codec, bytes namespace, bytes data, Py_ssize_t end):
    """Of the envelope data[:end]."""
    view = memoryview(data)
    made = codec.sign(namespace, view[:sizeof(uint64_t)], view[SUMMED_FROM:end])
    if type(made) is not bytes or len(made) != SIGNATURE:
        raise TypeError(f"codec {codec.name!r} must sign with {SIGNATURE} bytes")
    return made


cdef inline Py_ssize_t payload_start(Py_ssize_t tags, Py_ssize_t key) noexcept:
    cdef Py_ssize_t size = <Py_ssize_t>sizeof(Head) + tags * <Py_ssize_t>sizeof(Tag) + key
    return (size + ALIGNMENT - 1) & ~<Py_ssize_t>(ALIGNMENT - 1)


def seal(key, value, Codec codec not None, *, int64_t written, int64_t soft, int64_t hard,
         float load, uint64_t generation, tags=(), bytes namespace not None=b""):
    """An envelope with a value in it, as bytes.

    Args:
        key: As for `wire_key`. The envelope is read under this key only, of this type.
        value: What `codec` can encode; otherwise TypeError.
        codec: Whose name the envelope bears.
        written: Unix ms.
        soft: Unix ms after which the value is stale.
        hard: Unix ms from which it is not read any more, or NEVER.
        load: How many seconds it took to compute.
        generation: Of the namespace; it is read in this one only.
        tags: Pairs of a tag's number and its generation, 0 ... 2^64 - 1; at most 65,535.
        namespace: What a codec that signs vouches for, besides the envelope.
    """
    cdef Text text
    cdef Plan plan
    cdef tuple pairs = tuple(tags)
    if len(pairs) > 0xFFFF:
        raise ValueError(f"tags must be at most 65,535, not {len(pairs)}")
    _owner = key_text(key, &text)
    if text.size > 0xFFFFFFFF:
        raise ValueError("key must be shorter than 4 GB")
    owner = codec.plan(value, &plan)
    cdef Py_ssize_t start = payload_start(len(pairs), text.size)
    cdef Py_ssize_t signed = start + plan.head + plan.size
    cdef Py_ssize_t size = signed + (SIGNATURE if codec.signs else 0)
    sealed = PyBytes_FromStringAndSize(NULL, size)
    cdef char *data = PyBytes_AS_STRING(sealed)
    lay(data + start, &plan, owner)  # before any Python code runs
    cdef char *at = data + sizeof(Head)
    cdef Head *head = <Head *>data
    cdef Tag *tag = <Tag *>at
    head.magic = MAGIC
    head.layout = LAYOUT
    head.key_kind = text.kind
    head.tags = <uint16_t>len(pairs)
    head.codec = codec.id()
    head.written = written
    head.soft = soft
    head.hard = hard
    head.generation = generation
    head.load = load
    head.key = <uint32_t>text.size
    for number, current in pairs:
        tag.tag = number
        tag.generation = current
        tag += 1
    at = <char *>tag
    memcpy(at, text.data, <size_t>text.size)
    at += text.size
    memset(at, 0, <size_t>(data + start - at))
    if codec.signs:
        made = signature(codec, namespace, sealed, signed)
        memcpy(data + signed, PyBytes_AS_STRING(made), SIGNATURE)
    head.sum = sum_of(data, size)
    return sealed


@cython.final
@cython.no_gc  # what does not change is in no cycle
@cython.freelist(64)
cdef class Later:
    """What a tier is to keep of a value that does not change, made when it is needed: call it."""

    def __call__(self):
        if not self.codec.enveloped:
            return self.codec.encode(self.value)
        return seal(self.key, self.value, self.codec, written=self.written, soft=self.soft,
                    hard=self.hard, load=0, generation=self.generation, namespace=self.namespace)


cdef Later later_of(object key, object value, Py_ssize_t nbytes, Codec codec, bytes namespace,
                    int64_t written, int64_t soft, int64_t hard, uint64_t generation):
    cdef Later later = Later.__new__(Later)
    later.key, later.value, later.nbytes = key, value, nbytes
    later.codec, later.namespace = codec, namespace
    later.written, later.soft, later.hard, later.generation = written, soft, hard, generation
    return later


# --- reading --------------------------------------------------------------------------------------

@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Sealed:
    """What an envelope held."""


cdef str flaw(object data):
    """Why these bytes are not an envelope; None when they are one."""
    if type(data) is not bytes or PyBytes_GET_SIZE(data) < <Py_ssize_t>sizeof(Head):
        return FOREIGN
    cdef const char *at = PyBytes_AS_STRING(data)
    cdef const Head *head = <const Head *>at
    if head.magic != MAGIC or head.layout != LAYOUT:
        return FOREIGN
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    if payload_start(head.tags, head.key) > size or head.sum != sum_of(at, size):
        return DAMAGED
    return None


cdef tuple tags_of(const Head *head):
    cdef const Tag *tag = <const Tag *>(head + 1)
    cdef int at
    return tuple([(tag[at].tag, tag[at].generation) for at in range(head.tags)])


cdef object opened(object data, object key, Codec codec, int64_t now, uint64_t generation,
                   bytes namespace):
    """Sealed, or why not."""
    cdef Text text
    reason = flaw(data)
    if reason is not None:
        return reason
    cdef const Head *head = <const Head *>PyBytes_AS_STRING(data)
    cdef const char *written_key = <const char *>(head + 1) + head.tags * sizeof(Tag)
    _owner = key_text(key, &text)
    if (head.key_kind != text.kind or head.key != text.size
            or memcmp(written_key, text.data, <size_t>text.size) != 0):
        return OTHER_KEY
    if head.codec != codec.id():
        return OTHER_CODEC
    if head.generation != generation:
        return OTHER_GENERATION
    if head.hard <= now:
        return EXPIRED
    cdef Py_ssize_t start = payload_start(head.tags, head.key), end = PyBytes_GET_SIZE(data)
    cdef Sealed sealed = Sealed.__new__(Sealed)
    if codec.signs:
        end -= SIGNATURE
        if end < start or not compare_digest(
                signature(codec, namespace, data, end), data[end:]):
            return FORGED
    try:
        sealed.value = codec.read(data, start, end)
    except Exception:
        return UNDECODABLE
    sealed.written = head.written
    sealed.soft = head.soft
    sealed.hard = head.hard
    sealed.load = head.load
    sealed.tags = tags_of(head) if head.tags > 0 else ()
    return sealed


def unseal(data, key, Codec codec not None, int64_t now, uint64_t generation,
           bytes namespace not None=b""):
    """What an envelope holds, as a `Sealed`; or why it holds nothing for this key: one of REASONS.

    Whatever `data` is, that is no exception. `now` is in Unix ms.
    """
    return opened(data, key, codec, now, generation, namespace)


def inspect(data, Codec codec not None, bytes namespace not None=b""):
    """The key that an envelope is for, and what it holds, whatever its times and its generation.

    None when it is none, or cannot be read.
    """
    if flaw(data) is not None:
        return None
    cdef const Head *head = <const Head *>PyBytes_AS_STRING(data)
    cdef Py_ssize_t start = sizeof(Head) + head.tags * sizeof(Tag)
    text = data[start:start + head.key]
    try:
        key = (text if head.key_kind == b"b" else text.decode() if head.key_kind == b"s"
               else int(text, 16 if b"x" in text else 10))
    except ValueError:
        return None
    found = opened(data, key, codec, INT64_MIN, head.generation, namespace)
    return (key, found) if type(found) is Sealed else None


def peek_written(data):
    """When an envelope was written, in Unix ms; None when it is none or damaged."""
    if flaw(data) is not None:
        return None
    return (<const Head *>PyBytes_AS_STRING(data)).written
