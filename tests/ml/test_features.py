"""FeatureCache in one thread: look-ups, lifetimes, partial hits, defaults, the request."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from cachecore import MISSING
from cachecore.ml import FeatureCache
from ml.featured import BATCH, NAMES, Source, check, make, value
from support import Clock

# --- look-ups


def test_all_at_once_then_from_memory(source: Source, get: Any) -> None:
    cache = make(source)
    entities = ["a", "b", "c"]
    check(get(cache, entities), entities)
    assert source.told() == [(entities, NAMES)]
    check(get(cache, ["c", "a"]), ["c", "a"])
    check(get(cache, ["b"], ["taste", "age"]), ["b"], ["taste", "age"])
    assert source.told() == []
    assert len(cache) == 3


def test_kinds_of_entities_are_distinct(source: Source) -> None:
    cache = make(source)
    cache.set_features([1, "1", b"1"], {"age": [10, 20, 30]})
    rows = cache.get_features([b"1", 1, "1"], ["age"])
    assert rows["age"].tolist() == [30, 10, 20]
    numbers = cache.get_features(np.array([1, 1], np.uint16), ["age"])
    assert numbers["age"].tolist() == [10, 10]
    assert cache.get_features([np.int64(1), np.str_("1")], ["age"])["age"].tolist() == [10, 20]
    assert cache.get_features(np.array(["1"]), ["age"])["age"].tolist() == [20]
    assert source.calls == []


def test_one_that_comes_more_than_once_is_loaded_once(source: Source, get: Any) -> None:
    cache = make(source)
    asked = ["a", "b", "a", "a"]
    check(get(cache, asked), asked)
    assert source.told() == [(["a", "b"], NAMES)]
    assert cache.stats().features["age"].misses == 4


def test_no_entities(source: Source, get: Any) -> None:
    cache = make(source)
    assert len(get(cache, [])) == 0
    assert get(cache, np.array([], np.int64), as_dict=True)["taste"].shape == (0, 4)
    cache.set_features([], {"age": []})
    cache.invalidate([])
    assert source.calls == []


def test_a_dict_of_columns(source: Source, get: Any) -> None:
    cache = make(source)
    columns = get(cache, ["a", "b"], ["taste", "clicks"], as_dict=True)
    assert list(columns) == ["taste", "clicks"]
    assert columns["taste"].shape == (2, 4)
    assert columns["taste"].dtype == np.float32
    assert columns["clicks"].tolist() == [value("a", "clicks"), value("b", "clicks")]


def test_the_rows_are_the_callers_own(source: Source) -> None:
    cache = make(source)
    for _ in range(2):
        rows = cache.get_features(["a"])
        rows["age"] = 0
        rows["taste"] = 0
    check(cache.get_features(["a"]), ["a"])


# --- partial hits


def test_only_what_is_missing_of_those_that_lack_it(source: Source, get: Any) -> None:
    cache = make(source)
    get(cache, ["a", "b"], ["age"])
    get(cache, ["a"], ["country"])
    source.told()
    entities = ["a", "b", "c"]
    check(get(cache, entities, ["age", "country"]), entities, ["age", "country"])
    assert source.told() == [(["b", "c"], ["age", "country"])]  # the union: one call
    check(get(cache, entities, ["age", "country"]), entities, ["age", "country"])
    assert source.told() == []


def test_what_is_fresh_is_not_overwritten_by_a_load_of_its_neighbours(
    source: Source, get: Any
) -> None:
    cache = make(source)
    cache.set_features(["b"], {"age": [99]})
    rows = get(cache, ["b", "c"], ["age", "country"])  # the loader is asked for b's age too
    assert source.told() == [(["b", "c"], ["age", "country"])]
    assert rows["age"].tolist() == [99, value("c", "age")]
    assert get(cache, ["b"], ["age"])["age"].tolist() == [99]


def test_a_loader_that_is_told_which_lacks_which(source: Source, get: Any) -> None:
    told: list[Any] = []

    def loader(entities: list[Any], names: list[str], wanted: Any) -> Any:
        told.append((entities, names, wanted.tolist()))
        columns = source(entities, names)
        for at, name in enumerate(names):  # nothing but what is wanted
            columns[name] = [
                each if wants else None
                for each, wants in zip(columns[name], wanted[:, at], strict=True)
            ]
        wanted[:] = True  # its own
        return columns

    cache = make(loader, exact=True)
    get(cache, ["a", "b"], ["age"])
    get(cache, ["a"], ["country"])
    told.clear()
    entities, names = ["a", "b", "c", "c"], ["age", "country"]
    check(get(cache, entities, names), entities, names)
    assert told == [(["b", "c"], names, [[False, True], [True, True]])]
    assert [cache.stats().features[name].loads for name in names] == [3, 3]


def test_each_feature_has_a_lifetime_of_its_own(source: Source, clock: Clock, get: Any) -> None:
    cache = make(source, clock)
    get(cache, ["a"])
    source.told()
    source.version = 1
    clock.advance(9.99)
    check(get(cache, ["a"]), ["a"])
    assert source.told() == []
    for seconds, names in ((0.01, ["clicks"]), (50, ["clicks", "taste"]), (BATCH, NAMES[1:])):
        clock.advance(seconds)
        check(get(cache, ["a"], names), ["a"], names, version=1)
        assert source.told() == [(["a"], names)]
    assert get(cache, ["a"], ["country"])["country"] == value("a", "country")  # static
    assert source.told() == []
    assert cache.stats().features["clicks"].expired == 3


def test_policies_of_ones_own(source: Source, clock: Clock) -> None:
    schema = [("a", "u1", "hourly"), ("b", "u1", "streaming")]
    policies = {"hourly": 3600, "streaming": 2}
    cache = FeatureCache(schema, maxsize=9, timer=clock, policies=policies)
    cache.set_features([1], {"a": [1], "b": [2]})
    clock.advance(2)
    _, found = cache.get_features([1], mask=True)
    assert found.tolist() == [[True, False]]
    clock.advance(3598)
    _, found = cache.get_features([1], mask=True)
    assert found.tolist() == [[False, False]]


# --- what exists nowhere


def test_defaults_and_the_mask(source: Source, get: Any) -> None:
    cache = make(source)
    source.absent = {("a", "clicks"), ("a", "taste"), ("b", "country"), ("b", "age")}
    rows, found = get(cache, ["a", "b"], mask=True)
    assert found.tolist() == [[True, True, False, False], [False, False, True, True]]
    assert rows["country"].tolist() == [value("a", "country"), b"??"]
    assert rows["age"].tolist() == [value("a", "age"), 0]
    assert rows["clicks"].tolist() == [-1, value("b", "clicks")]
    assert np.isnan(rows["taste"][0]).all()
    assert rows["taste"][1].tolist() == value("b", "taste")
    source.told()
    get(cache, ["a", "b"])  # absence is not remembered
    assert source.told() == [(["a", "b"], NAMES)]
    assert [counts.missing for counts in cache.stats().features.values()] == [2, 2, 2, 2]


def test_absence_is_remembered_for_a_while(source: Source, clock: Clock, get: Any) -> None:
    cache = make(source, clock, negative_ttl=5)
    source.absent = {("a", "age")}
    get(cache, ["a"])
    source.told()
    clock.advance(4.999)
    rows, found = get(cache, ["a"], ["age", "country"], mask=True)
    assert found.tolist() == [[False, True]]
    assert rows["age"] == 0
    assert source.told() == []
    source.absent = set()
    clock.advance(0.001)
    check(get(cache, ["a"]), ["a"])
    assert source.told() == [(["a"], ["age"])]


def test_without_a_loader(get: Any) -> None:
    cache = make(None)
    cache.set_features(["a"], {"age": [7]})
    rows, found = get(cache, ["a", "b"], ["age", "clicks"], mask=True)
    assert rows.tolist() == [(7, -1), (0, -1)]
    assert found.tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("none", [None, MISSING, np.ma.masked, "masked", "object"])
def test_how_a_loader_says_that_there_is_none(none: Any) -> None:
    def loader(entities: list[str], names: list[str]) -> dict[str, Any]:
        taste: Any = [[1, 2, 3, 4], none]
        ages: Any = [3, none]
        if none == "masked":
            ages = np.ma.masked_equal([3, 300], 300)
            taste = np.ma.masked_equal([[1, 2, 3, 4], [5, 6, 7, 8]], 6)  # one item will do
        elif none == "object":
            ages = np.ma.array([3, "?"], object, mask=[False, True])
            taste = np.array([[1, 2, 3, 4], None], object)
        return {"age": ages, "taste": taste}

    cache = make(loader)
    rows, found = cache.get_features(["a", "b"], ["age", "taste"], mask=True)
    assert found.tolist() == [[True, True], [False, False]]
    assert rows["age"].tolist() == [3, 0]
    assert rows["taste"][0].tolist() == [1, 2, 3, 4]
    assert len(cache) == 1  # nothing is kept of "b"


def test_masked_arrays_of_no_entities() -> None:
    cache = make(None)
    cache.set_features([], {"taste": np.ma.zeros((0, 4))})
    with pytest.raises(ValueError, match=r"'age' of columns must have shape \(1,\), not \(\)"):
        cache.set_features(["a"], {"age": np.ma.array(1)})


def test_absence_is_remembered_at_the_beginning_of_time(source: Source, get: Any) -> None:
    source.absent = {("a", "age")}
    cache = make(source, Clock(0.0), negative_ttl=1e-9)
    assert get(cache, ["a"], ["age"])["age"].tolist() == [0]


def test_nan_is_a_value() -> None:
    cache = FeatureCache([("x", "f4")], maxsize=9, loader=lambda ids, names: {"x": [np.nan]})
    assert cache.get_features(["a"], mask=True)[1].all()
    assert cache.stats().features["x"].missing == 0


# --- loaders that fail


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"age": [1, 2]}, ValueError, "what loader returned must have a column 'taste'"),
        ({"age": [1], "taste": np.ones((2, 4))}, ValueError, r"'age' .* \(2,\), not \(1,\)"),
        ({"age": [1, 2], "taste": np.ones((2, 3))}, ValueError, r"'taste' .* \(2, 4\), not"),
        ({"age": [1, 2], "taste": [[1] * 4, [1] * 3]}, ValueError, r"'taste' .* \(2, 4\)"),
        ({"age": [1, 256], "taste": np.ones((2, 4))}, ValueError, "fit into uint8, as .*256"),
        ({"age": [1, -1], "taste": np.ones((2, 4))}, ValueError, "fit into uint8, as .*-1"),
        ({"age": [1, 2.5], "taste": np.ones((2, 4))}, TypeError, "of dtype uint8, not float64"),
        ({"age": ["1", "2"], "taste": np.ones((2, 4))}, TypeError, "of dtype uint8"),
        ({"age": "12", "taste": np.ones((2, 4))}, TypeError, "an item for each entity"),
        ({"age": [1, 2], "taste": np.full((2, 4), 1e300)}, ValueError, "fit into float32"),
        ([1, 2], TypeError, "a mapping of columns or a structured array, not list"),
        (None, TypeError, "a mapping of columns or a structured array, not NoneType"),
    ],
)
def test_what_does_not_fit_is_not_kept(given: Any, error: type, match: str, get: Any) -> None:
    cache = make(lambda entities, names: given)
    with pytest.raises(error, match=match):
        get(cache, ["a", "b"], ["age", "taste"])
    assert len(cache) == 0


def test_a_loader_that_raises(source: Source, get: Any) -> None:
    def fail() -> None:
        raise LookupError("the feature store is away")

    cache = make(source)
    get(cache, ["a"], ["age"])
    source.before = fail
    with pytest.raises(LookupError, match="away"):
        get(cache, ["a", "b"], ["age", "clicks"])
    assert len(cache) == 1
    source.before = lambda: None
    check(get(cache, ["a", "b"], ["age", "clicks"]), ["a", "b"], ["age", "clicks"])


def test_a_loader_that_stops_an_iteration(get: Any) -> None:
    def loader(entities: list[Any], names: list[str]) -> Any:
        return next(iter(()))

    with pytest.raises((RuntimeError, StopIteration)):
        get(make(loader), ["a"])


def test_structured_arrays_and_more_columns_than_asked_for(get: Any) -> None:
    kind = np.dtype([("age", "i8"), ("other", "O"), ("country", "S1")])

    def loader(entities: list[str], names: list[str]) -> Any:
        return np.array([(7, None, b"N")] * len(entities), kind)

    rows = get(make(loader), ["a", "b"], ["country", "age"])
    assert rows.tolist() == [(b"N", 7)] * 2


def test_a_coroutine_function_loads_for_tasks_only(source: Source) -> None:
    cache = make(source.later)
    with pytest.raises(TypeError, match="aget_features"):
        cache.get_features(["a"])
    check(asyncio.run(cache.aget_features(["a"])), ["a"])
    check(cache.get_features(["a"]), ["a"])


def test_a_function_loads_for_tasks_in_a_thread(source: Source) -> None:
    threads = []
    source.before = lambda: threads.append(threading.get_ident())
    check(asyncio.run(make(source).aget_features(["a"])), ["a"])
    assert threads != [threading.get_ident()]
