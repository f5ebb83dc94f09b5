"""Python objects as replies of RESP, and replies of RESP as Python objects or as they came.

What a command's handler returns is written in the protocol that its client speaks. A proxy reads
the replies of its upstream with `Replies`. Thread safety: the GIL.
"""

from cpython.ref cimport Py_DECREF
from libc.stdint cimport INT64_MAX, INT64_MIN, SIZE_MAX, int64_t
from libc.string cimport memchr, memset

from cachecore.cc_out cimport *
from cachecore.cc_resp cimport *

cdef enum:
    MOST_NESTED = 32  # levels of lists within lists


class ReplyError(Exception):
    """An error reply, to be returned or raised; its text begins with a code: "ERR no such key"."""


class Push(list):
    """What a server says unasked, as a list whose first item is its kind: b"invalidate"."""


class _Nothing:
    """The type of NOTHING and NULL_ARRAY."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name

    def __bool__(self):
        return False


NOTHING = _Nothing("NOTHING")  # there is no reply, or it has been written already
NULL_ARRAY = _Nothing("NULL_ARRAY")  # null, which RESP2 writes as an array: EXEC that was aborted


# --- writing --------------------------------------------------------------------------------------

cdef int put_text(cc_out *out, char kind, object text) except -1:
    cdef bytes line = text.encode("utf-8", "replace")
    cc_resp_put_line(out, kind, line, len(line))
    return 0


cdef int put_all(cc_out *out, char kind, object items, unsigned protocol, int depth) except -1:
    if depth == MOST_NESTED:
        raise ValueError(f"a reply is nested deeper than {MOST_NESTED} levels")
    cc_resp_put_head(out, kind, len(items))
    for item in items:
        put_nested(out, item, protocol, depth + 1)
    return 0


cdef int put_nested(cc_out *out, object value, unsigned protocol, int depth) except -1:
    if isinstance(value, bytes):
        cc_resp_put_bulk(out, <const char *><bytes>value, len(<bytes>value))
    elif value is None:
        cc_resp_put_null(out, protocol)
    elif isinstance(value, bool):
        cc_resp_put_bool(out, value, protocol)
    elif isinstance(value, int):
        cc_resp_put_head(out, b":", <int64_t>value)
    elif isinstance(value, str):
        put_text(out, b"+", value)
    elif isinstance(value, Push):
        put_all(out, b">" if protocol >= 3 else b"*", value, protocol, depth)
    elif isinstance(value, (list, tuple)):
        put_all(out, b"*", value, protocol, depth)
    elif isinstance(value, dict):
        if depth == MOST_NESTED:
            raise ValueError(f"a reply is nested deeper than {MOST_NESTED} levels")
        cc_resp_put_head(out, b"%" if protocol >= 3 else b"*",
                         len(value) if protocol >= 3 else 2 * len(value))
        for key, item in value.items():
            put_nested(out, key, protocol, depth + 1)
            put_nested(out, item, protocol, depth + 1)
    elif isinstance(value, float):
        cc_resp_put_double(out, value, protocol)
    elif isinstance(value, (set, frozenset)):
        put_all(out, b"~" if protocol >= 3 else b"*", value, protocol, depth)
    elif isinstance(value, ReplyError):
        put_text(out, b"-", str(value))
    elif value is NULL_ARRAY:
        cc_out_put(out, b"_\r\n" if protocol >= 3 else b"*-1\r\n", 3 if protocol >= 3 else 5)
    elif value is not NOTHING:
        raise TypeError(f"a reply cannot be a {type(value).__name__}")
    return 0


cdef int put(cc_out *out, object value, unsigned protocol) except -1:
    """Writes a reply. An exception leaves what was written so far: the caller cuts it off."""
    return put_nested(out, value, protocol, 0)


cdef bytes joined(cc_out *out, size_t most=SIZE_MAX):
    """What there is to be sent, at most so many bytes, in one; it is no longer there then."""
    cdef cc_part part
    cdef size_t size
    cdef bytes data
    cdef list found = []
    if out.count == 0 and cc_out_left(out) == out.size <= most:
        data = out.data[:out.size]
        cc_out_clear(out, release)
        return data
    while most and cc_out_parts(out, &part, 1):
        size = min(part.iov_len, most)
        most -= size
        found.append((<char *>part.iov_base)[:size])
        cc_out_sent(out, size, release)
    return b"".join(found)


cdef void release(void *owner) noexcept:
    Py_DECREF(<object>owner)


# --- reading --------------------------------------------------------------------------------------

class ProtocolError(ValueError):
    """What came is no reply of RESP."""


cdef class Replies:
    """Cuts what an upstream sends into whole replies, each as the bytes that came.

    Args:
        most: bytes of the longest reply that is kept; a longer one is a ProtocolError.

    The first byte of a reply tells its kind: b">" is what the other end said unasked. `decoded`
    makes a Python object of one.
    """

    cdef cc_resp_frame frame
    cdef list parts  # of the reply that is under way
    cdef size_t size, most

    def __init__(self, size_t most=1 << 30):
        memset(&self.frame, 0, sizeof(self.frame))
        self.parts, self.size, self.most = [], 0, most

    def feed(self, const unsigned char[::1] data not None):
        """The replies that these bytes complete, in their order."""
        cdef list found = []
        cdef const char *start = <const char *>&data[0] if data.shape[0] else NULL
        cdef size_t used, at = 0, size = data.shape[0]
        cdef cc_resp_result result
        while at < size:
            result = cc_resp_follow(&self.frame, start + at, size - at, &used)
            part = start[at:at + used]
            at += used
            self.size += used
            if result != CC_RESP_MORE and result != CC_RESP_READY:
                raise ProtocolError("an upstream sent what is no reply")
            if self.size > self.most:
                raise ProtocolError(f"a reply is longer than {self.most} bytes")
            self.parts.append(part)
            if result == CC_RESP_READY:
                found.append(part if len(self.parts) == 1 else b"".join(self.parts))
                self.parts, self.size = [], 0
        return found


cdef struct Reader:
    const char *at
    const char *end


cdef bytes line_of(Reader *reader):
    """The line from here on, without its end."""
    cdef const char *start = reader.at
    cdef const char *end = <const char *>memchr(start, b"\r", reader.end - start)
    if end == NULL or reader.end - end < 2 or end[1] != b"\n":
        raise ProtocolError("a line of a reply has no end")
    reader.at = end + 2
    return start[:end - start]


cdef int number_of(Reader *reader, int64_t least, int64_t most, int64_t *number) except -1:
    cdef bytes text = line_of(reader)
    try:
        number[0] = int(text)
    except (ValueError, OverflowError):
        raise ProtocolError(f"not a number in a reply: {text[:32]!r}") from None
    if not least <= number[0] <= most:
        raise ProtocolError(f"a length in a reply is out of range: {number[0]}")
    return 0


cdef object value_of(Reader *reader, int depth):
    cdef int64_t number
    cdef char kind
    if reader.at == reader.end or depth > MOST_NESTED:
        raise ProtocolError("a reply is cut off, or nested too deeply")
    kind = reader.at[0]
    reader.at += 1
    if kind in b"+(,":
        text = line_of(reader)
        return text.decode("utf-8", "replace") if kind == b"+" else (
            float(text) if kind == b"," else int(text))
    if kind == b":":
        number_of(reader, INT64_MIN, INT64_MAX, &number)
        return number
    if kind == b"-":
        return ReplyError(line_of(reader).decode("utf-8", "replace"))
    if kind == b"_":
        line_of(reader)
        return None
    if kind == b"#":
        return line_of(reader) == b"t"
    if kind in b"$!=":
        number_of(reader, -1, reader.end - reader.at, &number)
        if number < 0:
            return None
        if reader.end - reader.at < number + 2:
            raise ProtocolError("a reply is cut off")
        data = reader.at[:number]
        reader.at += number + 2
        return data if kind == b"$" else (
            ReplyError(data.decode("utf-8", "replace")) if kind == b"!" else data[4:])
    if kind not in b"*~>%|":
        raise ProtocolError(f"a reply cannot begin with {chr(kind)!r}")
    number_of(reader, -1, reader.end - reader.at, &number)  # each part takes a byte at least
    if number < 0:
        return None
    if kind == b"%" or kind == b"|":
        pairs = {}
        for _ in range(number):
            key = value_of(reader, depth + 1)
            pairs[hashable(key)] = value_of(reader, depth + 1)
        return value_of(reader, depth) if kind == b"|" else pairs
    items = [value_of(reader, depth + 1) for _ in range(number)]
    return Push(items) if kind == b">" else items


cdef object hashable(object key):
    return tuple(map(hashable, key)) if isinstance(key, list) else (
        repr(key) if isinstance(key, dict) else key)


def decoded(bytes reply not None):
    """A whole reply as a Python object: as handlers return them, sets and arrays as lists."""
    cdef Reader reader
    reader.at = <const char *>reply
    reader.end = reader.at + len(reply)
    value = value_of(&reader, 0)
    if reader.at != reader.end:
        raise ProtocolError("something follows a reply")
    return value
