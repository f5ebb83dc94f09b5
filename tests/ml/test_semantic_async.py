"""SemanticCache in tasks: the same answers, coroutine functions, one computation, cancellation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cachecore.ml import Hit, SemanticCache
from ml.texts import ALIKE, ASKED, OTHER, Embed, cosine, trigrams


async def atrigrams(texts: list[str]) -> Any:
    await asyncio.sleep(0)
    return trigrams(texts)


async def alen(query: str) -> int:
    await asyncio.sleep(0)
    return len(query)


@pytest.fixture(params=[trigrams, atrigrams])
def embed(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_tasks_get_what_threads_get(embed: Any) -> None:
    async def main() -> None:
        cache = SemanticCache(embed, threshold=0.9, maxsize=10)
        assert await cache.aget(ASKED) is None
        await cache.aset(ASKED, 1)
        await cache.aset_many({OTHER: 2})
        assert await cache.aget(ASKED) == Hit(1, 1.0, ASKED, True)
        hits = await cache.aget_many([ALIKE, OTHER, "tea", ALIKE])
        assert [hit and (hit.value, hit.exact) for hit in hits] == [
            (1, False), (2, True), None, (1, False),
        ]  # fmt: skip
        alike = await cache.aget(ALIKE)
        assert alike is not None
        assert alike.similarity == pytest.approx(cosine(ALIKE, ASKED), abs=1e-6)
        assert alike == await cache.anearest(ALIKE) == Hit(1, alike.similarity, ASKED, False)
        assert cache.stats()[:4] == (2, 3, 2, 0)
        if embed is trigrams:
            assert cache.get_many([ALIKE, OTHER, "tea", ALIKE]) == hits
            assert cache.get(ALIKE) == alike

    asyncio.run(main())


@pytest.mark.parametrize("compute", [len, alen])
def test_a_task_computes_and_fills(embed: Any, compute: Any) -> None:
    async def both(texts: list[str]) -> list[int]:
        return [await alen(text) for text in texts]

    async def main() -> None:
        cache = SemanticCache(embed, threshold=0.9, maxsize=10)
        first = await cache.aget_or_compute(ASKED, compute)
        assert first == Hit(len(ASKED), 1.0, ASKED, True, computed=True)
        again = await cache.aget_or_compute(ALIKE, compute)
        assert (again.value, again.query, again.computed) == (len(ASKED), ASKED, False)
        many = await cache.aget_or_compute_many([OTHER, ALIKE, "tea", OTHER], both)
        assert [hit.value for hit in many] == [len(OTHER), len(ASKED), 3, len(OTHER)]
        assert [hit.computed for hit in many] == [True, False, True, True]

    asyncio.run(main())


def test_a_verifier_may_be_a_coroutine_function() -> None:
    async def verify(query: str, matched: str, value: Any) -> bool:
        await asyncio.sleep(0)
        return bool(value != "wrong")

    async def main() -> None:
        cache = SemanticCache(atrigrams, threshold=0.9, maxsize=10, verify=verify)
        await cache.aset(ASKED, "wrong")
        assert await cache.aget(ALIKE) is None
        await cache.aset(ASKED, "right")
        assert await cache.aget(ALIKE) is not None
        assert cache.stats().verified_away == 1
        pairs = [(f"{n} a", f"{n} b", n > 300) for n in range(400)]
        chosen = await cache.acalibrate(pairs, 0.01, verified=True)
        assert cache.threshold == chosen.threshold

    asyncio.run(main())


def test_plain_functions_run_beside_the_event_loop() -> None:
    seen: set[int] = set()

    def here(function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            seen.add(threading.get_ident())
            return function(*arguments)

        return noted

    async def main() -> None:
        cache = SemanticCache(
            here(trigrams), threshold=0.9, maxsize=9, verify=here(lambda *_: True)
        )
        await cache.aset(ASKED, 1)
        await cache.aget(ALIKE)
        await cache.aget_or_compute(OTHER, here(len))

    asyncio.run(main())
    assert seen
    assert threading.get_ident() not in seen


def test_methods_of_threads_refuse_coroutine_functions() -> None:
    cache = SemanticCache(atrigrams, threshold=0.9, maxsize=10)
    with pytest.raises(TypeError, match="embed is a coroutine function: use the asynchronous"):
        cache.set(ASKED, 1)
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10)
    with pytest.raises(TypeError, match="compute is a coroutine function"):
        cache.get_or_compute(ASKED, alen)
    assert len(cache) == 0


def test_what_hides_that_it_must_be_awaited_is_an_error() -> None:
    def hidden(query: str, *_: Any) -> Any:
        return alen(query)

    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10, verify=hidden)
    cache.set(ASKED, 1)
    for call in (
        lambda: cache.get(ALIKE),
        lambda: asyncio.run(cache.aget(ALIKE)),
        lambda: cache.get_or_compute(OTHER, hidden),
        lambda: asyncio.run(cache.aget_or_compute(OTHER, hidden)),
    ):
        with pytest.raises(TypeError, match="returned an awaitable: make it a coroutine function"):
            call()
    assert len(cache) == 1


def test_of_many_tasks_one_computes_and_one_says_so() -> None:
    computed: list[str] = []

    async def compute(query: str) -> int:
        computed.append(query)
        await asyncio.sleep(0.01)
        return 7

    async def main() -> None:
        cache = SemanticCache(Embed(), threshold=0.9, maxsize=10)
        hits = await asyncio.gather(*(cache.aget_or_compute(ASKED, compute) for _ in range(20)))
        assert [hit.value for hit in hits] == [7] * 20
        assert sum(hit.computed for hit in hits) == 1

    asyncio.run(main())
    assert computed == [ASKED]


def test_who_is_cancelled_leaves_the_computation_to_others() -> None:
    async def main() -> None:
        cache = SemanticCache(atrigrams, threshold=0.9, maxsize=10)
        begun, go, calls = asyncio.Event(), asyncio.Event(), []

        async def compute(query: str) -> int:
            calls.append(query)
            begun.set()
            await go.wait()
            return 7

        first = asyncio.create_task(cache.aget_or_compute(ASKED, compute))
        await begun.wait()
        other = asyncio.create_task(cache.aget_or_compute(ASKED, compute))
        await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go.set()
        hit = await other
        assert (hit.value, calls) == (7, [ASKED])
        assert len(cache._flights) == 0
        assert (await cache.aget(ALIKE)) is not None

    asyncio.run(main())


def test_what_is_raised_in_a_task_comes_out_and_nothing_is_set() -> None:
    async def fails(query: Any) -> Any:
        await asyncio.sleep(0)
        raise LookupError("no model")

    async def main() -> None:
        cache = SemanticCache(atrigrams, threshold=0.9, maxsize=10)
        with pytest.raises(LookupError, match="no model"):
            await cache.aget_or_compute(ASKED, fails)
        with pytest.raises(LookupError, match="no model"):
            await SemanticCache(fails, threshold=0.9, maxsize=10).aset(ASKED, 1)
        with pytest.raises(ValueError, match="ttl"):
            await cache.aset(ASKED, 1, ttl=0)
        with pytest.raises(TypeError, match="query must be a str"):
            await cache.aget(7)  # type: ignore[arg-type]
        assert len(cache) == len(cache._flights) == 0

    asyncio.run(main())


def test_tasks_and_threads_share_a_computation() -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=10)
    begun, go, calls, hits = threading.Event(), threading.Event(), [], []

    def compute(query: str) -> int:
        calls.append(query)
        begun.set()
        go.wait()
        return 7

    async def main() -> Hit:
        begun.wait()
        task = asyncio.create_task(cache.aget_or_compute(ASKED, compute))
        await asyncio.sleep(0.01)
        go.set()
        return await task

    thread = threading.Thread(target=lambda: hits.append(cache.get_or_compute(ASKED, compute)))
    thread.start()
    hits.append(asyncio.run(main()))
    thread.join()
    assert [hit.value for hit in hits] == [7, 7]
    assert calls == [ASKED]
