"""What a memoized function holds on to, and that it lets go of it."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachecore import memoize
from cachecore.async_flight import AsyncFlight
from memo.helpers import gated


@pytest.fixture(autouse=True)
def _collected_before() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Thing:
    """Something that can be referred to weakly and refer to anything."""

    def __init__(self, *held: object) -> None:
        self.held: tuple[object, ...] = held


def make(**options: Any) -> Any:
    return memoize(**options)(lambda *args, **kwargs: Thing(args, kwargs))


def test_a_function_without_cycles_is_freed_at_once() -> None:
    function = make()
    alive = [weakref.ref(function), weakref.ref(function.cache), weakref.ref(function("a"))]
    assert all(ref() is not None for ref in alive)
    del function
    assert not any(ref() for ref in alive)


def test_a_bound_method_holds_its_function() -> None:
    class Owner:
        method = make()

    owner = Owner()
    method = owner.method
    alive = weakref.ref(Owner.__dict__["method"])
    del Owner.method, owner, Owner
    gc.collect()
    assert isinstance(method(1), Thing)
    del method
    gc.collect()
    assert alive() is None


def cycle_through_a_result(function: Any) -> None:
    function("a").held = (function,)


def cycle_through_the_cache(function: Any) -> None:
    function.cache["a"] = function.cache["b"] = function.cache


def cycle_through_an_attribute(function: Any) -> None:
    function.myself = function


def cycle_through_an_argument(function: Any) -> None:
    thing = Thing(function)
    function(thing, n=thing)


def cycle_through_a_key(function: Any) -> None:
    thing = Thing()
    thing.held = (function.cache_key(thing, 1), function)


def cycle_through_the_function(function: Any) -> None:
    function.__wrapped__.memoized = function


def cycle_through_the_key_function(function: Any) -> None:
    function.cache_parameters()["key"].held = (function,)


def cycle_through_a_bound_method(function: Any) -> None:
    thing = Thing()
    thing.held = (function.__get__(thing),)
    thing.held[0]()  # type: ignore[operator]


class KeyMaker(Thing):
    def __call__(self, *args: object, **kwargs: object) -> str:
        return "key"


@pytest.mark.parametrize(
    "tie",
    [
        cycle_through_a_result, cycle_through_the_cache, cycle_through_an_attribute,
        cycle_through_an_argument, cycle_through_a_key, cycle_through_the_function,
        cycle_through_the_key_function, cycle_through_a_bound_method,
    ],
)  # fmt: skip
@pytest.mark.parametrize("keyed", [False, True])
def test_cycles_are_collected(tie: Callable[[Any], None], keyed: bool) -> None:
    if tie is cycle_through_the_key_function and not keyed:
        keyed = True
    function = make(key=KeyMaker() if keyed else None)
    tie(function)
    alive = [weakref.ref(function), weakref.ref(function.cache), weakref.ref(function(1))]
    del function
    gc.collect()
    assert not any(ref() for ref in alive)


def test_keys_of_plain_arguments_need_no_collection() -> None:
    function = make()
    assert not gc.is_tracked(function.cache_key(1, "a", n=2.5))
    assert gc.is_tracked(function.cache_key([].append))


def test_references_are_counted_right() -> None:
    marker = Thing()
    function = memoize(maxsize=10)(lambda *args, **kwargs: marker)
    arguments = [object() for _ in range(3)]
    watched = [marker, function, *arguments, Thing, "a text that is the argument"]

    def calls() -> None:
        for _ in range(3):
            function(watched[-1])
            function(*arguments)
            function(arguments[0], n=arguments[1])
            function((arguments[0], 2.5))
            function.cache_key(*arguments, n=arguments[0])
        function.cache_invalidate(*arguments)
        with pytest.raises(TypeError):
            function(*arguments, [])

    calls()
    function.cache_clear()
    before = [sys.getrefcount(thing) for thing in watched]
    for _ in range(100):
        calls()
    function.cache_clear()
    gc.collect()
    assert [sys.getrefcount(thing) for thing in watched] == before


def growth(act: Callable[[], object]) -> int:
    """Bytes that are held after `act` has run many times, over what was held after a few."""
    tracemalloc.start()
    try:
        for _ in range(300):
            act()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(1000):
            act()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def fail(*args: object) -> None:
    raise ValueError(args)


def test_nothing_leaks() -> None:
    function, failing = make(maxsize=50), memoize(fail)
    numbers = iter(range(10**9))

    def act() -> None:
        n = next(numbers)
        function(f"{n % 70}")
        function(n, n=n)
        function((n % 7, n / 2))
        function(Thing(n))
        function.cache_key(n, n, n=n)
        function.cache_invalidate(f"{n % 70}")
        for call in (lambda: failing(n), lambda: failing(n, n), lambda: function([])):
            with pytest.raises((ValueError, TypeError)):
                call()

    assert growth(act) < 50_000


def test_nothing_leaks_from_coroutines() -> None:
    numbers = iter(range(10**9))

    @memoize
    async def function(*args: object) -> object:
        await asyncio.sleep(0)
        return Thing(*args)

    @memoize
    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError("not today")

    async def act() -> None:
        n = next(numbers) % 200
        await asyncio.gather(function(n), function(n, n), function(n))
        await function(n)
        function(n).close()
        function(n + 0.5).close()
        with pytest.raises(ValueError, match="not today"):
            await failing()

    async def main() -> int:
        tracemalloc.start()
        try:
            for _ in range(300):
                await act()
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(1000):
                await act()
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()

    assert asyncio.run(main()) < 50_000


OURS = (AsyncFlight, asyncio.Task, types.CoroutineType)


def test_async_calls_leave_no_garbage() -> None:
    gate, function = gated()

    async def main() -> None:
        gate.open.set()
        for n in range(10):
            await asyncio.gather(*[function(n) for _ in range(3)])
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for n in range(10, 20):
                await function(n)
            gc.collect()
            # Threads that other tests have left may leave some, too.
            assert not [each for each in gc.garbage if isinstance(each, OURS)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()

    asyncio.run(main())
