"""A client's own connection to an upstream: commands go there as they came, replies come back so.

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
from cachecore.tiers.redis_link import Node, pack

if TYPE_CHECKING:
    from cachecore._resp_client import Pending
    from cachecore.server.proxy.commands import Command
    from cachecore.server.proxy.guest import Guest

MOST_UNSENT = 1 << 20  # bytes for either side until the other one waits
MOST_WHOLE = 16 << 20  # bytes of a reply that is not passed on before it is complete
PUSH, ERROR = ord(">"), ord("-")

After = Callable[[bytes], bytes | None]


class Call:
    """A command that is forwarded, and what becomes of its reply.

    Attributes:
        raw: the command as it came.
        command: what the upstream's table says of it; None: nothing.
        key: its first key, which in a Cluster tells the node.
        drops: keys of which what is cached is not served once the upstream has executed it.
        swaps: it may have swapped databases.
        after: sees the whole reply before the client does, and may return another.
        pending: where the reply goes; None: it has none, or nobody waits for it.
        expected: whether there will be a reply.
    """

    __slots__ = (
        "after", "begun", "command", "drops", "expected", "key", "parts", "pending", "raw", "size",
        "swaps",
    )  # fmt: skip

    def __init__(self, raw: bytes, command: Command | None = None) -> None:
        self.raw, self.command = raw, command
        self.key: bytes | None = None
        self.drops: list[bytes] = []
        self.after: After | None = None
        self.pending: Pending | None = None
        self.parts: list[bytes] = []
        self.begun, self.expected, self.swaps = False, True, False
        self.size = 0  # of the parts

    def fail(self, text: str) -> None:
        """Answer with an error."""
        if self.pending is not None:
            self.pending.resolve(ReplyError(text))


class Line(asyncio.Protocol):
    """One connection to one server, for one client.

    `busy` tells whether replies are expected; after `tunnel` was set, whatever comes when none is
    expected any more is passed on unseen.
    """

    def __init__(self, guest: Guest, node: Node) -> None:
        self.guest, self.node = guest, node
        self.expected: deque[Call] = deque()
        self.tunnel = False
        self.full = False  # the upstream does not read
        self.heard = guest.loop.time()
        self._frames = Frames()
        self._backlog: list[bytes] | None = []  # until it is open
        self._backlog_size = 0
        self._transport: Any = None
        self._kept: list[bytes] | None = None  # what came while nothing may be passed on
        self._streaming = False
        self._ended: str | None = None  # why; what was kept is yet to be passed on
        self.closed = False
        self._unsaid = 0  # replies that are lacking until commands may be sent
        self._let_in: asyncio.Future[None] = guest.loop.create_future()
        self._part = b""  # of such a reply
        self._opening = guest.loop.create_task(self._open())

    @property
    def busy(self) -> bool:
        return bool(self.expected)

    # --- opening, closing

    async def _open(self) -> None:
        proxy, client = self.guest.proxy, self.guest.client
        try:
            async with asyncio.timeout(proxy.timeout):
                said = [
                    *map(pack, proxy.login(self.node, client.database)),
                    *self.guest.role.setup(),
                ]
                self._unsaid = len(said)
                await proxy.connect(self.node, lambda: self)
                self._transport.write(b"".join(said))
                if said:
                    await self._let_in
        except (OSError, TimeoutError, ValueError) as error:
            self.end(f"upstream {self.node} unavailable: {error or 'no answer'}", sent=False)
            return
        backlog, self._backlog = self._backlog or [], None
        self.resume_writing()
        self._transport.write(b"".join(backlog))
        if self.closed:
            self._transport.close()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=MOST_UNSENT)

    def pause_writing(self) -> None:
        self.full = True
        self.guest.pace()

    def resume_writing(self) -> None:
        self.full = False
        self.guest.pace()

    def connection_lost(self, error: Exception | None) -> None:
        if self._backlog is not None:
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
        self.guest.line_ended(self, torn=self._streaming)
        for call in calls:
            self.guest.proxy.wrote(self.guest.client.database, call.drops)
            call.fail(f"ERR {reason}{doubt}")
        self.guest.pump()

    def finish(self) -> None:
        """Nobody is there for replies any more; what was sent is still sent."""
        self.closed = True
        while self.expected:
            self.expected.popleft().fail("ERR the client is gone")
        if self._backlog is None:
            self._transport.close()

    # --- to the upstream

    def send(self, call: Call) -> None:
        """Forward a call."""
        if call.expected:
            self.expected.append(call)
        if self._backlog is None:
            self._transport.write(call.raw)
        else:
            self._backlog.append(call.raw)
            self._backlog_size += len(call.raw)
            self.full = self._backlog_size > MOST_UNSENT

    # --- to the client

    def data_received(self, data: bytes) -> None:
        self.heard = self.guest.loop.time()
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
        client = self.guest.client
        if client.unsent_bytes > MOST_UNSENT and not client.starved:
            client.starved = True
            self._transport.pause_reading()

    def _take_one(self, data: bytes, at: int) -> int:
        """Pass on one reply, or the part of it that is there; the place behind it."""
        write = self.guest.client.write
        if not self.expected and self._backlog is None and self.tunnel:
            write(data[at:] if at else data)
            return len(data)
        kind = data[at] if self._frames.between else self._frames.kind
        call = self.expected[0] if self.expected and kind != PUSH else None
        if call is not None and not call.begun and self._backlog is None:
            call.begun = True
            if not self.guest.begins(self, call):
                self._kept = [data[at:]]
                self._transport.pause_reading()
                return len(data)
        end = self._frames.follow(data, at)
        piece = data[at:] if end < 0 else data[at:end]
        if self._backlog is not None:
            self._take_setup(piece, end >= 0)
        elif call is None:
            write(piece)
        elif end < 0 and (call.after or call.parts or kind == ERROR or self.guest.redirects):
            call.parts.append(piece)
            call.size += len(piece)
            if call.size > MOST_WHOLE:
                raise ValueError("the server's reply is too long for what was asked")
        elif end < 0:
            self._streaming = True
            write(piece)
        else:
            self.expected.popleft()
            self._complete(call, piece)
        return len(data) if end < 0 else end

    def _complete(self, call: Call, piece: bytes) -> None:
        """The rest of a reply is there."""
        if self._streaming:
            self._streaming = False
            self.guest.client.write(piece)
            piece = b""
        elif call.parts:
            piece = b"".join([*call.parts, piece])
        if piece[:1] == b"-" and self.guest.redirected(call, piece):
            return
        if call.after is not None:
            changed = call.after(piece)
            piece = piece if changed is None else changed
        if call.pending is not None:
            call.pending.resolve_raw(piece)
        if self.guest.queue:
            self.guest.pump()

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
        if not self.guest.client.starved and self._ended is None:
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
        if self._backlog is None and self._kept is None and not self.closed:
            self._transport.resume_reading()
