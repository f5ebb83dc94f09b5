# Commands that are executed where they were received, of src/python/cc_serve.h.

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint64_t

from cachecore.cc_out cimport cc_out
from cachecore.cc_resp cimport cc_resp_limits, cc_resp_request, cc_resp_result
from cachecore.cc_table cimport cc_table

cdef extern from "cc_serve.h":
    enum:
        CC_MAY_CONNECT
        CC_MAY_READ
        CC_MAY_WRITE
        CC_MAY_ADMINISTER

    ctypedef struct cc_service:
        cc_table *table
        unsigned slow
        bint proxy
        size_t pause, point
        PyObject *on_evict
        double ttl, jitter
        uint64_t commands
        uint64_t calls[32]
        uint64_t faults[3]

    ctypedef struct cc_session:
        const cc_resp_limits *limits
        uint8_t database, protocol, may
        bint slow

    ctypedef enum cc_serve_end:
        CC_SERVE_FAILED
        CC_SERVE_ALL
        CC_SERVE_COMMAND
        CC_SERVE_FULL
        CC_SERVE_BAD

    ctypedef enum cc_run:
        CC_RUN_FAILED
        CC_RUN_DONE
        CC_RUN_NOT_MINE

    cc_serve_end cc_serve(cc_service *service, cc_session *session, cc_resp_request *request,
                          cc_out *out, char *data, size_t size, size_t *used,
                          cc_resp_result *fault) except CC_SERVE_FAILED
    cc_run cc_serve_one(cc_service *service, cc_session *session, const cc_resp_request *request,
                        cc_out *out, char *data) except CC_RUN_FAILED
    const char *cc_hot_name(unsigned number) noexcept
    void cc_value_put(const cc_service *service, cc_out *out, object value) noexcept
    void cc_value_release(void *owner) noexcept
