# The protocol, of src/core/cc_resp.h.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cachecore.cc_out cimport cc_out

cdef extern from "cc_resp.h":
    ctypedef struct cc_resp_limits:
        uint32_t max_args, max_bulk, max_line, max_command

    ctypedef struct cc_resp_arg:
        uint32_t at, size

    ctypedef struct cc_resp_request:
        cc_resp_arg *args
        uint32_t room, count, wanted, at
        char got

    ctypedef enum cc_resp_result:
        CC_RESP_MORE
        CC_RESP_READY
        CC_RESP_NOTHING
        CC_RESP_BAD_COUNT
        CC_RESP_BAD_BULK
        CC_RESP_BAD_TYPE
        CC_RESP_HTTP

    cc_resp_result cc_resp_parse(cc_resp_request *request, char *data, size_t size,
                                 const cc_resp_limits *limits) noexcept nogil
    void cc_resp_next(cc_resp_request *request) noexcept nogil
    void cc_resp_free(cc_resp_request *request) noexcept nogil
    const char *cc_resp_fault(cc_resp_result result) noexcept nogil

    ctypedef struct cc_resp_frame:
        uint64_t values
        char type

    cc_resp_result cc_resp_follow(cc_resp_frame *frame, const char *data, size_t size,
                                  size_t *used) noexcept nogil

    void cc_resp_put_head(cc_out *out, char type, int64_t number) noexcept nogil
    void cc_resp_put_bulk(cc_out *out, const char *bytes, size_t size) noexcept nogil
    void cc_resp_put_double(cc_out *out, double number, unsigned protocol) noexcept nogil
    void cc_resp_put_line(cc_out *out, char type, const char *text, size_t size) noexcept nogil
    void cc_resp_put_null(cc_out *out, unsigned protocol) noexcept nogil
    void cc_resp_put_bool(cc_out *out, bint truth, unsigned protocol) noexcept nogil
    void cc_resp_put_ok(cc_out *out) noexcept nogil
