"""EmbeddingCache in memory: only misses are encoded, and only what is a row is kept."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.embedding_models import DIM, OutOfMemoryError, Trigrams, equal, over

DEADLINE = 30.0


# --- what is returned


def test_only_misses_are_encoded_in_one_batch_and_in_order() -> None:
    model = Trigrams()
    cache = over(model)
    assert equal(cache.embed(["a", "b"]), model.rows(["a", "b"]))
    assert equal(cache.embed(["c", "b", "d", "c", "a"]), model.rows(["c", "b", "d", "c", "a"]))
    assert equal(cache.embed(["c", "b", "d", "c", "a"]), model.rows(["c", "b", "d", "c", "a"]))
    assert model.calls == [["a", "b"], ["c", "d"]]
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.encoded, stats.calls) == (7, 5, 4, 2)
    assert stats.hit_ratio == 7 / 12
    assert (stats.entries, stats.below) == (4, 0)
    assert stats.seconds > 0
    assert stats.bytes > 4 * DIM * 4


def test_no_inputs() -> None:
    model = Trigrams()
    empty: list[Any] = [[], (), iter(()), np.array([], "U1")]
    for nothing in empty:
        assert over(model).embed(nothing).shape == (0, DIM)
    assert model.calls == []


def test_the_result_is_the_callers_own() -> None:
    model = Trigrams()
    cache = over(model)
    for _ in range(2):
        rows = cache.embed(["a"])
        rows[:] = np.nan
    one = cache.embed_one("a")
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 1
    assert equal(one, model.row("a"))


def test_one_input() -> None:
    model = Trigrams()
    cache = over(model)
    row = cache.embed_one("a")
    assert row.shape == (DIM,)
    assert not row.flags.writeable
    assert equal(row, model.row("a"))
    assert cache.embed_one("a") is cache.embed_one("a")
    assert equal(cache.embed(["a"])[0], row)
    assert model.calls == [["a"]]


def test_an_encoder_may_use_its_memory_again() -> None:
    model, memory = Trigrams(), np.empty((2, DIM), np.float32)

    def encode(texts: list[str]) -> Any:
        memory[: len(texts)] = model.rows(texts)
        return memory[: len(texts)]

    cache = over(encode)
    first = cache.embed(["a", "b"])
    cache.embed(["c", "d"])
    assert equal(first, model.rows(["a", "b"]))
    assert equal(cache.embed(["a", "b", "c"]), model.rows(["a", "b", "c"]))


INPUTS = st.one_of(
    st.text(max_size=3),
    st.binary(max_size=3),
    st.integers(-2, 2),
    st.booleans(),
    st.sampled_from([0.0, 1.0, -1.0, 2.5, None]),
    st.tuples(st.sampled_from("ab"), st.integers(0, 2)),
    st.lists(st.integers(0, 1), max_size=2),
)


@given(st.lists(st.lists(INPUTS, max_size=8), max_size=6), st.integers(1, 12))
def test_any_batches_over_any_room(batches: list[list[Any]], room: int) -> None:
    """Inputs that compare equal, as 1, 1.0 and True do, are not the same input."""
    model = Trigrams()
    cache = over(model, maxsize=room)
    variant = cache.variant(other := Trigrams(1), "other")
    for batch in batches:
        assert equal(cache.embed(batch), model.rows(batch))
        assert equal(variant.embed(batch), other.rows(batch))
        for value in batch[:2]:
            assert equal(cache.embed_one(value), model.row(value))
    for call in model.calls:
        assert len({(type(value), repr(value)) for value in call}) == len(call)


def test_a_key_is_no_way_to_another_row() -> None:
    """What stands for an input that is not text cannot itself be given as an input."""
    model = Trigrams()
    cache = over(model)
    cache.embed([("a", "b")])
    (key,) = cache.cache
    cache.embed([key[1], key[1].hex()])
    assert model.calls == [[("a", "b")], [key[1], key[1].hex()]]
    assert len(cache.cache) == 3


def test_arrays_and_texts_of_numpy() -> None:
    model = Trigrams()
    cache = over(model)
    images = np.arange(24).reshape(2, 3, 4)
    assert equal(cache.embed(images), model.rows(list(images)))
    cache.embed(list(images.copy(order="F")))
    assert len(model.encoded) == 2
    cache.embed(["a", "b"])
    assert equal(cache.embed(np.array(["a", "b"])), model.rows(["a", "b"]))
    assert len(model.encoded) == 4


# --- versions


def test_variants_share_memory_but_no_rows() -> None:
    model, prompted = Trigrams(), Trigrams(1)
    cache = over(model, maxsize=100)
    query = cache.variant(prompted, {"prompt": "query: "})
    again = query.variant(prompted, {"prompt": "query: "})
    plain = query.variant(model, None)
    for one, expected in ((cache, model), (query, prompted), (again, prompted), (plain, model)):
        assert equal(one.embed(["a", ("b",)]), expected.rows(["a", ("b",)]))
        assert equal(one.embed_one("a"), expected.row("a"))
    assert len(model.encoded) == len(prompted.encoded) == 2
    assert cache.stats() == query.stats()
    assert cache.stats().entries == 4


# --- what a model may return


def test_integers() -> None:
    cache = over(lambda texts: np.full((len(texts), DIM), len(texts[0])), dtype="int8")
    assert cache.embed(["four"]).tolist() == [[4] * DIM]
    with pytest.raises(ValueError, match="integers that int8 does not hold"):
        cache.embed(["x" * 200])
    with pytest.raises(TypeError, match="float32, which cannot be cast to int8"):
        cache.variant(Trigrams(), None).embed(["y"])
    assert list(cache.cache) == ["four"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_dtypes(dtype: str) -> None:
    import ml_dtypes

    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    model = Trigrams()
    cache = over(model, dtype=kind)
    for _ in range(2):
        rows = cache.embed(["a", "b"])
        assert rows.dtype == kind
        assert np.array_equal(rows, model.rows(["a", "b"]).astype(kind))
    assert len(model.calls) == 1


def test_lists_of_rows() -> None:
    model = Trigrams()
    cache = over(lambda texts: [row.tolist() for row in model.rows(texts)])
    assert equal(cache.embed(["a", "b"]), model.rows(["a", "b"]))
    cache = over(lambda texts: tuple(model.rows(texts)))
    assert equal(cache.embed(["a", "b"]), model.rows(["a", "b"]))


# --- precompute


def test_precompute() -> None:
    model, seen = Trigrams(), list[tuple[int, int]]()
    cache = over(model)
    cache.embed(["c"])
    catalogue = [*"abcdefg", "a"]
    report = lambda done, total: seen.append((done, total))  # noqa: E731
    assert cache.precompute(iter(catalogue), batch=3, progress=report) == 6
    assert model.calls == [["c"], ["a", "b"], ["d", "e", "f"], ["g"]]
    assert seen == [(3, 8), (6, 8), (8, 8)]
    assert cache.stats().misses == 1
    assert cache.precompute(catalogue) == 0
    assert len(model.calls) == 4


def test_a_precompute_that_fails_keeps_the_batches_before() -> None:
    model = Trigrams()

    def encode(texts: list[str]) -> Any:
        if "c" in texts:
            raise OutOfMemoryError
        return model(texts)

    cache = over(encode)
    with pytest.raises(OutOfMemoryError):
        cache.precompute("abcd".__iter__(), batch=2)
    assert sorted(cache.cache) == ["a", "b"]


# --- threads


def test_overlapping_batches_encode_each_input_once() -> None:
    model = Trigrams()
    begun, go = threading.Event(), threading.Event()

    def encode(texts: list[str]) -> Any:
        begun.set()
        assert go.wait(DEADLINE)
        return model(texts)

    cache = over(encode)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(cache.embed, ["a", "b"])
        assert begun.wait(DEADLINE)
        others = [pool.submit(cache.embed, ["b", "c", "a"]), pool.submit(cache.embed_one, "b")]
        go.set()
        assert equal(first.result(DEADLINE), model.rows(["a", "b"]))
        assert equal(others[0].result(DEADLINE), model.rows(["b", "c", "a"]))
        assert equal(others[1].result(DEADLINE), model.row("b"))
    assert sorted(model.encoded) == ["a", "b", "c"]


def test_many_threads_encode_each_input_once() -> None:
    model = Trigrams()
    cache = over(model)
    texts = [f"text {at}" for at in range(300)]
    expected = model.rows(texts)
    start = threading.Barrier(8)

    def work(seed: int) -> bool:
        random = np.random.default_rng(seed)
        start.wait(DEADLINE)
        for _ in range(40):
            chosen = random.integers(0, len(texts), 30)
            if not equal(cache.embed([texts[at] for at in chosen]), expected[chosen]):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert len(model.encoded) == len(set(model.encoded))
    stats = cache.stats()
    assert stats.encoded == len(model.encoded)
    assert stats.hits + stats.misses == 8 * 40 * 30


def test_a_child_process_counts_though_a_thread_of_its_parent_was_counting() -> None:
    model = Trigrams()
    cache = over(model)
    held, go = threading.Event(), threading.Event()

    def count() -> None:
        with cache._counts.lock:
            held.set()
            go.wait(DEADLINE)

    thread = threading.Thread(target=count)
    thread.start()
    assert held.wait(DEADLINE)
    child = os.fork()
    if child == 0:
        signal.alarm(int(DEADLINE))
        os._exit(0 if len(cache.embed(["a"])) == cache.stats().encoded else 1)
    go.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
