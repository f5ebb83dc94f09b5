"""Three ways to run steps (redis_link.py) until a deadline: one, several at a time, in a loop.

`until` is a moment of time.monotonic(). Who runs out of time gets TimeoutError, and whatever ends
a run ends its steps, which then close the connection they were using.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import select
from collections.abc import Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Any, TypeVar

from cachecore.tiers.redis_link import Steps, Wish

T = TypeVar("T")


def run(steps: Steps[T], until: float) -> T:
    """What the steps return; this thread waits."""
    try:
        wish = next(steps)
        while True:
            left = until - monotonic()
            if left <= 0:
                raise TimeoutError
            if type(wish) is Wish:
                if not wish.poll.poll(left * 1000):
                    raise TimeoutError
            else:
                _wait(wish, left)
            wish = next(steps)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        steps.close()


def _wait(future: Wish | Future[Any], left: float) -> None:
    assert isinstance(future, Future)
    if not concurrent.futures.wait([future], left).done:
        raise TimeoutError


def run_all(several: Sequence[Steps[T]], until: float) -> list[T | Exception]:
    """What each returns or raises; this thread waits for all of their sockets at once."""
    # At first each has run out of time.
    results: list[T | Exception] = [TimeoutError() for _ in several]
    poll, waiting = select.poll(), dict[int, int]()

    def advance(at: int) -> None:
        """Take steps until the next socket to wait for, or to the end."""
        try:
            wish = next(several[at])
            while type(wish) is not Wish:  # rare: names and a free connection come one by one
                _wait(wish, max(0.0, until - monotonic()))
                wish = next(several[at])
            poll.register(wish.fd, wish.event)
            waiting[wish.fd] = at
        except StopIteration as done:
            results[at] = done.value
        except Exception as error:
            results[at] = error

    try:
        for at in range(len(several)):
            advance(at)
        while waiting and (left := until - monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                poll.unregister(fd)
                advance(waiting.pop(fd))
        return results
    finally:
        for steps in several:
            steps.close()


async def arun(steps: Steps[T], until: float) -> T:
    """What the steps return; the event loop goes on meanwhile."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(until - monotonic()):
            wish = next(steps)
            while True:
                if type(wish) is Wish:
                    await _ready(loop, wish)
                else:
                    assert isinstance(wish, Future)
                    await _done(wish)
                wish = next(steps)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        steps.close()


async def _done(future: Future[Any]) -> None:
    waiter = asyncio.wrap_future(future)
    try:
        await asyncio.wait([waiter])
    finally:  # leave nothing on the loop; what has been raised, the steps look at
        if not waiter.cancel():
            waiter.exception()


async def _ready(loop: asyncio.AbstractEventLoop, wish: Wish) -> None:
    woken = loop.create_future()
    reading = wish.event == select.POLLIN
    (loop.add_reader if reading else loop.add_writer)(wish.fd, _wake, woken)
    try:
        await woken
    finally:
        (loop.remove_reader if reading else loop.remove_writer)(wish.fd)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
