"""Single flight for coroutines: of all who await one key, one task computes and the others wait.

The computation is a task of its own, so that no waiter's cancellation stops it. Waiters may be on
other event loops. Whoever cannot rely on a flight's end, because its computation waits for him or
because its event loop does not answer, computes on his own: nothing deadlocks, and at worst a key
is computed twice.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from cachecore.sentinel import MISSING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, Task

    _Call = Callable[["AsyncFlight"], Awaitable[Any]]

PATIENCE = 1.0  # seconds that another event loop may take to answer


class _Node:
    """A computation in the graph of who waits for whom.

    It may outlive the flight in the contexts of tasks that began there: it knows no outcome.
    """

    __slots__ = ("waits",)

    def __init__(self) -> None:
        self.waits: list[_Node] = []

    def depends_on(self, other: _Node | None) -> bool:
        """True when this is `other`, or waits for it, maybe through others."""
        seen: set[_Node] = set()
        nodes = [self]
        while nodes:
            node = nodes.pop()
            if node is other:
                return True
            if node not in seen:
                seen.add(node)
                nodes += node.waits
        return False


# The computation that this context belongs to.
_inside: ContextVar[_Node | None] = ContextVar("cachecore_inside", default=None)


class AsyncFlight:
    """One computation under way, and what became of it."""

    __slots__ = ("beats", "ended", "error", "loop", "node", "process", "task", "value", "waiters")

    def __init__(self, loop: AbstractEventLoop | None) -> None:
        self.loop = loop
        self.process = os.getpid()
        self.task: Task[None] | None = None  # event loops refer to their tasks weakly
        self.ended = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.waiters: list[Future[None]] = []
        self.node = _Node()
        self.beats = 0  # answers of its loop to those who wait elsewhere

    async def compute(
        self, flights: dict[Hashable, AsyncFlight], key: Hashable, call: _Call
    ) -> None:
        """Compute, and wake everyone."""
        if self.loop is not None:  # then this is a task, with a context of its own
            _inside.set(self.node)
        try:
            self.value = await call(self)
        except Exception as error:
            self.error = error
        except BaseException as error:  # cancelled, or stopped: that is no outcome for others
            self.error = error
            raise
        finally:
            if flights.get(key) is self:
                del flights[key]
            self.ended = True  # who comes to wait from now on looks at this first
            for waiter in self.waiters:
                loop = waiter.get_loop()
                with suppress(RuntimeError):  # the waiter's loop is closed
                    if loop is self.loop:
                        _wake(waiter)
                    else:
                        loop.call_soon_threadsafe(_wake, waiter)
            del self  # the error's traceback leads to this frame

    async def wait(self, loop: AbstractEventLoop | None) -> bool:
        """True when it has ended; False: there is no relying on that."""
        if loop is None or self.loop is None or self.process != os.getpid():
            return False
        waiter = loop.create_future()
        self.waiters.append(waiter)
        inside = _inside.get()
        if inside is not None:
            inside.waits.append(self.node)
        try:
            if self.loop is not loop:
                return await self._wait_from_afar(self.loop, waiter)
            if not self.ended:
                await waiter
            return True
        finally:
            if inside is not None:
                inside.waits.remove(self.node)

    async def _wait_from_afar(self, loop: AbstractEventLoop, waiter: Future[None]) -> bool:
        """The same for a waiter elsewhere than on the flight's loop, as long as that answers."""
        from asyncio import wait

        while not self.ended:
            beats = self.beats
            try:
                loop.call_soon_threadsafe(self._beat)
            except RuntimeError:  # closed
                return False
            await wait([waiter], timeout=PATIENCE if loop.is_running() else 0)
            if self.beats == beats and not self.ended:
                return False
        return True

    def _beat(self) -> None:
        self.beats += 1


def _wake(waiter: Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _running_loop() -> AbstractEventLoop | None:
    from asyncio import get_running_loop

    try:
        return get_running_loop()
    except RuntimeError:
        return None  # something other than asyncio runs this coroutine: there are no tasks


async def fly(
    flights: dict[Hashable, AsyncFlight], key: Hashable, look: Callable[[], Any], call: _Call
) -> Any:
    """The result of `await call(flight)`, called once however many ask at a time.

    `look()` returns what is there already, or MISSING. An exception reaches everyone who waited.
    When the computation is cancelled, by the end of its event loop say, a waiter takes over.
    """
    value = look()
    if value is not MISSING:
        return value
    loop = _running_loop()
    mine = AsyncFlight(loop)
    while True:
        flight = flights.setdefault(key, mine)
        if flight is mine:
            if loop is None:
                await mine.compute(flights, key, call)
            else:
                mine.task = loop.create_task(mine.compute(flights, key, call))
                await mine.wait(loop)
        elif flight.node.depends_on(_inside.get()):
            return await call(mine)
        elif not await flight.wait(loop):
            if flights.get(key) is flight:
                del flights[key]
            continue
        if flight.error is None:
            return flight.value
        if flight is mine or isinstance(flight.error, Exception):
            try:
                raise flight.error
            finally:
                del flight, mine  # the error's traceback leads to this frame
