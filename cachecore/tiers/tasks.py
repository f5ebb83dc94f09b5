"""The driver of event loops: awaits what `Tiered` yields; loads are tasks of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from cachecore._load import ADD, DELETE, DEMOTE, GET, LOAD, RUN, SET, WAIT, Load
from cachecore.tiers.waiting import wait_async

if TYPE_CHECKING:
    from cachecore.tiers.tiered import TieredCache

_tasks: set[asyncio.Task[None]] = set()  # event loops refer to their tasks weakly


async def run(cache: TieredCache, steps: Generator[Any, Any, Any]) -> Any:
    """What a generator of calls returns, when a task makes them."""
    try:
        call = steps.send(None)
        while True:
            try:
                result = await _perform(cache, call)
            except BaseException as error:
                call = steps.throw(error)
            else:
                call = steps.send(result)
    except StopIteration as end:
        return end.value


async def _perform(cache: TieredCache, call: tuple[int, Any, Any]) -> Any:
    kind, level, arg = call
    if kind == GET:
        return await level.tier.aget_many(arg)
    if kind == SET:
        return await level.tier.aset_many(arg)
    if kind == DELETE:
        return await level.tier.adelete_many(arg)
    if kind == ADD:
        return await level.tier.aadd(arg)
    if kind == DEMOTE:
        return await asyncio.to_thread(level.tier.demote_many, *arg)
    if kind == LOAD:
        assert cache.loader is not None
        return await cache.loader.arun(level, arg)
    if kind == WAIT:
        return await wait_async(arg)
    if kind == RUN:
        return await load(cache, level, arg)
    return await asyncio.sleep(arg)


async def load(cache: TieredCache, load: Load, keys: list[Any]) -> None:
    """Run a load to its end in a task of its own, which our cancellation does not stop."""
    start(cache, load, keys)
    await wait_async(load)
    if load.failure is not None:
        raise load.failure


def own() -> Load:
    """A load that this task runs itself."""
    load = Load()
    load.loop = asyncio.get_running_loop()
    return load


def start(cache: TieredCache, load: Load, keys: list[Any]) -> None:
    """Begin a load of keys that it has claimed."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(_run_load(cache, load, keys))
    load.loop = loop
    _tasks.add(task)

    def ended(task: asyncio.Task[None]) -> None:
        _tasks.discard(task)
        if not load.ended:  # it was cancelled before it began
            load.end_with(asyncio.CancelledError(), keys)
            cache.land(load, keys)

    task.add_done_callback(ended)


async def _run_load(cache: TieredCache, load: Load, keys: list[Any]) -> None:
    try:
        await run(cache, cache.steps(load, keys))
    except BaseException as error:
        load.end_with(error, keys)
        if load.failure is not None:
            raise
    finally:
        cache.land(load, keys)
        if load.refresh:
            refresh, load.refresh = load.refresh, None
            cache.refresh_later(refresh)
