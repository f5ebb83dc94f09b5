"""A connection to an upstream: commands go there as they came, replies come back so.

It is one client's own, or shared by those whose writes say the same on any connection.

Replies are only counted, never read, but for those few that change what the client is (HELLO,
SELECT). What is longer than one read is passed on as it comes. While the client does not read,
nor is the upstream read; while the upstream does not read, the client's commands wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cachecore._frames import Frames
from cachecore._resp_values import ReplyError
from cachecore.tiers.redis_link import Node

if TYPE_CHECKING:
    from cachecore._resp_client import Pending
    from cachecore.server.proxy.commands import Command
    from cachecore.server.proxy.guest import Guest
    from cachecore.server.proxy.proxy import Proxy

MOST_UNSENT = 1 << 20  # bytes for either side until the other one waits
MOST_WHOLE = 16 << 20  # bytes of a reply that is not passed on before it is complete
PUSH, ERROR = ord(">"), ord("-")

After = Callable[[bytes], bytes | None]


class Call:
    """A command that is forwarded, and what becomes of its reply.

    Attributes:
        guest: whose it is.
        raw: the command as it came.
        command: what the upstream's table says of it; None: nothing.
        key: its first key, which in a Cluster tells the node.
        drops: keys of which what is cached is not served once the upstream has executed it.
        shared: it may go on a connection that others use, too.
        swaps: it may have swapped databases.
        after: sees the whole reply before the client does, and may return another.
        pending: where the reply goes; None: it has none, or nobody waits for it.
        expected: whether there will be a reply.
    """

    __slots__ = (
        "after", "begun", "command", "drops", "expected", "guest", "key", "parts", "pending", "raw",
        "shared", "size", "swaps",
    )  # fmt: skip

    def __init__(self, guest: Guest, raw: bytes, command: Command | None = None) -> None:
        self.guest, self.raw, self.command = guest, raw, command
        self.key: bytes | None = None
        self.drops: list[bytes] = []
        self.after: After | None = None
        self.pending: Pending | None = None
        self.parts: list[bytes] = []
        self.begun, self.expected, self.swaps, self.shared = False, True, False, False
        self.size = 0  # of the parts

    def fail(self, text: str) -> None:
        """Answer with an error."""
        if self.pending is not None:
            self.pending.resolve(ReplyError(text))


class Line(asyncio.Protocol):
    """One connection to one server.

    After `tunnel` was set, whatever comes when no reply is expected any more is passed on unseen.

    Args:
        said: What is said first.
        owner: Whose it is; None: shared, for commands with short replies.
    """

    def __init__(self, proxy: Proxy, node: Node, said: list[bytes], owner: Guest | None) -> None:
        self.proxy, self.node, self.owner = proxy, node, owner
        self.expected: deque[Call] = deque()
        self.tunnel = False
        self.waiting: set[Guest] = set()  # until it is not `full`
        self._choked = False  # the upstream does not read
        self.heard = proxy.loop.time()
        self._frames = Frames()
        self._out: list[bytes] = []  # commands, until it is open, or the loop's next round
        self._out_size = 0
        self._is_open = False
        self._transport: Any = None
        self._kept: list[bytes] | None = None  # what came while nothing may be passed on
        self._streaming = False
        self._ended: str | None = None  # why; what was kept is yet to be passed on
        self.closed = False
        self._unsaid = len(said)  # replies that are lacking until commands may be sent
        self._let_in: asyncio.Future[None] = proxy.loop.create_future()
        self._part = b""  # of such a reply
        self._opening = proxy.loop.create_task(self._open(said))

    @property
    def blocks(self) -> bool:
        """Whether the reply that is expected next may be long in coming."""
        command = self.expected[0].command if self.expected else None
        return command is not None and command.blocking

    # --- opening, closing

    async def _open(self, said: list[bytes]) -> None:
        try:
            async with asyncio.timeout(self.proxy.timeout):
                await self.proxy.connect(self.node, lambda: self)
                self._transport.write(b"".join(said))
                if said:
                    await self._let_in
        except (OSError, TimeoutError, ValueError) as error:
            self.end(f"upstream {self.node} unavailable: {error or 'no answer'}", sent=False)
            return
        self._is_open = True
        self._flush()
        if self.closed:
            self._transport.close()

    def _flush(self) -> None:
        """Send what has been collected, at once."""
        out, self._out, self._out_size = self._out, [], 0
        if out and not self._transport.is_closing():
            self._transport.write(b"".join(out))
        if not self._choked:
            self.resume_writing()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=MOST_UNSENT)

    def pause_writing(self) -> None:
        self._choked = True

    def resume_writing(self) -> None:
        self._choked = False
        waiting, self.waiting = self.waiting, set()
        for guest in waiting:
            guest.pace()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._is_open:
            if not self._let_in.done():
                self._let_in.set_exception(error or ConnectionError("it closed the connection"))
            return
        self._ended = f"upstream connection lost: {error or 'closed by the server'}"
        if self._kept is None:
            self.end(self._ended)

    def end(self, reason: str, sent: bool = True) -> None:
        """Close it; what is expected becomes an error. `sent`: it may have been executed."""
        if self.closed:
            return
        self.closed = True
        self._opening.cancel()
        if self._transport is not None:
            self._transport.abort()
        doubt = "; the command may have been executed" if sent else "; nothing was done"
        calls, self.expected = self.expected, deque()
        self._out, self._out_size = [], 0
        self.proxy.line_ended(self)
        if self.owner is not None:
            self.owner.line_ended(self, torn=self._streaming)
        for call in calls:
            call.guest.under_way -= 1
            self.proxy.wrote(call.guest.client.database, call.drops)
            call.fail(f"ERR {reason}{doubt}")
        self.resume_writing()
        for guest in {call.guest for call in calls}:
            guest.pump()

    def finish(self) -> None:
        """Nobody is there for replies any more; what was sent is still sent."""
        self.closed = True
        while self.expected:
            self.expected.popleft().fail("ERR the client is gone")
        if self._is_open:
            self._flush()
            self._transport.close()

    # --- to the upstream

    @property
    def full(self) -> bool:
        """Whether it takes no more for now."""
        return self._choked or self._out_size > MOST_UNSENT

    def send(self, call: Call) -> None:
        """Forward a call."""
        if call.expected:
            self.expected.append(call)
            call.guest.under_way += 1
        if self._is_open and not self._out:
            self.proxy.loop.call_soon(self._flush)
        self._out.append(call.raw)
        self._out_size += len(call.raw)

    # --- to the client

    def data_received(self, data: bytes) -> None:
        self.heard = self.proxy.loop.time()
        if self._kept is not None:
            self._kept.append(data)
        elif not self.closed:
            self._take(data)

    def _take(self, data: bytes) -> None:
        at = 0
        try:
            while at < len(data) and self._kept is None:
                at = self._take_one(data, at)
        except ValueError as error:
            self.end(str(error))
            return
        client = None if self.owner is None else self.owner.client
        if client is not None and client.unsent_bytes > MOST_UNSENT and not client.starved:
            client.starved = True
            self._transport.pause_reading()

    def _take_one(self, data: bytes, at: int) -> int:
        """Pass on one reply, or the part of it that is there; the place behind it."""
        if not self.expected and self._is_open and self.tunnel:
            self._pass_on(data[at:] if at else data)
            return len(data)
        kind = data[at] if self._frames.between else self._frames.kind
        call = self.expected[0] if self.expected and kind != PUSH else None
        if call is not None and not call.begun and self._is_open:
            call.begun = True
            if not call.guest.begins(self, call):
                self._kept = [data[at:]]
                self._transport.pause_reading()
                return len(data)
        end = self._frames.follow(data, at)
        piece = data[at:] if end < 0 else data[at:end]
        if not self._is_open:
            self._take_setup(piece, end >= 0)
        elif call is None:
            self._pass_on(piece)
        elif end < 0 and (
            self.owner is None or call.after or call.parts or kind == ERROR or self.owner.redirects
        ):
            call.parts.append(piece)
            call.size += len(piece)
            if call.size > MOST_WHOLE:
                raise ValueError("the server's reply is too long for what was asked")
        elif end < 0:
            self._streaming = True
            self._pass_on(piece)
        else:
            self.expected.popleft()
            self._complete(call, piece)
        return len(data) if end < 0 else end

    def _pass_on(self, piece: bytes) -> None:
        """What is not known to be a reply, or not whole; there is none to who shares."""
        if self.owner is not None:
            self.owner.client.write(piece)

    def _complete(self, call: Call, piece: bytes) -> None:
        """The rest of a reply is there."""
        guest = call.guest
        guest.under_way -= 1
        if self._streaming:
            self._streaming = False
            self._pass_on(piece)
            piece = b""
        elif call.parts:
            piece = b"".join([*call.parts, piece])
        if piece[:1] == b"-" and guest.redirected(call, piece):
            return
        if call.after is not None:
            changed = call.after(piece)
            piece = piece if changed is None else changed
        if call.pending is not None:
            call.pending.resolve_raw(piece)
        if guest.queue:
            guest.pump()

    def _take_setup(self, piece: bytes, whole: bool) -> None:
        """Replies to what a connection begins with; they are short."""
        self._part += piece
        if not whole or self._let_in.done():
            return
        self._unsaid -= 1
        if self._part[:1] == b"-":
            reason = self._part[1:-2].decode("utf-8", "replace")
            self._let_in.set_exception(ConnectionError(reason))
        elif self._unsaid == 0:
            self._let_in.set_result(None)
        self._part = b""

    def go_on(self) -> None:
        """What had been kept may be passed on now."""
        kept, self._kept = self._kept or [], None
        if self.closed:
            return
        if not (self.owner is not None and self.owner.client.starved) and self._ended is None:
            self._transport.resume_reading()
        for at, data in enumerate(kept):
            if self._kept is not None:  # it has to wait again
                self._kept += kept[at:]
                return
            if not self.closed:
                self._take(data)
        if self._ended is not None and self._kept is None:
            self.end(self._ended)

    def room(self) -> None:
        """The client has read its replies: more may come."""
        if self._is_open and self._kept is None and not self.closed:
            self._transport.resume_reading()
