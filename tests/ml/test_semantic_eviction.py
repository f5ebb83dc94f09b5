"""What leaves the cache leaves the index, by any way, and whatever happens meanwhile."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cachecore.ml import Hit, SemanticCache
from cachecore.ml.index import ExactIndex, Index, UsearchIndex
from ml.texts import ALIKE, ASKED, OTHER, trigrams
from support import Clock

KINDS = ["exact", "usearch"]


def in_step(cache: SemanticCache) -> None:
    """The index has exactly the cache's keys, and finds each under its own text."""
    keys = set(cache._cache)
    index = cache._neighbours._index
    assert (set() if index is None else set(index.keys())) == keys
    for key in keys:
        found = cache.nearest(key)
        assert found is not None
        assert found.query == key
        assert found.similarity == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_holds_for_both(kind: str) -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=20, index=kind)
    for at in range(200):
        cache.set(f"{at * at}: question of {at}", at)
        assert len(cache) == len(cache._neighbours) == min(at + 1, 20)
    in_step(cache)
    assert cache.stats().cache.evictions + cache.stats().cache.rejections == 180


@pytest.mark.parametrize("kind", KINDS)
def test_what_expires_is_a_miss_and_leaves(kind: str) -> None:
    clock = Clock()
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=20, index=kind, ttl=10, timer=clock)
    cache.set(ASKED, 1)
    cache.set(OTHER, 2, ttl=100)
    clock.advance(9)
    assert cache.get(ALIKE) is not None
    clock.advance(2)
    assert cache.get(ALIKE) is None
    assert len(cache._neighbours) == len(cache) == 1
    assert cache.get(OTHER + "!") is not None
    assert cache.stats().cache.expirations == 1


@pytest.mark.parametrize("kind", KINDS)
def test_behind_what_has_expired_the_next_is_found(kind: str) -> None:
    clock = Clock()
    cache = SemanticCache(trigrams, threshold=0.7, maxsize=20, index=kind, timer=clock)
    for at in range(8):
        cache.set(f"{ASKED}{'?' * at}", at, ttl=5)
    cache.set("how do I reset my new password", "lasting")
    clock.advance(6)
    hit = cache.get(ALIKE)
    assert hit is not None
    assert hit.value == "lasting"
    in_step(cache)


@pytest.mark.parametrize("kind", KINDS)
def test_deleting_and_clearing(kind: str) -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=20, index=kind)
    cache.set_many({ASKED: 1, OTHER: 2})
    assert cache.delete(ASKED)
    assert not cache.delete(ASKED)
    assert cache.get(ALIKE) is None
    in_step(cache)
    cache.clear()
    assert cache.get(OTHER + "!") is None
    assert cache.nearest(OTHER) is None
    cache.set(ASKED, 3)
    in_step(cache)


def test_bytes_count_the_embedding_and_refuse_what_is_too_large() -> None:
    cache = SemanticCache(trigrams, threshold=0.9, max_bytes=40_000)
    for at in range(100):
        cache.set(f"{at * at}: question of {at}", at)
        assert cache.stats().cache.bytes <= 40_000
    assert 10 < len(cache) < 40_000 / (512 * 4)
    in_step(cache)
    cache.set("huge", bytes(50_000))
    assert cache.get("huge") is None
    in_step(cache)


def test_getsizeof_counts_beside_the_embedding() -> None:
    sizes: list[Any] = []
    cache = SemanticCache(
        trigrams, threshold=0.9, max_bytes=100_000, getsizeof=lambda v: sizes.append(v) or 5_000
    )
    cache.set(ASKED, 1)
    assert sizes == [1]
    assert 5_000 + 4 * 512 < cache.stats().cache.bytes < 5_000 + 4 * 512 + 1_000


def test_a_large_cache_bounded_in_bytes_has_a_bound_of_rows(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "usearch", None)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    assert SemanticCache(trigrams, max_bytes="10GB")._cache.maxsize == 100_000
    with pytest.raises(ValueError, match=r"cachecore-ml\[ml\]"):
        SemanticCache(trigrams, maxsize=1_000_000)
    with pytest.raises(ImportError, match=r"cachecore-ml\[ml\]"):
        SemanticCache(trigrams, maxsize=10, index="usearch")


def test_auto_chooses_by_size() -> None:
    assert SemanticCache(trigrams, maxsize=20_000)._kind is ExactIndex
    assert SemanticCache(trigrams, maxsize=20_001)._kind is UsearchIndex
    assert SemanticCache(trigrams, max_bytes="1GB")._kind is UsearchIndex


# --- the two kinds of index beside a dict


def unit(seed: int) -> NDArray[np.float32]:
    row = np.random.default_rng(seed).standard_normal(8)
    return (row / np.linalg.norm(row)).astype(np.float32)


@pytest.mark.parametrize("kind", [ExactIndex, UsearchIndex])
@settings(max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from("abcdefgh"), st.integers(0, 99)),
            st.tuples(st.just("drop"), st.sampled_from("abcdefgh"), st.just(0)),
            st.tuples(st.just("forget"), st.sampled_from("abcdefgh"), st.integers(0, 99)),
        ),
        max_size=40,
    )
)
def test_an_index_is_a_dict_of_rows(kind: type[Index], steps: list[tuple[str, str, int]]) -> None:
    index, rows = kind(8), dict[str, NDArray[np.float32]]()
    for what, key, seed in steps:
        if what == "put":
            index.put(key, unit(seed))
            rows[key] = unit(seed)
        elif what == "drop":
            index.drop(key)
            rows.pop(key, None)
        elif rows:
            found = index.nearest(unit(seed)[None])[0]
            assert found is not None
            index.forget(found.key, found.place)
            assert found.key is not None
            del rows[found.key]
        assert set(index.keys()) == set(rows)
        asked = np.stack([unit(seed), unit(seed + 1), -unit(seed)])
        nearest = index.nearest(asked) + index.nearest(asked[:1])
        for row, found in zip([*asked, asked[0]], nearest, strict=True):
            if not rows:
                assert found is None
                continue
            assert found is not None
            best = max(float(row @ other) for other in rows.values())
            assert found.similarity == pytest.approx(best, abs=1e-5)
            assert found.key is not None
            assert float(row @ rows[found.key]) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("kind", [ExactIndex, UsearchIndex])
def test_room_is_used_again(kind: type[Index]) -> None:
    index: Any = kind(8)
    for at in range(3_000):
        index.put(str(at), unit(at))
        index.drop(str(at - 100))
    room = len(index._rows) if kind is ExactIndex else index._graph.capacity
    assert len(index) == 100
    assert room <= 512


def test_a_key_whose_put_was_interrupted_is_taken_out_when_found() -> None:
    index = ExactIndex(8)

    class Interrupted(dict[str, int]):
        def __setitem__(self, key: str, place: int) -> None:
            raise KeyboardInterrupt

    places, index._places = index._places, Interrupted()
    with pytest.raises(KeyboardInterrupt):
        index.put("a", unit(1))
    index._places = places
    index.put("b", -unit(1))
    found = index.nearest(unit(1)[None])[0]
    assert found is not None
    assert (found.key, found.similarity) == ("a", 0)  # its row is empty yet
    index.forget(found.key, found.place)
    index.forget(found.key, found.place)
    again = index.nearest(unit(1)[None])[0]
    assert again is not None
    assert again.key == "b"
    for seed in range(2, 100):
        index.put(str(seed), unit(seed))
        found = index.nearest(unit(seed)[None])[0]
        assert found is not None
        assert found.key == str(seed)


class _Interrupting(list[str | None]):
    """Keys that run something when one is read, once, as a finalizer might."""

    def __init__(self, keys: list[str | None], then: Callable[[], object]) -> None:
        super().__init__(keys)
        self.then: Callable[[], object] | None = then

    def __getitem__(self, at: Any) -> Any:
        then, self.then = self.then, None
        if then is not None:
            then()
        return super().__getitem__(at)


def test_a_place_that_becomes_another_keys_during_a_search_is_not_that_keys_hit() -> None:
    index = ExactIndex(8)
    index.put("a", unit(1))
    index._keys = _Interrupting(index._keys, lambda: (index.drop("a"), index.put("b", unit(2))))
    found = index.nearest(unit(1)[None])[0]
    assert found is not None
    assert found.key == "b"
    assert found.similarity == pytest.approx(float(unit(1) @ unit(2)), abs=1e-6)


def test_a_search_during_a_search_leaves_its_similarities() -> None:
    index = ExactIndex(8)
    index.put("a", unit(1))
    index._keys = _Interrupting(index._keys, lambda: index.nearest(unit(1)[None]))
    found = index.nearest(unit(2)[None])[0]
    assert found is not None
    assert found.similarity == pytest.approx(float(unit(1) @ unit(2)), abs=1e-6)


# --- threads, forks, finalizers


@pytest.mark.parametrize("kind", KINDS)
def test_threads_leave_both_in_step(kind: str) -> None:
    cache = SemanticCache(trigrams, threshold=0.8, maxsize=15, index=kind)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        try:
            for _ in range(150):
                text = f"question {random.integers(40)} of all"
                choice = random.integers(6)
                if choice == 0:
                    cache.delete(text)
                elif choice == 1:
                    cache.set(text, text)
                elif choice == 2:
                    cache.get_many([text, text + "!"])
                else:
                    hit = cache.get_or_compute(text, str)
                    assert hit.value == hit.query
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(cache) <= 15
    in_step(cache)


def test_of_many_threads_one_computes() -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=15)
    computed: list[str] = []
    hits: list[Hit] = []
    barrier = threading.Barrier(6)

    def compute(query: str) -> int:
        computed.append(query)
        while cache.stats().misses < 6:  # until all have looked
            time.sleep(0.001)
        return 7

    def work() -> None:
        barrier.wait()
        hits.append(cache.get_or_compute(ASKED, compute))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert computed == [ASKED]
    assert [hit.value for hit in hits] == [7] * 6
    assert [hit.computed for hit in hits].count(True) == 1


def test_compute_may_use_the_cache() -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=15)

    def outer(query: str) -> Any:
        return cache.get_or_compute(OTHER, len).value + 1

    assert cache.get_or_compute(ASKED, outer).value == len(OTHER) + 1
    in_step(cache)


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_works_while_a_thread_of_the_parent_writes(kind: str) -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=50, index=kind)
    cache.set(ASKED, 1)
    stop = threading.Event()

    def write() -> None:
        at = 0
        while not stop.is_set():
            at += 1
            cache.set(f"{at % 30}: some question", at)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                try:
                    cache.set(OTHER, 2)
                    hit = cache.get(OTHER + "!")
                    # The parent's thread may have been between the cache and the index, with a key.
                    index = cache._neighbours._index
                    assert index is not None
                    assert len(set(index.keys()) ^ set(cache._cache)) <= 1
                    os._exit(0 if hit is not None and hit.value == 2 else 1)
                except BaseException:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()
    in_step(cache)


def test_values_may_use_the_cache_when_they_go() -> None:
    cache = SemanticCache(trigrams, threshold=0.9, maxsize=3)

    class Noisy:
        def __del__(self) -> None:
            cache.get_many([ASKED, ALIKE])
            cache.set(OTHER, 1)

    for at in range(20):
        cache.set(f"{at * at} question {at}", Noisy())
        assert len(cache) <= 3
    cache.clear()
    in_step(cache)
