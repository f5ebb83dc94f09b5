"""ResultCache: what a batch gets, what the model is asked, and what is one input."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

from cachecore.ml import ResultCache
from ml.models import Array, Weighted, table
from support import Clock

LAYOUTS: dict[str, Any] = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "strided": lambda rows: np.repeat(rows, 2, axis=1)[:, ::2],
    "backwards": lambda rows: rows[::-1][::-1],
    "big endian": lambda rows: rows.astype(rows.dtype.newbyteorder(">")),
}
REQUESTS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 11), min_size=1, max_size=12),
        st.sampled_from(["f4", "f8", "i4", "i8"]),
        st.sampled_from(sorted(LAYOUTS)),
        st.sampled_from([{}, {"scale": 2}, {"scale": 2.0}]),
    ),
    max_size=12,
)


def cached(predict: Any, **options: Any) -> ResultCache:
    given: dict[str, Any] = {"model": "model", "version": "1", "maxsize": 10_000}
    return ResultCache(predict, **given | options)


@settings(max_examples=60, deadline=None)
@given(REQUESTS, st.sampled_from([2, 1_000]), st.sampled_from([None, 3]))
def test_any_sequence_of_batches(requests: Any, maxsize: int, heads: int | None) -> None:
    model, honest = Weighted(heads), Weighted(heads)
    cache = cached(model, maxsize=maxsize)
    pool = table(12)
    seen = set()
    for places, dtype, layout, params in requests:
        rows = LAYOUTS[layout](pool[places].astype(dtype))
        result, expected = cache.predict(rows, **params), honest.predict(rows, **params)
        np.testing.assert_array_equal(result, expected, strict=True)
        seen |= {(place, dtype, repr(params)) for place in places}
    for batch in model.batches:
        assert len(np.unique(batch, axis=0)) == len(batch)
    if maxsize == 1_000:
        assert model.asked == len(cache) == len(seen)


def test_only_new_rows_go_to_the_model_in_one_call() -> None:
    model = Weighted()
    cache = cached(model)
    rows = table(6)
    cache.predict(rows[[1, 3]])
    result = cache.predict(rows[[5, 1, 0, 5, 3, 0]])
    assert [batch[:, 0].tolist() for batch in model.batches] == [[4.0, 12.0], [20.0, 0.0]]
    assert result.tolist() == rows[[5, 1, 0, 5, 3, 0]].sum(axis=1).tolist()
    assert cache.stats()[:2] == (2, 6)


def test_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(300, 30))
    labels = np.where(rows[:, 0] + rows[:, 1] ** 2 > 1, "fraud", "fine")
    model = GradientBoostingClassifier(n_estimators=20, random_state=0).fit(rows, labels)
    for predict in (model, model.predict_proba, model.decision_function):
        cache, plain = cached(predict), getattr(predict, "predict", predict)
        for batch in (rows[:100], rows[50:200], rows[120:121], rows):
            np.testing.assert_array_equal(cache.predict(batch), plain(batch), strict=True)
            np.testing.assert_array_equal(cache.predict(batch), plain(batch), strict=True)
        assert len(cache) == 300


DTYPES = ["f2", ">f8", "c16", "?", "U7", "S3", "M8[s]", "i4,f8"]
SHAPES = [(), (3,), (2, 2), (0,)]


@pytest.mark.parametrize(("dtype", "shape"), [*itertools.product(DTYPES, SHAPES), ("O", ())])
def test_results_of_any_dtype_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    known = np.zeros((8, *shape), dtype)
    known[...] = np.arange(known.size).reshape(known.shape).astype("i8").astype(np.dtype(dtype))
    cache = cached(lambda rows: known[rows[:, 0].astype(int)])
    for places in ([2, 4], [4, 1, 2, 1], [7, 2, 4, 1]):
        np.testing.assert_array_equal(
            cache.predict(np.array(places)[:, None]), known[places], strict=True
        )


def test_a_list_for_a_list() -> None:
    asked: list[list[str]] = []

    def classify(texts: list[str]) -> list[dict[str, object]]:
        asked.append(texts)
        return [{"label": text.upper(), "score": 0.5} for text in texts]

    cache = cached(classify)
    assert cache.predict(["a", "b", "a"]) == classify(["a", "b", "a"])
    assert cache.predict(("b", "c\ud800", "b" * 5000)) == classify(["b", "c\ud800", "b" * 5000])
    cache.predict(["c\ud800", "b" * 5000, "a"])
    assert asked[::2] == [["a", "b"], ["c\ud800", "b" * 5000]]


def test_what_distinguishes_inputs() -> None:
    asked: list[Any] = []

    def note(inputs: Any, **params: Any) -> list[Any]:
        asked.extend(inputs)
        return [len(asked)] * len(inputs)

    cache = cached(note)
    flat = np.zeros((1, 6))
    inputs: list[Any] = [
        flat, flat.view("i8"), flat.astype("f4"), flat.reshape(1, 2, 3), flat.reshape(1, 3, 2),
        -flat, np.zeros((1, 12), "f4"), np.zeros(1), np.zeros((1, 0)), [flat[0]],
        ["a"], [b"a"], ["a", "a "][1:], [1], [1.0], [True], [None], [(1,)], [[1]], ["s"], ["fs"],
        np.array(["a"]), np.array(["a"], "U2"),
    ]  # fmt: skip
    for each in inputs * 2:
        cache.predict(each)
    params: list[dict[str, Any]] = [{"k": 1}, {"k": 1.0}, {"k": True}, {"k": "1"}, {"j": 1}]
    for each in params * 2:
        cache.predict(flat, **each)
    assert len(asked) == len(inputs) + len(params)
    cache.predict(np.array(["s"], object))
    assert len(asked) == len(inputs) + len(params), "an array of objects is a list of them"


def test_padding_is_no_part_of_a_row() -> None:
    asked: list[int] = []

    def total(records: Array) -> Array:
        asked.append(len(records))
        return np.asarray(records["count"] + records["sum"])

    dtype = np.dtype([("count", "i1"), ("sum", "f8")], align=True)
    cache = cached(total)
    for garbage in (b"\0", b"\x55", b"\xff"):
        records = np.frombuffer(garbage * 4 * dtype.itemsize, dtype).copy()
        records["count"], records["sum"] = [1, 2, 3, 1], 0.5
        assert cache.predict(records).tolist() == [1.5, 2.5, 3.5, 1.5]
    assert asked == [3]


def test_rows_longer_than_a_key() -> None:
    model = Weighted()
    cache = cached(model)
    rows = np.zeros((3, 1000))
    rows[1, 999] = 1
    assert cache.predict(rows).tolist() == cache.predict(rows[[0, 1, 0]])[[0, 1, 2]].tolist()
    rows[1, 999] = 2
    assert cache.predict(rows).tolist() == [0, 2, 0]
    assert model.asked == 3


def test_a_result_is_the_callers_own() -> None:
    cache = cached(Weighted(2))
    rows = table(3)
    for _ in range(3):
        result = cache.predict(rows)
        assert result[:, 1].tolist() == (rows.sum(axis=1) + 1).tolist()
        result[...] = -1


def test_the_model_gets_rows_as_they_were_keyed() -> None:
    """Whoever writes into them meanwhile, the model included: no result under another's key."""
    rows = table(4)

    def destroy(given: Array) -> Array:
        rows[...] = 77
        sums: Array = given.sum(axis=1)
        given[...] = 99
        return sums

    cache = cached(destroy)
    expected = table(4).sum(axis=1).tolist()
    assert cache.predict(rows).tolist() == expected
    assert cache.predict(table(4)).tolist() == expected
    assert rows[0, 0] == 77


def test_no_inputs() -> None:
    model = Weighted(2)
    cache = cached(model)
    assert cache.predict(table(0)).shape == (0, 2), "the model says what it is"
    cache.predict(table(2))
    asked = len(model.batches)
    assert cache.predict(table(0)).shape == (0, 2)
    assert len(model.batches) == asked


def test_lifetime() -> None:
    clock, model = Clock(), Weighted()
    cache = cached(model, ttl=60, timer=clock)
    cache.predict(table(3))
    clock.advance(59)
    cache.predict(table(3))
    assert model.asked == 3
    clock.advance(2)
    cache.predict(table(3))
    assert model.asked == 6
    cache.clear()
    assert len(cache) == 0


def test_bytes_are_bounded() -> None:
    cache = cached(Weighted(), maxsize=None, max_bytes="64KB")
    for start in range(0, 5_000, 100):
        cache.predict(table(100, start=start))
    assert 32 << 10 < cache.stats().bytes <= 64 << 10


def test_what_took_long_stays() -> None:
    """The seconds that a result took are its cost: what is cheap to compute makes room for it."""
    import time

    def predict(rows: Array, slow: bool = False) -> Array:
        time.sleep(0.1 * slow)
        return np.asarray(rows.sum(axis=1))

    cache = cached(predict, maxsize=100)
    cache.predict(table(10), slow=True)
    for start in range(0, 2_000, 50):
        cache.predict(table(50, start=start))
    before = cache.stats().hits
    cache.predict(table(10), slow=True)
    assert cache.stats().hits - before == 10


def test_many_kinds_of_calls() -> None:
    """More than are remembered: results of old ones are computed again, never mistaken."""
    model = Weighted()
    cache = cached(model, maxsize=100)
    for scale in [*range(1500), *range(1500)]:
        assert cache.predict(table(1), scale=scale).tolist() == [6.0 * scale]


def test_forests_with_several_outputs_are_refused() -> None:
    """Their predict_proba returns a list of an array for each output."""
    rows = table(50)
    targets = np.stack([rows[:, 0] > 90, rows[:, 1] > 50], 1)
    model = RandomForestClassifier(n_estimators=3, random_state=0).fit(rows, targets)
    cache = cached(model.predict_proba)
    with pytest.raises(TypeError, match="one for each output"):
        cache.predict(rows[:2])
    with pytest.raises(ValueError, match="must return 5 rows for 5 inputs, not 2"):
        cache.predict(rows[:5])
    assert len(cache) == 0
    whole = cached(model)
    np.testing.assert_array_equal(whole.predict(rows), model.predict(rows), strict=True)
