"""Python objects as replies of RESP, and replies of RESP as Python objects or as they came.

What a command's handler returns is written in the protocol that its client speaks. A proxy reads
the replies of its upstream with `Replies`. Thread safety: the GIL.
"""

from libc.stdint cimport int64_t

from cachecore.cc_out cimport cc_out, cc_out_put
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
