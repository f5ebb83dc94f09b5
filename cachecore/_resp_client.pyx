"""Clients of the server and the commands they send, as handlers see them.

Thread safety: all of it belongs to the loop's thread.
"""

from cpython.buffer cimport PyBUF_WRITE
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint32_t
from libc.string cimport memmove, memset

from cachecore._resp_values cimport put
from cachecore.cc_out cimport *
from cachecore.cc_resp cimport *
from cachecore.cc_serve cimport *

MAY_CONNECT, MAY_READ, MAY_WRITE, MAY_ADMINISTER = (
    CC_MAY_CONNECT, CC_MAY_READ, CC_MAY_WRITE, CC_MAY_ADMINISTER)
MAY_ALL = MAY_CONNECT | MAY_READ | MAY_WRITE | MAY_ADMINISTER


cdef enum:
    WATCHED = 400  # bytes that a watched key takes beside its own, in two sets and a dict


cdef dict hot_numbers():
    """Numbers of the commands that C executes, by name."""
    cdef dict numbers = {}
    while cc_hot_name(len(numbers)) != NULL:
        numbers[<bytes>cc_hot_name(len(numbers))] = len(numbers)
    return numbers


cdef dict HOT = hot_numbers()


cdef class Host:
    """What a client needs of the engine, which is one."""

    cdef int note(self, Client client) except -1:
        raise NotImplementedError

    cdef int resolve(self, Pending pending, bytes reply) except -1:
        raise NotImplementedError

    cdef int nested(self, Client client, bytes raw) except -1:
        raise NotImplementedError

    cdef int arrived(self, Client client, char *data, size_t size) except -1:
        raise NotImplementedError

    cdef int ended(self, Client client) except -1:
        raise NotImplementedError

    cdef int unchoked(self, Client client) except -1:
        raise NotImplementedError

    cdef int close_client(self, Client client, str reason) except -1:
        raise NotImplementedError

    cdef int choose_slow(self) except -1:
        raise NotImplementedError


cdef class Command:
    """A command as the engine executes it: in C, for forms that it knows, or by a handler.

    Args:
        name: in small letters.
        arity: number of arguments with the name; negative: at least so many.
        handler: called as handler(client, args), `args` a list of bytes with the name first;
            returns the reply. If it has a method `check(client, args)`, that is called before MULTI
            queues a call, and raises ReplyError if it must not. None: C does all of it.
        flags: as COMMAND tells them; "admin", "write" and "readonly" say what a client needs.
        keys: places of the first and last key among the arguments, and the step; (0, 0, 0): none.
        open: may be used before authentication.
        immediate: is executed, not queued, after MULTI.
    """

    def __init__(self, bytes name, int arity, handler=None, *, flags=(), tuple keys=(0, 0, 0),
                 bint open=False, bint immediate=False):
        self.name, self.arity, self.handler = name, arity, handler
        self.flags, self.keys, self.immediate = frozenset(flags), keys, immediate
        self.needs = (0 if open else CC_MAY_ADMINISTER if "admin" in self.flags
                      else CC_MAY_WRITE if "write" in self.flags
                      else CC_MAY_READ if "readonly" in self.flags else CC_MAY_CONNECT)
        self.hot = HOT.get(name, -1)
        self.check = getattr(handler, "check", None)
        if handler is None and self.hot < 0:
            raise ValueError(f"handler must be given: C does not know the command {name!r}")

    def keys_of(self, list args):
        """The keys among the arguments of a call."""
        first, last, step = self.keys
        return args[first:len(args) + last + 1 if last < 0 else last + 1:step] if first else []


cdef class Pending:
    """The place of a reply that comes later; commands after it go on, their replies wait."""

    def resolve(self, reply):
        """Gives the reply, an object as handlers return; the first one counts."""
        self.resolve_raw(encoded(self.client, reply))

    def resolve_raw(self, bytes reply not None):
        """Gives the reply as the bytes that the client is to receive."""
        if self.reply is None and self.client.closed is None:
            self.client.engine.resolve(self, reply)


cdef class Client:
    """One connection, made by the engine; what is public here is for handlers.

    Attributes:
        id, name, user, created, received_at, sent_at (ms of `engine.now`), bytes_in, bytes_out.
        prefix: what the keys of its database begin with in the cache: one byte.
        closed: why it was closed; None while it is open.
        watching, touched, aborted: of its transaction.
        unchanged: a handler of a write command sets it where it wrote nothing.
        patient: is not closed for being idle.
        starved: `engine.on_room(client)` is to be called once, when it has read its replies.
        state: a dict for what handlers remember.
    """

    def __cinit__(self):
        memset(&self.session, 0, sizeof(self.session))
        memset(&self.request, 0, sizeof(self.request))
        memset(&self.out, 0, sizeof(self.out))
        self.fd = -1
        self.name, self.state, self.last_command = b"", {}, b""

    def __dealloc__(self):
        PyMem_RawFree(self.input)
        cc_resp_free(&self.request)
        cc_out_free(&self.out, cc_value_release)

    @property
    def cache(self):
        return self.engine.cache

    @property
    def database(self):
        """The number of its database; settable."""
        return self.session.database

    @database.setter
    def database(self, value):
        self.session.database = value
        self.prefix = bytes((value,))

    @property
    def protocol(self):
        """2 or 3; settable."""
        return self.session.protocol

    @protocol.setter
    def protocol(self, value):
        self.session.protocol = value

    @property
    def may(self):
        """What it may do, a sum of MAY_...; 0: it has yet to authenticate. Settable."""
        return self.session.may

    @may.setter
    def may(self, value):
        self.session.may = value
        self.session.limits = &self.engine.limits if value else &self.engine.strangers

    @property
    def queue(self):
        """Commands since MULTI, as bytes; None: there is no transaction. Settable."""
        return self.raws

    @queue.setter
    def queue(self, list value):
        self.raws, self.queued = value, 0
        self.choose_slow()

    @property
    def private(self):
        """Whether C leaves all of its commands to `intercept` and handlers; settable."""
        return self.alone

    @private.setter
    def private(self, bint value):
        self.alone = value
        self.choose_slow()

    cdef int choose_slow(self) noexcept:
        self.session.slow = self.alone or self.raws is not None or self.held is not None
        return 0

    @property
    def waiting_replies(self):
        """Whether replies to it have to wait for one that is not there yet."""
        return self.held is not None

    @property
    def fileno(self):
        """Its socket; -1: none of its own."""
        return self.fd

    @property
    def unsent_bytes(self):
        """Bytes of output that have not been sent, or wait for a reply before them."""
        return cc_out_left(&self.out) + self.held_bytes

    @property
    def unread_bytes(self):
        """Bytes of input that have not been executed."""
        return self.size - self.begin

    def raw(self):
        """The command that is executed, as the client sent it; inline commands as an array."""
        self.check_running()
        return raw_of(&self.request, self.command)

    def defer(self):
        """A Pending for the handler to return: its reply comes later, those after it wait."""
        cdef Pending pending = Pending.__new__(Pending)
        pending.client = self
        return pending

    def hold(self):
        """Executes no more of its commands until `release`."""
        self.stopped = True

    def release(self):
        """Goes on with its commands."""
        if self.stopped and self.closed is None:
            self.stopped = False
            self.engine.note(self)

    def write(self, bytes data not None):
        """Sends bytes as they are, in front of all replies that are not there yet."""
        if self.closed is None:
            cc_out_put(&self.out, data, len(data))
            self.engine.note(self)

    def push(self, value):
        """Sends a Push, in front of all replies that are not there yet."""
        self.write(encoded(self, value))

    def begin_array(self, size_t count):
        """Begins a reply of `count` parts, which `execute` and `put` then write."""
        self.check_running()
        cc_resp_put_head(self.target, b"*", count)

    def put(self, value):
        """Writes a part of the reply of the command that is executed."""
        self.check_running()
        put(self.target, value, self.session.protocol)

    def execute(self, bytes raw not None):
        """Executes a command that was queued; its reply becomes a part of the present one."""
        self.check_running()
        self.engine.nested(self, raw)

    cdef int check_running(self) except -1:
        if self.command == NULL:
            raise RuntimeError("this is for the handler of a command, while it runs")
        return 0

    def watch(self, keys):
        """Notes in `touched` when one of these keys, with their prefix, is written."""
        if self.watching is None:
            self.watching = set()
        for key in keys:
            if key not in self.watching:
                self.engine.watched.setdefault(key, set()).add(self)
                self.watching.add(key)
                self.pinned += len(key) + WATCHED
        self.engine.choose_slow()

    def unwatch(self):
        """Watches nothing any more."""
        for key in self.watching or ():
            clients = self.engine.watched[key]
            clients.discard(self)
            if not clients:
                del self.engine.watched[key]
        self.watching, self.touched, self.pinned = None, False, 0
        self.engine.choose_slow()

    def close(self, str reason="closed", *, now=False):
        """Closes it, when what it was to be told has been sent unless `now`."""
        if now:
            self.engine.close_client(self, reason)
        elif self.closed is None and not self.ending:
            self.ending, self.reason = True, reason
            self.engine.note(self)

    # --- what a transport's protocol is told: an asyncio.BufferedProtocol passes it on

    def get_buffer(self, hint):
        """Where to receive bytes; `buffer_updated` must follow at once."""
        if self.closed is not None:
            return memoryview(bytearray(BUFFER))  # nobody reads them
        return PyMemoryView_FromMemory(self.engine.buffer, BUFFER, PyBUF_WRITE)

    def buffer_updated(self, size_t size):
        """So many bytes were received."""
        if self.closed is None:
            self.engine.arrived(self, self.engine.buffer, size)

    def eof_received(self):
        """The other end sends no more; it may still read."""
        self.engine.ended(self)
        return True  # the transport is to stay open

    def connection_lost(self):
        """The transport is closed."""
        self.engine.close_client(self, "lost")

    def pause_writing(self):
        """The transport has enough to send."""
        self.choked = True

    def resume_writing(self):
        """The transport takes more again."""
        self.choked = False
        self.engine.unchoked(self)

    cdef int drop_buffers(self) noexcept:
        """Gives back the memory of what a closed client's buffers hold."""
        PyMem_RawFree(self.input)
        self.input = NULL
        self.begin = self.size = self.room = 0
        cc_out_free(&self.out, cc_value_release)
        return 0


def counted_bytes(Client client):
    """Bytes of a client's buffers, as they were counted last."""
    return client.counted


# --- what the engine does with commands and replies -----------------------------------------------

cdef bytes encoded(Client client, object reply):
    cdef cc_out out
    memset(&out, 0, sizeof(out))
    try:
        put(&out, reply, client.session.protocol)
        if out.failed:
            raise MemoryError("no memory for a reply")
        return out.data[:out.size]
    finally:
        cc_out_free(&out, cc_value_release)


cdef list arguments(const cc_resp_request *request, const char *data):
    cdef uint32_t i
    cdef list args = []
    for i in range(request.count):
        args.append(data[request.args[i].at:request.args[i].at + request.args[i].size])
    return args


cdef bytes raw_of(const cc_resp_request *request, char *data):
    cdef uint32_t i
    if data[0] != b"*":
        args = arguments(request, data)
        parts = [b"*%d\r\n" % len(args)]
        parts += [b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args]
        return b"".join(parts)
    for i in range(1, request.count):
        data[request.args[i].at - 1] = b"\n"  # where a look-up put the database's number
    return data[:request.at]


cdef str refused(Client client, Command command, list args):
    """Why a command is not executed, as Redis says it; None: it may be."""
    if command is None:
        name = args[0][:128].decode("utf-8", "backslashreplace")
        shown = "".join(f"'{arg[:128].decode('utf-8', 'backslashreplace')}' " for arg in args[1:20])
        return f"ERR unknown command '{name}', with args beginning with: {shown}"
    name = command.name.decode()
    if len(args) != command.arity if command.arity > 0 else len(args) < -command.arity:
        return f"ERR wrong number of arguments for '{name}' command"
    if command.needs & ~client.session.may:
        if not client.session.may:
            return "NOAUTH Authentication required."
        return f"NOPERM this user has no permissions to run the '{name}' command"
    return None


cdef int make_room(Client client, size_t more) except -1:
    """Room for so many bytes more in a client's own buffer, which grows as bytes arrive."""
    cdef size_t room = max(client.room, <size_t>LEAST_INPUT)
    if client.begin:
        client.size -= client.begin
        memmove(client.input, client.input + client.begin, client.size)
        client.begin = 0
    if client.room - client.size >= more:
        return 0
    while room - client.size < more:
        room *= 2
    cdef char *grown = <char *>PyMem_RawRealloc(client.input, room)
    if grown == NULL:
        raise MemoryError("no memory for what a client sends")
    client.input, client.room = grown, room
    return 0
