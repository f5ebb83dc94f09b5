# Bytes to be sent, of src/core/cc_out.h; what the fields and functions mean is said there.

cdef extern from "cc_out.h":
    ctypedef struct cc_out:
        char *data
        size_t size, room, count, pointed
        bint failed

    ctypedef struct cc_part "struct iovec":
        void *iov_base
        size_t iov_len

    ctypedef void (*cc_out_release)(void *owner) noexcept

    void cc_out_put(cc_out *out, const char *bytes, size_t size) noexcept nogil
    bint cc_out_point(cc_out *out, const char *bytes, size_t size, void *owner) noexcept nogil
    size_t cc_out_left(const cc_out *out) noexcept nogil
    int cc_out_parts(const cc_out *out, cc_part *parts, int most) noexcept nogil
    void cc_out_sent(cc_out *out, size_t size, cc_out_release release) noexcept
    void cc_out_cut(cc_out *out, size_t size, size_t count, cc_out_release release) noexcept
    void cc_out_clear(cc_out *out, cc_out_release release) noexcept
    void cc_out_free(cc_out *out, cc_out_release release) noexcept
