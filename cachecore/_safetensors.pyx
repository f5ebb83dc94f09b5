"""The header of a safetensors file: JSON of one fixed form, read in one pass that trusts nothing.

    the length of the header, 8 bytes, little-endian | the header | the tensors' bytes

    {"__metadata__": {"format": "pt"},
     "a name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}

Offsets count from the end of the header; the tensors cover all that follows it, each byte once.
What is allocated is in proportion to the header's length, whatever its numbers say. The form is
that of https://huggingface.co/docs/safetensors; what its own library lets pass and is refused here:
names that come twice, unknown fields, more than 64 dimensions.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport INT64_MAX, int64_t
from libc.string cimport memchr, memcmp

import json

cdef enum:
    MOST_DIMENSIONS = 64  # NumPy's own limit, and PyTorch's


@cython.final
@cython.no_gc  # a shard does not know its places: no cycle
cdef class Place:
    """Where a tensor lies: bytes `offset` ... `offset + nbytes` of the file `shard`."""

    cdef readonly object shard
    cdef readonly object dtype
    cdef readonly tuple shape
    cdef readonly int64_t offset
    cdef readonly int64_t nbytes
    cdef readonly bint fortran

    def __init__(
        self, object shard, object dtype, tuple shape, int64_t offset, int64_t nbytes,
        bint fortran=False,
    ):
        self.shard, self.dtype, self.shape = shard, dtype, shape
        self.offset, self.nbytes, self.fortran = offset, nbytes, fortran


cdef struct Cursor:  # of bytes that a NUL follows, which is nowhere a part of the form
    const char *start
    const char *at
    const char *end

cdef struct Piece:
    const char *start
    Py_ssize_t length

cdef struct Shape:
    int count
    int64_t sizes[MOST_DIMENSIONS]


cdef object wrong(Cursor *c, str what):
    cdef Py_ssize_t byte = 8 + (c.at - c.start)
    return ValueError(f"the header is damaged at byte {byte}: {what}")


cdef inline char skip(Cursor *c) noexcept:
    """The next character that is no white space; NUL at the end."""
    while c.at[0] == b" " or c.at[0] == b"\n" or c.at[0] == b"\r" or c.at[0] == b"\t":
        c.at += 1
    return c.at[0]


cdef inline int take(Cursor *c, char wanted) except -1:
    if skip(c) != wanted:
        raise wrong(c, f"{chr(wanted)!r} is missing")
    c.at += 1
    return 0


cdef inline bint more(Cursor *c, char closing) except -1:
    """Whether another item follows in a list or object, whose end is passed otherwise."""
    cdef char sign = skip(c)
    if sign != b"," and sign != closing:
        raise wrong(c, f"',' or {chr(closing)!r} is missing")
    c.at += 1
    return sign == b","


cdef bint string(Cursor *c, Piece *piece) except -1:
    """Pass a string; what stands between its quotes. True when there are escapes in it."""
    take(c, b'"')
    cdef const char *end = <const char *>memchr(c.at, b'"', c.end - c.at)
    cdef const char *at
    cdef bint special = end == NULL
    cdef Py_ssize_t i
    if not special:
        for i in range(end - c.at):  # without a branch: the compiler takes 16 at a time
            special |= (<unsigned char>c.at[i] < 0x20) | (c.at[i] == c"\\")
    if special:
        at = c.at
        while at[0] != b'"':
            at += 1 + (at[0] == b"\\")
            if <unsigned char>at[-1] < 0x20:  # the end is one of these
                c.at = at - 1
                raise wrong(c, "a string has no end, or a control character in it")
        end = at
    piece.start, piece.length = c.at, end - c.at
    c.at = end + 1
    return special


cdef inline bint passes(Cursor *c, const char *word, Py_ssize_t length) noexcept:
    """Pass these characters, if they are the next ones."""
    if c.end - c.at < length or memcmp(c.at, word, length) != 0:
        return False
    c.at += length
    return True


cdef str text(Cursor *c):
    """Pass a string; what it says."""
    cdef Piece piece
    cdef bint escaped = string(c, &piece)
    try:
        plain = PyUnicode_DecodeUTF8(piece.start, piece.length, NULL)
        if escaped:
            plain = json.loads(f'"{plain}"')
            plain.encode()  # half a surrogate pair is no text
    except ValueError as error:
        raise wrong(c, f"a string cannot be read: {error}") from None
    return plain


@cython.cdivision(True)
cdef int64_t number(Cursor *c) except -1:
    """Pass a whole number of 0 or more, below 2^63."""
    cdef int64_t value = 0
    cdef int digit
    cdef char first = skip(c)
    if not b"0" <= first <= b"9" or (first == b"0" and b"0" <= c.at[1] <= b"9"):
        raise wrong(c, "a number must be whole and not negative")
    while b"0" <= c.at[0] <= b"9":
        digit = c.at[0] - c"0"
        if value >= INT64_MAX // 10:
            raise wrong(c, "a number is too large")
        value = 10 * value + digit
        c.at += 1
    return value


cdef int read_shape(Cursor *c, Shape *shape) except -1:
    shape.count = 0
    take(c, b"[")
    if skip(c) == b"]":
        c.at += 1
        return 0
    while True:
        if shape.count == MOST_DIMENSIONS:
            raise wrong(c, f"a shape has more than {MOST_DIMENSIONS} dimensions")
        shape.sizes[shape.count] = number(c)
        shape.count += 1
        if not more(c, b"]"):
            return 0


@cython.cdivision(True)
cdef int64_t size_of(Shape *shape, int64_t bits) except -1:
    """The bytes of so many items of so many bits."""
    cdef int64_t total = bits, size
    cdef bint empty = False
    cdef int at
    for at in range(shape.count):
        size = shape.sizes[at]
        empty |= size == 0
        if size > 1:
            if total > INT64_MAX // size:
                raise ValueError("its shape has more items than any file")
            total *= size
    if empty:
        return 0
    if total % 8:
        raise ValueError("its items end within a byte")
    return total // 8


@cython.final
cdef class _Reader:
    """What is the same for all tensors of a header."""

    cdef Cursor c
    cdef object shard
    cdef dict bits
    cdef int64_t start
    # Neighbours are mostly of one type: the last one's name, quoted, and what it stands for.
    cdef Piece last
    cdef object dtype
    cdef int64_t item_bits

    cdef int read_dtype(self) except -1:
        cdef Cursor *c = &self.c
        skip(c)
        cdef const char *start = c.at
        if self.dtype is not None and passes(c, self.last.start, self.last.length):
            return 0
        name = text(c)
        if name not in self.bits:
            raise ValueError(f"its dtype {name!r:.40} is unknown")
        self.dtype, self.item_bits = name, self.bits[name]
        self.last.start, self.last.length = start, c.at - start
        return 0

    cdef Place read_place(self):
        """The place of a tensor, from what is said of it."""
        cdef Cursor *c = &self.c
        cdef Shape shape
        cdef int64_t begin = 0, end = 0
        cdef int seen = 0, bit, at
        cdef object item  # as a C int it would be boxed, and counted, twice
        take(c, b"{")
        while True:
            skip(c)
            if passes(c, b'"dtype"', 7):
                bit = 1
                take(c, b":")
                self.read_dtype()
            elif passes(c, b'"shape"', 7):
                bit = 2
                take(c, b":")
                read_shape(c, &shape)
            elif passes(c, b'"data_offsets"', 14):
                bit = 4
                take(c, b":")
                take(c, b"[")
                begin = number(c)
                take(c, b",")
                end = number(c)
                take(c, b"]")
            else:
                raise wrong(c, "there is an unknown field, or none")
            if seen & bit:
                raise wrong(c, "a field comes twice")
            seen |= bit
            if not more(c, b"}"):
                break
        if seen != 7:
            raise wrong(c, "dtype, shape or data_offsets is missing")
        if begin > end or end > INT64_MAX - self.start:
            raise ValueError(f"its offsets {begin} ... {end} are those of no bytes")
        cdef int64_t size = size_of(&shape, self.item_bits)
        if end - begin != size:
            raise ValueError(f"its dtype and shape need {size} bytes, its offsets {end - begin}")
        cdef Place place = Place.__new__(Place)
        place.shard, place.dtype = self.shard, self.dtype
        place.shape = PyTuple_New(shape.count)
        for at in range(shape.count):
            item = shape.sizes[at]
            Py_INCREF(item)
            PyTuple_SET_ITEM(place.shape, at, item)
        place.offset, place.nbytes = self.start + begin, size
        return place


cdef dict read_metadata(Cursor *c):
    cdef dict metadata = {}
    skip(c)
    if passes(c, b"null", 4):
        return metadata
    take(c, b"{")
    if skip(c) == b"}":
        c.at += 1
        return metadata
    while True:
        key = text(c)
        take(c, b":")
        if key in metadata:
            raise wrong(c, f"__metadata__ has {key!r:.80} twice")
        metadata[key] = text(c)
        if not more(c, b"}"):
            return metadata


cdef int check_cover(dict places, int64_t start, int64_t end) except -1:
    """Each byte of start ... end belongs to one tensor."""
    cdef int64_t at = start
    cdef Place place
    for place in places.values():
        if place.offset != at:
            break
        at += place.nbytes
    else:
        if at == end:
            return 0
    at = start
    for place, name in sorted(
        [(place, name) for name, place in places.items()],
        key=lambda item: ((<Place>item[0]).offset, (<Place>item[0]).nbytes),
    ):
        if place.offset != at:
            what = "overlap" if place.offset < at else "leave a gap"
            raise ValueError(f"the offsets of tensor {name!r:.80} {what} after those before it")
        at += place.nbytes
    if at != end:
        what = "is truncated" if at > end else "goes on after its tensors"
        raise ValueError(f"the file {what}: its tensors end at byte {at}, the file at {end}")
    return 0


def read_header(bytes header not None, int64_t size, dict bits not None, object shard):
    """Read a header.

    Args:
        header: All of it, without the length in front.
        size: Bytes of the whole file.
        bits: Bits of an item, by the names of dtypes.
        shard: What the places are to refer to.

    Returns:
        The places of the tensors by name, in the order of the header, and the metadata.

    Raises:
        ValueError: The header is not of the form, or does not fit the file.
    """
    cdef _Reader reader = _Reader.__new__(_Reader)
    cdef Cursor *c = &reader.c
    cdef dict places = {}, metadata = {}
    cdef bint described = False
    c.start = c.at = PyBytes_AS_STRING(header)
    c.end = c.start + PyBytes_GET_SIZE(header)
    reader.shard, reader.bits, reader.start = shard, bits, 8 + len(header)
    take(c, b"{")
    if skip(c) == b"}":
        c.at += 1
    else:
        while True:
            name = text(c)
            take(c, b":")
            if name == "__metadata__":
                if described:
                    raise wrong(c, "__metadata__ comes twice")
                metadata, described = read_metadata(c), True
            else:
                try:
                    place = reader.read_place()
                except ValueError as error:
                    raise ValueError(f"tensor {name!r:.80}: {error}") from None
                if places.setdefault(name, place) is not place:
                    raise ValueError(f"the header has two tensors of the name {name!r:.80}")
            if not more(c, b"}"):
                break
    skip(c)
    if c.at != c.end:
        raise wrong(c, "there is more after its end")
    check_cover(places, reader.start, size)
    return places, metadata
