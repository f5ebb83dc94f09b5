"""Commands executed: in C as long as it goes, by handlers where C leaves them, in order always.

Thread safety: all of it belongs to the loop's thread.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from cachecore._resp_client cimport (
    Client, Command, Host, Pending, arguments, encoded, raw_of, refused,
)
from cachecore._resp_values cimport joined, put
from cachecore.cc_out cimport *
from cachecore.cc_resp cimport *
from cachecore.cc_serve cimport *

from collections import deque
from inspect import isawaitable
from logging import getLogger

from cachecore._resp_values import NOTHING, ReplyError

cdef enum:
    MOST_HELD = 4096  # replies that wait for one before them
    QUEUED = 64       # bytes that a queued command takes beside its own
    LONGEST_NAME = 128  # of what may be a command

log = getLogger("cachecore.server")


cdef class Dispatcher(Host):
    """The part of the engine that executes commands; `commands` are Command objects by name.

    `intercept(client, args)`, where it is set, is asked for every command that C did not execute:
    it returns a reply, or NotImplemented.
    """

    def __cinit__(self):
        memset(&self.service, 0, sizeof(self.service))
        memset(&self.scratch, 0, sizeof(self.scratch))
        self.told = {}

    def __dealloc__(self):
        cc_out_free(&self.scratch, cc_value_release)

    cdef int choose_slow(self) except -1:
        """Which commands C leaves: writes while somebody watches keys; in a proxy all but reads."""
        self.service.slow = (CC_MAY_CONNECT | CC_MAY_WRITE if self.service.proxy
                             else CC_MAY_WRITE if self.watched else 0)
        if self.judged:
            self.service.slow |= CC_MAY_READ
        return 0

    cdef int refresh(self) except -1:
        """What may have changed of the cache since commands were executed last."""
        self.service.table = &self.cache.table
        self.service.ttl, self.service.jitter = self.cache.lifetime, self.cache.jitter
        self.service.on_evict = (NULL if self.cache.on_evict is None
                                 else <PyObject *>self.cache.on_evict)
        return 0

    cdef bint must_wait(self, Client client) noexcept:
        return (client.waiting or client.stopped or client.choked
                or cc_out_left(&client.out) + client.held_bytes >= self.service.pause
                or (client.held is not None and len(client.held) >= MOST_HELD))

    cdef Py_ssize_t consume(self, Client client, char *data, size_t size) except -1:
        """Executes the complete commands among these bytes; how many bytes that were."""
        cdef size_t used, at = 0
        cdef cc_resp_result fault
        cdef cc_serve_end end
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
                self.perform(client, data + at)
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
        pending = client.defer()
        pending.resolve(ReplyError(f"ERR Protocol error: {text}"))
        self.hold(client, pending)
        client.close("protocol")
        return 0

    # --- one command

    cdef int perform(self, Client client, char *data) except -1:
        """Executes the command at `data`, or puts it off, and sees to its reply."""
        cdef bint behind = client.held is not None
        cdef cc_out *out = &self.scratch if behind else &client.out
        cdef size_t size = out.size, count = out.count
        client.command, client.target = data, out
        try:
            reply = self.answer(client, data)
            if isinstance(reply, Pending) or isawaitable(reply):
                self.hold(client, reply)
            else:
                self.reply(client, out, reply)
        except Exception as error:
            cc_out_cut(out, size, count, cc_value_release)
            self.reply(client, out, told(client, error))
        finally:
            client.command = NULL
        if behind:
            self.queue_reply(client)
        return 0

    cdef int queue_reply(self, Client client) except -1:
        """What was written to `scratch` waits for the replies before it."""
        cdef bytes data
        if self.scratch.failed:
            cc_out_free(&self.scratch, cc_value_release)
            client.out.failed = True
        elif cc_out_left(&self.scratch):
            data = joined(&self.scratch)
            if client.held is None:  # its handler gave the last of those
                cc_out_put(&client.out, data, len(data))
            else:
                client.held.append(data)
                client.held_bytes += len(data)
        return 0

    cdef int reply(self, Client client, cc_out *out, object value) except -1:
        if isinstance(value, ReplyError):
            code = str(value).partition(" ")[0]
            self.told[code] = self.told.get(code, 0) + 1
        return put(out, value, client.session.protocol)

    cdef object answer(self, Client client, char *data):
        """The reply to a command; NOTHING: it has been written, or there is none."""
        cdef list args = arguments(&client.request, data)
        cdef Command command
        client.last_command = (<bytes>args[0])[:LONGEST_NAME].lower()  # it is kept
        if self.intercept is not None:
            reply = self.intercept(client, args)
            if reply is not NotImplemented:
                self.service.commands += 1
                return reply
        command = self.commands.get(client.last_command)
        refusal = refused(client, command, args)
        if refusal is not None:
            client.aborted = client.aborted or client.raws is not None
            if command is not None:
                command.rejected += 1
            return ReplyError(refusal)
        if client.raws is not None and not command.immediate:
            if command.check is not None:
                self.may_be_queued(client, command, args)
            client.queued += client.request.at + QUEUED
            if client.queued > self.limits.max_command:
                client.aborted = True
                return ReplyError("ERR the transaction is too large")
            client.raws.append(raw_of(&client.request, data))
            return "QUEUED"
        return self.run(client, command, args, &client.request, data)

    def may_be_queued(self, Client client, Command command, args):
        """Asks the command's `check`; what it raises aborts the transaction."""
        try:
            command.check(client, args)
        except ReplyError:
            client.aborted = True
            command.rejected += 1
            raise

    cdef object run(self, Client client, Command command, list args,
                    const cc_resp_request *request, char *data):
        """Executes a command that is allowed; who watches what it writes is told."""
        if not (self.watched and command.needs & CC_MAY_WRITE):
            return self.execute(client, command, args, request, data)
        keys = [client.prefix + key for key in command.keys_of(args)]
        keys = [key for key in (keys if command.keys[0] else self.watched) if key in self.watched]
        there = [key in self.cache for key in keys]
        faults = sum(self.service.faults)
        client.unchanged = False
        try:
            reply = self.execute(client, command, args, request, data)
            client.unchanged = client.unchanged or faults != sum(self.service.faults)
            return reply
        except ReplyError:
            client.unchanged = True
            raise
        finally:
            if not client.unchanged:
                self.touch([key for key, was in zip(keys, there) if was or key in self.cache])

    cdef object execute(self, Client client, Command command, list args,
                        const cc_resp_request *request, char *data):
        """Executes a command, in C if it can be."""
        if command.hot < 0 or cc_serve_one(&self.service, &client.session, request, client.target,
                                           data) == CC_RUN_NOT_MINE:
            if command.handler is None:
                raise ReplyError("ERR syntax error")
            command.calls += 1
            self.service.commands += 1
            try:
                return command.handler(client, args)
            except BaseException:
                command.failed += 1
                raise
        return NOTHING

    def touch(self, keys):
        """Keys, with their prefix, were written: who watches them is told.

        The engine does it for commands of the flag "write" and the keys that they name, or all
        where they name none, as far as these are there before or afterwards.
        """
        for key in keys:
            for client in self.watched.get(key, ()):
                (<Client>client).touched = True

    cdef int nested(self, Client client, bytes raw) except -1:
        """Executes a queued command; its reply goes where that of the present one does."""
        cdef cc_resp_request request
        cdef cc_resp_limits limits = self.limits
        cdef char *data
        if cc_out_left(client.target) > self.max_buffered:
            self.close_client(client, "memory")
            raise ReplyError("OOM the replies of the transaction are too large")
        # It may have been a line, which is shorter; and the limits may have been set anew.
        limits.max_command = limits.max_bulk = 0xFFFFFFFF
        memset(&request, 0, sizeof(request))
        data = <char *>PyMem_RawMalloc(len(raw))
        try:
            if data == NULL:
                raise MemoryError("no memory for a queued command")
            memcpy(data, <const char *>raw, len(raw))
            if cc_resp_parse(&request, data, len(raw), &limits) != CC_RESP_READY:
                raise ValueError("raw must be one command")
            self.reply(client, client.target,
                       self.nested_reply(client, arguments(&request, data), &request, data))
        finally:
            PyMem_RawFree(data)
            cc_resp_free(&request)
        return 0

    cdef object nested_reply(self, Client client, list args, const cc_resp_request *request,
                             char *data):
        cdef Command command = self.commands[(<bytes>args[0]).lower()]
        try:
            reply = self.run(client, command, args, request, data)
        except Exception as error:
            return told(client, error)
        if not isawaitable(reply) and not isinstance(reply, Pending):
            return reply
        getattr(reply, "close", bool)()
        return ReplyError("ERR this command is not allowed inside a transaction")

    # --- replies that come later

    cdef int hold(self, Client client, object reply) except -1:
        """Keeps the place of a reply that is not there yet."""
        cdef Pending pending
        if isinstance(reply, Pending):
            pending = reply
        else:
            pending = client.defer()
            client.waiting = True
            client.task = self.loop.create_task(finish(reply, pending))
        if pending.reply is not None and client.held is None:  # resolved by its own handler
            client.held_bytes -= len(pending.reply)
            cc_out_put(&client.out, pending.reply, len(pending.reply))
            return 0
        if client.held is None:
            client.held = deque()
            client.choose_slow()
        client.held.append(pending)
        return 0

    cdef int resolve(self, Pending pending, bytes reply) except -1:
        """A reply is there: it is sent, with those after it, unless one before it is not."""
        cdef Client client = pending.client
        cdef bytes data
        pending.reply = reply
        client.held_bytes += len(reply)
        while client.held:
            first = client.held[0]
            data = (<Pending>first).reply if isinstance(first, Pending) else first
            if data is None:
                break
            client.held.popleft()
            client.held_bytes -= len(data)
            cc_out_put(&client.out, data, len(data))
        if not client.held:
            client.held = None
            client.choose_slow()
        return self.note(client)

    # --- counts and limits

    @property
    def executed(self):
        """Commands that were executed."""
        return self.service.commands

    def calls(self):
        """How often each command was executed, by name."""
        cdef Command command
        return {command.name: command.calls + (self.service.calls[command.hot]
                                               if command.hot >= 0 else 0)
                for command in self.commands.values()}

    cdef int timed(self, uint64_t spent, uint64_t commands) noexcept:
        """Counts commands by the nanoseconds of the turn in which they were executed."""
        cdef int size = 0
        self.waited += <double>spent * <double>commands * 1e-9
        spent //= 1000
        while spent > 1 and size < TIMES - 1:
            spent >>= 1
            size += 1
        self.times[size] += commands
        return 0

    def latencies(self):
        """How long clients waited from the system's word that their sockets are readable to their
        replies: commands by time, item i those of 2^i ... 2^(i + 1) - 1 us; and seconds in all.
        Not of those that transports or upstreams take part in."""
        return [self.times[at] for at in range(TIMES)], self.waited

    @property
    def errors(self):
        """How many error replies began with a word, by that word."""
        counts = dict(self.told)
        for at, code in enumerate(("ERR", "WRONGTYPE", "OOM")):
            if self.service.faults[at]:
                counts[code] = counts.get(code, 0) + self.service.faults[at]
        return counts

    @property
    def expiring(self):
        """Keys that have a lifetime."""
        return self.cache.table.expiring

    @property
    def guarded(self):
        """Whether C leaves reads, too, to `intercept` and handlers; settable."""
        return self.judged

    @guarded.setter
    def guarded(self, bint value):
        self.judged = value
        self.choose_slow()

    @property
    def max_bulk(self):
        """Most bytes of an argument; settable."""
        return self.limits.max_bulk

    @max_bulk.setter
    def max_bulk(self, value):
        self.limits.max_bulk = value

    @property
    def max_output(self):
        """Bytes of replies that a client leaves unread until its commands wait; settable."""
        return self.service.pause

    @max_output.setter
    def max_output(self, value):
        self.service.pause = value


cdef object told(Client client, object error):
    """What a client is told of an exception."""
    if isinstance(error, ReplyError):
        return error
    if isinstance(error, MemoryError):
        return ReplyError("OOM out of memory")
    log.error("a command failed: %r", client.last_command, exc_info=error)
    return ReplyError("ERR internal error")


async def finish(reply, Pending pending):
    """Awaits what a handler returned, and lets its client go on."""
    cdef Client client = pending.client
    try:
        data = encoded(client, await reply)
    except Exception as error:
        data = encoded(client, told(client, error))
    client.waiting, client.task = False, None
    pending.resolve_raw(data)
