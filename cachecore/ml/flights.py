"""Single flight for batches: of all who want some keys, each key is computed by one of them.

Calls of overlapping batches share the work: each computes, in one call, the keys that nobody else
has under way, and then waits for what the others compute of its keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from cachecore._load import Load, claim, land
from cachecore.tiers.waiting import inside, wait, wait_async

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_tasks: set[asyncio.Task[None]] = set()  # event loops refer to their tasks weakly


class BatchFlights:
    """The keys whose values are being computed, by threads and by tasks.

    `compute` gets a list of distinct keys and returns a sequence of values aligned with it. A key
    may have been computed between the caller's look-up and `run`: so `compute` looks once more
    where look-ups look, and has put there what it computed before it returns.

    Keys are str, bytes, int, or tuples of such: comparing them runs no Python code. The methods may
    be called from any thread, the asynchronous one from any event loop.

    An exception of `compute` reaches everyone who waits for one of its keys. When it is stopped by
    something that is not an `Exception` (KeyboardInterrupt, say), those who wait compute on their
    own. So does who would wait for himself, directly or through others, and a process that was
    forked meanwhile.
    """

    __slots__ = ("_flights",)

    def __init__(self) -> None:
        self._flights: dict[Any, Load] = {}

    def __len__(self) -> int:
        """How many keys are being computed."""
        return len(self._flights)

    def run(
        self, keys: Iterable[_Key], compute: Callable[[list[_Key]], Sequence[_Value]]
    ) -> dict[_Key, _Value]:
        """The value of each key, in their order. `compute` is called once, with what is nobody's.

        Raises:
            ValueError: `compute` did not return one value for each key.
            RuntimeError: a task of this thread's own event loop computes one of the keys.
            RecursionError: `compute` asks for its own keys, through itself, again and again.
        """
        values: dict[_Key, _Value] = {}
        wanted = rest = list(dict.fromkeys(keys))
        while rest:
            load = Load()
            waits: list[tuple[Any, Load]] = []
            try:
                # To claim is one step, and so is to land: whatever interrupts leaves no claim.
                try:
                    mine, waits = claim(self._flights, load, rest)
                    if mine:
                        _compute(load, mine, compute)
                finally:
                    land(self._flights, load, rest)
                values.update(load.values or ())
                rest = []
                while waits:
                    _settle(*waits.pop(), compute, values, rest)
            finally:
                del load, waits  # an error's traceback leads to this frame
        return {key: values[key] for key in wanted}

    async def arun(
        self, keys: Iterable[_Key], compute: Callable[[list[_Key]], Awaitable[Sequence[_Value]]]
    ) -> dict[_Key, _Value]:
        """The same in a task. `compute` gets one of its own: it goes on if the caller is cancelled.

        Raises:
            ValueError, RecursionError: as `run`.
        """
        values: dict[_Key, _Value] = {}
        wanted = rest = list(dict.fromkeys(keys))
        while rest:
            load = Load()
            waits: list[tuple[Any, Load]] = []
            load.loop = asyncio.get_running_loop()
            try:
                try:
                    mine, waits = claim(self._flights, load, rest)
                    if mine:
                        self._start(load, mine, compute)
                except BaseException:
                    land(self._flights, load, rest)
                    raise
                if mine:
                    await wait_async(load)
                    if load.failure is not None:
                        raise load.failure
                    waits += [(key, load) for key in mine]
                rest = []
                while waits:
                    await _asettle(*waits.pop(), compute, values, rest)
            finally:
                del load, waits
        return {key: values[key] for key in wanted}

    def _start(self, load: Load, keys: list[Any], compute: Callable[[list[Any]], Any]) -> None:
        """Compute keys that a load has claimed, in a task."""
        task = asyncio.get_running_loop().create_task(self._fly(load, keys, compute))
        _tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            _tasks.discard(task)
            if not load.ended:  # it was cancelled before it began
                load.failure = asyncio.CancelledError()
                land(self._flights, load, keys)

        task.add_done_callback(ended)

    async def _fly(self, load: Load, keys: list[Any], compute: Callable[[list[Any]], Any]) -> None:
        try:
            await _acompute(load, keys, compute)
        except Exception:
            pass  # who waits finds it in the load
        finally:
            land(self._flights, load, keys)
            del load


def _compute(load: Load, keys: list[Any], compute: Callable[[list[Any]], Any]) -> None:
    load.keys = keys
    try:
        with inside(load):
            load.values = _aligned(keys, compute(list(keys)))
    except BaseException as error:
        load.end_with(error, keys)
        raise
    finally:
        del load


async def _acompute(load: Load, keys: list[Any], compute: Callable[[list[Any]], Any]) -> None:
    load.keys = keys
    try:
        with inside(load):
            load.values = _aligned(keys, await compute(list(keys)))
    except BaseException as error:
        load.end_with(error, keys)
        raise
    finally:
        del load


def _aligned(keys: list[Any], values: Sequence[Any]) -> dict[Any, Any]:
    if len(values) != len(keys):
        raise ValueError(f"compute returned {len(values)} values for {len(keys)} keys")
    return dict(zip(keys, values, strict=True))


def _settle(
    key: Any, load: Load, compute: Callable[[list[Any]], Any], values: dict[Any, Any],
    rest: list[Any],
) -> None:  # fmt: skip
    """Wait for a key that another has under way."""
    try:
        if not load.ended and not wait(load):
            load = Load()  # its end depends on ours
            _compute(load, [key], compute)
        _collect(key, load, values, rest)
    finally:
        del load


async def _asettle(
    key: Any, load: Load, compute: Callable[[list[Any]], Any], values: dict[Any, Any],
    rest: list[Any],
) -> None:  # fmt: skip
    try:
        if not load.ended and not await wait_async(load):
            load = Load()
            await _acompute(load, [key], compute)
        _collect(key, load, values, rest)
    finally:
        del load


def _collect(key: Any, load: Load, values: dict[Any, Any], rest: list[Any]) -> None:
    """What became of a key: its value; an error, raised; or nothing: it remains to be computed."""
    try:
        if load.errors is not None:
            raise load.errors[key]
        if load.values is None:  # it was stopped, maybe before it began
            rest.append(key)
        else:
            values[key] = load.values[key]
    finally:
        del load
