"""ResultCache over a TieredCache: what another process computed is not computed again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachecore import TieredCache
from cachecore.ml import ResultCache
from cachecore.tiers import MmapTier
from ml.models import Weighted, table
from support import Clock

NOW = 1_800_000_000.0  # Unix seconds


@pytest.fixture
def below() -> Iterator[TieredCache]:
    with TieredCache(10_000) as cache:
        yield cache


def over(below: TieredCache, predict: Any, **options: Any) -> ResultCache:
    given: dict[str, Any] = {"model": "model", "version": "1", "maxsize": 10_000, "below": below}
    return ResultCache(predict, **given | options)


RESULTS: dict[str, Any] = {
    "numbers": lambda rows: rows.sum(axis=1),
    "rows": lambda rows: rows[:, :2].astype(">f4"),
    "text": lambda rows: np.where(rows[:, 0] > 8, "fraud", "fine"),
    "fields": lambda rows: np.array([(1, x) for x in rows[:, 0]], "i4,f8"),
    "objects": lambda rows: np.array(["a" * int(x) for x in rows[:, 0]], object),
    "list": lambda rows: [{"label": "a" * int(x), "score": x} for x in rows[:, 0].tolist()],
}


@pytest.mark.parametrize("kind", RESULTS)
def test_what_another_computed(below: TieredCache, kind: str) -> None:
    predict, rows = RESULTS[kind], table(6)
    over(below, predict).predict(rows[:4])
    asked: list[int] = []

    def counted(given: Any) -> Any:
        asked.append(len(given))
        return predict(given)

    other = over(below, counted)
    for _ in range(2):
        for places in ([0, 3, 3, 1], [5, 0, 4, 2]):
            result, expected = other.predict(rows[places]), predict(rows[places])
            assert type(result) is type(expected)
            if kind == "list":
                assert result == expected
            else:
                np.testing.assert_array_equal(result, expected, strict=True)
    assert asked == [2]


def test_nothing_is_mixed_up(below: TieredCache) -> None:
    rows = table(3)
    made = []
    for options in (
        {}, {"model": "other"}, {"version": "2"}, {"version": 1}, {"salt": b"tenant"},
    ):  # fmt: skip
        for params in ({}, {"scale": 2}, {"scale": 2.0}):
            model = Weighted()
            over(below, model, **options).predict(rows, **params)
            over(below, model, **options).predict(rows, **params)
            made.append(model.asked)
    assert made == [3] * 15
    narrow = Weighted()
    over(below, narrow).predict(rows.astype("f4"))
    assert narrow.asked == 3


def test_lifetimes_go_on() -> None:
    clock = Clock(NOW)
    with TieredCache(100, ttl=1_000, timer=clock) as below:
        model = Weighted()
        over(below, model, ttl=100, timer=clock).predict(table(2))
        clock.advance(60)
        other = over(below, model, ttl=100, timer=clock)
        other.predict(table(2))
        assert model.asked == 2
        clock.advance(39)
        other.predict(table(2))
        assert model.asked == 2
        clock.advance(2)
        other.predict(table(2))
        assert model.asked == 4, "a result read from below has lived for a while already"


def test_results_of_another_kind_below(below: TieredCache) -> None:
    """Such as those of a model that changed without its version: they are not mixed with ours."""
    over(below, Weighted(3)).predict(table(2))
    model = Weighted()
    cache = over(below, model)
    cache.predict(table(1, start=9))
    assert cache.predict(table(3)).tolist() == table(3).sum(axis=1).tolist()
    assert model.asked == 4


def test_foreign_values_below(below: TieredCache) -> None:
    over(below, Weighted()).predict(table(2))
    keys = list(below.l0)
    below.set_many(dict.fromkeys(keys, "no result"))
    model = Weighted()
    assert over(below, model).predict(table(2)).tolist() == table(2).sum(axis=1).tolist()
    assert model.asked == 2
    assert all(type(key) is bytes and len(key) == 32 for key in keys)


@pytest.mark.parametrize(
    "foreign", [[np.zeros(2), 3], [1, 3], [True], np.array({}, object), {}], ids=str
)
@pytest.mark.parametrize("kind", ["objects", "list", "numbers"])
def test_values_below_that_look_like_results(below: TieredCache, kind: str, foreign: Any) -> None:
    over(below, RESULTS[kind]).predict(table(2))
    below.set_many(dict.fromkeys(list(below.l0), foreign))
    result = over(below, RESULTS[kind]).predict(table(2))
    assert list(result) == list(RESULTS[kind](table(2)))


def test_arrays_and_lists_are_two_things_below(below: TieredCache) -> None:
    """The model returns an array for an array and a list for a list."""

    def lengths(texts: Any) -> Any:
        found = [len(text) for text in texts]
        return np.array(found) if isinstance(texts, np.ndarray) else found

    assert over(below, lengths).predict(np.array(["a", "bc"])).tolist() == [1, 2]
    assert over(below, lengths).predict(["a", "bc", "def"]) == [1, 2, 3]


def test_what_cannot_be_written_down_is_not_kept(tmp_path: Path) -> None:
    with TieredCache(100, tiers=[MmapTier(str(tmp_path / "kept"), max_bytes="16MB")]) as below:
        cache = over(below, lambda rows: [{1, 2} for _ in rows])
        with pytest.raises(TypeError):
            cache.predict(table(2))
        assert len(cache) == 0


def test_a_restart(tmp_path: Path) -> None:
    model, rows = Weighted(2), table(100)
    for _ in range(2):
        tier = MmapTier(str(tmp_path / "kept"), max_bytes="16MB")
        with TieredCache(10, tiers=[tier], namespace="scores") as below:
            result = over(below, model).predict(rows)
            np.testing.assert_array_equal(result, Weighted(2).predict(rows), strict=True)
    assert model.asked == 100


async def _asynchronously(below: TieredCache, model: Weighted) -> None:
    async def predict(rows: Any) -> Any:
        return model.predict(rows)

    for _ in range(2):
        result = await over(below, predict).apredict(table(5))
        assert result.tolist() == table(5).sum(axis=1).tolist()


def test_a_coroutine_function(below: TieredCache) -> None:
    import asyncio

    model = Weighted()
    asyncio.run(_asynchronously(below, model))
    assert model.asked == 5
