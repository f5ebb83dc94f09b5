"""How a thread or a task waits for a load that another has under way, without a deadlock.

A load depends on the loads that its loader's code waits for. Who would wait for a load that depends
on himself is told so, and loads on his own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import Lock, get_ident
from typing import TYPE_CHECKING

from cachecore._load import Load

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

PATIENCE = 1.0  # seconds between two looks whether an event loop is there still

# The load whose loader this code belongs to.
_inside: ContextVar[Load | None] = ContextVar("cachecore_load", default=None)


class _Graph:
    """Of `waits`: a look for a cycle and the edge that would close it are one step."""

    lock = Lock()


@contextmanager
def inside(load: Load) -> Iterator[None]:
    """The code of a load's loader.

    Raises:
        RecursionError: that loader asks, through itself, for the very keys that it is to load.
    """
    load.parent = _inside.get()
    again = 0
    outer = load.parent
    while outer is not None and load.keys:
        again += outer.keys == load.keys
        outer = outer.parent
    if again > 1:
        raise RecursionError(f"the loader of {load.keys[0]!r} asks for it again and again")
    token = _inside.set(load)
    try:
        yield
    finally:
        _inside.reset(token)


def _ancestors() -> list[Load]:
    """This code's load, the one whose loader began that, and so on."""
    found = []
    load = _inside.get()
    while load is not None:
        found.append(load)
        load = load.parent
    return found


def _reaches(load: Load, goals: list[Load]) -> bool:
    seen: list[Load] = []
    rest = [load]
    while rest:
        each = rest.pop()
        if any(each is goal for goal in goals):
            return True
        if not any(each is other for other in seen):
            seen.append(each)
            rest += each.waits or ()
    return False


@contextmanager
def _waiting(load: Load) -> Iterator[bool]:
    """Notes that this code waits for a load; False: that would be a cycle."""
    ours = _ancestors()
    with _Graph.lock:
        cycle = bool(ours) and _reaches(load, ours)
        if not cycle:
            for each in ours:
                each.waits = [*(each.waits or ()), load]
    try:
        yield not cycle
    finally:
        if not cycle:
            with _Graph.lock:
                for each in ours:
                    each.waits = [other for other in each.waits or () if other is not load]


def _gone(load: Load) -> bool:
    """Whether nobody will end it: its event loop has ended, or it is a parent process's."""
    return load.lost or (load.loop is not None and not load.loop.is_running())


def _begin_anew() -> None:
    _Graph.lock = Lock()  # another thread may have held the old one


os.register_at_fork(after_in_child=_begin_anew)


def running_loop() -> AbstractEventLoop | None:
    """The event loop of this thread, if it runs one."""
    import sys

    if "asyncio" not in sys.modules:
        return None
    from asyncio import get_running_loop

    try:
        return get_running_loop()
    except RuntimeError:
        return None


def wait(load: Load) -> bool:
    """Wait in this thread until a load has ended; False: it would not, as it waits for us."""
    if load.loop is not None and load.loop is running_loop():
        raise RuntimeError(
            "a task of this event loop is loading that key: this call would wait for it forever; "
            "use the asynchronous method"
        )
    if load.loop is None and load.thread == get_ident():
        return load.ended  # this is a finaliser or a signal handler, amid it
    with _waiting(load) as possible:
        if not possible:
            return False
        gate = Lock()
        gate.acquire()
        if load.await_end(gate.release):
            while not gate.acquire(timeout=PATIENCE) and not load.ended:
                if _gone(load):
                    load.failure = RuntimeError("its event loop has ended")
                    break
    return True


def _wake(waiter: Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def wait_async(load: Load) -> bool:
    """The same in a task."""
    from asyncio import get_running_loop
    from asyncio import wait as wait_for

    loop = get_running_loop()
    waiter = loop.create_future()

    def wake() -> None:
        with suppress(RuntimeError):  # our loop is closed
            loop.call_soon_threadsafe(_wake, waiter)

    with _waiting(load) as possible:
        if not possible:
            return False
        if load.await_end(wake):
            while not waiter.done() and not load.ended:
                await wait_for([waiter], timeout=PATIENCE)
                if not waiter.done() and not load.ended and _gone(load):
                    load.failure = RuntimeError("its event loop has ended")
                    break
    return True
