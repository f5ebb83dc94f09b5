"""ResultCache: threads, tasks and processes at once."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from cachecore.ml import ResultCache
from cachecore.ml.computed import Computed
from cachecore.ml.savings import Ledger
from cachecore.ml.steps import Steps, run
from ml.models import Array, Weighted, table
from support import yield_to_others
from tiers.children import in_child


def cached(predict: Any, **options: Any) -> ResultCache:
    given: dict[str, Any] = {"model": "model", "version": "1", "maxsize": 10_000}
    return ResultCache(predict, **given | options)


def batches(seed: int, count: int) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 300, 40).tolist() for _ in range(count)]


def test_threads_compute_each_row_once() -> None:
    class Slow(Weighted):
        def predict(self, rows: Array, *, scale: float = 1.0) -> Array:
            yield_to_others()
            return super().predict(rows, scale=scale)

    model, rows = Slow(), table(300)
    cache = cached(model)

    def work(seed: int) -> None:
        for places in batches(seed, 25):
            assert cache.predict(rows[places]).tolist() == rows[places].sum(axis=1).tolist()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    seen = {place for seed in range(8) for places in batches(seed, 25) for place in places}
    given = Counter(row[0] for batch in model.batches for row in batch)
    assert set(given.values()) == {1}
    assert len(given) == len(cache) == len(seen)
    total = cache.savings().total
    assert (total.requests, total.rows, total.rows_computed) == (200, 8_000, len(seen))


def test_who_waits_gets_the_error_too() -> None:
    entered, gate = threading.Event(), threading.Event()
    asked: list[int] = []

    def predict(rows: Array) -> Array:
        asked.append(len(rows))
        if len(asked) == 1:
            entered.set()
            gate.wait(30)
            raise ConnectionError("the device is gone")
        return np.asarray(rows.sum(axis=1))

    cache = cached(predict)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.predict, table(3))
        assert entered.wait(30)
        second = pool.submit(cache.predict, table(5))
        wait_for_batch_waiters(asked)
        gate.set()
        for future in (first, second):
            with pytest.raises(ConnectionError, match="the device is gone"):
                future.result(30)
    assert asked == [3, 2]
    assert len(cache) == 2, "of the second batch, what it computed itself"


def wait_for_batch_waiters(asked: list[int]) -> None:
    while len(asked) < 2:
        yield_to_others()


async def _gather(cache: ResultCache, rows: Array, requests: list[list[int]]) -> list[Any]:
    return await asyncio.gather(*(cache.apredict(rows[places]) for places in requests))


@pytest.mark.parametrize("kind", ["coroutine function", "coroutine method", "function"])
def test_tasks_compute_each_row_once(kind: str) -> None:
    model, rows = Weighted(2), table(300)

    async def predict(given: Array) -> Array:
        await asyncio.sleep(0.001)
        return model.predict(given)

    class Served:
        async def __call__(self, given: Array) -> Array:
            return await predict(given)

    served = {"coroutine function": predict, "coroutine method": Served(), "function": model}[kind]
    cache, requests = cached(served), batches(0, 30)
    results = asyncio.run(_gather(cache, rows, requests))
    for places, result in zip(requests, results, strict=True):
        np.testing.assert_array_equal(result, Weighted(2).predict(rows[places]), strict=True)
    assert model.asked == len(cache) == len({place for places in requests for place in places})
    if kind != "function":
        with pytest.raises(TypeError, match="is a coroutine function: use apredict"):
            cache.predict(rows[:1])


@pytest.mark.parametrize("change", ["params", "inputs"])
def test_who_changes_a_request_before_it_is_computed(change: str) -> None:
    """The result would be kept for what was asked before the change."""

    async def predict(inputs: list[Any], scale: Any = None) -> list[int]:
        return [each["n"] * scale["by"] for each in inputs]

    async def work(cache: ResultCache) -> None:
        inputs, scale = [{"n": 2}], {"by": 3}
        task = asyncio.create_task(cache.apredict(inputs, scale=scale))
        await asyncio.sleep(0)  # the task has looked up
        if change == "params":
            scale["by"] = 30
        else:
            inputs[0]["n"] = 20
        with pytest.raises(RuntimeError, match="model were changed before it was called"):
            await task
        assert len(cache) == 0
        assert await cache.apredict([{"n": 2}], scale={"by": 3}) == [6]

    asyncio.run(work(cached(predict)))


def test_no_inputs_in_a_task() -> None:
    async def predict(rows: Array) -> Array:
        return rows[:, 0]

    cache = cached(predict)
    assert asyncio.run(cache.apredict(table(0))).shape == (0,)


def test_a_fork_while_a_thread_computes() -> None:
    entered, gate = threading.Event(), threading.Event()

    def predict(rows: Array) -> Array:
        if threading.current_thread() is not threading.main_thread():
            entered.set()
            gate.wait(30)
        return np.asarray(rows.sum(axis=1))

    cache = cached(predict)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(cache.predict, table(3))
        assert entered.wait(30)
        expected = table(4).sum(axis=1).tolist()
        assert in_child(lambda: cache.predict(table(4)).tolist() == expected) == 0
        gate.set()
        assert future.result(30).tolist() == expected[:3]


def test_a_fork_while_a_thread_counts() -> None:
    ledger = Ledger("model", "1")
    with ledger._lock:
        assert in_child(lambda: ledger.asked(1) is None and ledger.rows == 1) == 0


def test_what_came_between_the_look_up_and_the_claim() -> None:
    computed = Computed(10, None, None, None, None, Ledger("model", "1"))
    computed.cache[b"here"] = 1

    def compute(keys: list[bytes]) -> Steps:
        assert keys == [b"new"]
        results = yield list, list, ([2],)
        return results, 0.0

    assert run(computed.steps([b"here", b"new"], list, compute)) == [1, 2]
    assert computed.cache[b"new"] == 2
