"""What the tests of memoize share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from threading import Event
from typing import Any

from cachecore import memoize

DEADLINE = 30.0  # seconds: a test that takes so long has deadlocked

Spawn = Callable[[Callable[[], Any]], "Future[Any]"]  # the fixtures `spawn` and `eventually`
Eventually = Callable[[Callable[[], object]], None]
Call = tuple[tuple[Any, ...], dict[str, Any]]


def call(*args: Any, **kwargs: Any) -> Call:
    """Give the arguments of a call as they are written."""
    return args, kwargs


def recorder(**options: Any) -> tuple[Any, list[Call]]:
    """Memoize a function of any arguments; it returns how many calls reached it, listed here."""
    calls: list[Call] = []

    def function(*args: Any, **kwargs: Any) -> int:
        calls.append((args, kwargs))
        return len(calls)

    return memoize(**options)(function), calls


class Gate:
    """The body of a function that says it has begun, and waits to be let go."""

    def __init__(self) -> None:
        self.begun, self.open, self.calls = Event(), Event(), 0

    def pass_through(self) -> int:
        self.calls += 1
        number = self.calls
        self.begun.set()
        assert self.open.wait(DEADLINE)
        return number


class AsyncGate:
    """The same for a coroutine function; it may be made to fail, and notes how it ended."""

    def __init__(self) -> None:
        self.begun, self.open, self.calls = asyncio.Event(), asyncio.Event(), 0
        self.error: BaseException | None = None
        self.ended: list[str] = []

    async def pass_through(self) -> int:
        self.calls += 1
        number = self.calls
        self.begun.set()
        try:
            await self.open.wait()
            if self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("returned")
        return number


def gated() -> tuple[AsyncGate, Any]:
    """Memoize a coroutine function that has to pass a gate; it returns how many calls did."""
    gate = AsyncGate()

    @memoize
    async def function(*args: Any, **kwargs: Any) -> int:
        return await gate.pass_through()

    return gate, function


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run on an event loop of its own, with the deadline."""
    return asyncio.run(asyncio.wait_for(main(), DEADLINE))


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)
