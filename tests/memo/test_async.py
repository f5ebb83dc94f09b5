"""Memoized coroutine functions: what is kept, what a hit is, and who shares a call."""

from __future__ import annotations

import asyncio
import collections.abc
import contextvars
import gc
import inspect
import weakref
from typing import Any

import numpy as np
import pytest

from cachecore import memoize
from memo.helpers import DEADLINE, gated, run, settle


def test_results_are_kept() -> None:
    calls: list[Any] = []

    @memoize(maxsize=10)
    async def function(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        await asyncio.sleep(0)
        return None if args == ("none",) else len(calls)

    async def main() -> None:
        for _ in range(2):
            assert await function("none") is None
            assert await function("a") == 2
            assert await function(1, 2) == 3
            assert await function(1, n=2) == 4
            assert await function((1.5, "x")) == 5
            assert await function(range(3)) == 6  # compared by Python

    run(main)
    assert len(calls) == 6
    assert function.cache_info() == (6, 6, 10, 6)
    assert function.cache["a"] == 2


def test_a_hit_does_not_run_the_coroutine_nor_need_a_loop() -> None:
    gate, function = gated()
    function.cache["a"] = "value"
    call = function("a")
    with pytest.raises(StopIteration) as stop:
        call.send(None)
    assert stop.value.value == "value"
    assert gate.calls == 0


def test_a_hit_goes_wherever_a_coroutine_goes() -> None:
    gate, function = gated()
    function.cache["a"] = "value"

    async def main() -> None:
        call = function("a")
        assert asyncio.iscoroutine(call)
        assert inspect.isawaitable(call)
        assert isinstance(call, collections.abc.Coroutine)
        assert await call == "value"
        assert await asyncio.create_task(function("a")) == "value"
        assert await asyncio.ensure_future(function("a")) == "value"
        assert list(await asyncio.gather(function("a"), function("a"))) == ["value"] * 2
        assert await asyncio.wait_for(function("a"), DEADLINE) == "value"
        async with asyncio.TaskGroup() as group:
            task = group.create_task(function("a"))
        assert task.result() == "value"

    run(main)
    assert asyncio.run(function("a")) == "value"
    assert gate.calls == 0


def test_a_hit_is_awaited_once_like_a_coroutine() -> None:
    _, function = gated()
    function.cache["a"] = "value"

    async def main() -> None:
        call = function("a")
        await call
        with pytest.raises(RuntimeError, match="already awaited"):
            await call
        closed = function("a")
        closed.close()
        with pytest.raises(RuntimeError, match="already awaited"):
            await closed

    run(main)


def test_a_hit_as_a_generator_is() -> None:
    _, function = gated()
    function.cache["a"] = ("tuple", "value")

    with pytest.raises(StopIteration) as stop:
        next(function("a").__await__())
    assert stop.value.value == ("tuple", "value")
    with pytest.raises(TypeError, match="non-None"):
        function("a").send(1)
    for thrown in ((KeyError("k"),), (KeyError, "k"), (KeyError, KeyError("k"), None), (KeyError,)):
        call = function("a")
        with pytest.raises(KeyError):
            call.throw(*thrown)
        with pytest.raises(RuntimeError, match="already awaited"):
            call.send(None)
    for wrong in ((), (1,), (KeyError, 1, None, None)):
        with pytest.raises(TypeError, match="throw"):
            function("a").throw(*wrong)


def test_a_task_of_a_hit_can_be_cancelled() -> None:
    _, function = gated()
    function.cache["a"] = "value"

    async def main() -> None:
        task = asyncio.create_task(function("a"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


def test_a_hit_that_is_dropped_holds_on_to_nothing() -> None:
    _, function = gated()

    class Value:
        pass

    value = Value()
    alive = weakref.ref(value)
    function.cache["a"] = value
    call = function("a")
    del value
    function.cache_clear()
    assert alive() is not None
    del call
    assert alive() is None

    value = Value()
    alive = weakref.ref(value)
    function.cache["a"] = value
    value.call = function("a")  # type: ignore[attr-defined] # a cycle through the awaitable
    del value
    function.cache_clear()
    gc.collect()
    assert alive() is None


def test_coroutines_made_first_and_awaited_later() -> None:
    gate, function = gated()

    async def main() -> None:
        gate.open.set()
        calls = [function("a") for _ in range(5)]
        assert [await call for call in calls] == [1] * 5

    run(main)
    assert gate.calls == 1


def test_arrays_are_snapshots() -> None:
    source = np.arange(3)

    @memoize
    async def function(x: int) -> Any:
        return source

    async def main() -> None:
        first = await function(1)
        source[:] = 7
        assert first is await function(1)
        assert first.tolist() == [0, 1, 2]
        assert not first.flags.writeable

    run(main)


def test_key_and_methods() -> None:
    class Client:
        calls = 0

        @memoize(key=lambda self, url, **options: url.lower())
        async def get(self, url: str, *, timeout: float = 1) -> str:
            Client.calls += 1
            return url

        @classmethod
        @memoize
        async def of_class(cls, x: int) -> tuple[type, int]:
            return cls, x

        @staticmethod
        @memoize
        async def of_nobody(x: int) -> int:
            return x

    async def main() -> None:
        assert await Client().get("A") == await Client().get("a", timeout=2) == "A"
        assert Client.calls == 1
        assert Client.get.cache_invalidate(Client(), "a")
        assert await Client().get("a") == "a"
        call: Any = Client.of_class
        assert [await call(1) for _ in range(2)] == [(Client, 1)] * 2
        assert [await Client.of_nobody(1) for _ in range(2)] == [1, 1]

    run(main)


# --- sharing ---


def test_one_call_for_all_who_await() -> None:
    gate, function = gated()

    async def main() -> None:
        for args in (("a",), ("a", 1), (range(2),)):
            gate.__init__()  # type: ignore[misc]
            tasks = [asyncio.create_task(function(*args)) for _ in range(100)]
            await gate.begun.wait()
            await settle()
            gate.open.set()
            assert await asyncio.gather(*tasks) == [1] * 100
            assert gate.calls == 1
            assert await function(*args) == 1

    run(main)


def test_different_keys_run_at_the_same_time() -> None:
    barrier = []

    @memoize
    async def function(x: int) -> int:
        barrier.append(x)
        while len(barrier) < 3:
            await asyncio.sleep(0)
        return x

    async def main() -> None:
        assert await asyncio.gather(*map(function, range(3))) == [0, 1, 2]

    run(main)


def test_the_computation_sees_the_first_callers_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    @memoize
    async def function(x: int) -> str:
        seen = variable.get()
        variable.set("changed within")
        return seen

    async def main() -> None:
        variable.set("caller's")
        assert await function(1) == "caller's"
        assert variable.get() == "caller's"

    run(main)


def test_an_exception_reaches_all_and_is_not_kept() -> None:
    gate, function = gated()

    async def main() -> None:
        gate.error = ValueError("no such thing")
        tasks = [asyncio.create_task(function("a")) for _ in range(5)]
        await gate.begun.wait()
        gate.open.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is gate.error for result in results)
        assert gate.calls == 1
        gate.error = None
        assert await function("a") == 2

    run(main)


def test_wrong_arguments_are_the_functions_to_refuse() -> None:
    @memoize
    async def function(x: int) -> int:
        return x

    async def main() -> None:
        wrong: Any = function
        with pytest.raises(TypeError, match="takes 1 positional"):
            await wrong(1, 2)
        with pytest.raises(TypeError, match="unhashable"):
            await wrong([])
        assert await function(1) == 1

    run(main)


def test_an_exception_leaves_no_cycle_behind() -> None:
    class LoadError(Exception):
        pass

    @memoize
    async def function(x: int) -> int:
        raise LoadError

    async def main() -> weakref.ref[LoadError]:
        try:
            await function(1)
        except LoadError as error:
            return weakref.ref(error)
        raise AssertionError

    gc.collect()
    gc.disable()
    try:
        assert run(main)() is None
    finally:
        gc.enable()
