"""The connections of a server: received, executed and answered without a Python object where possible.

Plain sockets do not go through the event loop's transports. They are watched by one descriptor,
which the loop watches in turn: `drain`, called when it is readable, looks at all clients that have
sent something, executes what is complete and sends the replies, one call to the system for each.
Connections that need more (TLS) come through transports, and from there on the same way.

Thread safety: all of it belongs to the loop's thread.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTO
from libc.stdint cimport int64_t, uint8_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memmove, memset

from cachecore._core cimport Cache
from cachecore._resp_client cimport *
from cachecore._resp_values cimport put
from cachecore.cc_clock cimport cc_clock_ms
from cachecore.cc_out cimport *
from cachecore.cc_resp cimport *
from cachecore.cc_serve cimport *
from cachecore.cc_socket cimport *

from collections import deque
from inspect import isawaitable
from logging import getLogger
from os import O_CLOEXEC, O_RDONLY
from os import close as os_close
from os import open as os_open

from cachecore._resp_client import MAY_ALL
from cachecore._resp_values import NOTHING, ReplyError

cdef enum:
    MOST_SPARES = 64       # buffers for output that are kept
    LARGEST_SPARE = 256 * 1024
    MOST_READY = 256       # clients looked at together
    ROUNDS = 16            # of looking, until the loop has its turn
    MOST_HELD = 4096       # replies that wait for one before them
    MOST_ACCEPTED = 64     # connections taken at once

log = getLogger("cachecore.server")


cdef class Engine(Host):
    """All clients of a server, and what executes their commands.

    Args:
        cache: its keys are bytes, the first of them the number of a database; its values bytes, or
            dicts for hashes.
        commands: Command objects by name.
        loop: the event loop; `drain` is to be called when `fileno()` is readable.
        max_clients: more are refused with an error.
        max_args, max_bulk, max_command: arguments, bytes of one, bytes of a command in all.
        max_output: bytes of output that a client leaves unread until its commands wait.
        max_buffered: bytes of input and output of all clients; who needs more then is closed.
        idle_timeout, command_timeout, output_timeout: seconds without a command, until a command
            is complete (and as long again for each MiB of it), without reading replies; 0: for ever.
        proxy: absent keys are left to `intercept` by the commands that C executes.
        point: bytes from which on a value is sent from where it lies.

    `intercept(client, args)`, where set, is asked for every command that C did not execute; it returns a
    reply, or NotImplemented. `greet(client)` is called for every new client, `on_close(client)` after one
    was closed. New clients may do all, unless `greet` says otherwise.
    """

    cdef cc_service service
    cdef cc_out scratch            # a reply that has to wait
    cdef cc_out *spare             # buffers for output, empty
    cdef int spares
    cdef int poll, reserve         # a descriptor to give up when there are no others
    cdef size_t buffered
    cdef bint draining, flushing
    cdef list dirty, gone
    cdef set listeners
    cdef uint64_t next_id
    cdef readonly object loop
    cdef readonly dict commands, clients, closes
    cdef readonly int64_t now
    cdef readonly uint64_t accepted, refused, bytes_in, bytes_out
    cdef public object intercept
    cdef public object on_close
    cdef public object greet
    cdef public Py_ssize_t max_clients
    cdef public size_t max_buffered
    cdef public double idle_timeout, command_timeout, output_timeout

    def __cinit__(self):
        memset(&self.service, 0, sizeof(self.service))
        memset(&self.scratch, 0, sizeof(self.scratch))
        self.poll = self.reserve = -1

    def __init__(self, Cache cache, commands, loop=None, *, max_clients=10_000, max_args=1024 * 1024,
                 max_bulk=512 << 20, max_command=1 << 30, max_output=64 << 20,
                 max_buffered=1 << 30, idle_timeout=0, command_timeout=60, output_timeout=60,
                 proxy=False, point=16 * 1024):
        self.cache, self.loop, self.commands = cache, loop, dict(commands)
        self.clients, self.closes = {}, {}
        self.dirty, self.gone, self.watched, self.listeners = [], [], {}, set()
        self.max_clients, self.max_buffered = max_clients, max_buffered
        self.idle_timeout, self.command_timeout = idle_timeout, command_timeout
        self.output_timeout = output_timeout
        self.limits.max_args, self.limits.max_bulk = max_args, max_bulk
        self.limits.max_line, self.limits.max_command = 64 * 1024, max_command
        self.strangers.max_args, self.strangers.max_bulk = 10, 16 * 1024
        self.strangers.max_line, self.strangers.max_command = 64 * 1024, 170 * 1024
        self.service.table = &cache.table
        self.service.on_evict = NULL if cache.on_evict is None else <PyObject *>cache.on_evict
        self.service.pause, self.service.point = max_output, point
        self.service.proxy = proxy
        self.buffer = <char *>PyMem_RawMalloc(BUFFER)
        self.spare = <cc_out *>PyMem_RawMalloc(MOST_SPARES * sizeof(cc_out))
        self.poll = cc_poll_open()
        self.choose_slow()
        if self.buffer == NULL or self.spare == NULL:
            raise MemoryError("no memory for buffers")
        if self.poll < 0:
            raise OSError(-self.poll, "cannot watch sockets")
        self.reserve = os_open("/dev/null", O_RDONLY | O_CLOEXEC)

    def __dealloc__(self):
        cdef int i
        for i in range(self.spares):
            cc_out_free(&self.spare[i], cc_serve_release)
        cc_out_free(&self.scratch, cc_serve_release)
        PyMem_RawFree(self.buffer)
        PyMem_RawFree(self.spare)
        for fd in (self.poll, self.reserve):
            if fd >= 0:
                os_close(fd)

    def fileno(self):
        """What is readable when `drain` has something to do."""
        return self.poll

    cdef int choose_slow(self) except -1:
        """Writes are left to Python while somebody watches keys; in a proxy all but reads."""
        self.service.slow = (CC_MAY_CONNECT | CC_MAY_WRITE if self.service.proxy
                             else CC_MAY_WRITE if self.watched else 0)
        return 0

    # --- connections come and go

    def listen(self, int fd):
        """Accepts the connections of a listening socket; it stays the caller's."""
        cdef int error = cc_poll_add(self.poll, fd, <uintptr_t>fd << 1 | 1, CC_READABLE)
        if error < 0:
            raise OSError(-error, "cannot watch a listening socket")
        self.listeners.add(fd)

    def unlisten(self, int fd):
        """Accepts no more of them."""
        self.listeners.discard(fd)
        cc_poll_change(self.poll, fd, <uintptr_t>fd << 1 | 1, 0)

    def adopt(self, int fd):
        """A Client of a connected, non-blocking socket, which is the engine's from here on."""
        cdef Client client = self.new_client()
        client.fd = fd
        client.watched = CC_READABLE
        cdef int error = cc_poll_add(self.poll, fd, <uintptr_t><PyObject *>client, CC_READABLE)
        if error < 0:
            self.close_client(client, "failed")
        return client

    def attach(self, transport):
        """A Client whose bytes come and go through an asyncio transport."""
        cdef Client client = self.new_client()
        client.transport = transport
        return client

    cdef Client new_client(self):
        cdef Client client = Client.__new__(Client)
        self.next_id += 1
        client.engine, client.id, client.name, client.state = self, self.next_id, b"", {}
        client.database, client.protocol, client.may = 0, 2, MAY_ALL
        self.now = client.created = client.received_at = client.sent_at = cc_clock_ms()
        self.clients[client.id] = client
        self.accepted += 1
        if self.greet is not None:
            self.greet(client)
        return client

    cdef int accept(self, int listener) except -1:
        cdef int fd
        for _ in range(MOST_ACCEPTED):
            fd = cc_socket_accept(listener)
            if fd == -EMFILE or fd == -ENFILE:
                self.refuse(listener)
            elif fd == -EINTR or fd == -ECONNABORTED or fd == -EPROTO:
                continue
            elif fd < 0:
                break
            elif len(self.clients) >= self.max_clients:
                refuse(fd, b"-ERR max number of clients reached\r\n")
                self.refused += 1
            else:
                self.adopt(fd)
        return 0

    cdef int refuse(self, int listener) except -1:
        """Out of descriptors: one is kept for telling so, lest the connection stay and wake us."""
        cdef int fd
        if self.reserve < 0:
            return 0
        os_close(self.reserve)
        self.reserve = -1
        fd = cc_socket_accept(listener)
        if fd >= 0:
            refuse(fd, b"-ERR max number of clients reached\r\n")
            self.refused += 1
        try:
            self.reserve = os_open("/dev/null", O_RDONLY | O_CLOEXEC)
        except OSError:
            log.error("no descriptor is left, not even to refuse connections with")
        return 0

    cdef int close_client(self, Client client, str reason) except -1:
        if client.closed is not None:
            return 0
        client.closed = reason
        self.closes[reason] = self.closes.get(reason, 0) + 1
        del self.clients[client.id]
        self.buffered -= client.counted
        self.gone.append(client)  # events of this round may still name it
        if client.fd >= 0:
            os_close(client.fd)
            client.fd = -1
        if client.transport is not None:
            client.transport.close()
        if client.watching:
            client.unwatch()
        if self.on_close is not None:
            self.on_close(client)
        return 0

    # --- what came

    def drain(self):
        """Executes what clients have sent, and sends what can be sent."""
        cdef cc_ready ready[MOST_READY]
        cdef int count, i
        cdef Client client
        if self.draining:
            raise RuntimeError("drain() was called by a command's handler")
        self.draining = True
        try:
            for _ in range(ROUNDS):
                count = cc_poll_ready(self.poll, ready, MOST_READY)
                if count == 0:
                    break
                self.now = cc_clock_ms()
                for i in range(count):
                    if ready[i].tag & 1:
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
        finally:
            self.draining = False

    cdef int look_at(self, Client client, unsigned what) except -1:
        if client.closed is not None:
            return 0
        if what & CC_WRITABLE:
            self.flush(client)
            self.resume(client)
        if client.closed is not None:
            return 0
        if what & CC_READABLE and client.watched & CC_READABLE:
            self.receive(client)
        elif what & CC_BROKEN:
            self.close_client(client, "lost")
        return 0

    cdef int receive(self, Client client) except -1:
        cdef Py_ssize_t size
        if client.input == NULL:
            size = cc_socket_receive(client.fd, self.buffer, BUFFER)
        else:
            make_room(client, LEAST_INPUT)
            size = cc_socket_receive(client.fd, client.input + client.size,
                                     client.room - client.size)
        if size > 0:
            self.take(client, NULL if client.input != NULL else self.buffer, size)
        elif size == 0:
            self.ends(client)
        elif size != -EAGAIN:
            self.close_client(client, "lost")
        return 0

    cdef int ends(self, Client client) except -1:
        """The other end sends no more; it may still read."""
        client.ending = True
        client.reason = client.reason or "ended"
        self.note(client)
        return 0

    cdef int take(self, Client client, char *data, size_t size) except -1:
        """Bytes that came: at `data`, or, NULL, behind those that wait in the client's own buffer."""
        cdef size_t used
        client.received_at = self.now
        client.bytes_in += size
        self.bytes_in += size
        if data != NULL and client.input != NULL:
            make_room(client, size)
            memcpy(client.input + client.size, data, size)
            data = NULL
        if data == NULL:
            client.size += size
            return self.go_on(client)
        used = self.consume(client, data, size)
        if used < size and client.closed is None:
            make_room(client, size - used)
            memcpy(client.input, data + used, size - used)
            client.size = size - used
        return self.settle(client)

    cdef int go_on(self, Client client) except -1:
        """Executes what waits in the client's own buffer."""
        client.begin += self.consume(client, client.input + client.begin, client.size - client.begin)
        if client.begin == client.size and client.closed is None:
            PyMem_RawFree(client.input)
            client.input = NULL
            client.begin = client.size = client.room = 0
        return self.settle(client)

    cdef int settle(self, Client client) except -1:
        """After commands of a client were executed: what is to be watched, sent and counted."""
        cdef size_t held
        if client.closed is not None:
            return 0
        if client.size != client.begin and not client.stalled:
            client.part_since = client.part_since or self.now
        else:
            client.part_since = 0
        held = client.room + client.held_bytes
        if held != client.counted or client.unsent:
            self.count(client)
        return self.note(client)

    cdef int count(self, Client client) except -1:
        """Counts the memory of a client's buffers."""
        cdef size_t held = client.room + client.held_bytes
        if client.unsent:
            held += client.out.room + client.out.pointed
        self.buffered += held - client.counted
        client.counted = held
        if self.buffered > self.max_buffered and held > LARGEST_SPARE:
            self.close_client(client, "memory")
        return 0

    cdef int resume(self, Client client) except -1:
        """Goes on with a client that was stalled, if the reason is gone."""
        if client.stalled and client.closed is None and not self.must_wait(client):
            client.stalled = False
            self.go_on(client)
        return 0

    cdef bint must_wait(self, Client client) noexcept:
        return (client.waiting or client.choked or client.held_bytes >= self.service.pause
                or cc_out_left(&client.out) >= self.service.pause
                or (client.held is not None and len(client.held) >= MOST_HELD))

    cdef size_t consume(self, Client client, char *data, size_t size) except? 0xFFFFFFFF:
        """Executes the complete commands among these bytes; how many bytes that were."""
        cdef size_t used, at = 0
        cdef cc_resp_result fault
        cdef cc_serve_end end
        self.lend(client)
        while client.closed is None and not client.ending:
            if self.must_wait(client):
                client.stalled = True
                break
            end = cc_serve(&self.service, &client.session, &client.request, &client.out,
                           data + at, size - at, &used, &fault)
            at += used
            if end == CC_SERVE_ALL:
                break
            if end == CC_SERVE_COMMAND:
                self.command(client, data + at)
                at += client.request.at
                cc_resp_next(&client.request)
            elif end == CC_SERVE_BAD:
                self.broken(client, fault)
        return at

    cdef int broken(self, Client client, cc_resp_result fault) except -1:
        """The protocol is broken: an error, and the connection is closed; of HTTP without one."""
        cdef str text = (<bytes>cc_resp_fault(fault)).decode()
        if fault == CC_RESP_HTTP:
            return self.close_client(client, "http")
        if fault == CC_RESP_BAD_TYPE:
            text += f", got '{chr(<uint8_t>client.request.got)}'"
        if not client.session.may and fault in (CC_RESP_BAD_COUNT, CC_RESP_BAD_BULK):
            text = text.replace("invalid", "unauthenticated")
        put(&client.out, ReplyError(f"ERR Protocol error: {text}"), 2)
        client.close("protocol")
        return 0

    # --- commands that C leaves

    cdef int command(self, Client client, char *data) except -1:
        """Executes one command, or puts it off, and sees to its reply."""
        cdef bint behind = client.held is not None
        cdef cc_out *out = &self.scratch if behind else &client.out
        cdef size_t size = out.size, count = out.count
        client.raw_data, client.target = data, out
        try:
            reply = self.answer(client, arguments(&client.request, data), data)
            if isinstance(reply, Pending) or isawaitable(reply):
                self.defer(client, reply)
                behind = False
            else:
                put(out, reply, client.session.protocol)
        except MemoryError:
            cc_out_cut(out, size, count, cc_serve_release)
            put(out, ReplyError("OOM out of memory"), 2)
        except Exception as error:
            cc_out_cut(out, size, count, cc_serve_release)
            if not isinstance(error, ReplyError):
                log.exception("a command failed: %r", client.last_command)
                error = ReplyError("ERR internal error")
            put(out, error, 2)
        finally:
            client.raw_data = NULL
        if behind:
            client.held.append(joined(out))
            client.held_bytes += len(client.held[-1])
        return 0

    cdef object answer(self, Client client, list args, char *data):
        """The reply to a command; NOTHING: it has been written."""
        cdef Command command
        client.last_command = name = (<bytes>args[0]).lower()
        if self.intercept is not None:
            reply = self.intercept(client, args)
            if reply is not NotImplemented:
                self.service.commands += 1
                return reply
        command = self.commands.get(name)
        refusal = refused(client, command, args)
        if refusal is not None:
            client.aborted = client.aborted or client.queue is not None
            return ReplyError(refusal)
        if client.queue is not None and not command.immediate:
            client.queue.append(raw_of(&client.request, data))
            return "QUEUED"
        return self.run(client, command, args, &client.request, data)

    cdef object run(self, Client client, Command command, list args,
                    const cc_resp_request *request, char *data):
        """Executes a command that is allowed."""
        cdef object reply = NOTHING
        cdef bint done = (command.hot >= 0 and cc_serve_one(
            &self.service, &client.session, request, client.target, data) == CC_RUN_DONE)
        if not done:
            if command.handler is None:
                raise ReplyError("ERR syntax error")
            command.calls += 1
            self.service.commands += 1
            try:
                reply = command.handler(client, args)
            except BaseException:
                command.failed += 1
                raise
        if self.watched and command.needs & CC_MAY_WRITE:
            keys = command.keys_of(args)
            self.touch([client.prefix + key for key in keys] if keys else list(self.watched))
        return reply

    def touch(self, keys):
        """Keys, with their prefix, were written: who watches them is told. For the write commands that
        name their keys the engine does it; those that name none touch all."""
        for key in keys:
            for client in self.watched.get(key, ()):
                client.touched = True

    cdef int nested(self, Client client, bytes raw) except -1:
        """Executes a queued command; its reply goes to the target of the one that is executed."""
        cdef cc_resp_request request
        cdef bytes copy = raw[:]
        cdef size_t size = len(raw)
        cdef char *data = <char *>PyMem_RawMalloc(size)
        cdef cc_resp_limits limits = self.limits
        limits.max_command = 0xFFFFFFFF
        memset(&request, 0, sizeof(request))
        if data == NULL:
            raise MemoryError("no memory for a queued command")
        try:
            memcpy(data, <char *>copy, size)
            if cc_resp_parse(&request, data, size, &limits) != CC_RESP_READY:
                raise ValueError("raw must be one command")
            args = arguments(&request, data)
            command = self.commands[(<bytes>args[0]).lower()]
            try:
                reply = self.run(client, command, args, &request, data)
                if isawaitable(reply) or isinstance(reply, Pending):
                    getattr(reply, "close", bool)()
                    reply = ReplyError("ERR this command is not allowed inside a transaction")
            except ReplyError as error:
                reply = error
            put(client.target, reply, client.session.protocol)
        finally:
            PyMem_RawFree(data)
            cc_resp_free(&request)
        return 0

    # --- replies that come later

    cdef int defer(self, Client client, object reply) except -1:
        """Keeps the place of a reply that is not there yet."""
        cdef Pending pending
        if isinstance(reply, Pending):
            pending = reply
        else:
            pending = client.defer()
            client.waiting = True
            task = self.loop.create_task(awaited(reply))

            def done(task):
                error = None if task.cancelled() else task.exception()
                if task.cancelled() or (error is not None and not isinstance(error, ReplyError)):
                    if error is not None:
                        log.error("a command failed", exc_info=error)
                    error = ReplyError("ERR internal error")
                client.waiting = False
                pending.resolve(task.result() if error is None else error)

            task.add_done_callback(done)
            client.state["task"] = task
        if pending.reply is not None and client.held is None:  # resolved by its own handler
            cc_out_put(&client.out, <bytes>pending.reply, len(<bytes>pending.reply))
            return 0
        if client.held is None:
            client.held = deque()
            client.session.slow = True
        client.held.append(pending)
        return 0

    cdef int resolve(self, Pending pending, bytes reply) except -1:
        """A reply is there: it is sent, with those after it, unless one before it is not."""
        cdef Client client = pending.client
        pending.reply = reply
        if client.held is None:
            return 0
        while client.held:
            first = client.held[0]
            if isinstance(first, Pending):
                if (<Pending>first).reply is None:
                    break
                data = (<Pending>first).reply
                client.held_bytes += len(<bytes>data)
            else:
                data = first
            client.held.popleft()
            client.held_bytes -= len(<bytes>data)
            cc_out_put(&client.out, <bytes>data, len(<bytes>data))
        if not client.held:
            client.held = None
            client.session.slow = client.queue is not None
        self.note(client)
        if client.stalled and not self.draining:
            self.resume(client)
        return 0

    # --- sending

    cdef int lend(self, Client client) noexcept:
        """Gives a client a buffer for its output, if it has none."""
        if client.out.data == NULL and self.spares:
            self.spares -= 1
            client.out = self.spare[self.spares]
        return 0

    cdef int take_back(self, Client client) noexcept:
        """Takes an empty buffer back."""
        if client.out.room > LARGEST_SPARE or self.spares == MOST_SPARES:
            cc_out_free(&client.out, cc_serve_release)
        elif client.out.data != NULL:
            self.spare[self.spares] = client.out
            self.spares += 1
            memset(&client.out, 0, sizeof(client.out))
        return 0

    cdef int note(self, Client client) except -1:
        """Sees to it that a client's output is sent soon, and its socket watched for what is due."""
        if not client.dirty:
            client.dirty = True
            self.dirty.append(client)
            if not self.draining and not self.flushing and self.loop is not None:
                self.flushing = True
                self.loop.call_soon(self.flush_all)
        return 0

    cpdef flush_all(self):
        """Sends what can be sent to the clients that were noted."""
        cdef Client client
        self.flushing = False
        while self.dirty:
            clients, self.dirty = self.dirty, []
            for client in clients:
                client.dirty = False
                if client.closed is None:
                    self.flush(client)
                    if client.stalled:
                        self.resume(client)
        if not self.draining:
            self.gone.clear()

    cdef int flush(self, Client client) except -1:
        """Sends what can be sent now; closes who is to be closed when all is sent."""
        cdef Py_ssize_t sent = 0
        if client.out.failed:
            return self.close_client(client, "memory")
        if client.transport is not None:
            self.hand_over(client)
        while cc_out_left(&client.out):
            sent = cc_socket_send(client.fd, &client.out)
            if sent < 0:
                break
            client.bytes_out += sent
            self.bytes_out += sent
            client.sent_at = self.now
            cc_out_sent(&client.out, sent, cc_serve_release)
        if sent < 0 and sent != -EAGAIN:
            return self.close_client(client, "lost")
        cdef size_t left = cc_out_left(&client.out)
        if left == 0:
            client.sent_at = self.now
            self.take_back(client)
            if client.ending and client.held is None:
                return self.close_client(client, client.reason or "closed")
        if left or client.unsent:
            client.unsent = left
            self.count(client)
        return self.rewatch(client)

    cdef int rewatch(self, Client client) except -1:
        """Watches a client's socket for what is due now."""
        cdef unsigned what = 0 if client.stalled or client.ending else CC_READABLE
        if client.unsent:
            what |= CC_WRITABLE
        if what != client.watched and client.fd >= 0:
            client.watched = what
            cc_poll_change(self.poll, client.fd, <uintptr_t><PyObject *>client, what)
        return 0

    cdef int hand_over(self, Client client) except -1:
        """Gives a transport what is to be sent."""
        cdef bytes data = joined(&client.out)
        if data:
            client.bytes_out += len(data)
            self.bytes_out += len(data)
            client.transport.write(data)
        return 0

    # --- time, and the end

    def sweep(self):
        """Closes clients that were idle or slow for too long; to be called every second or so."""
        cdef Client client
        cdef double idle, parts, stuck
        self.now = cc_clock_ms()
        for client in list(self.clients.values()):
            idle = (self.now - client.received_at) / 1000
            parts = (self.now - client.part_since) / 1000 if client.part_since else 0
            stuck = (self.now - client.sent_at) / 1000 if client.unsent else 0
            if self.output_timeout and stuck > self.output_timeout:
                self.close_client(client, "output")
            elif self.command_timeout and parts > self.command_timeout * (
                    1 + (client.size >> 20)):
                self.close_client(client, "slow")
            elif self.idle_timeout and idle > self.idle_timeout and not client.waiting:
                self.close_client(client, "idle")
        if not self.draining:
            self.gone.clear()

    def close_idle(self):
        """Closes the clients that neither wait for anything nor have anything under way; how many
        are left."""
        cdef Client client
        self.drain()
        for client in list(self.clients.values()):
            if client.held is None and not client.waiting and not cc_out_left(&client.out):
                self.close_client(client, "stopped")
        self.gone.clear()
        return len(self.clients)

    def close(self):
        """Closes all clients and forgets the listeners."""
        for fd in list(self.listeners):
            self.unlisten(fd)
        for client in list(self.clients.values()):
            self.close_client(client, "stopped")
        self.gone.clear()

    @property
    def executed(self):
        """Commands that were executed."""
        return self.service.commands

    @property
    def buffered_bytes(self):
        """Bytes of memory of the clients' buffers, beside those that are shared."""
        return self.buffered

    def calls(self):
        """How often each command was executed, by name."""
        cdef Command command
        return {command.name: command.calls + (self.service.calls[command.hot]
                                               if command.hot >= 0 else 0)
                for command in self.commands.values()}


# --- what the engine's methods share --------------------------------------------------------------

async def awaited(reply):
    return await reply


cdef bytes joined(cc_out *out):
    """What there is to be sent, and empties it."""
    cdef bytes data = out.data[:out.size] if out.count == 0 else b"".join(parts_of(out))
    cc_out_clear(out, cc_serve_release)
    return data


cdef list parts_of(cc_out *out):
    cdef cc_part parts[64]
    cdef list found = []
    cdef int count, i
    while cc_out_left(out):
        count = cc_out_parts(out, parts, 64)
        for i in range(count):
            found.append((<char *>parts[i].iov_base)[:parts[i].iov_len])
            cc_out_sent(out, parts[i].iov_len, cc_serve_release)
    return found


cdef int refuse(int fd, bytes text) except -1:
    """Tells the other end of a socket why, and closes it."""
    cdef cc_out out
    memset(&out, 0, sizeof(out))
    cc_out_put(&out, text, len(text))
    cc_socket_send(fd, &out)
    cc_out_free(&out, cc_serve_release)
    os_close(fd)
    return 0
