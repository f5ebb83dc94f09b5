"""Waiting for a coroutine: cancellation, circles, and calls that are outdated meanwhile."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest

from cachecore import memoize
from memo.helpers import AsyncGate, gated, run, settle

# --- cancellation ---


@pytest.mark.parametrize("which", [0, 1, 2])
def test_cancelling_one_waiter_leaves_the_others_alone(which: int) -> None:
    gate, function = gated()

    async def main() -> None:
        tasks = [asyncio.create_task(function("a")) for _ in range(3)]
        await gate.begun.wait()
        await settle()
        tasks[which].cancel()
        await settle()
        assert tasks[which].cancelled()
        gate.open.set()
        for i, task in enumerate(tasks):
            if i != which:
                assert await task == 1
        assert gate.ended == ["returned"]
        assert await function("a") == 1

    run(main)


def test_cancelling_every_waiter_leaves_the_computation_alone() -> None:
    gate, function = gated()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(function("a"), 0.001)
        assert gate.ended == []
        gate.open.set()
        await settle()
        assert gate.ended == ["returned"]
        assert function.cache["a"] == 1

    run(main)


def test_an_error_nobody_waits_for_any_more_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate, function = gated()

    async def main() -> None:
        gate.error = ValueError()
        task = asyncio.create_task(function("a"))
        await gate.begun.wait()
        task.cancel()
        gate.open.set()
        await settle()
        assert gate.calls == 1
        gc.collect()

    run(main)
    assert caplog.records == []


def test_a_computation_that_cancels_itself() -> None:
    gate, function = gated()

    async def main() -> None:
        gate.error = asyncio.CancelledError()
        tasks = [asyncio.create_task(function("a")) for _ in range(3)]
        await gate.begun.wait()
        gate.open.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        assert gate.calls == 3  # each in turn took over
        gate.error = None
        assert await function("a") == 4

    run(main)


# --- recursion and circles ---


def test_recursion() -> None:
    @memoize
    async def fib(n: int) -> int:
        return n if n < 2 else await fib(n - 1) + await fib(n - 2)

    async def main() -> None:
        assert await fib(60) == 1548008755920
        assert await asyncio.gather(*map(fib, range(60, 80))) == [
            (await fib(n)) for n in range(60, 80)
        ]

    run(main)


def test_recursion_with_the_same_arguments() -> None:
    depth = 0

    @memoize
    async def function(x: str) -> str:
        nonlocal depth
        depth += 1
        if depth == 4:
            return "end"
        if depth % 2:
            return "await " + await function(x)
        return "task " + await asyncio.create_task(function(x))

    async def main() -> None:
        assert await function("a") == await function("a") == "await task await end"

    run(main)


def test_computations_that_would_wait_in_a_circle() -> None:
    calls: list[str] = []
    both = asyncio.Event()

    async def body(name: str, other: Callable[[int], Awaitable[str]]) -> str:
        calls.append(name)
        if len(calls) == 2:
            both.set()
        if len(calls) > 2:
            return name
        await both.wait()
        return name + await other(1)

    @memoize
    async def one(x: int) -> str:
        return await body("one", two)

    @memoize
    async def two(x: int) -> str:
        return await body("two", one)

    async def main() -> None:
        results = await asyncio.gather(one(1), two(1))
        assert [result[:3] for result in results] == ["one", "two"]

    run(main)


def test_waiting_for_the_same_from_within_two_branches() -> None:
    gate, function = gated()

    @memoize
    async def outer(x: int) -> int:
        return sum(await asyncio.gather(function("a"), function("a"), function("a")))

    async def main() -> None:
        tasks = [asyncio.create_task(outer(i % 2)) for i in range(4)]
        await gate.begun.wait()
        await settle()
        gate.open.set()
        assert await asyncio.gather(*tasks) == [3] * 4
        assert gate.calls == 1

    run(main)


# --- forgetting what is under way ---


@pytest.mark.parametrize("way", ["cache_invalidate", "cache_clear"])
def test_an_outdated_call_is_neither_kept_nor_joined(way: str) -> None:
    gates: list[AsyncGate] = []

    @memoize
    async def function(x: str) -> AsyncGate:
        gates.append(gate := AsyncGate())
        await gate.pass_through()
        return gate

    async def main() -> None:
        before = [asyncio.create_task(function("a")) for _ in range(2)]
        await settle()
        function.cache_clear() if way == "cache_clear" else function.cache_invalidate("a")
        after = [asyncio.create_task(function("a")) for _ in range(2)]
        await settle()
        assert len(gates) == 2
        gates[0].open.set()
        assert await asyncio.gather(*before) == [gates[0]] * 2
        assert len(function.cache) == 0
        gates[1].open.set()
        assert await asyncio.gather(*after) == [gates[1]] * 2
        assert await function("a") is gates[1]

    run(main)
