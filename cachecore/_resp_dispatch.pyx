"""Commands executed: in C as long as it goes, by handlers where C leaves them, in order always.

Thread safety: all of it belongs to the loop's thread.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from cachecore._resp_client cimport (
    Client, Command, Host, Pending, arguments, raw_of, refused,
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

log = getLogger("cachecore.server")


cdef class Dispatcher(Host):
    """The part of the engine that executes commands; `commands` are Command objects by name.

    `intercept(client, args)`, where it is set, is asked for every command that C did not execute:
    it returns a reply, or NotImplemented.
    """

    def __cinit__(self):
        memset(&self.service, 0, sizeof(self.service))
        memset(&self.scratch, 0, sizeof(self.scratch))

    def __dealloc__(self):
        cc_out_free(&self.scratch, cc_value_release)

    cdef int choose_slow(self) except -1:
        """Which commands C leaves: writes while somebody watches keys; in a proxy all but reads."""
        self.service.slow = (CC_MAY_CONNECT | CC_MAY_WRITE if self.service.proxy
                             else CC_MAY_WRITE if self.watched else 0)
        self.service.table = &self.cache.table
        self.service.on_evict = (NULL if self.cache.on_evict is None
                                 else <PyObject *>self.cache.on_evict)
        return 0

    cdef bint must_wait(self, Client client) noexcept:
        return (client.waiting or client.choked
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
                put(out, reply, client.session.protocol)
        except ReplyError as error:
            cc_out_cut(out, size, count, cc_value_release)
            put(out, error, 2)
        except MemoryError:
            cc_out_cut(out, size, count, cc_value_release)
            put(out, ReplyError("OOM out of memory"), 2)
        except Exception:
            log.exception("a command failed: %r", client.last_command)
            cc_out_cut(out, size, count, cc_value_release)
            put(out, ReplyError("ERR internal error"), 2)
        finally:
            client.command = NULL
        if behind and cc_out_left(out):
            client.held.append(joined(out))
            client.held_bytes += len(<bytes>client.held[-1])
        return 0

    cdef object answer(self, Client client, char *data):
        """The reply to a command; NOTHING: it has been written, or there is none."""
        cdef list args = arguments(&client.request, data)
        cdef Command command
        client.last_command = (<bytes>args[0]).lower()
        if self.intercept is not None:
            reply = self.intercept(client, args)
            if reply is not NotImplemented:
                self.service.commands += 1
                return reply
        command = self.commands.get(client.last_command)
        refusal = refused(client, command, args)
        if refusal is not None:
            client.aborted = client.aborted or client.raws is not None
            return ReplyError(refusal)
        if client.raws is not None and not command.immediate:
            client.queued += client.request.at + QUEUED
            if client.queued > self.limits.max_command:
                client.aborted = True
                return ReplyError("ERR the transaction is too large")
            client.raws.append(raw_of(&client.request, data))
            return "QUEUED"
        return self.run(client, command, args, &client.request, data)

    cdef object run(self, Client client, Command command, list args,
                    const cc_resp_request *request, char *data):
        """Executes a command that is allowed."""
        cdef object reply = NOTHING
        if command.hot < 0 or cc_serve_one(&self.service, &client.session, request, client.target,
                                           data) == CC_RUN_NOT_MINE:
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
            keys = [client.prefix + key for key in command.keys_of(args)]
            self.touch(keys if command.keys[0] else list(self.watched))
        return reply

    def touch(self, keys):
        """Keys, with their prefix, were written: who watches them is told.

        The engine does it for commands of the flag "write"; one that names no keys touches all.
        """
        for key in keys:
            for client in self.watched.get(key, ()):
                (<Client>client).touched = True

    cdef int nested(self, Client client, bytes raw) except -1:
        """Executes a queued command; its reply goes where that of the present one does."""
        cdef cc_resp_request request
        cdef cc_resp_limits limits = self.limits
        cdef char *data = <char *>PyMem_RawMalloc(len(raw))
        limits.max_command = 0xFFFFFFFF  # it may have been a line, which is shorter
        memset(&request, 0, sizeof(request))
        try:
            if data == NULL:
                raise MemoryError("no memory for a queued command")
            memcpy(data, <const char *>raw, len(raw))
            if cc_resp_parse(&request, data, len(raw), &limits) != CC_RESP_READY:
                raise ValueError("raw must be one command")
            put(client.target, self.nested_reply(client, arguments(&request, data), &request, data),
                client.session.protocol)
        finally:
            PyMem_RawFree(data)
            cc_resp_free(&request)
        return 0

    cdef object nested_reply(self, Client client, list args, const cc_resp_request *request,
                             char *data):
        cdef Command command = self.commands[(<bytes>args[0]).lower()]
        try:
            reply = self.run(client, command, args, request, data)
        except ReplyError as error:
            return error
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
            client.session.slow = True
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
            client.session.slow = client.raws is not None
        return self.note(client)


async def finish(reply, Pending pending):
    """Awaits what a handler returned, and lets its client go on."""
    cdef Client client = pending.client
    try:
        value = await reply
    except ReplyError as error:
        value = error
    except Exception:
        log.exception("a command failed: %r", client.last_command)
        value = ReplyError("ERR internal error")
    client.waiting, client.task = False, None
    try:
        pending.resolve(value)
    except (TypeError, ValueError):
        log.exception("a command failed: %r", client.last_command)
        pending.resolve(ReplyError("ERR internal error"))
