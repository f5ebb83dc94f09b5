# Clients and their commands, as the engine sees them.

from libc.stdint cimport int64_t, uint64_t

from cachecore._core cimport Cache
from cachecore.cc_out cimport cc_out
from cachecore.cc_resp cimport cc_resp_limits, cc_resp_request
from cachecore.cc_serve cimport cc_session

cdef enum:
    BUFFER = 256 * 1024  # bytes received at once
    LEAST_INPUT = 16 * 1024


cdef class Host:
    cdef cc_resp_limits limits, strangers
    cdef char *buffer             # what is received first comes here
    cdef dict watched             # keys to the set of clients that watch them
    cdef readonly Cache cache

    cdef int note(self, Client client) except -1
    cdef int resolve(self, Pending pending, bytes reply) except -1
    cdef int nested(self, Client client, bytes raw) except -1
    cdef int arrived(self, Client client, char *data, size_t size) except -1
    cdef int ended(self, Client client) except -1
    cdef int unchoked(self, Client client) except -1
    cdef int close_client(self, Client client, str reason) except -1
    cdef int choose_slow(self) except -1


cdef class Command:
    cdef readonly bytes name
    cdef readonly int arity       # arguments with the name; negative: at least so many
    cdef readonly unsigned needs  # of what clients may do, CC_MAY_...
    cdef readonly frozenset flags  # as COMMAND tells them
    cdef readonly tuple keys      # the first key's place, the last one's, the step; 0s: none
    cdef readonly object handler
    cdef readonly bint immediate  # not queued by MULTI
    cdef readonly object check    # of the handler: whether MULTI may queue a call
    cdef public uint64_t calls, failed, rejected
    cdef int hot                  # its number in cc_commands.c; -1: none


cdef class Client:
    cdef cc_session session
    cdef cc_resp_request request
    cdef cc_out out
    cdef char *input              # owned while commands wait there, else NULL
    cdef size_t begin, size, room  # they are in input[begin:size]
    cdef size_t counted           # bytes of its buffers, as the engine has counted them
    cdef size_t unsent            # bytes that were left when sending was tried last
    cdef char *command            # the one that is executed; NULL: none
    cdef cc_out *target           # where its reply goes
    cdef int fd                   # -1: closed, or on a transport
    cdef unsigned watched         # what of the socket is watched
    cdef bint waiting             # for an awaitable reply: nothing is executed
    cdef bint stopped             # by `hold`: nothing is executed
    cdef bint alone               # see `private`
    cdef bint stalled             # input waits for output to be sent, or for a reply
    cdef bint over                # the other end sends no more
    cdef bint ending              # to be closed when all is sent
    cdef bint dirty               # in the engine's list of those with something to send
    cdef bint choked              # the transport takes no more for now
    cdef object held              # replies behind one that is not there yet: a deque, or None
    cdef size_t held_bytes
    cdef list raws                # see `queue`
    cdef size_t queued            # bytes that they take
    cdef size_t pinned            # bytes that the keys that it watches take
    cdef object task              # what makes the awaitable reply
    cdef str reason               # why it is ending
    cdef readonly Host engine
    cdef readonly object transport
    cdef readonly uint64_t id
    cdef readonly str closed      # why; None: it is open
    cdef readonly bytes prefix    # of its keys
    cdef readonly bytes last_command
    cdef readonly int64_t created, received_at, part_since, sent_at  # ms of the engine's clock
    cdef readonly uint64_t bytes_in, bytes_out
    cdef public object user       # what access control knows of it; None: nobody yet
    cdef public bytes name
    cdef public bint aborted      # EXEC will refuse the transaction
    cdef public bint touched      # a watched key was written
    cdef public bint unchanged    # see `values.unchanged`
    cdef public bint patient      # is not closed for being idle: it listens
    cdef public bint starved      # the engine's `on_room` is called when it has read its replies
    cdef readonly set watching    # keys, with their prefix
    cdef readonly dict state      # for handlers, by their own names
    cdef object __weakref__

    cdef int choose_slow(self) noexcept
    cdef int drop_buffers(self) noexcept
    cdef int check_running(self) except -1


cdef class Pending:
    cdef readonly Client client
    cdef bytes reply              # encoded; None: not there yet


cdef bytes encoded(Client client, object reply)
cdef list arguments(const cc_resp_request *request, const char *data)
cdef bytes raw_of(const cc_resp_request *request, char *data)
cdef int make_room(Client client, size_t more) except -1
cdef str refused(Client client, Command command, list args)
