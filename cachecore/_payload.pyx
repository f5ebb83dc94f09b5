"""Values as bytes: the default codec and its narrower kin, and what a codec is.

A payload of the default codec begins with a byte that says what it is:

    b  bytes                    a  an array
    s  text, in UTF-8           g  a NumPy scalar, as an array without dimensions
    m  msgpack, in which        i  an int beyond 64 bits: two's complement, little-endian
       extension type 1 holds a payload of kind a, g or i

An array, in little-endian order:

    0  kind 1 | 'C' or 'F', its order 1 | number of dimensions 2 | length of the text 4
    8  dimensions, 8 each | its dtype as text (dtypes.py) | zeros up to a multiple of 16 | items

Payloads begin at multiples of 16 in a `bytes`, and so does the memory of that: items are aligned,
and an array is a view of the bytes that were received.

Values are checked before msgspec sees them, which would write tuples and sets as lists, and more.
"""

cimport cython
cimport numpy as cnp
from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.object cimport PyObject, PyObject_TypeCheck
from cpython.ref cimport Py_INCREF, PyTypeObject
from cpython.unicode cimport PyUnicode_AsUTF8String, PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from cachecore.cc_sum cimport cc_sum

import numpy as np

from cachecore.dtypes import dtype_of, text_of

cnp.import_array()

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    void *PyUnicode_DATA(object text)
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow)

cdef extern from "numpy/arrayobject.h":
    cnp.ndarray PyArray_NewFromDescr(PyTypeObject *type, cnp.dtype kind, int nd,
                                     const cnp.npy_intp *shape, const cnp.npy_intp *strides,
                                     void *data, int flags, PyObject *like)
    cnp.ndarray PyArray_FromScalar(object scalar, PyObject *kind)
    object PyArray_ToScalar(void *data, cnp.ndarray array)

cdef object GENERIC = np.generic

cdef enum:
    ALIGNMENT = 16
    MOST_DIMENSIONS = 64  # NPY_MAXDIMS
    MOST_DEPTH = 100  # of lists and dicts in one another
    MOST_KINDS = 256  # dtypes that are remembered, of no longer texts than
    LONGEST_KEPT = 4096
    PAYLOAD = 1  # the extension type of msgpack

cdef packed struct ArrayHead:
    char kind
    char order
    uint16_t dimensions
    uint32_t text


# --- dtypes and their texts -----------------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class _Kind:
    cdef bytes text
    cdef cnp.dtype dtype

cdef _Kind last_sent = None
cdef _Kind last_received = None
cdef dict sent = {}  # by the dtype's id, since equal ones can differ
cdef dict received = {}  # by text


cdef _Kind remembered(dict kinds, object key, bytes text, cnp.dtype dtype):
    cdef _Kind kind = _Kind.__new__(_Kind)
    kind.text = text
    kind.dtype = dtype
    if len(text) <= LONGEST_KEPT:
        if len(kinds) == MOST_KINDS:
            kinds.clear()
        kinds[key] = kind
    return kind


cdef _Kind kind_sent(cnp.dtype dtype):
    """None when arrays of it cannot be sent."""
    global last_sent
    cdef _Kind kind = last_sent
    if kind is None or kind.dtype is not dtype:
        number = <size_t><PyObject *>dtype
        kind = <_Kind>sent.get(number)
        if kind is None:
            text = text_of(dtype)
            if text is None:
                return None
            kind = remembered(sent, number, text.encode(), dtype)
        last_sent = kind
    return kind


cdef _Kind kind_received(const char *text, Py_ssize_t size):
    global last_received
    cdef _Kind kind = last_received
    if (kind is None or PyBytes_GET_SIZE(kind.text) != size
            or memcmp(PyBytes_AS_STRING(kind.text), text, size) != 0):
        key = text[:size]
        kind = <_Kind>received.get(key)
        if kind is None:
            kind = remembered(received, key, key, dtype_of(key.decode()))
        last_received = kind
    return kind


# --- arrays ---------------------------------------------------------------------------------------

cdef inline Py_ssize_t array_head(int dimensions, Py_ssize_t text) noexcept:
    cdef Py_ssize_t size = <Py_ssize_t>sizeof(ArrayHead) + 8 * dimensions + text
    return (size + ALIGNMENT - 1) & ~<Py_ssize_t>(ALIGNMENT - 1)


cdef bint plan_array(cnp.ndarray array, Plan *plan) except -1:
    """False when it holds what cannot be sent."""
    cdef _Kind kind = kind_sent(array.descr)
    if kind is None:
        return False
    plan.text = PyBytes_AS_STRING(kind.text)  # `last_sent` keeps it
    plan.text_size = PyBytes_GET_SIZE(kind.text)
    plan.head = array_head(cnp.PyArray_NDIM(array), plan.text_size)
    plan.size = cnp.PyArray_NBYTES(array)
    plan.data = NULL
    if cnp.PyArray_IS_C_CONTIGUOUS(array) or cnp.PyArray_IS_F_CONTIGUOUS(array):
        plan.data = <const char *>cnp.PyArray_DATA(array)
    return True


cdef inline bint is_scalar(object value) noexcept:
    return PyObject_TypeCheck(value, <PyTypeObject *>GENERIC)


cdef object returned_type(_Kind kind):
    """Of scalars: that of equal dtypes can differ."""
    return (<object>kind_received(kind.text, len(kind.text)).dtype).type


cdef cnp.ndarray scalar_as_array(object value):
    """None when the scalar would not come back as it is."""
    cdef cnp.ndarray array = PyArray_FromScalar(value, NULL)
    cdef _Kind kind = kind_sent(array.descr)
    if kind is None or returned_type(kind) is not type(value):
        return None
    if isinstance(value, (str, bytes)) and len(value) != len(array[()]):  # zeros at the end
        return None
    return array


cdef int scatter(char *to, cnp.ndarray array, Py_ssize_t size) except -1:
    """Copy items that do not lie in one piece, in C order."""
    cdef cnp.dtype dtype = array.descr
    memset(to, 0, <size_t>size)  # gaps within items are not copied
    Py_INCREF(dtype)  # PyArray_NewFromDescr steals it
    cnp.PyArray_CopyInto(
        PyArray_NewFromDescr(<PyTypeObject *>cnp.ndarray, dtype, cnp.PyArray_NDIM(array),
                             cnp.PyArray_DIMS(array), NULL, to, cnp.NPY_ARRAY_CARRAY, NULL),
        array)
    return 0


cdef int lay_array(char *to, const Plan *plan, cnp.ndarray array) except -1:
    cdef ArrayHead *head = <ArrayHead *>to
    cdef int64_t *shape = <int64_t *>(to + sizeof(ArrayHead))
    cdef int at, dimensions = cnp.PyArray_NDIM(array)
    cdef char *text = <char *>(shape + dimensions)
    head.kind = plan.kind
    head.order = b"C" if plan.data == NULL or cnp.PyArray_IS_C_CONTIGUOUS(array) else b"F"
    head.dimensions = <uint16_t>dimensions
    head.text = <uint32_t>plan.text_size
    for at in range(dimensions):
        shape[at] = cnp.PyArray_DIM(array, at)
    memcpy(text, plan.text, <size_t>plan.text_size)
    text += plan.text_size
    memset(text, 0, <size_t>(to + plan.head - text))
    if plan.data == NULL:
        return scatter(to + plan.head, array, plan.size)
    memcpy(to + plan.head, plan.data, <size_t>plan.size)
    return 0


cdef cnp.ndarray read_array(bytes data, Py_ssize_t start, Py_ssize_t end):
    """A read-only view of data[start:end]; ValueError when that is no array."""
    cdef const char *at = PyBytes_AS_STRING(data) + start
    cdef const ArrayHead *head = <const ArrayHead *>at
    cdef cnp.npy_intp shape[MOST_DIMENSIONS]
    cdef Py_ssize_t size = end - start, first, items
    cdef bint beyond = False, empty = False
    cdef int dimension, dimensions, flags = cnp.NPY_ARRAY_ALIGNED
    if size < <Py_ssize_t>sizeof(ArrayHead):
        raise ValueError("an array was cut off")
    dimensions = head.dimensions
    first = array_head(dimensions, head.text)
    if dimensions > MOST_DIMENSIONS or size < first:
        raise ValueError("an array was cut off")
    at += sizeof(ArrayHead)
    memcpy(shape, at, <size_t>(8 * dimensions))
    cdef _Kind kind = kind_received(at + 8 * dimensions, head.text)
    items = kind.dtype.itemsize
    for dimension in range(dimensions):
        if shape[dimension] == 0:
            empty = True
        elif shape[dimension] < 0 or items > size // shape[dimension]:
            beyond = True
        else:
            items *= shape[dimension]
    if (beyond and not empty) or first + (0 if empty else items) != size:
        raise ValueError("an array of another size than its shape says")
    if head.order == b"F":
        flags |= cnp.NPY_ARRAY_F_CONTIGUOUS
    elif head.order == b"C":
        flags |= cnp.NPY_ARRAY_C_CONTIGUOUS
    else:
        raise ValueError("an array in no known order")
    Py_INCREF(kind.dtype)  # PyArray_NewFromDescr steals it
    cdef cnp.ndarray array = PyArray_NewFromDescr(
        <PyTypeObject *>cnp.ndarray, kind.dtype, dimensions, shape, NULL,
        <void *>(PyBytes_AS_STRING(data) + start + first), flags, NULL)
    cnp.set_array_base(array, data)
    return array


# --- what may be sent -----------------------------------------------------------------------------

cdef struct Place:  # where a value lies in the one to be sent
    const Place *outer
    PyObject *key  # of a dict, borrowed; NULL: in a list, at
    Py_ssize_t at
    int depth

cdef object unfit(const Place *place, object what):
    path = ""
    while place.outer != NULL:
        path = f"[{place.at if place.key == NULL else <object>place.key!r:.80}]{path}"
        place = place.outer
    return TypeError(
        f"value{path} is {what}; what can be sent are bytes, str, NumPy arrays and scalars, None, "
        "bool, int, float, and lists and dicts of these with str keys: exactly, no subclasses")


cdef str type_of(object value):
    kind = type(value)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    if kind is np.ndarray or is_scalar(value):
        return f"{name} with dtype {value.dtype}"
    return name


cdef inline bint is_text(str text) noexcept:
    """False when it has lone surrogates, which UTF-8 has no bytes for."""
    cdef Py_UCS4 letter
    if not PyUnicode_IS_COMPACT_ASCII(text):
        for letter in text:
            if 0xD800 <= letter <= 0xDFFF:
                return False
    return True


cdef inline bint is_long(object number) except -1:
    """Whether an int is one that msgpack has no place for."""
    cdef int overflow
    PyLong_AsLongLongAndOverflow(number, &overflow)
    return overflow != 0 and (overflow < 0 or number.bit_length() > 64)


cdef object fit(object value, const Place *place, bint plain):
    """The value as msgspec can write it: itself, or a copy with extensions in it."""
    cdef Plan plan
    if value is None or type(value) is float or type(value) is bool or type(value) is bytes:
        return value
    if type(value) is str:
        if is_text(value):
            return value
        raise unfit(place, "text with lone surrogates")
    if type(value) is int and not is_long(value):
        return value
    if type(value) is list or type(value) is dict:
        if place.depth == MOST_DEPTH:
            raise unfit(place, f"more than {MOST_DEPTH} lists and dicts deep")
        if type(value) is list:
            return fit_list(value, place, plain)
        return fit_dict(value, place, plain)
    if plain:
        raise unfit(place, f"of type {type_of(value)}")
    return extension(PAYLOAD, packed(&plan, plan_native(value, &plan, place)))


cdef list fit_list(list value, const Place *outer, bint plain):
    cdef Place place = Place(outer, NULL, 0, outer.depth + 1)
    cdef list copy = None
    for item in value:
        new = fit(item, &place, plain)
        if new is not item and copy is None:
            copy = value[:place.at]
        if copy is not None:
            copy.append(new)
        place.at += 1
    return value if copy is None else copy


cdef dict fit_dict(dict value, const Place *outer, bint plain):
    cdef Place place = Place(outer, NULL, 0, outer.depth + 1)
    cdef dict copy = None
    for key, item in value.items():
        place.key = <PyObject *>key
        if type(key) is not str:
            raise unfit(outer, f"a dict with a key of type {type_of(key)}")
        if not is_text(key):
            raise unfit(outer, "a dict with a key with lone surrogates")
        new = fit(item, &place, plain)
        if new is not item:
            if copy is None:
                copy = value.copy()
            copy[key] = new
    return value if copy is None else copy


# --- msgpack --------------------------------------------------------------------------------------

cdef object extension = None  # msgspec's, once they are needed
cdef object write_msgpack = None
cdef object read_msgpack = None


cdef int need_msgspec() except -1:
    global extension, write_msgpack, read_msgpack
    if read_msgpack is None:
        try:
            from msgspec import msgpack
        except ImportError:
            raise ImportError(
                'values of this type need msgspec: pip install "cachecore-ml[tiers]"') from None
        extension = msgpack.Ext
        write_msgpack = msgpack.Encoder().encode
        read_msgpack = msgpack.Decoder(ext_hook=_read_extension).decode
    return 0


cdef object msgpack_at(bytes data, Py_ssize_t start, Py_ssize_t end):
    """The value of data[start:end]; no view of that outlives the call."""
    need_msgspec()
    return read_msgpack(PyMemoryView_FromMemory(PyBytes_AS_STRING(data) + start, end - start,
                                                PyBUF_READ))


def _read_extension(code, data):
    data = bytes(data)
    if code != PAYLOAD or data[:1] not in (b"a", b"g", b"i"):
        raise ValueError("an extension of msgpack that is not ours")
    return read_native(data, 0, len(data))


# --- payloads -------------------------------------------------------------------------------------

cdef object plan_bytes(char kind, bytes data, Plan *plan):
    plan.kind = kind
    plan.head = kind != 0
    plan.size = PyBytes_GET_SIZE(data)
    plan.data = PyBytes_AS_STRING(data)
    return data


cdef object plan_text(str text, Plan *plan):
    if not PyUnicode_IS_COMPACT_ASCII(text):
        return plan_bytes(b"s", PyUnicode_AsUTF8String(text), plan)
    plan.kind = b"s"
    plan.head = 1
    plan.size = PyUnicode_GET_LENGTH(text)
    plan.data = <const char *>PyUnicode_DATA(text)
    return text


cdef object plan_native(object value, Plan *plan, const Place *place):
    """Of an array, a NumPy scalar or a long int."""
    cdef cnp.ndarray array = None
    if type(value) is int:
        size = value.bit_length() // 8 + 1
        return plan_bytes(b"i", value.to_bytes(size, "little", signed=True), plan)
    if cnp.PyArray_CheckExact(value):
        plan.kind = b"a"
        array = value
    elif is_scalar(value):
        plan.kind = b"g"
        array = scalar_as_array(value)
    if array is None or not plan_array(array, plan):
        raise unfit(place, f"of type {type_of(value)}")
    return array


cdef object plan_msgpack(char kind, object value, Plan *plan):
    cdef Place place = Place(NULL, NULL, 0, 0)
    need_msgspec()
    return plan_bytes(kind, write_msgpack(fit(value, &place, kind == 0)), plan)


cdef int lay(char *to, const Plan *plan, object owner) except -1:
    if plan.kind == b"a" or plan.kind == b"g":
        return lay_array(to, plan, owner)
    if plan.kind != 0:
        to[0] = plan.kind
    memcpy(to + plan.head, plan.data, <size_t>plan.size)
    return 0


cdef bytes packed(const Plan *plan, object owner):
    data = PyBytes_FromStringAndSize(NULL, plan.head + plan.size)
    lay(PyBytes_AS_STRING(data), plan, owner)
    return data


cdef object read_native(bytes data, Py_ssize_t start, Py_ssize_t end):
    cdef const char *at = PyBytes_AS_STRING(data) + start
    cdef Py_ssize_t size = end - start - 1
    cdef cnp.ndarray array
    if size < 0:
        raise ValueError("there is no payload")
    if at[0] == b"a":
        return read_array(data, start, end)
    if at[0] == b"b":
        return PyBytes_FromStringAndSize(at + 1, size)
    if at[0] == b"s":
        return PyUnicode_DecodeUTF8(at + 1, size, NULL)
    if at[0] == b"m":
        return msgpack_at(data, start + 1, end)
    if at[0] == b"i":
        return int.from_bytes(data[start + 1:end], "little", signed=True)
    if at[0] == b"g":
        array = read_array(data, start, end)
        if cnp.PyArray_NDIM(array) == 0:
            return PyArray_ToScalar(cnp.PyArray_DATA(array), array)
    raise ValueError("a payload of no known kind")


# --- codecs ---------------------------------------------------------------------------------------

cdef class Codec:
    """How values become bytes for tiers, and come back. Subclass it for a way of your own.

    A subclass has a `name`, which says in each envelope who can read it: change it when the bytes
    change. A value that cannot be encoded should be a TypeError; any exception of `decode` makes
    the value a miss. Both may be called from any thread.
    """

    name = ""
    enveloped = True  # False: payloads are stored as they are, for other programs
    private = False  # True: not for tiers to which others can write

    def encode(self, value):
        """The value as `bytes`."""
        raise NotImplementedError

    def decode(self, data):
        """The value of a payload, which comes as a buffer of bytes: `bytes` or a memoryview."""
        raise NotImplementedError

    def sign(self, namespace, *parts):
        """32 bytes that vouch for others in a namespace; envelopes ask for them where `signs`."""
        raise NotImplementedError

    cdef object plan(self, object value, Plan *plan):
        data = self.encode(value)
        if type(data) is not bytes:
            raise TypeError(f"codec {self.name!r} must encode to bytes, not {type_of(data)}")
        return plan_bytes(0, data, plan)

    cdef object read(self, bytes data, Py_ssize_t start, Py_ssize_t end):
        return self.decode(memoryview(data)[start:end])

    cdef uint64_t id(self) except 0:
        if self._id == 0:
            if type(self.name) is not str or not self.name:
                raise TypeError(f"{type_of(self)} must have a str as its name, not {self.name!r}")
            name = self.name.encode()
            self._id = cc_sum(PyBytes_AS_STRING(name), len(name), 0) | 1
        return self._id


cdef class NativeCodec(Codec):
    """A codec whose work is done here."""

    def encode(self, value):
        cdef Plan plan
        return packed(&plan, self.plan(value, &plan))

    def decode(self, data):
        data = bytes(data)
        return self.read(data, 0, len(data))


@cython.final
cdef class DefaultCodec(NativeCodec):
    """Bytes, str, NumPy arrays and scalars, None, bool, int, float, lists and str-keyed dicts.

    Exactly these, not their subclasses, come back equal and of the same type; any other value is a
    TypeError that says where it lies. An array comes back read-only, as a view of the bytes
    received (a copy where it lay in a list or dict). Lists and dicts, and None, bool, int and
    float, need msgspec.
    """

    name = "default"

    cdef object plan(self, object value, Plan *plan):
        cdef Place place = Place(NULL, NULL, 0, 0)
        if cnp.PyArray_CheckExact(value) or is_scalar(value):
            return plan_native(value, plan, &place)
        if type(value) is bytes:
            return plan_bytes(b"b", value, plan)
        if type(value) is str:
            if not is_text(value):
                raise unfit(&place, "text with lone surrogates")
            return plan_text(value, plan)
        return plan_msgpack(b"m", value, plan)

    cdef object read(self, bytes data, Py_ssize_t start, Py_ssize_t end):
        return read_native(data, start, end)


@cython.final
cdef class ArrayCodec(NativeCodec):
    """NumPy arrays and nothing else."""

    name = "array"

    cdef object plan(self, object value, Plan *plan):
        cdef Place place = Place(NULL, NULL, 0, 0)
        if not cnp.PyArray_CheckExact(value):
            raise TypeError(f"value must be a NumPy array, not {type_of(value)}")
        return plan_native(value, plan, &place)

    cdef object read(self, bytes data, Py_ssize_t start, Py_ssize_t end):
        if end - start < 1 or PyBytes_AS_STRING(data)[start] != b"a":
            raise ValueError("not an array")
        return read_array(data, start, end)


@cython.final
cdef class MsgpackCodec(NativeCodec):
    """Plain msgpack, which programs in other languages read.

    Takes what the default codec takes, but for NumPy's types and ints beyond 64 bits.
    """

    name = "msgpack"

    cdef object plan(self, object value, Plan *plan):
        return plan_msgpack(0, value, plan)

    cdef object read(self, bytes data, Py_ssize_t start, Py_ssize_t end):
        return msgpack_at(data, start, end)
