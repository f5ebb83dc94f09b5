"""FeatureCache of many threads and tasks: who loads, and what a write meanwhile means."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
import time
from typing import Any

import pytest

from cachecore.ml import FeatureCache
from cachecore.ml.feature_loads import Load
from cachecore.ml.feature_look import Look
from ml.featured import HANGS, NAMES, Source, check, in_threads, make, value


class Held(Source):
    """Loads that wait until they are let go; `began` when one has read the values."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.go = threading.Event(), threading.Event()

        def wait() -> None:
            self.began.set()
            assert self.go.wait(HANGS)

        self.after = wait


def in_background(function: Any) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_threads_load_each_entity_once(source: Source) -> None:
    cache = make(source)
    source.before = lambda: time.sleep(0.02)

    def get(at: int) -> None:
        entities = list(range(at * 5, at * 5 + 20))
        check(cache.get_features(entities), entities)

    assert in_threads(8, get) == []
    asked = [entity for entities, _ in source.calls for entity in entities]
    assert sorted(asked) == list(range(55))


def test_other_features_of_an_entity_that_is_being_loaded() -> None:
    source = Held()
    cache = make(source)
    first = in_background(lambda: cache.get_features(["a"], ["age", "taste"]))
    assert source.began.wait(HANGS)
    second = in_background(lambda: cache.get_features(["a"], ["taste", "country"]))
    source.go.set()
    for thread in (first, second):
        thread.join(HANGS)
    assert source.told() == [(["a"], ["age", "taste"]), (["a"], ["country"])]


def test_tasks_load_each_entity_once(source: Source) -> None:
    async def loader(entities: list[Any], names: list[str]) -> Any:
        await asyncio.sleep(0.01)
        return source(entities, names)

    async def run() -> None:
        await asyncio.gather(*(get(list(range(at, at + 10))) for at in range(8)))

    async def get(entities: list[int]) -> None:
        check(await cache.aget_features(entities), entities)

    cache = make(loader)
    asyncio.run(run())
    asked = [entity for entities, _ in source.calls for entity in entities]
    assert sorted(asked) == list(range(17))


def test_a_cancelled_task_does_not_stop_the_load_of_others(source: Source) -> None:
    async def loader(entities: list[Any], names: list[str]) -> Any:
        await go.wait()
        return source(entities, names)

    async def run() -> Any:
        first = asyncio.create_task(cache.aget_features(["a"]))
        second = asyncio.create_task(cache.aget_features(["a"]))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        go.set()
        return await second

    go = asyncio.Event()
    cache = make(loader)
    check(asyncio.run(run()), ["a"])
    assert len(source.calls) == 1


def test_an_error_reaches_all_who_wait() -> None:
    source = Held()

    def fail() -> None:
        source.began.set()
        assert source.go.wait(HANGS)
        raise LookupError("away")

    source.after = fail
    cache = make(source)
    errors: list[BaseException] = []

    def get() -> None:
        try:
            cache.get_features(["a"])
        except LookupError as error:
            errors.append(error)

    threads = [in_background(get)]
    assert source.began.wait(HANGS)
    threads += [in_background(get) for _ in range(3)]
    time.sleep(0.05)
    source.go.set()
    for thread in threads:
        thread.join(HANGS)
    assert len(errors) == 4
    assert len(cache) == 0


@pytest.mark.parametrize("what", ["set", "invalidate", "invalidate one"])
def test_a_write_during_a_load_is_not_undone_by_it(what: str) -> None:
    source = Held()
    cache = make(source)
    rows: list[Any] = []
    thread = in_background(lambda: rows.append(cache.get_features(["a", "b"])))
    assert source.began.wait(HANGS)  # it has read version 0
    source.version = 1
    if what == "set":
        cache.set_features(["a"], {name: [value("a", name, 1)] for name in NAMES})
    else:
        cache.invalidate(["a"], ["age"] if what == "invalidate one" else None)
    late = in_background(lambda: rows.append(cache.get_features(["a"])))  # may not get version 0
    source.go.set()
    thread.join(HANGS)
    late.join(HANGS)
    check(rows[0] if len(rows[0]) == 2 else rows[1], ["a", "b"])  # who came before may
    check(rows[1] if len(rows[0]) == 2 else rows[0], ["a"], version=1)
    check(cache.get_features(["a"]), ["a"], version=1)
    check(cache.get_features(["b"]), ["b"])


def test_of_two_loads_the_one_that_ends_first_is_kept() -> None:
    """Two that would wait for each other both load: the later end may bring the older value."""
    cache = make(None)
    cache._shelf._loads_any = True
    loads = [cache._shelf.loading(Load(["a"]), [NAMES.index("age")]) for _ in range(2)]
    for load in loads:
        assert next(load) == ("load", ["a"], ["age"])
    for load, age in zip(reversed(loads), (2, 1), strict=True):
        with pytest.raises(StopIteration):
            load.send({"age": [age]})
    assert cache.get_features(["a"], ["age"])["age"] == 2


def test_what_was_loaded_before_a_write_is_not_for_who_comes_after_it(source: Source) -> None:
    """A load has ended, and not landed yet, when the write and the look-up come."""
    cache, load = make(source), Load(["a"])
    cache._play(cache._shelf.loading(load, [NAMES.index("age")]))
    before = Look(make(source)._shelf, None, ["a"], ["age"])
    before.take({"a": (load, 0)})
    assert before.missing == []
    cache.invalidate(["a"])
    after = Look(cache._shelf, None, ["a"], ["age"])
    after.take({"a": (load, 0)})
    assert after.missing == ["a"]


def test_sets_of_different_features_at_a_time_are_all_kept() -> None:
    cache = make(None)
    entities = list(range(50))

    def put(at: int) -> None:
        for _ in range(30):
            cache.set_features(entities, {NAMES[at]: [value(e, NAMES[at]) for e in entities]})

    assert in_threads(4, put) == []
    check(cache.get_features(entities), entities)


def test_readers_see_whole_values_that_are_not_older_than_a_write(source: Source) -> None:
    """One writer moves two entities from version to version; readers never see one go back."""
    cache = make(source)
    stop = threading.Event()
    written = [0]

    def work(at: int) -> None:
        if at == 0:
            for version in range(1, 150):
                source.version = version
                if version % 3:
                    cache.set_features(["a"], {"clicks": [value("a", "clicks", version)]})
                else:
                    cache.invalidate(["a"], ["clicks"])
                written[0] = version
            stop.set()
            return
        while not stop.is_set():
            least = written[0]
            row = cache.get_features(["a"], ["clicks"])
            most = source.version
            may_be = [value("a", "clicks", version) for version in range(least, most + 1)]
            assert row["clicks"][0] in may_be

    assert in_threads(4, work) == []


def test_a_loader_that_asks_the_cache_for_others(source: Source) -> None:
    def loader(entities: list[Any], names: list[str]) -> Any:
        if entities != ["parent"]:
            cache.get_features(["parent"], names)
        return source(entities, names)

    cache = make(loader)
    check(cache.get_features(["child"]), ["child"])
    assert [entities for entities, _ in source.calls] == [["parent"], ["child"]]


def test_a_loader_that_asks_for_what_it_is_to_load() -> None:
    def loader(entities: list[Any], names: list[str]) -> Any:
        return cache.get_features(entities, names)

    cache: FeatureCache = make(loader)
    with pytest.raises(RecursionError):
        cache.get_features(["a"])
    assert len(cache) == 0


def test_a_fork_while_others_load_and_write() -> None:
    source, held, release = Held(), threading.Event(), threading.Event()
    cache = make(source)
    cache.set_features(["b"], {"age": [3]})

    def write() -> None:  # stopped in the midst of it
        with cache._shelf.lock:
            held.set()
            assert release.wait(HANGS)

    threads = [in_background(lambda: cache.get_features(["a"]))]
    assert source.began.wait(HANGS)
    threads.append(in_background(write))
    assert held.wait(HANGS)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        source.after = lambda: None  # the lock of the event may be held for ever here
        cache.set_features(["b"], {"age": [4]})
        ages = cache.get_features(["a", "b"], ["age"])["age"].tolist()
        os.write(writer, b"good" if ages == [value("a", "age"), 4] else b"wrong")
        os._exit(0)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], HANGS)
    told = os.read(reader, 10) if ready else b"hangs"
    os.close(reader)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    source.go.set()
    release.set()
    for thread in threads:
        thread.join(HANGS)
    assert told == b"good"
    check(cache.get_features(["a"]), ["a"])
