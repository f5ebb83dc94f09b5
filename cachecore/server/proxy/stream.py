"""A connection that is shared: commands out, replies in their order, pushes in between."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from cachecore._frames import Frames
from cachecore.tiers.redis_link import Refusal

LOST: Any = object()  # in place of a reply: the connection was lost
TOO_LONG: Any = object()  # in place of a reply of which too much came
MOST_REPLY = 64 << 20  # bytes of a reply that are kept until it is complete

Callback = Callable[[Any], None]


class Stream(asyncio.Protocol):
    """One connection to a server.

    `expected` holds who waits for the replies to come, and since when; `ended` becomes the reason
    for which it ended; `heard` is when something came last.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_push: Callable[[Any], None]) -> None:
        self._loop, self._on_push = loop, on_push
        self._frames = Frames()
        self._reader = hiredis.Reader(replyError=Refusal)
        self._parts: list[bytes] = []
        self._size = 0  # of the parts
        self._out: list[bytes] = []
        self.expected: deque[tuple[Callback, float]] = deque()
        self.ended: asyncio.Future[str] = loop.create_future()
        self.heard = loop.time()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.end(str(error or "the server closed the connection"))

    def end(self, reason: str) -> None:
        """Close it; who expects a reply gets LOST."""
        if not self.ended.done():
            self.ended.set_result(reason)
            self._transport.abort()
            while self.expected:
                self.expected.popleft()[0](LOST)

    def ask(self, packed: Sequence[bytes], callbacks: Sequence[Callback]) -> None:
        """Send commands; each callback is called with a reply, a Refusal, TOO_LONG or LOST."""
        if self.ended.done():
            for callback in callbacks:
                callback(LOST)
            return
        now = self._loop.time()
        self.expected.extend([(callback, now) for callback in callbacks])
        if not self._out:  # what is asked in one round of the loop is sent together
            self._loop.call_soon(self._flush)
        self._out += packed

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not self.ended.done():
            self._transport.write(b"".join(out))

    async def asked(self, packed: bytes) -> Any:
        """The reply to a command; a Refusal is raised."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def got(reply: Any) -> None:
            if not future.done():
                future.set_result(reply)

        self.ask([packed], [got])
        reply = await future
        if isinstance(reply, Refusal):
            raise reply
        if reply is LOST or reply is TOO_LONG:
            raise ConnectionError("the connection was lost")
        return reply

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        at = 0
        try:
            while at < len(data):
                end = self._frames.follow(data, at)
                piece = data[at:] if end < 0 else data[at:end]
                if self._size <= MOST_REPLY:
                    self._parts.append(piece)
                else:
                    self._parts.clear()
                self._size += len(piece)
                if end < 0:
                    return
                self._got()
                at = end
        except (ValueError, hiredis.HiredisError, LookupError, TypeError) as error:
            self.end(f"what the server sent is not its protocol: {error}")

    def _got(self) -> None:
        """A reply is complete."""
        reply = TOO_LONG
        if self._size <= MOST_REPLY:
            self._reader.feed(b"".join(self._parts))
            reply = self._reader.gets()
        self._parts.clear()
        self._size = 0
        if self._frames.kind == ord(">"):
            self._on_push(reply)
        elif not self.ended.done():
            self.expected.popleft()[0](reply)
