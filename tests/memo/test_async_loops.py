"""Memoized coroutine functions on several event loops, or on none."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from cachecore import async_flight, memoize
from memo.helpers import DEADLINE, AsyncGate, Spawn, gated, run, settle


def test_one_event_loop_after_another() -> None:
    calls: list[int] = []

    @memoize
    async def function(x: int) -> int:
        calls.append(x)
        await asyncio.sleep(0)
        return x

    for _ in range(3):
        assert asyncio.run(function(1)) == 1
    assert calls == [1]


def test_a_loop_that_ends_in_the_middle_of_a_call() -> None:
    gate, function = gated()

    async def leave() -> None:
        task = asyncio.create_task(function("a"))
        await gate.begun.wait()
        assert not task.done()

    run(leave)
    assert gate.ended == ["cancelled"]

    async def again() -> None:
        gate.__init__()  # type: ignore[misc]
        gate.open.set()
        assert await function("a") == 1

    run(again)


def test_a_loop_that_was_left_standing() -> None:
    gate, function = gated()
    loop = asyncio.new_event_loop()
    task = loop.create_task(function("a"))
    loop.run_until_complete(gate.begun.wait())

    async def elsewhere() -> None:
        mine = AsyncGate()
        gate.open, gate.begun = mine.open, mine.begun
        mine.open.set()
        assert await function("a") == 2

    run(elsewhere)
    assert function.cache["a"] == 2
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    for left in asyncio.all_tasks(loop):  # the computation itself
        left.cancel()
        loop.run_until_complete(asyncio.gather(left, return_exceptions=True))
    loop.close()


@pytest.mark.parametrize("ending", ["returned", "raised", "cancelled"])
def test_waiters_on_other_loops(spawn: Spawn, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Both loops await one call; its own loop is told to end it once the other waits."""
    monkeypatch.setattr(async_flight, "PATIENCE", DEADLINE)
    begun, waiting = Event(), Event()
    end: list[Callable[[], object]] = []
    calls: list[str] = []

    @memoize
    async def function(x: str) -> str:
        calls.append(ending)
        if len(calls) == 2:
            return "second"
        loop, open_ = asyncio.get_running_loop(), asyncio.Event()
        task = asyncio.current_task()
        assert task is not None
        action = task.cancel if ending == "cancelled" else open_.set
        end.append(lambda: loop.call_soon_threadsafe(action))
        begun.set()
        await open_.wait()
        if ending == "raised":
            raise KeyError(x)
        return "first"

    async def wait() -> Any:
        task = asyncio.create_task(function("a"))
        await settle()
        waiting.set()
        return await task

    first = spawn(lambda: run(lambda: function("a")))
    assert begun.wait(DEADLINE)
    second = spawn(lambda: run(wait))
    assert waiting.wait(DEADLINE)
    end[0]()
    if ending == "returned":
        assert first.result(DEADLINE) == second.result(DEADLINE) == "first"
        assert len(calls) == 1
    elif ending == "raised":
        assert isinstance(first.exception(DEADLINE), KeyError)
        assert first.exception() is second.exception(DEADLINE)
        assert len(calls) == 1
    else:
        assert isinstance(first.exception(DEADLINE), asyncio.CancelledError)
        assert second.result(DEADLINE) == "second"


def test_a_loop_that_does_not_answer(spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_flight, "PATIENCE", 0.05)
    begun, release = Event(), Event()
    calls: list[int] = []

    @memoize
    async def function(x: str) -> int:
        calls.append(1)
        number = len(calls)
        if number == 1:
            begun.set()
            release.wait(DEADLINE)  # blocks its event loop
        return number

    first = spawn(lambda: asyncio.run(function("a")))
    assert begun.wait(DEADLINE)
    second = spawn(lambda: run(lambda: function("a")))
    assert second.result(DEADLINE) == 2
    release.set()
    assert first.result(DEADLINE) == 1
    assert function.cache["a"] == 2


def test_a_slow_call_on_a_loop_that_does_answer(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_flight, "PATIENCE", 0.3)
    begun = Event()
    calls: list[str] = []

    @memoize
    async def function(x: str) -> str:
        calls.append(x)
        begun.set()
        flights = [o for o in gc.get_objects() if isinstance(o, async_flight.AsyncFlight)]
        while len(calls) == 1 and max(flight.beats for flight in flights) < 2:
            await asyncio.sleep(0)
        return x

    first = spawn(lambda: asyncio.run(function("a")))
    assert begun.wait(DEADLINE)
    second = spawn(lambda: run(lambda: function("a")))
    assert first.result(DEADLINE) == second.result(DEADLINE) == "a"
    assert calls == ["a"]


def test_driven_by_something_other_than_asyncio() -> None:
    """As other libraries do: they send into the coroutine what it asks for."""

    class Ask:
        def __await__(self) -> Any:
            return (yield "question")

    @memoize
    async def function(x: int) -> Any:
        return await Ask() if x else await function(x)

    for _ in range(2):
        coroutine = function(1)
        result = None
        try:
            assert coroutine.send(None) == "question"
            coroutine.send("answer")
        except StopIteration as stop:
            result = stop.value
        assert result == "answer"
    assert function.cache_info()[:2] == (1, 1)
    other = function(2)
    other.send(None)
    with pytest.raises(ValueError, match="from outside"):
        other.throw(ValueError("from outside"))
    assert len(function.cache) == 1
    with pytest.raises(RecursionError):
        function(0).send(None)


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 brings it")
def test_eager_tasks() -> None:
    gate, function = gated()

    async def main() -> None:
        factory: Any = vars(asyncio)["eager_task_factory"]
        asyncio.get_running_loop().set_task_factory(factory)
        gate.open.set()
        assert await asyncio.gather(*[function("a") for _ in range(3)]) == [1] * 3
        gate.open.clear()
        tasks = [asyncio.create_task(function("b")) for _ in range(3)]
        gate.open.set()
        assert await asyncio.gather(*tasks) == [2] * 3

    run(main)
