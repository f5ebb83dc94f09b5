"""A client as the proxy sees it: what of it is answered here, what goes upstream, in which order.

At any time a client either has keys being fetched (on the shared connection) or commands on their
way on its own, never both: what would go the other way waits. So its commands are executed in the
order in which it sent them, and one that reads what it has just written asks the upstream.

Not answered from the cache are clients that authenticated as themselves, those within MULTI or
behind WATCH (whose reads must be the upstream's), and those that went on to speak something else
than command and reply: SUBSCRIBE, MONITOR, CLIENT REPLY, CLIENT TRACKING. Of the latter bytes are
passed on both ways without being looked at, until they leave.
"""

from __future__ import annotations

from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from cachecore._resp_client import MAY_READ, MAY_WRITE, Client, Pending
from cachecore._resp_values import NOTHING, ReplyError
from cachecore.server.commands.connection import hello_options
from cachecore.server.proxy.commands import (
    BEGINNINGS,
    TUNNELS,
    TUNNELS_OF_CLIENT,
    WAITS,
    refusal,
)
from cachecore.server.proxy.line import Call, Line
from cachecore.server.proxy.reads import HASH, READS, STRINGS, Read, strings
from cachecore.server.proxy.role import Role
from cachecore.server.proxy.tracking import UNFIT, Tracker
from cachecore.tiers.redis_link import Node, pack

if TYPE_CHECKING:
    from cachecore.server.proxy.commands import Command
    from cachecore.server.proxy.proxy import Proxy

MOST_SHARED = 16_384  # bytes of a command that is sent where those of others wait behind it
REDIRECTS = (b"-MOVED ", b"-ASK ")


class Guest:
    """The proxy's side of one client."""

    def __init__(self, proxy: Proxy, client: Client) -> None:
        self.proxy, self.client = proxy, client
        self.role = Role(proxy, client)
        self.lines: dict[Node, Line] = {}
        self.queue: deque[Call] = deque()  # calls that wait for their turn
        self.redirects = 0  # calls that were sent to another node than the first
        self.under_way = 0  # calls that wait for replies, of one line but for redirected ones
        self._line: Line | None = None  # that was used last
        self._shared = False  # it has used such a line
        self._late: list[tuple[int, Call]] = []  # reads that turned out not to be cacheable
        self._fetched = 0  # reads that had to be, until now
        self._fills = 0  # keys that are being fetched for it
        self._swaps = False  # it has used SWAPDB
        self._multi_raw: bytes | None = None  # MULTI, until it is known to which node it goes

    # --- commands

    def command(self, args: list[bytes]) -> Any:
        """The reply to a command that C did not answer."""
        name = self.client.last_command
        read = READS.get(name)
        busy = self.queue or self.under_way
        if read is None or busy or self.client.private or not self.client.may & MAY_READ:
            return self._forward(name, args)
        if read.least <= len(args) <= read.most:
            keys = args[1:] if read.kind == STRINGS else args[1:2]
            tracker = self.proxy.tracker(self.client.database, keys)
            if tracker is not None and tracker.tracking:
                return self._read(name, read, tracker, keys, args)
        return self._forward(name, args)

    def _read(
        self, name: bytes, read: Read, tracker: Tracker, keys: list[bytes], args: list[bytes]
    ) -> Any:
        cache, prefix = self.proxy.cache, self.client.prefix
        values = [cache.peek(prefix + key) for key in keys]
        if None in values:
            if tracker.can_fetch(read.kind, keys[0]):
                return self._fetch(read, tracker, keys, values, args)
        elif tracker.up or tracker.serves_stale():
            self.proxy.stale_served += not tracker.up
            values = cache.get_many([prefix + key for key in keys])  # these are look-ups, counted
            if read.kind == STRINGS:
                return strings(values)
            if isinstance(values[0], dict) == (read.kind == HASH):
                return read.answer(values[0], args)
        return self._forward(name, args)  # an error is the upstream's too

    def _fetch(
        self, read: Read, tracker: Tracker, keys: list[bytes], values: list[Any], args: list[bytes]
    ) -> Pending:
        """Have the keys that are not here fetched; the reply comes then."""
        pending = self.client.defer()
        self._fills += 1
        self._fetched += 1
        turn = self._fetched

        def landed(value: Any) -> None:
            if self.client.closed is not None:
                return
            if read.kind == STRINGS and value is not UNFIT:
                value = self._whole(keys, values, value)
                if value is None:  # something changed meanwhile: all of it at once
                    values[:] = [None] * len(keys)
                    tracker.fetch(STRINGS, keys, landed)
                    return
            self._fills -= 1
            if value is UNFIT:
                command = self.proxy.table.find(args[0].lower(), args)
                call = self._call(pack(tuple(args)), command, args)
                call.pending = pending
                self._late.append((turn, call))
            else:
                pending.resolve(read.answer(value, args))
            if not self._fills:
                self.pump()

        missing = [key for key, value in zip(keys, values, strict=True) if value is None]
        tracker.fetch(read.kind, missing, landed)
        return pending

    def _whole(self, keys: list[bytes], values: list[Any], found: list[Any]) -> Any:
        """The strings of all keys, as of one moment; None if those that were here have changed."""
        peek, prefix, fetched = self.proxy.cache.peek, self.client.prefix, iter(found)
        had = [(key, value) for key, value in zip(keys, values, strict=True) if value is not None]
        if any(peek(prefix + key) is not value for key, value in had):
            return None
        return strings([next(fetched) if value is None else value for value in values])

    # --- what goes upstream

    def _forward(self, name: bytes, args: list[bytes]) -> Any:
        client = self.client
        command = self.proxy.table.find(name, args)
        if command is None or not command.plain or client.private or command.needs & ~client.may:
            return self._forward_special(name, args, command)
        call = self._call(client.raw(), command, args)
        call.pending = client.defer()
        self.submit(call)
        return call.pending

    def _forward_special(self, name: bytes, args: list[bytes], command: Command | None) -> Any:
        """What may change more than keys, or must be refused."""
        client, proxy, role = self.client, self.proxy, self.role
        if name == b"reset":
            return self._reset()
        if name == b"auth" and proxy.has_users:
            return NotImplemented
        ours = name == b"hello" and proxy.has_users
        raw = self._without_user(args) if ours else client.raw()
        refused = bool((MAY_WRITE if command is None else command.needs) & ~client.may)
        if refused and not role.multi:
            if role.tunnel:  # among whose replies this one has no place
                client.close("refused")
            return ReplyError(refusal(name))
        inner = args[1].lower() if len(args) > 1 else b""
        if name in BEGINNINGS and not (self.lines or client.private) and proxy.is_away(None):
            return self._begin_alone(name, inner, args)
        if name in TUNNELS or (name == b"client" and inner in TUNNELS_OF_CLIENT):
            role.become(tunnel=True)
        call = self._call(raw, command, args)
        if role.tunnel:  # nobody can tell what is a reply to what
            call.expected = False
            self.submit(call)
            return NOTHING
        call.after = role.after(name, inner, args)
        if refused:  # EXEC must fail, too, as it does after a command that is wrong
            call.raw = pack((b"GET",))
            call.after = lambda _: b"-%b\r\n" % refusal(name).encode()
        return self._forward_stateful(name, call)

    def _forward_stateful(self, name: bytes, call: Call) -> Any:
        """What depends on what the client said before."""
        self._swaps = self._swaps or name == b"swapdb"
        call.swaps = self._swaps and name in {b"swapdb", b"exec"}
        if name in WAITS and self._shared and not self.role.multi:
            self._submit_write(call)
        if self._multi_raw is not None and name != b"multi":
            self._submit_multi(call.key)
        elif name == b"multi" and self.proxy.is_cluster and self.role.pinned is None:
            self._multi_raw = call.raw
            return "OK"
        call.pending = self.client.defer()
        self.submit(call)
        return call.pending

    def _reset(self) -> Pending:
        """The client becomes a new one when all before has been answered."""
        if self.proxy.has_users:  # not what it may do, though, which ends here
            self.client.engine.server.access.begin(self.client)
        call = Call(self, b"")
        call.pending = self.client.defer()
        self.submit(call)
        return call.pending

    def _without_user(self, args: list[bytes]) -> bytes:
        """HELLO as it is for the upstream, when the user is one of ours."""
        protocol, name, user = hello_options(self.client, args)
        if user is not None:
            self.client.engine.server.access.authenticate(self.client, *user)
        named = () if name is None else (b"SETNAME", name)
        return pack((b"HELLO", protocol, *named))

    def _begin_alone(self, name: bytes, inner: bytes, args: list[bytes]) -> Any:
        """What a client begins with, while there is no upstream; the next connection is told."""
        if name == b"client":
            if (after := self.role.change_client(inner, args)) is not None and len(args) in (3, 4):
                after(b"+OK\r\n")
                return "OK"
        elif self.proxy.has_users or b"auth" not in map(bytes.lower, args[2:]):
            return NotImplemented
        return ReplyError(f"ERR upstream {self.proxy.called} unavailable; nothing was done")

    def _call(self, raw: bytes, command: Command | None, args: list[bytes]) -> Call:
        call = Call(self, raw, command)
        if command is not None:
            # A read that was forwarded may have seen what the tracker has yet to hear of.
            seen = command.name in READS and not (self.role.private or self.role.multi)
            if command.known and (command.write or seen):
                call.drops = command.keys(args)
            if self.proxy.is_cluster:
                call.key = command.first_key(args)
            elif command.short and len(raw) <= MOST_SHARED:
                call.shared = command.name != b"set" or b"get" not in map(bytes.lower, args[3:])
        self.proxy.forwarded += 1
        return call

    def _submit_write(self, wait: Call) -> None:
        """A write of the client's own, so that WAIT waits for those before it; or else fails."""
        failed: list[bytes] = []
        write = Call(self, pack((b"PUBLISH", b"cachecore:wait", b"")))
        write.after = lambda reply: failed.append(reply) if reply[:1] == b"-" else None
        wait.after = lambda _: failed[0] if failed else None
        self.submit(write)

    def _submit_multi(self, key: bytes | None) -> None:
        """MULTI goes to the node of the command behind it; it has been answered."""
        assert self._multi_raw is not None
        call, self._multi_raw = Call(self, self._multi_raw), None
        call.key = key
        self.submit(call)

    def submit(self, call: Call) -> None:
        """Send a call in its turn."""
        self.queue.append(call)
        self.pump()
        self.pace()

    def pace(self) -> None:
        """Have the client's commands wait while the last one, or the upstream, does."""
        line = self._line
        if not self.queue and (line is None or not line.full):
            self.client.release()
            return
        self.client.hold()
        if line is not None:
            line.waiting.add(self)

    def room(self) -> None:
        """The client has read its replies: more may come."""
        for line in self.lines.values():
            line.room()

    def pump(self) -> None:
        """Send what may be sent now."""
        if self._fills or self.client.closed is not None:
            return
        if self._late:  # they come before what waits, in the order of asking
            self.queue.extendleft(
                call for _, call in sorted(self._late, key=itemgetter(0), reverse=True)
            )
            self._late = []
        while self.queue:
            call = self.queue[0]
            if not call.raw:  # RESET
                if self.under_way:
                    return
                self._begin_anew(self.queue.popleft())
                continue
            line = self._line_for(call)
            if line is None:
                self.queue.popleft()
                continue
            if line is not self._line and self.under_way:
                return
            self.queue.popleft()
            self._line = line
            line.tunnel = self.role.tunnel and not self.queue
            line.send(call)
        self.pace()

    def _begin_anew(self, call: Call) -> None:
        """Leave the connections to the upstream; the next ones are as those of a new client."""
        self.close()
        self._line = self._multi_raw = None
        self.role = Role(self.proxy, self.client)
        assert call.pending is not None
        call.pending.resolve("RESET")

    def _line_for(self, call: Call) -> Line | None:
        """The connection for a call; None: there cannot be one, and it has been told so."""
        proxy = self.proxy
        if (
            call.shared
            and not self.client.private
            and not (self.under_way and self._line is not None and self._line.owner is self)
            and (line := proxy.shared_line(self.client))
        ):
            self._shared = True
            return line
        node = self.role.pinned
        if node is None:
            stays = self.role.tunnel or call.key is None
            node = self._line.node if stays and self._line else proxy.node_of(call.key)
        if node is not None and (self.role.multi or self.role.watching) and proxy.is_cluster:
            self.role.pinned = node
        line = self.lines.get(node) if node is not None else None
        if line is not None:
            return line
        if node is None or proxy.is_away(node):
            call.fail(f"ERR upstream {node or proxy.called} unavailable: "
                      f"{proxy.why_away(node)}; nothing was done")  # fmt: skip
            if self.client.private or not call.expected:
                self.client.close("upstream")
            return None
        return self._new_line(node)

    def _new_line(self, node: Node) -> Line:
        said = [*self.proxy.login(node, self.client.database), *self.role.setup()]
        line = self.lines[node] = Line(self.proxy, node, said, self)
        self.proxy.lines.add(line)
        return line

    # --- what comes back

    def begins(self, line: Line, call: Call) -> bool:
        """The upstream has executed a call: what it wrote is dropped. False: the line waits."""
        if call.swaps:  # Redis tells nobody
            self.proxy.drop_all()
        if call.drops:
            self.proxy.wrote(self.client.database, call.drops)
        if call.command is None or call.command.unsafe:
            return self.proxy.settle(line.go_on)
        return True

    def redirected(self, call: Call, error: bytes) -> bool:
        """Whether an error sends a call elsewhere, where it then went."""
        if error.startswith(b"-READONLY"):
            self.proxy.doubt()
        if (
            not (self.proxy.is_cluster and error.startswith(REDIRECTS))
            or self.role.pinned is not None
        ):
            return False
        kind, _, place = error[1:].decode("utf-8", "replace").strip().split(" ")[:3]
        node = self.proxy.node_at(place)
        self.proxy.redirects += 1
        if kind == "MOVED":
            self.proxy.doubt()
        line = self.lines.get(node)
        if line is None:
            line = self._new_line(node)
        if kind == "ASK":
            asking = Call(self, pack(("ASKING",)))
            line.send(asking)
        self.redirects += 1
        first = call.after

        def landed(reply: bytes) -> bytes | None:
            self.redirects -= 1
            return first(reply) if first is not None else None

        call.after, call.begun, call.parts, call.size = landed, False, [], 0
        line.send(call)
        return True

    def line_ended(self, line: Line, torn: bool) -> None:
        """A connection is gone: the client is told, and closed if it was more than a way."""
        if self.lines.get(line.node) is line:
            del self.lines[line.node]
        if self._line is line:
            self._line = None
        if self.client.closed is None and (torn or self.client.private):
            self.client.close("upstream", now=torn)

    def close(self) -> None:
        """Leave all connections."""
        for line in self.lines.values():
            self.proxy.lines.discard(line)
            line.finish()
        self.lines.clear()
        self.queue.clear()
        self.under_way = 0
