"""EmbeddingCache in tasks: coroutine functions, overlapping batches, cancellation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from ml.embedding_models import DIM, Trigrams, over

DEADLINE = 30.0


class Service:
    """The model behind a coroutine method, that waits to be let go."""

    def __init__(self) -> None:
        self.model, self.open = Trigrams(), asyncio.Event()
        self.error: Exception | None = None
        self.begun = 0

    async def __call__(self, texts: list[str]) -> Any:
        self.begun += 1
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return self.model(texts)


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(main(), DEADLINE))


async def until(true: Callable[[], object]) -> None:
    while not true():
        await asyncio.sleep(0.001)


def test_a_coroutine_function() -> None:
    async def main() -> None:
        service = Service()
        service.open.set()
        cache, model = over(service), service.model
        rows = await cache.aembed(["a", "b", "a"])
        assert np.array_equal(rows, model.rows(["a", "b", "a"]))
        assert np.array_equal(await cache.aembed_one("a"), model.row("a"))
        assert np.array_equal(await cache.aembed_one("c"), model.row("c"))
        assert np.array_equal(cache.embed(["c"]), model.rows(["c"]))  # of what is there
        assert (await cache.aembed([])).shape == (0, DIM)
        seen: list[tuple[int, int]] = []
        report = lambda done, total: seen.append((done, total))  # noqa: E731
        assert await cache.aprecompute("abcde".__iter__(), batch=2, progress=report) == 2
        assert seen == [(2, 5), (4, 5), (5, 5)]
        assert model.calls == [["a", "b"], ["c"], ["d"], ["e"]]
        assert cache.stats().encoded == 5

    run(main)


def test_a_function_runs_in_a_thread() -> None:
    threads = set()

    def encode(texts: list[str]) -> Any:
        threads.add(threading.get_ident())
        return Trigrams().rows(texts)

    async def main() -> None:
        assert np.array_equal(await over(encode).aembed(["a"]), Trigrams().rows(["a"]))

    run(main)
    assert threads
    assert threading.get_ident() not in threads


def test_overlapping_tasks_and_threads_encode_each_input_once() -> None:
    async def main() -> None:
        service = Service()
        cache, model = over(service), service.model
        tasks = [
            asyncio.create_task(cache.aembed(["a", "b"])),
            asyncio.create_task(cache.aembed(["b", "c", "a"])),
            asyncio.create_task(cache.aembed_one("c")),
        ]
        await until(lambda: service.begun == 2)
        # A thread can wait for the tasks, where it need not encode itself.
        tasks.append(asyncio.create_task(asyncio.to_thread(cache.embed, ["a", "c"])))
        await asyncio.sleep(0.01)
        service.open.set()
        results = await asyncio.gather(*tasks)
        assert np.array_equal(results[0], model.rows(["a", "b"]))
        assert np.array_equal(results[1], model.rows(["b", "c", "a"]))
        assert np.array_equal(results[2], model.row("c"))
        assert np.array_equal(results[3], model.rows(["a", "c"]))
        assert sorted(model.encoded) == ["a", "b", "c"]

    run(main)


def test_an_error_reaches_every_task_and_nothing_is_kept() -> None:
    async def main() -> None:
        service = Service()
        cache, service.error = over(service), ValueError("overloaded")
        tasks = [asyncio.create_task(cache.aembed(["a"])) for _ in range(3)]
        await until(lambda: service.begun)
        service.open.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["overloaded"] * 3
        assert (service.begun, len(cache.cache)) == (1, 0)
        service.error = None
        assert np.array_equal(await cache.aembed(["a"]), service.model.rows(["a"]))

    run(main)


def test_a_cancelled_caller_does_not_stop_the_model() -> None:
    async def main() -> None:
        service = Service()
        cache = over(service)
        first = asyncio.create_task(cache.aembed(["a"]))
        second = asyncio.create_task(cache.aembed(["a"]))
        await until(lambda: service.begun)
        first.cancel()
        await asyncio.sleep(0.01)
        assert first.cancelled()
        service.open.set()
        assert np.array_equal(await second, service.model.rows(["a"]))
        assert service.begun == 1

    run(main)


def test_wrong_rows_of_a_coroutine_function() -> None:
    async def encode(texts: list[str]) -> Any:
        return np.full((len(texts), DIM), np.nan)

    cache = over(encode)
    with pytest.raises(ValueError, match="NaN"):
        run(lambda: cache.aembed(["a"]))
    assert len(cache.cache) == 0
    with pytest.raises(TypeError, match="asynchronous"):
        cache.embed(["a"])


def test_an_encoder_that_stops_an_iteration() -> None:
    def encode(texts: list[str]) -> Any:
        return next(iter(()))

    async def main() -> None:
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            await asyncio.wait_for(over(encode).aembed(["a"]), 10)

    run(main)
