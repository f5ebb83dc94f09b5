"""The connections of a server: what comes is received, executed and answered.

Plain sockets do not go through the event loop's transports. They are watched by one descriptor,
which the loop watches in turn: `drain`, called when it is readable, looks at all clients that have
sent something, executes what is complete and sends the replies, one call to the system for each.
Connections that need more (TLS) come through transports, and from there on the same way.

A client owns a buffer for its input only while it holds a part of a command, or commands that must
wait, and one for its output only while there is some.

Thread safety: all of it belongs to the loop's thread.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.object cimport PyObject
from libc.errno cimport (
    EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTO,
)
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset
from posix.unistd cimport close as close_descriptor

from cachecore._core cimport Cache
from cachecore._resp_client cimport BUFFER, Client, make_room
from cachecore._resp_dispatch cimport Dispatcher
from cachecore._resp_values cimport joined
from cachecore.cc_clock cimport cc_clock_ms, cc_nanoseconds
from cachecore.cc_out cimport *
from cachecore.cc_serve cimport cc_value_release
from cachecore.cc_socket cimport *

from logging import getLogger
from os import O_CLOEXEC, O_RDONLY, open as open_descriptor

from cachecore._resp_client import MAY_ALL, counted_bytes

cdef enum:
    PORTION = 64 * 1024           # bytes that a transport is given at once, and may keep
    ROOM = 256 * 1024             # bytes of replies below which a client has room for more
    MOST_SPARES = 64              # buffers for output that are kept
    LARGEST_SPARE = 256 * 1024
    LEAST_RECEIVED = 4096         # bytes that there is room for
    MOST_READY = 256              # clients looked at together
    ROUNDS = 16                   # of looking, until the loop has its turn
    MOST_ACCEPTED = 64            # connections taken at once
    LISTENER = 1                  # a tag's bit: addresses of clients are even

cdef tuple FAULTS = ("output", "slow", "memory", "failed", "lost")  # nothing is sent any more
cdef bytes FULL = b"-ERR max number of clients reached\r\n"
log = getLogger("cachecore.server")


cdef class Engine(Dispatcher):
    """All clients of a server, and what executes their commands.

    Args:
        cache: its keys are bytes, the first of them the number of a database; its values bytes, or
            dicts for hashes. `getsizeof` must say of bytes what sys.getsizeof says.
        commands: Command objects by name.
        loop: the event loop, which is to call `drain` when `fileno()` is readable.
        max_clients: more are refused with an error.
        max_args, max_bulk, max_command: arguments, bytes of one, bytes of a command in all.
        max_output: bytes of replies that a client leaves unread until its commands wait.
        max_unread: bytes of commands that are still received then.
        max_buffered: bytes of input and output of all clients; beyond, who has most is closed.
        idle_timeout, command_timeout, output_timeout: seconds without a command, until a command
            is complete (as long again for each MiB of it) or a stranger known, without reading
            replies, or from the end of what a client sends to its last reply; 0: for ever.
        proxy: absent keys are left to `intercept` by the commands that C executes.
        point: bytes from which on a value is sent from where it lies.

    `greet(client)` is called for every new client, `on_end(client)` when one sends no more (it may
    still read what it has asked for), `on_close(client)` after one was closed,
    `on_room(client)` when one that is `starved` has read its replies. New clients may do all unless
    `greet` says otherwise.
    """

    cdef cc_out *spare              # buffers for output, empty
    cdef int spares
    cdef int poll
    cdef int reserve                # a descriptor to give up when there are no others
    cdef size_t buffered
    cdef bint draining
    cdef bint working               # whoever is noted will be flushed soon
    cdef list dirty                 # who was noted
    cdef list gone                  # closed clients, which events at hand may still name
    cdef set listeners
    cdef uint64_t next_id
    cdef readonly dict clients, closes
    cdef readonly int64_t now
    cdef readonly uint64_t accepted, refused, bytes_in, bytes_out
    cdef public object greet, on_close, on_end, on_room
    cdef public Py_ssize_t max_clients
    cdef public size_t max_unread
    cdef public double idle_timeout, command_timeout, output_timeout

    def __cinit__(self):
        self.poll = self.reserve = -1

    def __init__(self, Cache cache not None, commands, loop, *, max_clients=10_000,
                 max_args=1024 * 1024, max_bulk=512 << 20, max_command=1 << 30,
                 max_output=64 << 20, max_unread=1 << 20, max_buffered=1 << 30, idle_timeout=0,
                 command_timeout=60, output_timeout=60, proxy=False, point=1024):
        self.cache, self.loop, self.commands = cache, loop, dict(commands)
        self.clients, self.closes, self.watched = {}, {}, {}
        self.dirty, self.gone, self.listeners = [], [], set()
        self.max_clients, self.max_buffered = max_clients, max_buffered
        self.max_unread = max_unread
        self.idle_timeout, self.command_timeout = idle_timeout, command_timeout
        self.output_timeout = output_timeout
        self.limits.max_args, self.limits.max_bulk = max_args, max_bulk
        self.limits.max_line, self.limits.max_command = 64 * 1024, max_command
        self.strangers.max_args, self.strangers.max_bulk = 10, 16 * 1024
        self.strangers.max_line, self.strangers.max_command = 64 * 1024, 11 * 16 * 1024
        self.service.pause, self.service.point = max_output, point
        self.service.proxy = proxy
        self.refresh()
        self.choose_slow()
        self.buffer = <char *>PyMem_RawMalloc(BUFFER)
        self.spare = <cc_out *>PyMem_RawMalloc(MOST_SPARES * sizeof(cc_out))
        if self.buffer == NULL or self.spare == NULL:
            raise MemoryError("no memory for buffers")
        self.poll = cc_poll_open()
        if self.poll < 0:
            raise OSError(-self.poll, "cannot watch sockets")
        self.reserve = open_descriptor("/dev/null", O_RDONLY | O_CLOEXEC)

    def __dealloc__(self):
        cdef int i
        for i in range(self.spares):
            cc_out_free(&self.spare[i], cc_value_release)
        PyMem_RawFree(self.buffer)
        PyMem_RawFree(self.spare)
        for i in (self.poll, self.reserve):
            if i >= 0:
                close_descriptor(i)

    def fileno(self):
        """What is readable when `drain` has something to do."""
        return self.poll

    # --- connections come and go

    def listen(self, int fd):
        """Accepts the connections of a listening socket, which stays the caller's."""
        cdef int error = cc_poll_add(self.poll, fd, <uintptr_t>fd << 1 | LISTENER, CC_READABLE)
        if error < 0:
            raise OSError(-error, "cannot watch a listening socket")
        self.listeners.add(fd)

    def unlisten(self, int fd):
        """Accepts no more of them."""
        self.listeners.discard(fd)
        cc_poll_remove(self.poll, fd)

    def adopt(self, int fd):
        """A Client of a connected, non-blocking socket, which is the engine's from here on."""
        cdef Client client = self.new_client()
        client.fd, client.watched = fd, CC_READABLE
        if cc_poll_add(self.poll, fd, <uintptr_t><PyObject *>client, CC_READABLE) < 0:
            self.close_client(client, "failed")
        else:
            self.welcome(client)
        return client

    def attach(self, transport):
        """A Client whose bytes come and go through an asyncio transport."""
        cdef Client client = self.new_client()
        client.transport, client.watched = transport, CC_READABLE
        transport.set_write_buffer_limits(PORTION)
        self.welcome(client)
        return client

    cdef Client new_client(self):
        cdef Client client = Client.__new__(Client)
        self.next_id += 1
        client.engine, client.id = self, self.next_id
        client.database, client.protocol, client.may = 0, 2, MAY_ALL
        self.now = client.created = client.received_at = client.sent_at = cc_clock_ms()
        self.clients[client.id] = client
        self.accepted += 1
        return client

    cdef int welcome(self, Client client) except -1:
        try:
            if len(self.clients) > self.max_clients:
                self.refused += 1
                client.write(FULL)
                client.close("refused")
            elif self.greet is not None:
                self.greet(client)
        except Exception:
            log.exception("client %d is closed after an error", client.id)
            self.close_client(client, "failed")
        return 0

    cdef int accept(self, int listener) except -1:
        cdef int fd
        for _ in range(MOST_ACCEPTED):
            fd = cc_socket_accept(listener)
            if fd >= 0:
                self.adopt(fd)
            elif fd in (-EMFILE, -ENFILE, -ENOBUFS, -ENOMEM):
                self.turn_away(listener)
            elif fd != -EINTR and fd != -ECONNABORTED and fd != -EPROTO:
                break
        return 0

    cdef int turn_away(self, int listener) except -1:
        """No descriptor is left: the one kept for this tells the next connection so, lest it
        stay and wake us for ever."""
        cdef int fd
        if self.reserve >= 0:
            close_descriptor(self.reserve)
            self.reserve = -1
            fd = cc_socket_accept(listener)
            if fd >= 0:
                self.accepted += 1
                self.refused += 1
                turn_away(fd)
        self.keep_reserve()
        if self.reserve < 0:  # until the next sweep
            cc_poll_change(self.poll, listener, <uintptr_t>listener << 1 | LISTENER, 0)
        return 0

    cdef int keep_reserve(self) except -1:
        try:
            self.reserve = open_descriptor("/dev/null", O_RDONLY | O_CLOEXEC)
        except OSError as error:
            log.error("connections wait: %s", error.strerror)
        return 0

    cdef int close_client(self, Client client, str reason) except -1:
        if client.closed is not None:
            return 0
        client.closed = reason
        self.closes[reason] = self.closes.get(reason, 0) + 1
        del self.clients[client.id]
        self.buffered -= client.counted
        self.gone.append(client)
        if client.fd >= 0:
            cc_poll_remove(self.poll, client.fd)
            close_descriptor(client.fd)
            client.fd = -1
        if client.transport is not None:
            (client.transport.abort if reason in FAULTS else client.transport.close)()
        if client.task is not None:
            client.task.cancel()
        if client.watching:
            client.unwatch()
        if self.on_close is not None:
            try:
                self.on_close(client)
            except Exception:
                log.exception("on_close failed for client %d", client.id)
        return 0

    # --- what comes

    def drain(self):
        """Executes what clients have sent, and sends what can be sent."""
        cdef cc_ready ready[MOST_READY]
        cdef int count, i
        cdef Client client
        cdef int64_t before, start
        if self.draining:
            raise RuntimeError("drain() was called by a command's handler")
        self.draining = True
        try:
            for _ in range(ROUNDS):
                self.working = True
                count = cc_poll_ready(self.poll, ready, MOST_READY)
                if count == 0:
                    break
                start, before = cc_nanoseconds(), self.service.commands
                self.now = cc_clock_ms()
                self.refresh()
                for i in range(count):
                    if ready[i].tag & LISTENER:
                        self.accept(<int>(ready[i].tag >> 1))
                        continue
                    client = <Client><PyObject *>ready[i].tag
                    try:
                        self.look_at(client, ready[i].what)
                    except Exception:
                        log.exception("client %d is closed after an error", client.id)
                        self.close_client(client, "failed")
                self.flush_all()
                self.gone.clear()
                self.timed(cc_nanoseconds() - start, self.service.commands - before)
        finally:
            self.draining = self.working = False

    cdef int look_at(self, Client client, unsigned what) except -1:
        cdef Py_ssize_t size
        if client.closed is None and what & CC_WRITABLE:
            self.note(client)
        if client.closed is not None:
            return 0
        if not (what & CC_READABLE and client.watched & CC_READABLE):
            return self.close_client(client, "lost") if what & CC_BROKEN else 0
        if client.input == NULL:
            size = cc_socket_receive(client.fd, self.buffer, BUFFER)
            if size > 0:
                return self.take(client, self.buffer, size)
        else:
            make_room(client, LEAST_RECEIVED)
            size = cc_socket_receive(client.fd, client.input + client.size,
                                     client.room - client.size)
            if size > 0:
                return self.take(client, NULL, size)
        if size == 0:
            return self.ended(client)
        return 0 if size == -EAGAIN else self.close_client(client, "lost")

    cdef int take(self, Client client, char *data, size_t size) except -1:
        """Bytes that came: at `data`, or, NULL, behind what waits in the client's own buffer."""
        cdef size_t used
        client.received_at = self.now
        client.bytes_in += size
        self.bytes_in += size
        if data == NULL:
            client.size += size
            return self.settle(client) if client.stalled else self.go_on(client)
        self.lend(client)
        used = self.consume(client, data, size)
        if used < size and client.closed is None:
            make_room(client, size - used)
            memcpy(client.input, data + used, size - used)
            client.size = size - used
        client.part_since = 0
        return self.settle(client)

    cdef int go_on(self, Client client) except -1:
        """Executes what waits in the client's own buffer."""
        self.lend(client)
        cdef size_t used = self.consume(client, client.input + client.begin,
                                        client.size - client.begin)
        client.begin += used
        if used:
            client.part_since = 0
        if client.begin == client.size:
            PyMem_RawFree(client.input)
            client.input = NULL
            client.begin = client.size = client.room = 0
        return self.settle(client)

    cdef int settle(self, Client client) except -1:
        """After a client's commands were executed: its time, its memory, its turn to be sent to."""
        if client.closed is not None:
            return 0
        if client.size == client.begin or client.stalled:
            client.part_since = 0
        elif client.part_since == 0:
            client.part_since = self.now
        return self.note(client)

    cdef int count(self, Client client) except -1:
        """Counts the memory of a client's buffers; if it is too much in all, who has most goes."""
        cdef size_t held = client.room + client.held_bytes + client.queued + client.pinned
        if client.unsent:
            held += client.out.room + client.out.pointed
        if client.choked:
            held += client.transport.get_write_buffer_size()
        self.buffered += held - client.counted
        client.counted = held
        while self.buffered > self.max_buffered:
            self.close_client(max(self.clients.values(), key=counted_bytes), "memory")
        return 0

    cdef int resume(self, Client client) except -1:
        """Goes on with a client that was stalled, if nothing is in its way any more."""
        if client.stalled and client.closed is None and not self.must_wait(client):
            client.stalled = False
            self.go_on(client)
            if client.over and not client.stalled:
                client.close("ended")
        return 0

    # --- what comes through transports

    cdef int arrived(self, Client client, char *data, size_t size) except -1:
        cdef bint worked = self.working
        self.now = cc_clock_ms()
        self.refresh()
        self.working = True
        try:
            if client.input != NULL:
                make_room(client, size)
                memcpy(client.input + client.size, data, size)
                data = NULL
            self.take(client, data, size)
        finally:
            self.working = worked
        if not worked:
            self.flush_noted()  # who was closed goes with its buffers
        return 0

    cdef int ended(self, Client client) except -1:
        client.over, client.sent_at = True, cc_clock_ms()
        if self.on_end is not None:
            self.on_end(client)
        if not client.stalled:  # else what has come is executed first
            client.close("ended")
        return self.note(client)

    cdef int unchoked(self, Client client) except -1:
        return self.note(client)

    # --- what goes

    cdef int lend(self, Client client) noexcept:
        """Gives a client a buffer for its output, if it has none."""
        if client.out.data == NULL and self.spares:
            self.spares -= 1
            client.out = self.spare[self.spares]
        return 0

    cdef int take_back(self, Client client) noexcept:
        """Takes an empty buffer back."""
        if client.out.room > LARGEST_SPARE or self.spares == MOST_SPARES:
            cc_out_free(&client.out, cc_value_release)
        elif client.out.data != NULL:
            self.spare[self.spares] = client.out
            self.spares += 1
            memset(&client.out, 0, sizeof(client.out))
        return 0

    cdef int note(self, Client client) except -1:
        """Sees to it that soon a client's output is sent and its socket watched for what is due."""
        if not client.dirty:
            client.dirty = True
            self.dirty.append(client)
            if not self.working:
                self.working = True
                self.loop.call_soon(self.flush_noted)
        return 0

    def flush_noted(self):
        """Sends what handlers and replies that came late have written."""
        cdef Client client
        self.flush_all()
        for client in self.gone:  # its transport keeps it for a while
            client.drop_buffers()
        self.gone.clear()

    cdef int flush_all(self) except -1:
        cdef Client client
        self.working = True
        try:
            while self.dirty:
                clients, self.dirty = self.dirty, []
                for client in clients:
                    client.dirty = False
                    try:
                        if client.closed is None:
                            self.flush(client)
                            self.resume(client)
                    except Exception:
                        log.exception("client %d is closed after an error", client.id)
                        self.close_client(client, "failed")
        finally:
            self.working = False
        return 0

    cdef int flush(self, Client client) except -1:
        """Sends what can be sent now; closes who is to be closed when all is sent."""
        cdef Py_ssize_t sent = 0
        cdef size_t left
        if client.out.failed:
            return self.close_client(client, "memory")
        while client.transport is not None and cc_out_left(&client.out) and not client.choked:
            data = joined(&client.out, PORTION)
            client.transport.write(data)
            client.sent_at = self.now
            client.bytes_out += len(data)
            self.bytes_out += len(data)
        while client.fd >= 0 and cc_out_left(&client.out):
            sent = cc_socket_send(client.fd, &client.out)
            if sent < 0:
                break
            client.bytes_out += sent
            self.bytes_out += sent
            client.sent_at = self.now
            cc_out_sent(&client.out, sent, cc_value_release)
        if sent < 0 and sent != -EAGAIN:
            return self.close_client(client, "lost")
        left = cc_out_left(&client.out)
        if left == 0:
            self.take_back(client)
            if client.ending and client.held is None:
                return self.close_client(client, client.reason)
        elif client.unsent == 0:
            client.sent_at = self.now  # from here on it is waited for
        client.unsent = left
        if client.starved and left + client.held_bytes < ROOM:
            client.starved = False
            self.on_room(client)
            if client.closed is not None:
                return 0
        if left + client.room + client.counted + client.held_bytes + client.queued + client.pinned:
            self.count(client)
        return self.rewatch(client)

    cdef int rewatch(self, Client client) except -1:
        """Watches a client's socket for what is due now."""
        cdef unsigned what = 0 if client.ending or client.over or (
            client.stalled and client.size - client.begin >= self.max_unread) else CC_READABLE
        if client.unsent and client.fd >= 0:
            what |= CC_WRITABLE
        if what == client.watched:
            return 0
        client.watched = what
        if client.fd >= 0:
            cc_poll_change(self.poll, client.fd, <uintptr_t><PyObject *>client, what)
        elif client.transport is not None and what & CC_READABLE:
            client.transport.resume_reading()
        elif client.transport is not None:
            client.transport.pause_reading()
        return 0

    # --- time, and the end

    def sweep(self):
        """Closes clients that were idle or slow for too long; to be called every second or so."""
        cdef Client client
        cdef double idle, part, stuck
        self.now = cc_clock_ms()
        if self.reserve < 0:
            self.keep_reserve()
            for fd in self.listeners:
                cc_poll_change(self.poll, fd, <uintptr_t><int>fd << 1 | LISTENER, CC_READABLE)
        for client in list(self.clients.values()):
            idle = (self.now - client.received_at) / 1000
            since = client.part_since or (0 if client.session.may else client.created)
            part = (self.now - since) / 1000 if since else 0
            waits = client.unsent or client.choked or client.over
            stuck = (self.now - client.sent_at) / 1000 if waits else 0
            if 0 < self.output_timeout < stuck:
                self.close_client(client, "output")
            elif 0 < self.command_timeout * (1 + (client.size >> 20)) < part:
                self.close_client(client, "slow")
            elif 0 < self.idle_timeout < idle and client.held is None and not client.patient:
                self.close_client(client, "idle")
        if not self.draining:
            self.gone.clear()

    def close_idle(self):
        """Executes what has come, and closes who has nothing under way; how many are left."""
        cdef Client client
        self.drain()
        for client in list(self.clients.values()):
            if client.held is None and cc_out_left(&client.out) == 0:
                self.close_client(client, "stopped")
        self.gone.clear()
        return len(self.clients)

    def close(self):
        """Closes all clients, and accepts no more."""
        for fd in list(self.listeners):
            self.unlisten(fd)
        for client in list(self.clients.values()):
            self.close_client(client, "stopped")
        if not self.draining:
            self.gone.clear()

    @property
    def buffered_bytes(self):
        """Bytes of memory in the clients' own buffers."""
        return self.buffered


# --- what the engine's methods share --------------------------------------------------------------

cdef int turn_away(int fd) except -1:
    """Tells the other end of a socket that there is no place for it, and closes it."""
    cdef cc_out out
    memset(&out, 0, sizeof(out))
    cc_out_put(&out, FULL, len(FULL))
    cc_socket_send(fd, &out)
    cc_out_free(&out, cc_value_release)
    close_descriptor(fd)
    return 0
