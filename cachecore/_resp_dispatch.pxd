# What executes commands, as the engine inherits it.

from libc.stdint cimport uint64_t

from cachecore._resp_client cimport Client, Command, Host
from cachecore.cc_out cimport cc_out
from cachecore.cc_resp cimport cc_resp_request, cc_resp_result
from cachecore.cc_serve cimport cc_service

cdef enum:
    TIMES = 27  # powers of two of a microsecond


cdef class Dispatcher(Host):
    cdef cc_service service
    cdef cc_out scratch            # a reply that has to wait
    cdef readonly dict commands
    cdef readonly object loop
    cdef dict told                 # errors that handlers made, by their first words
    cdef uint64_t[TIMES] times     # commands, by the logarithm of what their clients waited
    cdef double waited             # seconds in all
    cdef bint judged               # see `guarded`
    cdef public size_t max_buffered
    cdef public object intercept
    cdef public object server      # whatever handlers are to reach: settings, users

    cdef int timed(self, uint64_t spent, uint64_t commands) noexcept
    cdef bint must_wait(self, Client client) noexcept
    cdef Py_ssize_t consume(self, Client client, char *data, size_t size) except -1
    cdef int perform(self, Client client, char *data) except -1
    cdef object answer(self, Client client, char *data)
    cdef object run(self, Client client, Command command, list args,
                    const cc_resp_request *request, char *data)
    cdef int refresh(self) except -1
    cdef int queue_reply(self, Client client) except -1
    cdef int reply(self, Client client, cc_out *out, object value) except -1
    cdef object execute(self, Client client, Command command, list args,
                        const cc_resp_request *request, char *data)
    cdef object nested_reply(self, Client client, list args, const cc_resp_request *request,
                             char *data)
    cdef int hold(self, Client client, object reply) except -1
    cdef int broken(self, Client client, cc_resp_result fault) except -1
