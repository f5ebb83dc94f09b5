"""BatchFlights: overlapping batches compute each key once; nothing that goes wrong hangs."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachecore._load import Load, claim, land
from cachecore.ml.flights import BatchFlights

DEADLINE = 30.0  # seconds: what takes so long has deadlocked


class Work:
    """A computation that waits to be let go, and notes what it was asked for."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.asked: list[list[str]] = []
        self.begun, self.open, self.error = threading.Event(), threading.Event(), error

    def __call__(self, keys: list[str]) -> list[str]:
        self.asked.append(keys)
        self.begun.set()
        assert self.open.wait(DEADLINE)
        if self.error is not None:
            raise self.error
        return [key.upper() for key in keys]

    async def later(self, keys: list[str]) -> list[str]:
        self.asked.append(keys)
        self.begun.set()
        while not self.open.is_set():
            await asyncio.sleep(0.001)
        if self.error is not None:
            raise self.error
        return [key.upper() for key in keys]


def upper(keys: list[str]) -> list[str]:
    return [key.upper() for key in keys]


async def upper_later(keys: list[str]) -> list[str]:
    return upper(keys)


def refuse(keys: list[str]) -> list[str]:
    raise AssertionError(keys)


def arun(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(main(), DEADLINE))


def settle(flights: BatchFlights, waiting: int) -> None:
    """Until so many wait for what is under way."""
    until = time.monotonic() + DEADLINE
    while sum(len(load.waiters or ()) for load in set(flights._flights.values())) < waiting:
        assert time.monotonic() < until
        time.sleep(0.001)


def test_keys_are_computed_once_and_in_order() -> None:
    flights = BatchFlights()
    asked: list[list[str]] = []

    def compute(keys: list[str]) -> list[str]:
        asked.append(keys)
        return upper(keys)

    values = flights.run(iter("banana"), compute)
    assert asked == [["b", "a", "n"]]
    assert list(values.items()) == [("b", "B"), ("a", "A"), ("n", "N")]
    assert len(flights) == 0
    assert flights.run([], refuse) == {}


def test_overlapping_threads_share_the_work() -> None:
    flights, first, second = BatchFlights(), Work(), Work()
    with ThreadPoolExecutor(3) as pool:
        a = pool.submit(flights.run, ["a", "b"], first)
        assert first.begun.wait(DEADLINE)
        second.open.set()
        b = pool.submit(flights.run, ["b", "c"], second)
        c = pool.submit(flights.run, ["a"], refuse)
        settle(flights, 2)
        assert len(flights) == 2
        first.open.set()
        assert a.result(DEADLINE) == {"a": "A", "b": "B"}
        assert b.result(DEADLINE) == {"b": "B", "c": "C"}
        assert c.result(DEADLINE) == {"a": "A"}
    assert (first.asked, second.asked) == ([["a", "b"]], [["c"]])
    assert len(flights) == 0


def test_overlapping_tasks_share_the_work() -> None:
    flights, first, second = BatchFlights(), Work(), Work()

    async def main() -> None:
        tasks = [
            asyncio.create_task(flights.arun(["a", "b"], first.later)),
            asyncio.create_task(flights.arun(["b", "c"], second.later)),
        ]
        second.open.set()
        await asyncio.sleep(0.01)
        first.open.set()
        assert await tasks[0] == {"a": "A", "b": "B"}
        assert await tasks[1] == {"b": "B", "c": "C"}

    arun(main)
    assert (first.asked, second.asked) == ([["a", "b"]], [["c"]])
    assert len(flights) == 0


def test_a_thread_and_a_task_share_the_work() -> None:
    flights, theirs, ours = BatchFlights(), Work(), Work()

    async def main() -> None:
        thread = asyncio.create_task(asyncio.to_thread(flights.run, ["a"], theirs))
        while not theirs.begun.is_set():
            await asyncio.sleep(0.001)
        task = asyncio.create_task(flights.arun(["a", "b"], ours.later))
        while not ours.begun.is_set():
            await asyncio.sleep(0.001)
        other = asyncio.create_task(asyncio.to_thread(flights.run, ["b"], refuse))
        await asyncio.to_thread(settle, flights, 1)
        ours.open.set()
        assert await other == {"b": "B"}
        theirs.open.set()
        assert await thread == {"a": "A"}
        assert await task == {"a": "A", "b": "B"}

    arun(main)
    assert (theirs.asked, ours.asked) == ([["a"]], [["b"]])


def test_an_error_reaches_all_who_wait_and_is_not_remembered() -> None:
    flights, work = BatchFlights(), Work(ValueError("no such model"))
    with ThreadPoolExecutor(2) as pool:
        a = pool.submit(flights.run, ["a"], work)
        assert work.begun.wait(DEADLINE)
        b = pool.submit(flights.run, ["a", "b"], upper)
        settle(flights, 1)
        work.open.set()
        for future in (a, b):
            with pytest.raises(ValueError, match="no such model"):
                future.result(DEADLINE)
    assert len(flights) == 0
    assert flights.run(["a"], upper) == {"a": "A"}


def test_an_error_reaches_tasks_and_is_not_remembered() -> None:
    flights, work = BatchFlights(), Work(ValueError("no such model"))

    async def main() -> None:
        tasks = [asyncio.create_task(flights.arun(["a"], work.later)) for _ in range(3)]
        await asyncio.sleep(0.01)
        work.open.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["no such model"] * 3
        assert await flights.arun(["a"], upper_later) == {"a": "A"}

    arun(main)
    assert len(work.asked) == 1


@pytest.mark.parametrize("values", [[], ["A"], ["A", "B", "C"]])
def test_a_wrong_number_of_values_is_an_error(values: list[str]) -> None:
    flights = BatchFlights()
    with pytest.raises(ValueError, match=f"returned {len(values)} values for 2 keys"):
        flights.run(["a", "b"], lambda keys: values)
    assert len(flights) == 0


def test_who_waits_for_a_thread_that_was_interrupted_computes() -> None:
    flights, work = BatchFlights(), Work(KeyboardInterrupt())
    with ThreadPoolExecutor(2) as pool:
        a = pool.submit(flights.run, ["a", "b"], work)
        assert work.begun.wait(DEADLINE)
        b = pool.submit(flights.run, ["b", "c"], upper)
        settle(flights, 1)
        work.open.set()
        with pytest.raises(KeyboardInterrupt):
            a.result(DEADLINE)
        assert b.result(DEADLINE) == {"b": "B", "c": "C"}


def test_who_waits_for_a_claim_that_was_given_up_computes() -> None:
    flights, load = BatchFlights(), Load()  # as if interrupted before it began to compute
    claim(flights._flights, load, ["a"])
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(flights.run, ["a"], upper)
        settle(flights, 1)
        land(flights._flights, load, ["a"])
        assert waits.result(DEADLINE) == {"a": "A"}


def test_a_cancelled_task_leaves_the_computation_to_those_who_wait() -> None:
    flights, work = BatchFlights(), Work()

    async def main() -> None:
        first = asyncio.create_task(flights.arun(["a"], work.later))
        second = asyncio.create_task(flights.arun(["a"], work.later))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        assert first.cancelled()
        work.open.set()
        assert await second == {"a": "A"}

    arun(main)
    assert len(work.asked) == 1
    assert len(flights) == 0


def test_an_event_loop_that_ends_leaves_no_claim() -> None:
    flights, work = BatchFlights(), Work()

    async def main() -> None:
        task = asyncio.create_task(flights.arun(["a"], work.later))
        await asyncio.sleep(0.01)
        assert len(flights) == 1
        task.cancel()

    arun(main)
    assert flights.run(["a"], upper) == {"a": "A"}


def test_a_computation_that_asks_for_its_own_keys() -> None:
    flights = BatchFlights()
    with pytest.raises(RecursionError):
        flights.run(["a"], deeper := lambda keys: list(flights.run(keys, deeper).values()))
    assert len(flights) == 0

    def once(keys: list[str]) -> list[str]:
        return list(flights.run([*keys, "z"], upper).values())[: len(keys)]

    assert flights.run(["a", "b"], once) == {"a": "A", "b": "B"}


def test_a_task_that_asks_for_its_own_keys() -> None:
    flights = BatchFlights()

    async def deeper(keys: list[str]) -> list[str]:
        return list((await flights.arun(keys, deeper)).values())

    async def main() -> None:
        with pytest.raises(RecursionError):
            await flights.arun(["a"], deeper)

    arun(main)
    assert len(flights) == 0


def test_two_computations_that_wait_for_each_other() -> None:
    flights = BatchFlights()
    both = threading.Barrier(2)

    def asks_for(other: str) -> Callable[[list[str]], list[str]]:
        def compute(keys: list[str]) -> list[str]:
            both.wait(DEADLINE)
            return [key.upper() + flights.run([other], upper)[other] for key in keys]

        return compute

    with ThreadPoolExecutor(2) as pool:
        a = pool.submit(flights.run, ["a"], asks_for("b"))
        b = pool.submit(flights.run, ["b"], asks_for("a"))
        assert a.result(DEADLINE)["a"].startswith("A")
        assert b.result(DEADLINE)["b"].startswith("B")


def test_a_thread_on_the_loop_of_the_computing_task_is_told() -> None:
    flights, work = BatchFlights(), Work()

    async def main() -> None:
        task = asyncio.create_task(flights.arun(["a"], work.later))
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="asynchronous method"):
            flights.run(["a"], upper)
        work.open.set()
        assert await task == {"a": "A"}

    arun(main)


def test_a_child_process_does_not_wait_for_its_parents_thread() -> None:
    flights, work = BatchFlights(), Work()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(flights.run, ["a"], work)
        assert work.begun.wait(DEADLINE)
        child = os.fork()
        if child == 0:
            signal.alarm(int(DEADLINE))
            os._exit(0 if flights.run(["a"], upper) == {"a": "A"} else 1)
        assert os.waitpid(child, 0)[1] == 0
        work.open.set()
        assert future.result(DEADLINE) == {"a": "A"}


def test_an_interrupted_wait_leaves_the_computation_alone() -> None:
    flights, work = BatchFlights(), Work()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(flights.run, ["a"], work)
        assert work.begun.wait(DEADLINE)
        main = threading.main_thread().ident
        assert main is not None

        def interrupt() -> None:
            settle(flights, 1)
            signal.pthread_kill(main, signal.SIGINT)

        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                flights.run(["a", "b"], upper)
        finally:
            signal.signal(signal.SIGINT, handler)
            thread.join()
        work.open.set()
        assert future.result(DEADLINE) == {"a": "A"}
    assert len(flights) == 0


def test_an_error_leaves_no_cycle() -> None:
    flights = BatchFlights()
    kept: list[weakref.ref[BaseException]] = []

    class OddError(Exception):
        pass

    def fail(keys: list[str]) -> list[str]:
        error = OddError()
        kept.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    async def afail(keys: list[str]) -> list[str]:
        return fail(keys)

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(OddError):
            flights.run(["a"], fail)
        assert kept[0]() is None

        async def main() -> None:
            with pytest.raises(OddError):
                await flights.arun(["a"], afail)
            await asyncio.sleep(0)

        arun(main)
        assert kept[1]() is None
    finally:
        gc.enable()


def test_many_threads_compute_each_key_once() -> None:
    flights, done = BatchFlights(), dict[str, str]()
    counts: dict[str, int] = {}
    lock = threading.Lock()

    def compute(keys: list[str]) -> list[str]:
        new = [key for key in keys if key not in done]
        with lock:
            for key in new:
                counts[key] = counts.get(key, 0) + 1
        time.sleep(0.0005)
        done.update((key, key.upper()) for key in new)
        return [done[key] for key in keys]

    names = [f"k{i}" for i in range(200)]

    def work(seed: int) -> None:
        for at in range(50):
            start = (seed * 37 + at * 13) % len(names)
            wanted = names[start : start + 20]
            missing = [name for name in wanted if name not in done]
            assert set(flights.run(missing, compute)) == set(missing)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert set(counts.values()) == {1}
    assert len(flights) == 0
