# The table of rows of src/core/cc_vectors.h; what the fields and functions mean is said there.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "<stdbool.h>":
    ctypedef bint cc_bool "bool"

cdef extern from "cc_segment.h":
    ctypedef struct cc_segment:
        size_t size

    bint cc_segment_collapse(const cc_segment *segment) noexcept nogil

    ctypedef enum cc_segment_result:
        CC_SEGMENT_OK
        CC_SEGMENT_FAILED
        CC_SEGMENT_KIND
        CC_SEGMENT_OWNER
        CC_SEGMENT_MODE
        CC_SEGMENT_FOREIGN
        CC_SEGMENT_VERSION
        CC_SEGMENT_ORDER
        CC_SEGMENT_DAMAGED
        CC_SEGMENT_GEOMETRY

cdef extern from "cc_vectors.h":
    enum:
        CC_EVICTED, CC_REJECTED, CC_EXPIRED, CC_DELETED
        CC_ROWS_PLAIN, CC_ROWS_INT8

    ctypedef struct cc_vectors_shape:
        uint64_t capacity, width, ttl, codec, sums
        uint64_t kind[5]

    ctypedef struct cc_vectors_layout:
        uint32_t stripes, pins
        size_t stride

    ctypedef struct cc_vectors:
        cc_segment segment
        cc_vectors_shape shape
        cc_vectors_layout layout
        bint shared
        int64_t ahead_ms

    ctypedef struct cc_vectors_counts:
        uint64_t gathered, misses, inserts
        uint64_t left[4]
        uint64_t live, damaged, refused, pinned

    ctypedef enum cc_vectors_result:
        CC_VECTORS_OK
        CC_VECTORS_BUSY
        CC_VECTORS_MEMORY
        CC_VECTORS_OUTDATED
        CC_VECTORS_MISSING
        CC_VECTORS_PINNED

    bint cc_vectors_anonymous(cc_vectors *vectors, const cc_vectors_shape *shape,
                              uint64_t seed) noexcept nogil
    cc_segment_result cc_vectors_file(cc_vectors *vectors, const char *path,
                                      const cc_vectors_shape *shape, const uint64_t *version,
                                      uint64_t seed, cc_vectors_shape *made) noexcept nogil
    void cc_vectors_close(cc_vectors *vectors) noexcept nogil
    void cc_vectors_forked(cc_vectors *vectors) noexcept nogil
    size_t cc_vectors_gather(cc_vectors *vectors, const int64_t *ids, size_t n, unsigned char *out,
                             cc_bool *found, unsigned threads) noexcept nogil
    size_t cc_vectors_find(const cc_vectors *vectors, const int64_t *ids, size_t n,
                           cc_bool *found) noexcept nogil
    cc_vectors_result cc_vectors_put(cc_vectors *vectors, const int64_t *ids, size_t n,
                                     const unsigned char *rows, size_t *done) noexcept nogil
    cc_vectors_result cc_vectors_delete(cc_vectors *vectors, const int64_t *ids, size_t n,
                                        size_t *removed) noexcept nogil
    cc_vectors_result cc_vectors_pin(cc_vectors *vectors, int64_t id, const unsigned char **row,
                                     uint64_t *number) noexcept nogil
    void cc_vectors_unpin(cc_vectors *vectors, uint64_t number) noexcept nogil
    void cc_vectors_clear(cc_vectors *vectors) noexcept nogil
    uint64_t cc_vectors_live(const cc_vectors *vectors) noexcept nogil
    void cc_vectors_count(const cc_vectors *vectors, cc_vectors_counts *counts) noexcept nogil
