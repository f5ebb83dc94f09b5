"""Blocks of attention state by token prefix: the tree of src/core/cc_prefixes.h and its values.

The tree is read and changed without running any Python code. Whatever runs some (conversions,
copies of arrays, the release of values) comes before or after, when the tree is sound. That, and
the GIL, makes it thread safe.
"""

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE, PyList_New, PyList_SET_ITEM
from cpython.long cimport PyLong_CheckExact
from cpython.ref cimport Py_INCREF
from libc.stddef cimport size_t
from libc.stdint cimport INT32_MAX, INT32_MIN, UINT64_MAX, int32_t, int64_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from cachecore._arrays cimport bytes_of, holds_objects, is_array, snapshot

import os
from operator import index
from sys import getsizeof

import numpy as np

cnp.import_array()

cdef extern from "Python.h":
    ctypedef struct PyObject
    long PyLong_AsLongAndOverflow(object number, int *overflow)
    PyObject *PySequence_Fast_GET_ITEM(object sequence, Py_ssize_t at)
    Py_ssize_t PySequence_Fast_GET_SIZE(object sequence)
    int PyList_SetSlice(object list, Py_ssize_t low, Py_ssize_t high, PyObject *items) except -1

cdef extern from "cc_prefixes.h":
    enum:
        CC_DIGEST
        CC_ROOT

    ctypedef struct cc_prefix:
        uint8_t digest[16]
        uint8_t above[16]
        uint32_t place

    ctypedef struct cc_prefixes:
        uint8_t root[16]
        uint32_t width, tick
        uint64_t bytes, max_bytes
        cc_prefix *blocks
        uint32_t *leaves
        uint32_t leaf_count, used, live

    void cc_blake2b(uint8_t *digest, const void *data, size_t size) noexcept nogil
    void cc_blake2b_link(uint8_t *digest, const uint8_t *above, const void *data,
                         size_t size) noexcept nogil
    void cc_prefixes_init(cc_prefixes *tree, uint32_t width, uint64_t max_bytes, uint64_t seed,
                          const uint8_t *root) noexcept nogil
    void cc_prefixes_free(cc_prefixes *tree) noexcept nogil
    size_t cc_prefixes_overhead(const cc_prefixes *tree) noexcept nogil
    void cc_prefixes_hash(const cc_prefixes *tree, const int32_t *tokens, size_t count,
                          uint64_t *chain, uint32_t *hashes) noexcept nogil
    size_t cc_prefixes_walk(const cc_prefixes *tree, const int32_t *tokens, size_t count,
                            uint32_t *slots) noexcept nogil
    void cc_prefixes_hit(cc_prefixes *tree, const uint32_t *slots, size_t count) noexcept nogil
    bint cc_prefixes_reserve(cc_prefixes *tree) noexcept nogil
    uint32_t cc_prefixes_add(cc_prefixes *tree, uint32_t parent, uint32_t hash,
                             const int32_t *tokens, uint64_t size, bint kept) noexcept nogil
    uint32_t cc_prefixes_victim(cc_prefixes *tree, uint32_t spare) noexcept nogil
    void cc_prefixes_take(cc_prefixes *tree, uint32_t slot) noexcept nogil
    void cc_prefixes_give_back(cc_prefixes *tree, uint32_t slot) noexcept nogil
    uint32_t cc_prefixes_frequency(const cc_prefixes *tree, uint32_t slot) noexcept nogil
    bint cc_prefixes_valid(const cc_prefixes *tree) noexcept nogil
    bint cc_prefix_kept(const cc_prefix *block) noexcept nogil
    const int32_t *cc_prefix_tokens(const cc_prefixes *tree, uint32_t slot) noexcept nogil

cdef enum:
    ARRAY_OVERHEAD = 248  # bytes of a snapshot beyond its items: array, shape, owner, alignment


def blake2b(const uint8_t[::1] data not None):
    """The BLAKE2b digest of 16 bytes; hashlib's is the same and slower to call."""
    cdef bytes digest = PyBytes_FromStringAndSize(NULL, CC_DIGEST)
    cc_blake2b(<uint8_t *>PyBytes_AS_STRING(digest), &data[0] if data.shape[0] else NULL,
               <size_t>data.shape[0])
    return digest


# --- tokens ---------------------------------------------------------------------------------------

cdef cnp.ndarray tokens_of_items(object tokens):
    """Of a list or tuple. Items that are exactly ints run no code of anyone's."""
    cdef Py_ssize_t at, count = PySequence_Fast_GET_SIZE(tokens)
    cdef cnp.npy_intp size = count
    cdef cnp.ndarray array = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_INT32)
    cdef int32_t *to = <int32_t *>cnp.PyArray_DATA(array)
    cdef int overflow = 0
    cdef long token
    cdef object item
    for at in range(count):
        item = <object>PySequence_Fast_GET_ITEM(tokens, at)
        if not PyLong_CheckExact(item):
            return tokens_of_items(list(map(token_of, list(tokens))))
        token = PyLong_AsLongAndOverflow(item, &overflow)
        if overflow or token < INT32_MIN or token > INT32_MAX:
            raise ValueError(f"tokens must be of 32 bits, not {item}")
        to[at] = <int32_t>token
    return array


def token_of(item):
    """The int that an item is."""
    try:
        if not isinstance(item, (bool, np.bool_)):
            return index(item)
    except TypeError:
        pass
    raise TypeError(f"tokens must be ints, not {type(item).__name__}") from None


cdef cnp.ndarray tokens_of(object tokens, bint copy):
    """The tokens as a contiguous array of int32; `copy`: one that nobody else can change."""
    if type(tokens) is list or type(tokens) is tuple:
        return tokens_of_items(tokens)
    if not cnp.PyArray_CheckExact(tokens):  # a subclass may say anything of its items
        if not hasattr(tokens, "__array__") and not hasattr(tokens, "__len__"):
            raise TypeError(f"tokens must be a sequence of ints, not {type(tokens).__name__}")
        try:
            tokens = np.asarray(tokens)
        except ValueError as error:  # such as sequences of several lengths
            raise ValueError(f"tokens must be one sequence of ints: {error}") from None
        if not tokens.size:  # NumPy has floats for an empty range
            tokens = tokens.astype(np.int32)
    cdef cnp.ndarray array = <cnp.ndarray>tokens
    cdef const int64_t[::1] wide
    cdef int32_t[::1] narrow
    cdef int64_t outside = 0
    cdef Py_ssize_t at
    if array.dtype.kind not in "iu":
        raise TypeError(f"tokens must be ints, not {array.dtype}")
    if cnp.PyArray_NDIM(array) != 1:
        raise ValueError(f"tokens must be one sequence, not of shape {np.shape(array)}")
    if cnp.PyArray_TYPE(array) == cnp.NPY_INT64 and cnp.PyArray_ISCARRAY_RO(array):
        wide = array
        result = np.empty(wide.shape[0], np.int32)
        narrow = result
        for at in range(wide.shape[0]):
            narrow[at] = <int32_t>wide[at]
            outside |= narrow[at] ^ wide[at]
        if outside:
            raise ValueError("tokens must be of 32 bits")
        return result
    if not np.can_cast(array.dtype, np.int32) and len(array) and (
            array.min() < INT32_MIN or array.max() > INT32_MAX):
        raise ValueError("tokens must be of 32 bits")
    array = array.astype(np.int32, order="C", copy=copy)
    return array if cnp.PyArray_ISCARRAY_RO(array) else np.array(array, np.int32)


# --- blocks ---------------------------------------------------------------------------------------

cdef object frozen_part(object part, uint64_t *size, uint64_t most):
    """An array or the bytes of a buffer, which nobody can change; adds its bytes to *size. An array
    with which they are more than `most` is not copied."""
    if is_array(part):
        if holds_objects(part):
            raise TypeError("blocks must not hold objects")
        size[0] += <uint64_t>bytes_of(part) + ARRAY_OVERHEAD
        if size[0] > most:
            return part
        return snapshot(part if type(part) is np.ndarray else np.asarray(part))
    if type(part) is not bytes:
        try:
            part = bytes(memoryview(part))
        except TypeError:
            raise TypeError("blocks must be arrays, buffers or tuples of these, not "
                            f"{type(part).__name__}") from None
    size[0] += <uint64_t>getsizeof(part)
    return part


cdef object frozen(object block, uint64_t *size, uint64_t most):
    """A block that nobody can change, without a copy where it is one; adds its bytes to *size. One
    of more than `most` stays as it is."""
    cdef list parts
    cdef Py_ssize_t at
    if type(block) is not tuple:
        return frozen_part(block, size, most)
    size[0] += <uint64_t>getsizeof(block)
    parts = list(block)
    for at in range(len(parts)):
        parts[at] = frozen_part(parts[at], size, most)
    return tuple(parts)


def block_of(value):
    """What a tier returned as a block that nobody can change; None: it cannot have been a block.

    A list is a tuple that was written.
    """
    cdef uint64_t size = 0
    try:
        return frozen(tuple(value) if type(value) is list else value, &size, UINT64_MAX)
    except TypeError:
        return None


@cython.final
@cython.freelist(16)
cdef class Match:
    """What was found of a token sequence.

    length: how many tokens, from the first, the blocks cover; a multiple of the block's.
    blocks: of each block in order what was put, read-only and without a copy. They stay as they
    are, whatever happens to the cache.
    """

    cdef readonly Py_ssize_t length
    cdef readonly list blocks

    def __cinit__(self, Py_ssize_t length, list blocks not None):
        self.length = length
        self.blocks = blocks

    def __repr__(self):
        return f"<Match of {self.length} tokens in {len(self.blocks)} blocks>"


# Its values are arrays without objects, bytes and tuples of these: they are in no cycle.
@cython.no_gc_clear
cdef class PrefixTree:
    """What PrefixCache does without a tier below."""

    cdef cc_prefixes tree
    cdef list values  # of each slot; None: nothing
    cdef bint spills
    cdef readonly uint64_t lookups, asked_tokens, matched_tokens, inserts, evictions, refused
    cdef readonly uint64_t deletions, spilled, lost

    def __cinit__(self, *_, **__):
        cc_prefixes_init(&self.tree, 1, 0, 0, self.tree.root)
        self.values = []

    def __init__(self, uint32_t width, uint64_t max_bytes, const uint8_t[::1] root not None,
                 bint spills):
        if self.tree.used:
            raise RuntimeError("a cache is set up once")
        assert root.shape[0] == CC_DIGEST
        cc_prefixes_init(&self.tree, width, max_bytes, int.from_bytes(os.urandom(8), "little"),
                         &root[0])
        self.spills = spills

    def __dealloc__(self):
        cc_prefixes_free(&self.tree)

    @property
    def block(self):
        """Tokens in a block."""
        return self.tree.width

    @property
    def max_bytes(self):
        """Bytes that blocks may take."""
        return self.tree.max_bytes

    @property
    def nbytes(self):
        """Bytes that the blocks take, their overhead included."""
        return self.tree.bytes

    def __len__(self):
        return self.tree.live

    # --- look-ups

    def match(self, tokens):
        """The longest prefix of `tokens` whose blocks are here, or in the tier below.

        Args:
            tokens: a list or tuple of ints, or an array of integers with one dimension; each of
                32 bits. What is beyond the last whole block is not looked for.

        Returns a `Match`. Blocks that come from the tier are kept here again.

        Raises:
            TypeError, ValueError: tokens are something else.

        Thread safe. O(tokens): a look-up in memory hashes them once and compares them once.
        """
        cdef cnp.ndarray array = tokens_of(tokens, self.spills)
        cdef const int32_t *data = <const int32_t *>cnp.PyArray_DATA(array)
        cdef size_t count = <size_t>cnp.PyArray_SIZE(array) // self.tree.width
        cdef list blocks = PyList_New(<Py_ssize_t>count)  # now, for it may collect garbage
        cdef uint32_t *slots = <uint32_t *>malloc(count * sizeof(uint32_t) + 1)
        cdef size_t at, found
        cdef object value
        cdef uint32_t last = CC_ROOT
        if slots == NULL:
            raise MemoryError(f"no memory to look up {count} blocks")
        found = cc_prefixes_walk(&self.tree, data, count, slots)
        for at in range(found):
            value = <object>PyList_GET_ITEM(self.values, slots[at])
            Py_INCREF(value)
            PyList_SET_ITEM(blocks, at, value)
        cc_prefixes_hit(&self.tree, slots, found)
        if found:
            last = slots[found - 1]
        free(slots)
        if found < count:
            above = self.digest_at(last) if self.spills else None
            PyList_SetSlice(blocks, <Py_ssize_t>found, <Py_ssize_t>count, NULL)
            if self.spills:
                self._climb(array, above, blocks)
                found = <size_t>PyList_GET_SIZE(blocks)
        self.lookups += 1
        self.asked_tokens += <uint64_t>cnp.PyArray_SIZE(array)
        self.matched_tokens += found * self.tree.width
        return Match(<Py_ssize_t>(found * self.tree.width), blocks)

    cdef bytes digest_at(self, uint32_t slot):
        cdef const uint8_t *digest = &self.tree.root[0]
        if slot != CC_ROOT:
            digest = &self.tree.blocks[slot].digest[0]
        return PyBytes_FromStringAndSize(<const char *>digest, CC_DIGEST)

    def digests(self, tokens):
        """The chain of digests: for each whole block of `tokens` 16 bytes.

        BLAKE2b-128(digest of the block above | tokens as int32, little-endian), from one of the
        model, version, salt and block size. What names a block in the tier below, and tells a
        router which worker holds a prefix. Tokens are as for `match`. Other threads run meanwhile.
        """
        cdef cnp.ndarray array = tokens_of(tokens, True)
        return self._links(array, self.digest_at(CC_ROOT), 0,
                           cnp.PyArray_SIZE(array) // self.tree.width)

    def _links(self, const int32_t[::1] tokens not None, bytes above not None, size_t start,
               size_t until):
        """The digests of the blocks from `start`, of which the one before has `above`."""
        cdef size_t at, width = self.tree.width
        cdef bytes chain = PyBytes_FromStringAndSize(NULL, (until - start) * CC_DIGEST)
        cdef list links = PyList_New(<Py_ssize_t>(until - start))
        cdef object link
        cdef uint8_t *to = <uint8_t *>PyBytes_AS_STRING(chain)
        cdef const uint8_t *last = <const uint8_t *>PyBytes_AS_STRING(above)
        cdef const int32_t *data
        if start < until:
            data = &tokens[0]
            with nogil:
                for at in range(start, until):
                    cc_blake2b_link(to, last, data + at * width, width * sizeof(int32_t))
                    last = to
                    to += CC_DIGEST
        to = <uint8_t *>PyBytes_AS_STRING(chain)
        for at in range(until - start):
            link = PyBytes_FromStringAndSize(<const char *>to + at * CC_DIGEST, CC_DIGEST)
            Py_INCREF(link)
            PyList_SET_ITEM(links, at, link)
        return links

    # --- writes

    def put(self, tokens, blocks, start=0):
        """Keep the attention state of `tokens`, block by block.

        Args:
            tokens: as for `match`.
            blocks: for each whole block of tokens from `start` on an array, a buffer, or a tuple
                of these. Arrays and buffers are copied once, unless nobody can write to them: so
                blocks that came from `match` are not. Of blocks that are here already the first
                one stays.
            start: how many tokens `blocks` leave out at the beginning, a multiple of the block's:
                the `length` of a match. If they have been evicted since, nothing is kept: to be
                sure, put the match's own blocks again, in front of the new ones.

        Returns how many tokens from the first are here now. Blocks for which the budget has no room
        are refused and counted, from the first such block on.

        Raises:
            TypeError, ValueError: an argument is something else; nothing was kept.

        Thread safe: of those who put the same prefix at a time one's blocks stay.
        """
        cdef cnp.ndarray array = tokens_of(tokens, True)
        cdef size_t width = self.tree.width
        cdef size_t count = <size_t>cnp.PyArray_SIZE(array) // width
        if not hasattr(type(start), "__index__") or isinstance(start, bool):
            raise TypeError(f"start must be an int, not {type(start).__name__}")
        start = index(start)
        if not 0 <= start <= cnp.PyArray_SIZE(array) or start % width:
            raise ValueError(f"start must be a multiple of {width} within the tokens, not {start}")
        if not hasattr(type(blocks), "__iter__") or isinstance(blocks, (str, bytes, bytearray)):
            raise TypeError(f"blocks must be an iterable of blocks, not {type(blocks).__name__}")
        blocks = list(blocks)
        first = start // width
        if len(blocks) != count - first:
            raise ValueError(f"blocks must be {count - first}, one for each {width} tokens from "
                             f"start on, not {len(blocks)}")
        return self._keep(array, blocks, first, False)

    def _keep(self, cnp.ndarray array not None, list blocks not None, size_t first, bint kept):
        """What `put` says. `kept`: they come from the tier below."""
        cdef const int32_t *data = <const int32_t *>cnp.PyArray_DATA(array)
        cdef size_t count = first + <size_t>len(blocks)
        cdef uint32_t *slots = <uint32_t *>malloc((2 * sizeof(uint32_t) + sizeof(uint64_t))
                                                  * (count + 1))
        cdef uint64_t *sizes = <uint64_t *>(slots + 2 * (count + 1))
        cdef uint64_t room = self.tree.max_bytes
        cdef size_t found, until = first
        if slots == NULL:
            raise MemoryError(f"no memory to put {count} blocks")
        try:
            found = cc_prefixes_walk(&self.tree, data, count, slots)
            if found >= first:
                until = found
                while until < count:
                    sizes[until] = cc_prefixes_overhead(&self.tree) + sizeof(PyObject *)
                    blocks[until - first] = frozen(blocks[until - first], &sizes[until], room)
                    if sizes[until] > room:  # nor is there room for those that follow it
                        break
                    room -= sizes[until]
                    until += 1
                found = self.insert(data, blocks, sizes, first, found, until, slots, kept)
            self.refused += count - max(found, first)
        finally:
            free(slots)
        return found * self.tree.width

    cdef size_t insert(self, const int32_t *data, list blocks, const uint64_t *sizes, size_t first,
                       size_t ready, size_t count, uint32_t *slots, bint kept) except? 0:
        """Adds the blocks from `ready` up to `count`, which are frozen; how many from the root on
        are here then. `blocks` begin with block `first`."""
        cdef size_t at, found = cc_prefixes_walk(&self.tree, data, count, slots)
        cdef uint32_t *hashes = slots + count
        cdef uint32_t leaving = CC_ROOT, parent, victim
        cdef uint64_t chain = 0
        if found < ready or found == count:  # less is here than was: another put, or an eviction
            return found
        parent = slots[found - 1] if found else CC_ROOT
        cc_prefixes_hash(&self.tree, data, count, &chain, hashes)
        self.tree.tick += 1
        try:
            for at in range(found, count):
                if not cc_prefixes_reserve(&self.tree):
                    raise MemoryError("no memory for a block more")
                while <uint32_t>PyList_GET_SIZE(self.values) <= self.tree.used:
                    self.values.append(None)
                while self.tree.bytes + sizes[at] > self.tree.max_bytes:
                    victim = cc_prefixes_victim(&self.tree, parent)
                    if victim == CC_ROOT:
                        return at
                    cc_prefixes_take(&self.tree, victim)
                    self.tree.blocks[victim].place = leaving
                    leaving = victim
                    self.evictions += 1
                parent = cc_prefixes_add(&self.tree, parent, hashes[at],
                                         data + at * self.tree.width, sizes[at], kept)
                self.values[parent] = <object>PyList_GET_ITEM(blocks, at - first)
                self.inserts += 1
        finally:
            self.release(leaving, self.spills)
        return count

    cdef int release(self, uint32_t leaving, bint spills) except -1:
        """Releases what was taken out of the tree, or hands it to the tier below. Whatever fails,
        all slots are given back."""
        cdef uint32_t slot
        cdef list records = None
        cdef object value
        while leaving != CC_ROOT:
            slot = leaving
            leaving = self.tree.blocks[slot].place
            value = self.values[slot]
            self.values[slot] = None
            if spills and not cc_prefix_kept(&self.tree.blocks[slot]):
                self.lost += 1  # until the tier has taken it
                try:
                    if records is None:
                        records = []
                    records.append((self.key_at(slot), value,
                                    cc_prefixes_frequency(&self.tree, slot)))
                except MemoryError:
                    pass
            cc_prefixes_give_back(&self.tree, slot)
        if records:
            taken = self._spill(records)
            self.lost -= <uint64_t>taken
            self.spilled += <uint64_t>taken
        return 0

    cdef bytes key_at(self, uint32_t slot):
        """The digest of the block above, and the block's own tokens."""
        cdef const char *above = <const char *>self.tree.blocks[slot].above
        cdef const char *tokens = <const char *>cc_prefix_tokens(&self.tree, slot)
        cdef Py_ssize_t width = <Py_ssize_t>(self.tree.width * sizeof(int32_t))
        return above[:CC_DIGEST] + tokens[:width]

    def clear(self):
        """Forget all blocks that are here; those in the tier below stay."""
        cdef uint32_t slot, leaving = CC_ROOT
        while self.tree.leaf_count:
            slot = self.tree.leaves[self.tree.leaf_count - 1]
            cc_prefixes_take(&self.tree, slot)
            self.tree.blocks[slot].place = leaving
            leaving = slot
            self.deletions += 1
        self.release(leaving, False)

    def _climb(self, tokens, above, blocks):
        """Adds what the tier below has of the tokens that follow `blocks`, which is kept here."""
        raise NotImplementedError

    def _spill(self, records):
        """Hands (digest of the block above and tokens, block, frequency) to the tier below; of how
        many it took them."""
        raise NotImplementedError

    def _check(self):
        """Raises AssertionError when the structure is not sound."""
        assert cc_prefixes_valid(&self.tree)
        assert self.inserts == self.tree.live + self.evictions + self.deletions
        held = sum(1 for value in self.values if value is not None)
        assert held == self.tree.live
