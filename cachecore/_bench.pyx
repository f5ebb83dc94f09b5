# cython: boundscheck=False, wraparound=False
"""A load for a server: GETs and SETs over many connections from one thread, without the GIL.

A closed loop, as that of redis-benchmark: a connection sends a batch of requests, waits for all
its replies, and sends the next. A latency is the time from just before a batch is sent until its
reply has been read, so it holds what the others of the batch took, and this client.

Latencies are counted in buckets of at most 1/128 of their value, as HdrHistogram's are: the bucket
of v ns is v below 256, then v's eight leading bits and how far they were shifted.

The three arrays of a load are checked once, against each other: no index is, later.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcpy

import numpy as np

cdef extern from "<time.h>" nogil:
    struct timespec:
        int64_t tv_sec
        int64_t tv_nsec
    enum:
        CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *time)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_NOSIGNAL
    ssize_t recv(int fd, void *data, size_t size, int flags)
    ssize_t send(int fd, const void *data, size_t size, int flags)

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint32_t u32
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    enum:
        EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLLIN, EPOLLOUT, EPOLL_CLOEXEC
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int what, int fd, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int most, int milliseconds)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef extern from *:
    """
    #define CC_BITS(v) (64 - __builtin_clzll((v) | 1))
    """
    int CC_BITS(uint64_t v) noexcept nogil

cdef enum:
    BUCKETS = 34 * 128     # up to 2**40 ns
    INPUT = 256 * 1024     # bytes received at once
    LINE = 256             # bytes of a reply's first line that are kept
    DIGITS = 12            # of the number of a key
    EVENTS = 256

cdef uint64_t MOST_NS = (1 << 40) - 1
cdef int64_t NO_LIMIT = 1 << 62

cdef struct Connection:
    int fd                 # -1: lost
    uint8_t *out           # the batch under way
    size_t size, sent, room
    int64_t began          # when it was sent, ns
    size_t next            # the request, in the stream, whose reply comes next
    uint32_t waiting       # replies that have not come
    size_t skip            # bytes of a value that are still to come
    uint32_t head          # bytes of a line that have come
    uint8_t line[LINE]


cdef int64_t clock() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef int bucket(int64_t ns) noexcept nogil:
    cdef uint64_t v = min(<uint64_t>max(ns, 0), MOST_NS)
    cdef int shift = max(0, CC_BITS(v) - 8)
    return shift * 128 + <int>(v >> shift)


def bucket_bounds():
    """The least latency of each bucket, in ns."""
    at = np.arange(BUCKETS)
    shift = np.maximum(at // 128 - 1, 0)
    return (at - shift * 128) << shift


cdef class Load:
    """Requests to a server over connections that the caller has opened, and what came of them.

    Args:
        fds: sockets, connected, non-blocking and idle; they stay the caller's.
        keys: the stream of requests, repeated when it ends: the number of the key of each.
        gets: 1 where the request is a GET, 0 where it is a SET.
        sizes: bytes of the value of each key, by its number.
        prefix: of keys; their numbers follow, as 12 digits.
        pipeline: requests in a batch.
        limit: requests in all; None: as long as it is run.

    Attributes:
        issued, answered: requests; hits, misses: replies to GETs; errors: replies that are errors.
        lost: connections that the server has closed, or that answered nonsense.
        first_error: the first reply that was an error.
        counts: latencies in buckets, an array of those of SETs and those of GETs.

    Thread safety: one thread at a time; others run meanwhile.
    """

    cdef Connection *connections
    cdef int epoll, count
    cdef uint8_t *input
    cdef uint8_t *value
    cdef uint8_t *get_head
    cdef uint8_t *set_head
    cdef size_t get_size, set_size, pipeline, at
    cdef const int64_t[::1] keys
    cdef const uint8_t[::1] gets
    cdef const int32_t[::1] sizes
    cdef int64_t[:, ::1] _counts
    cdef int64_t limit, dropped
    cdef readonly int64_t issued, answered, hits, misses, errors, received
    cdef readonly int lost
    cdef readonly bytes first_error
    cdef readonly object counts
    cdef object heads
    cdef bytes filling

    def __cinit__(self):
        self.epoll = -1

    def __init__(self, fds, const int64_t[::1] keys, const uint8_t[::1] gets,
                 const int32_t[::1] sizes, bytes prefix, *, size_t pipeline, limit=None):
        cdef epoll_event event
        cdef int at
        if self.connections != NULL:
            raise RuntimeError("a Load is made once")
        if not len(fds) or not len(keys) or len(gets) != len(keys) or not pipeline:
            raise ValueError("there must be connections, and requests, each with its kind")
        if min(keys) < 0 or max(keys) >= len(sizes) or min(sizes) < 0:
            raise ValueError("sizes must have a size for each key")
        self.keys, self.gets, self.sizes, self.pipeline = keys, gets, sizes, pipeline
        self.limit = NO_LIMIT if limit is None else limit
        self.first_error = b""
        self.counts = self._counts = np.zeros((2, BUCKETS), np.int64)
        key = b"$%d\r\n%b%0*d" % (len(prefix) + DIGITS, prefix, DIGITS, 0)
        self.heads = b"*2\r\n$3\r\nGET\r\n" + key, b"*3\r\n$3\r\nSET\r\n" + key
        self.get_head, self.set_head = <bytes>self.heads[0], <bytes>self.heads[1]
        self.get_size, self.set_size = len(self.heads[0]), len(self.heads[1])
        # Neither zeros nor text: what compresses well, or is checked for UTF-8, would tell little.
        self.filling = np.random.default_rng(1).bytes(max(sizes))
        self.value = self.filling
        self.count = len(fds)
        self.connections = <Connection *>calloc(self.count, sizeof(Connection))
        self.input = <uint8_t *>malloc(INPUT)
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.connections == NULL or self.input == NULL:
            raise MemoryError("no memory for the connections")
        if self.epoll < 0:
            raise OSError(errno, "epoll_create1 failed")
        for at in range(self.count):
            self.connections[at].fd = fds[at]
            event.events, event.data.u32 = EPOLLIN, at
            if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fds[at], &event) < 0:
                raise OSError(errno, "epoll_ctl failed")

    def __dealloc__(self):
        cdef int at
        if self.epoll >= 0:
            close(self.epoll)
        for at in range(self.count if self.connections != NULL else 0):
            free(self.connections[at].out)
        free(self.connections)
        free(self.input)

    def run(self, double seconds):
        """Go on for so long; whether there is more to do: requests, and connections for them."""
        cdef epoll_event events[EVENTS]
        cdef int64_t end = clock() + <int64_t>(seconds * 1e9)
        cdef int at, ready
        if self.issued == 0:
            for at in range(self.count):
                self.begin(&self.connections[at])
        with nogil:
            while self.answered + self.dropped < self.limit and self.lost < self.count:
                ready = epoll_wait(self.epoll, events, EVENTS, 50)
                for at in range(ready):
                    self.serve(&self.connections[events[at].data.u32], events[at].events)
                if clock() >= end:
                    break
        return self.answered + self.dropped < self.limit and self.lost < self.count

    cdef void serve(self, Connection *connection, uint32_t events) noexcept nogil:
        """Read what has come, and go on."""
        cdef ssize_t got
        cdef int64_t now
        if connection.fd < 0:
            return
        if events & EPOLLOUT:
            self.flush(connection)
        got = recv(connection.fd, self.input, INPUT, 0)
        if got < 0 and (errno == EAGAIN or errno == EINTR):
            return
        if got <= 0:
            self.lose(connection)
            return
        self.received += got
        now = clock()
        if not self.parse(connection, self.input, got, now):
            self.lose(connection)
        elif connection.waiting == 0:
            self.begin(connection)

    cdef void lose(self, Connection *connection) noexcept nogil:
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, connection.fd, NULL)
        connection.fd = -1
        self.lost += 1
        self.dropped += connection.waiting

    cdef bint parse(self, Connection *connection, const uint8_t *data, size_t size,
                    int64_t now) noexcept nogil:
        """Count the replies; False when they are none."""
        cdef const uint8_t *newline
        cdef size_t part, room
        while size:
            if connection.skip:
                part = min(size, connection.skip)
                connection.skip -= part
                data, size = data + part, size - part
                if connection.skip == 0:
                    self.answer(connection, now)
                continue
            if connection.waiting == 0:
                return False
            newline = <const uint8_t *>memchr(data, c"\n", size)
            part = newline - data + 1 if newline != NULL else size
            room = LINE - 1 - connection.head
            memcpy(connection.line + connection.head, data, min(part, room))
            connection.head += min(part, room)
            data, size = data + part, size - part
            if newline != NULL and not self.begun(connection, now):
                return False
        return True

    cdef bint begun(self, Connection *connection, int64_t now) noexcept nogil:
        """A line has come, which is a reply or begins one."""
        cdef uint8_t kind = connection.line[0]
        cdef size_t length = 0
        cdef uint32_t at = 1
        if kind == c"-":
            if self.errors == 0:
                with gil:
                    self.first_error = connection.line[1:connection.head].strip()
            self.errors += 1
        elif kind == c"$" and connection.line[1] == c"-":
            self.misses += 1
        elif kind == c"$":
            while at < connection.head and c"0" <= connection.line[at] <= c"9" and at < 12:
                length = length * 10 + connection.line[at] - c"0"
                at += 1
            self.hits += 1
            connection.skip = length + 2
            connection.head = 0
            return connection.line[at] == c"\r"
        elif kind != c"+" and kind != c"_":
            return False
        elif kind == c"_":  # RESP3's null
            self.misses += 1
        connection.head = 0
        self.answer(connection, now)
        return True

    cdef void answer(self, Connection *connection, int64_t now) noexcept nogil:
        """A reply is complete."""
        self._counts[self.gets[connection.next], bucket(now - connection.began)] += 1
        connection.next = (connection.next + 1) % <size_t>self.keys.shape[0]
        connection.waiting -= 1
        self.answered += 1

    cdef void begin(self, Connection *connection) noexcept nogil:
        """Send the next batch, if there is one."""
        cdef int64_t left = self.limit - self.issued
        cdef size_t total = 0, part, size, at, batch = min(<size_t>max(left, 0), self.pipeline)
        cdef int width
        cdef uint8_t *out
        cdef size_t stream = self.keys.shape[0]
        if batch == 0:
            return
        for part in range(batch):
            at = (self.at + part) % stream
            total += self.set_size + 40 + (0 if self.gets[at] else self.sizes[self.keys[at]])
        if total > connection.room:
            out = <uint8_t *>realloc(connection.out, total)
            if out == NULL:
                self.lose(connection)
                return
            connection.out, connection.room = out, total
        out = connection.out
        for part in range(batch):
            at = (self.at + part) % stream
            if self.gets[at]:
                memcpy(out, self.get_head, self.get_size)
                out += self.get_size
                digits(out, self.keys[at], DIGITS)
            else:
                memcpy(out, self.set_head, self.set_size)
                out += self.set_size
                digits(out, self.keys[at], DIGITS)
                size = self.sizes[self.keys[at]]
                memcpy(out, "\r\n$", 3)
                width = length_of(size)
                out += 3 + width
                digits(out, size, width)
                memcpy(out, "\r\n", 2)
                out += 2
                memcpy(out, self.value, size)
                out += size
            memcpy(out, "\r\n", 2)
            out += 2
        connection.size, connection.sent = out - connection.out, 0
        connection.next = self.at
        connection.waiting = <uint32_t>batch
        self.at = (self.at + batch) % stream
        self.issued += batch
        connection.began = clock()
        self.flush(connection)

    cdef void flush(self, Connection *connection) noexcept nogil:
        """Send what the socket takes; the rest when it takes more."""
        cdef ssize_t went
        cdef epoll_event event
        cdef bint waited = connection.sent > 0
        while connection.sent < connection.size:
            went = send(connection.fd, connection.out + connection.sent,
                        connection.size - connection.sent, MSG_NOSIGNAL)
            if went < 0:
                break
            connection.sent += went
        if waited or connection.sent < connection.size:
            event.events = EPOLLIN | (EPOLLOUT if connection.sent < connection.size else 0)
            event.data.u32 = <uint32_t>(connection - self.connections)
            epoll_ctl(self.epoll, EPOLL_CTL_MOD, connection.fd, &event)


cdef int length_of(uint64_t number) noexcept nogil:
    """How many digits a number has."""
    cdef int count = 1
    while number >= 10:
        number //= 10
        count += 1
    return count


cdef void digits(uint8_t *end, uint64_t number, int count) noexcept nogil:
    """Write a number before `end`, with leading zeros."""
    for _ in range(count):
        end -= 1
        end[0] = c"0" + number % 10
        number //= 10
