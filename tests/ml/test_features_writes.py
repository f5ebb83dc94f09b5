"""FeatureCache in one thread: writes, arguments, counts, the request, and all against a model."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from itertools import count, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachecore.ml import FeatureCache
from ml.featured import BATCH, HANGS, NAMES, SCHEMA, Source, check, make, value
from support import Clock

# --- writes


def test_set_some_features_of_some(source: Source) -> None:
    cache = make(source)
    cache.get_features(["a", "b"])
    source.told()
    cache.set_features(["b", "n"], {"clicks": [5, 6], "taste": [None, [9, 9, 9, 9]]})
    rows, found = cache.get_features(["a", "b"], mask=True)
    assert rows["clicks"].tolist() == [value("a", "clicks"), 5]
    assert rows["taste"].tolist() == [value("a", "taste"), value("b", "taste")]  # None: as it was
    assert found.all()
    assert source.told() == []
    cache.set_features(["x", "y", "x"], np.array([(1,), (2,), (3,)], [("age", "u1")]))
    assert cache.get_features(["x", "y"], ["age"])["age"].tolist() == [3, 2]  # the last one
    assert source.told() == []


def test_writes_of_tasks(source: Source) -> None:
    async def run() -> None:
        await cache.aset_features(["a"], {"age": [9]})
        assert (await cache.aget_features(["a"], ["age"]))["age"] == 9
        await cache.ainvalidate(["a"], ["age"])
        check(await cache.aget_features(["a"], ["age"]), ["a"], ["age"])

    cache = make(source)
    asyncio.run(run())


def test_invalidate(source: Source) -> None:
    cache = make(source)
    cache.get_features(["a", "b"])
    source.told()
    source.version = 1
    cache.invalidate(["a", "nobody"], ["age", "clicks"])
    assert len(cache) == 2
    rows = cache.get_features(["a", "b"])
    assert source.told() == [(["a"], ["age", "clicks"])]
    assert rows["age"].tolist() == [value("a", "age", 1), value("b", "age")]
    assert rows["country"][0] == value("a", "country")
    cache.invalidate(["a"])
    assert len(cache) == 1
    check(cache.get_features(["a"]), ["a"], version=1)


@pytest.mark.parametrize(
    ("columns", "error", "match"),
    [
        ({"age": [1]}, ValueError, r"column 'age' of columns .* \(2,\), not \(1,\)"),
        ({"age": [1, 2], "clicks": [2**31, 0]}, ValueError, "fit into int32"),
        ({"age": [1, 2], "other": [1, 2]}, KeyError, "not 'other'"),
        ([[1, 2]], TypeError, "mapping of columns or a structured array, not list"),
        (np.ones(2), TypeError, "mapping of columns"),
        ({"country": ["NZ", "AU"]}, TypeError, r"of dtype \|S2, not <U2"),
        ({"country": [b"NZL", b"AU"]}, ValueError, r"fit into \|S2, as .*NZL"),
    ],
)
def test_bad_columns_set_nothing(columns: Any, error: type, match: str) -> None:
    cache = make(None)
    with pytest.raises(error, match=match):
        cache.set_features(["a", "b"], columns)
    assert len(cache) == 0


def test_dates_fit_or_are_refused() -> None:
    cache = FeatureCache([("at", "M8[ns]"), ("day", "M8[D]")], maxsize=9)
    far = np.array(["1969-07-20", "NaT", "9999-01-01"], "M8[D]")
    with pytest.raises((ValueError, OverflowError), match=r"at.*|Overflow"):
        cache.set_features(["a", "b", "c"], {"at": far})
    assert len(cache) == 0
    cache.set_features(["a", "b"], {"at": far[:2], "day": np.array(["2024-02-29T23", "NaT"], "M8")})
    rows = cache.get_features(["a", "b"])
    assert rows["at"].astype(str).tolist() == ["1969-07-20T00:00:00.000000000", "NaT"]
    assert rows["day"].astype(str).tolist() == ["2024-02-29", "NaT"]  # rounded, as floats are


# --- arguments


@pytest.mark.parametrize(
    ("entities", "match"),
    [
        ("abc", "entity_ids must be an iterable of entities, not str"),
        (b"abc", "not bytes"),
        (7, "not int"),
        ([1.0], "entity_ids must be of str, bytes or int, not float"),
        ([True], "not bool"),
        ([None], "not NoneType"),
        ([("a",)], "not tuple"),
        (np.array([1.0]), "dtype float64"),
        (np.array([[1]]), r"shape \(1, 1\)"),
    ],
)
def test_bad_entities(entities: Any, match: str) -> None:
    cache = make(None)
    for call in (
        cache.get_features, cache.invalidate, lambda some: cache.set_features(some, {"age": [1]}),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=match):
            call(entities)


def test_bad_names(source: Source) -> None:
    cache = make(source)
    with pytest.raises(KeyError, match=r"names must be of .*country.*, not 'other'"):
        cache.get_features(["a"], ["age", "other"])
    for names in ("age", b"age", 5):
        with pytest.raises(TypeError, match="names must be an iterable of names"):
            cache.get_features(["a"], names)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one"):
        cache.get_features(["a"], [])
    with pytest.raises(ValueError, match="each feature once"):
        cache.get_features(["a"], ["age", "age"])
    assert source.calls == []


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"maxsize": None}, ValueError, "maxsize or max_bytes"),
        ({"loader": 3}, TypeError, "loader must be callable, not int"),
        ({"timer": 3}, TypeError, "timer must be callable"),
        ({"store": {}}, TypeError, "store must be a RedisTier, not dict"),
        ({"exact": 1}, TypeError, "exact must be a bool"),
        ({"version": 3}, TypeError, "version must be a str"),
        ({"namespace": b"x"}, TypeError, "namespace must be a str"),
        ({"negative_ttl": 0}, ValueError, "negative_ttl must be greater than 0"),
        ({"policies": {"batch": -1}}, ValueError, "policies must be greater than 0"),
        ({"policies": [("fast", 1)]}, TypeError, "policies must be a mapping .*, not list"),
        ({"features": None}, TypeError, "features must be an iterable of .*, not NoneType"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        FeatureCache(**{"features": SCHEMA, "maxsize": 9, **options})


def test_rows_are_bounded(source: Source) -> None:
    cache = FeatureCache(SCHEMA, maxsize=10, loader=source)
    entities = list(range(100))
    check(cache.get_features(entities), entities)  # more than there is room for
    assert len(cache) == 10
    check(cache.get_features(entities[::-1]), entities[::-1])
    small = FeatureCache(SCHEMA, max_bytes="4KB", loader=source)
    check(small.get_features(entities), entities)
    assert 0 < small.stats().l0.bytes <= 4096


def test_stats(source: Source, clock: Clock) -> None:
    cache = make(source, clock)
    source.absent = {("b", "age")}
    cache.get_features(["a", "b"])
    clock.advance(10)
    cache.get_features(["a", "b"], ["age", "clicks"])
    stats = cache.stats()
    assert stats.features["age"] == (1, 3, 0, 0, 4, 2)
    assert stats.features["clicks"] == (0, 4, 2, 0, 4, 0)
    assert stats.features["country"] == (0, 2, 0, 0, 2, 0)
    assert (stats.loader_calls, stats.store_errors, stats.store_damaged) == (2, 0, 0)
    assert (stats.l0.hits, stats.l0.misses) == (2, 2)
    assert repr(cache) == "<FeatureCache of 2 entities with 4 features>"
    assert cache.names == NAMES


class Interrupted:
    """A lock; who takes it at a certain time is interrupted."""

    def __init__(self, lock: Any, at: int) -> None:
        self.lock, self.at = lock, at

    def __enter__(self) -> None:
        self.at -= 1
        if self.at == 0:
            raise KeyboardInterrupt
        self.lock.acquire()

    def __exit__(self, *error: object) -> None:
        self.lock.release()


def test_an_interrupt_at_any_lock_leaves_nothing_behind(source: Source) -> None:
    for at in count(1):
        cache = make(source)
        cache._shelf.lock = lock = Interrupted(cache._shelf.lock, at)  # type: ignore[assignment]
        with suppress(KeyboardInterrupt):
            cache.set_features(["a"], {"age": [1]})
            cache.get_features(["a"])
            cache.invalidate(["a"], ["age"])
        through, lock.at = lock.at > 0, 0
        cache.get_features(["a"])
        source.told()
        cache.get_features(["a"])
        assert source.told() == [], f"not kept after an interrupt at lock {at}"
        if through:
            break


# --- the request


def test_what_a_block_has_seen_stays(source: Source, clock: Clock, get: Any) -> None:
    cache = make(source, clock)
    source.absent = {("b", "age")}

    def change() -> None:  # what somebody else does, in no block
        cache.set_features(["a", "b"], {"age": [77, 78]})

    with cache.request():
        first, found = get(cache, ["a", "b"], ["age", "clicks"], mask=True)
        thread = threading.Thread(target=change)
        thread.start()
        thread.join(HANGS)
        clock.advance(100)
        source.told()
        with cache.request():
            again, same = get(cache, ["a", "b"], ["age", "clicks"], mask=True)
        assert source.told() == []
        assert (again == first).all()
        assert found.tolist() == same.tolist() == [[True, True], [False, True]]
        check(get(cache, ["b", "a"], ["country"]), ["b", "a"], ["country"])  # not seen yet
        cache.set_features(["a"], {"clicks": [5]})  # our own write
        assert get(cache, ["a"], ["age", "clicks"]).tolist() == [(77, 5)]
    assert get(cache, ["b"], ["age"])["age"] == 78


def test_a_task_that_goes_on_after_its_block() -> None:
    cache = make(None)

    async def look(ended: asyncio.Event) -> list[int]:
        before = cache.get_features(["a"])["age"].item()
        await ended.wait()
        return [before, cache.get_features(["a"])["age"].item()]

    async def main() -> list[int]:
        cache.set_features(["a"], {"age": [1]})
        ended = asyncio.Event()
        with cache.request():
            task = asyncio.create_task(look(ended))
            await asyncio.sleep(0)
        cache.set_features(["a"], {"age": [2]})
        ended.set()
        return await task

    assert asyncio.run(main()) == [1, 2]


def test_blocks_of_two_caches(source: Source) -> None:
    one, other = make(source), make(source)
    with one.request():
        one.get_features(["a"])
        other.get_features(["a"])
        assert len(source.told()) == 2
        with other.request():
            other.get_features(["a"])
            other.invalidate(["a"])
            other.get_features(["a"])
            one.get_features(["a"])
        assert len(source.told()) == 1


# --- against a model

_ENTITIES = st.lists(st.sampled_from(["a", "b", 1, "1", b"a"]), max_size=4)
_NAMES = st.lists(st.sampled_from(NAMES), min_size=1, unique=True)
_STEP = st.one_of(
    st.tuples(st.just("get"), _ENTITIES, _NAMES),
    st.tuples(st.just("set"), _ENTITIES, _NAMES),
    st.tuples(st.just("invalidate"), _ENTITIES, _NAMES),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 5, 10, 60, BATCH]), st.none()),
)
_TTL = {"country": float("inf"), "age": BATCH, "clicks": 10, "taste": 60}


class Model:
    """A FeatureCache beside a dict of what it must hold: the version, and until when."""

    def __init__(self) -> None:
        self.clock, self.source = Clock(), Source()
        self.cache = make(self.source, self.clock)
        self.cells: dict[tuple[Any, str], tuple[int, float]] = {}

    def put(self, cells: Iterable[tuple[Any, str]]) -> None:
        for cell in cells:
            self.cells[cell] = self.source.version, self.clock.now + _TTL[cell[1]]

    def set(self, entities: list[Any], names: list[str]) -> None:
        version = self.source.version
        columns = {name: [value(each, name, version) for each in entities] for name in names}
        self.cache.set_features(entities, columns)
        self.put(product(entities, names))

    def invalidate(self, entities: list[Any], names: list[str]) -> None:
        self.cache.invalidate(entities, names)
        for cell in product(entities, names):
            self.cells.pop(cell, None)

    def get(self, entities: list[Any], names: list[str]) -> None:
        cells = set(product(entities, names))
        lacking = {cell for cell in cells if self.cells.get(cell, (0, 0))[1] <= self.clock.now}
        rows = self.cache.get_features(entities, names)
        asked = self.source.told()
        assert len(asked) == bool(lacking)
        for loaded, columns in asked:
            assert set(loaded) == {entity for entity, _ in lacking}
            assert set(columns) == {name for _, name in lacking}
        self.put(lacking)
        for (row, entity), name in product(zip(rows, entities, strict=True), names):
            expected = value(entity, name, self.cells[entity, name][0])
            assert np.array_equal(row[name], expected)


@given(st.lists(_STEP, max_size=30))
def test_a_model(steps: list[Any]) -> None:
    model = Model()
    for number, (what, arg, names) in enumerate(steps):
        model.source.version = number
        if what == "wait":
            model.clock.advance(arg)
        else:
            getattr(model, what)(arg, names)


def test_the_import_is_light() -> None:
    command = "import cachecore.ml.features, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.decode().split()}
    assert loaded.isdisjoint({"redis", "torch", "lmdb", "sklearn", "msgspec"})
