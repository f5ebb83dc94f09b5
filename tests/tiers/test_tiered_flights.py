"""TieredCache: of all threads and tasks that ask for a key, one loads; nobody waits in vain."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachecore.tiers import waiting
from cachecore.tiers.testing import eventually
from support import Clock
from tiers.caches import (
    HANGS,
    Counting,
    Gate,
    Make,
    Slow,
    call,
    callers,
    counts,
    in_threads,
    settle,
)

THREADS, TASKS = 64, 1000


class Leisurely:
    """A loader that takes its time, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def one(self, key: Any) -> str:
        self.calls += 1
        time.sleep(0.05)
        return f"{key} {self.calls}"

    async def aone(self, key: Any) -> str:
        self.calls += 1
        await asyncio.sleep(0.05)
        return f"{key} {self.calls}"


# --- one load


@pytest.mark.parametrize("timed", [False, True])
def test_threads_on_a_key_that_expires(
    make: Make, store: Counting, clock: Clock, timed: bool
) -> None:
    loader = Leisurely()
    timer = clock if timed else None
    cache = make(loader=loader.one, tiers=[store], ttl=0.2 if not timed else 10, timer=timer)
    assert in_threads(THREADS, lambda at: cache.get("hot")) == ["hot 1"] * THREADS
    assert loader.calls == 1
    if timed:
        clock.advance(11)
    else:
        time.sleep(0.21)
    assert in_threads(THREADS, lambda at: cache.get("hot")) == ["hot 2"] * THREADS
    assert loader.calls == 2
    assert counts(cache, "loads") == (2,)
    assert not cache.flights


@pytest.mark.parametrize("awaits", [False, True])
def test_tasks_on_a_key_that_expires(
    make: Make, store: Counting, clock: Clock, awaits: bool
) -> None:
    loader = Leisurely()
    function = loader.aone if awaits else loader.one
    cache = make(loader=function, tiers=[store], ttl=10, timer=clock)

    async def main() -> None:
        for serial in (1, 2):
            found = await asyncio.gather(*(cache.aget("hot") for _ in range(TASKS)))
            assert found == [f"hot {serial}"] * TASKS
            clock.advance(11)

    asyncio.run(main())
    assert loader.calls == 2


def test_threads_and_tasks_of_several_loops(make: Make, store: Counting) -> None:
    loader = Leisurely()
    cache = make(loader=loader.one, tiers=[store])

    async def gather() -> list[Any]:
        return await asyncio.gather(*(cache.aget("hot") for _ in range(100)))

    def work(at: int) -> list[Any]:
        return asyncio.run(gather()) if at % 4 == 0 else [cache.get("hot")]

    found = in_threads(24, work)
    assert {value for values in found for value in values} == {"hot 1"}
    assert loader.calls == 1


def test_batches_that_overlap_load_each_key_once(make: Make) -> None:
    asked: list[int] = []

    def many(keys: list[int]) -> list[int]:
        asked.extend(keys)
        time.sleep(0.02)
        return [-key for key in keys]

    cache = make(loader_many=many)

    def work(at: int) -> None:
        keys = list(range(at, at + 30))[:: 1 if at % 2 else -1]
        assert cache.get_many(keys) == [-key for key in keys]

    in_threads(24, work)
    assert sorted(asked) == list(range(53))


def test_an_error_reaches_everyone_and_is_not_remembered(make: Make) -> None:
    gate = Gate()

    def one(key: str) -> Any:
        gate.one(key)
        raise LookupError(key)

    cache = make(loader=one)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(cache.get, "key") for _ in range(8)]
        gate.wait()
        eventually(lambda: callers(cache, "key") == 8)
        gate.let(8)
        for future in futures:
            with pytest.raises(LookupError):
                future.result(HANGS)
    assert gate.asked == 1
    with pytest.raises(LookupError):
        cache.get("key")
    assert gate.asked == 2


def test_a_waiter_takes_over_from_who_is_interrupted(make: Make) -> None:
    gate = Gate()
    interrupts = [KeyboardInterrupt]

    def one(key: str) -> Any:
        gate.one(key)
        if interrupts:
            raise interrupts.pop()
        return "value"

    cache = make(loader=one)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, "key")
        gate.wait()
        second = pool.submit(cache.get, "key")
        eventually(lambda: callers(cache, "key") == 2)
        gate.let(2)
        with pytest.raises(KeyboardInterrupt):
            first.result(HANGS)
        assert second.result(HANGS) == "value"
    assert gate.asked == 2


# --- cancelling


def test_cancelling_the_leader_does_not_cancel_the_load(make: Make) -> None:
    async def main() -> None:
        gate = Gate()
        cache = make(loader=gate.aone)
        leader = asyncio.create_task(cache.aget("key"))
        await gate.await_()
        waiter = asyncio.create_task(cache.aget("key"))
        await asyncio.to_thread(eventually, lambda: callers(cache, "key") == 2)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        gate.let()
        assert await asyncio.wait_for(waiter, HANGS) == "loaded"
        assert cache.get("key") == "loaded"
        assert gate.asked == 1

    asyncio.run(main())


@pytest.mark.parametrize("awaits", [False, True])
def test_a_load_that_everyone_has_left_is_kept(make: Make, awaits: bool) -> None:
    async def main() -> None:
        gate = Gate()
        cache = make(loader=gate.aone if awaits else gate.one)
        tasks = [asyncio.create_task(cache.aget_many(["key", "other"][: at + 1])) for at in (0, 0)]
        await gate.await_()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        gate.let()
        assert await asyncio.wait_for(cache.aget("key"), HANGS) == "loaded"
        assert gate.asked == 1

    asyncio.run(main())


def test_a_timeout_of_one_waiter(make: Make) -> None:
    async def main() -> None:
        gate = Gate()
        cache = make(loader=gate.one)
        patient = asyncio.create_task(cache.aget("key"))
        await gate.await_()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(cache.aget("key"), 0.02)
        gate.let()
        assert await asyncio.wait_for(patient, HANGS) == "loaded"
        assert gate.asked == 1

    asyncio.run(main())


# --- one's own event loop


def test_a_function_call_on_the_leaders_loop_raises(make: Make) -> None:
    async def main() -> None:
        gate = Gate()
        cache = make(loader=gate.one)
        leader = asyncio.create_task(cache.aget("key"))
        await gate.await_()
        with pytest.raises(RuntimeError, match="event loop"):
            cache.get("key")
        with pytest.raises(RuntimeError, match="event loop"):
            cache.get_many(["other", "key"]) if gate.let() else cache.get_many(["key"])
        gate.let()
        assert await asyncio.wait_for(leader, HANGS) == "loaded"
        assert cache.get("key") == "loaded"

    asyncio.run(main())


def test_a_thread_waits_for_a_task(make: Make) -> None:
    async def main() -> None:
        gate = Gate()
        cache = make(loader=gate.one)
        leader = asyncio.create_task(cache.aget("key"))
        await gate.await_()
        thread = asyncio.create_task(asyncio.to_thread(cache.get, "key"))
        await asyncio.to_thread(eventually, lambda: callers(cache, "key") == 2)
        gate.let()
        assert await asyncio.wait_for(thread, HANGS) == await leader == "loaded"
        assert gate.asked == 1

    asyncio.run(main())


@pytest.mark.parametrize("write", ["set", "delete"])
def test_a_function_call_amid_a_write_of_the_same_loop_raises(
    make: Make, store: Counting, write: str
) -> None:
    async def main() -> None:
        slow = Slow(store)
        cache = make(tiers=[slow])
        await cache.aset("key", 1)
        slow.holds = True
        args = (2,) if write == "set" else ()
        task = asyncio.create_task(getattr(cache, f"a{write}")("key", *args))
        await slow.gate.await_()
        if write == "delete":
            with pytest.raises(RuntimeError, match="event loop"):
                cache.get("key")
        for method, rest in ((cache.set, (3,)), (cache.delete, ())):
            with pytest.raises(RuntimeError, match="event loop"):
                method("key", *rest)
        slow.holds = False
        slow.gate.let()
        await asyncio.wait_for(task, HANGS)
        assert cache.get("key") == (2 if write == "set" else None)

    asyncio.run(main())


@pytest.mark.parametrize("awaits", [False, True])
def test_an_event_loop_that_ended_amid_a_load(
    make: Make, awaits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 0.05)
    gate = Gate("never")
    asked: list[str] = []

    def one(key: str) -> Any:
        asked.append(key)
        return gate.one(key) if len(asked) == 1 else "value"

    async def aone(key: str) -> Any:
        asked.append(key)
        if len(asked) == 1:
            await asyncio.get_running_loop().create_future()
        return "value"

    cache = make(loader=aone if awaits else one)
    loop = asyncio.new_event_loop()
    task = loop.create_task(cache.aget("key"))
    while not asked:
        loop.run_until_complete(asyncio.sleep(0.001))
    if not awaits:
        assert loop._default_executor is not None  # type: ignore[attr-defined]
        loop._default_executor.shutdown(wait=False)  # type: ignore[attr-defined]
    loop.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    begin = time.monotonic()
    assert call("async", cache.get, "key") == "value"
    assert time.monotonic() - begin < 10
    assert asked == ["key", "key"]
    gate.let()


# --- writes that wait for each other


def test_overlapping_writes_in_any_order_end(make: Make, store: Counting) -> None:
    cache = make(tiers=[store])

    def work(at: int) -> None:
        for turn in range(60):
            keys = [f"k{(at + turn + step) % 5}" for step in range(3)][:: 1 if turn % 2 else -1]
            if turn % 3 == 0:
                cache.delete_many(keys)
            elif turn % 3 == 1:
                cache.set_many(dict.fromkeys(keys, at))
            else:
                cache.get_many(keys)

    in_threads(12, work)
    assert not cache.flights


def test_overlapping_writes_of_tasks_end(make: Make, store: Counting) -> None:
    """Each holds what another waits for, unless who waits holds nothing."""

    async def main() -> None:
        slow = Slow(store)
        cache = make(tiers=[slow])
        slow.holds = True
        first = asyncio.create_task(cache.aset("x", 0))
        await slow.gate.await_()
        second = asyncio.create_task(cache.aset_many({"x": 1, "y": 1}))
        await asyncio.sleep(0)
        slow.holds = False
        slow.gate.let()
        while not first.done():
            await asyncio.sleep(0)
            time.sleep(0.0001)
        third = asyncio.create_task(cache.aset_many({"y": 2, "x": 2}))
        await asyncio.wait_for(asyncio.gather(second, third), HANGS)
        assert cache.get("x") == cache.get("y") in (1, 2)

    asyncio.run(main())


def test_threads_that_leave_no_trace(make: Make, clock: Clock) -> None:
    cache = make(loader=lambda key: key, ttl=10, stale_ttl=10, timer=clock)
    before = threading.active_count()
    for _ in range(3):
        in_threads(8, lambda at: cache.get_many(range(50)))
        clock.advance(11)
    settle(cache)
    assert threading.active_count() <= before + 4  # of the background
