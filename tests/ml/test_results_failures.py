"""ResultCache: what is refused, and that nothing is kept of what fails."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from cachecore import MISSING, Cache, TieredCache
from cachecore.ml import ResultCache
from ml.models import Array, Weighted, table


def cached(predict: Any, **options: Any) -> ResultCache:
    given: dict[str, Any] = {"model": "model", "version": "1", "maxsize": 10_000}
    return ResultCache(predict, **given | options)


def broken(rows: Array) -> Array:
    raise ConnectionError("the device is gone")


def with_nan(rows: Array) -> Array:
    return np.where(rows[:, 0] % 40 == 8, np.nan, rows[:, 0])


class Changing:
    """A model whose method is replaced."""

    def __init__(self) -> None:
        self.predict: Any = Weighted().predict

    def __call__(self, rows: Array) -> Any:
        return self.predict(rows)


FAULTS: dict[str, tuple[Any, type[Exception], str]] = {
    "raises": (broken, ConnectionError, "the device is gone"),
    "too few": (lambda rows: rows[1:, 0], ValueError, "5 rows for 5 inputs, not 4"),
    "too many": (lambda rows: [0] * 6, ValueError, "5 rows for 5 inputs, not 6"),
    "NaN": (with_nan, ValueError, "NaN for 1 of the 5 inputs it was given, the first at 2"),
    "NaN in a row": (lambda r: with_nan(r)[:, None] * [1, 1], ValueError, "1 of the 5.*first at 2"),
    "NaN in a field": (
        lambda r: np.array([(1, x) for x in with_nan(r)], "i4,f8"), ValueError, "the first at 2",
    ),
    "NaN in a list": (lambda r: list(with_nan(r)), ValueError, "1 of the 5 inputs.*first at 2"),
    "NaN in an object": (
        lambda r: [{"label": "a", "scores": [(x, 1j)]} for x in with_nan(r)],
        ValueError,
        "1 of the 5.*first at 2",
    ),
    "NaN in an array of objects": (
        lambda r: np.array([*with_nan(r)[:-1], "a"], object), ValueError, "1 of the 5.*first at 2",
    ),
    "NaN in a list of records": (
        lambda r: [np.array((1, x), "i4,f8") for x in with_nan(r)], ValueError, "the first at 2",
    ),
    "complex NaN in a list": (
        lambda r: [x * 1j for x in with_nan(r).tolist()], ValueError, "the first at 2",
    ),
    "generators": (lambda r: [iter(row) for row in r], TypeError, "can be read once only"),
    "complex NaN": (lambda r: with_nan(r) * 1j, ValueError, "the first at 2"),
    "a number": (lambda rows: np.float64(1), TypeError, "one row for each input"),
    "None": (lambda rows: None, TypeError, "array or a list, not NoneType"),
    "a tuple": (lambda r: (r[:, 0],) * 5, TypeError, "array or a list, not tuple"),
    "a dict": (lambda r: {"mean": r[:, 0]}, TypeError, "array or a list, not dict"),
    "masked": (lambda r: np.ma.masked_array(r[:, 0]), TypeError, "not MaskedArray"),
    "objects": (lambda r: r.astype(object), TypeError, "of numbers or one object"),
    "squares": (lambda r: list(np.ones((5, 5))), TypeError, "one for each output"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_kept_of_a_failure(fault: str) -> None:
    predict, error, message = FAULTS[fault]
    good, model = Weighted(), Changing()
    model.predict = predict
    cache = cached(model.__call__)
    with pytest.raises(error, match=message):
        cache.predict(table(5))
    assert len(cache) == 0
    model.predict = good.predict
    assert cache.predict(table(5)).tolist() == table(5).sum(axis=1).tolist()
    assert good.asked == 5
    model.predict = predict
    with pytest.raises((error, ValueError, TypeError)):
        cache.predict(table(13))
    assert len(cache) == 5
    assert cache.predict(table(5)).tolist() == table(5).sum(axis=1).tolist()
    assert cache.savings().total.rows_computed == 5


@pytest.mark.parametrize(
    "other", [lambda r: r.sum(1).astype("f4"), lambda r: r, lambda r: [1.0] * len(r)]
)
def test_results_of_another_kind_than_before(other: Any) -> None:
    model = Changing()
    cache = cached(model.__call__)
    cache.predict(table(2))
    model.predict = other
    with pytest.raises(ValueError, match=r"must return float64 rows of shape \(\), as before, not"):
        cache.predict(table(3))
    assert len(cache) == 2


STOCHASTIC: list[dict[str, Any]] = [
    {"temperature": 0.7}, {"temperature": np.float32(1)}, {"do_sample": True},
    {"seed": None}, {"random_state": None}, {"temperature": 1, "seed": None},
    {"dropout": 0.1}, {"dropout": True}, {"training": True}, {"train": True, "seed": 3},
    {"generation": {"temperature": 1.0}}, {"temperature": np.array(0.7)}, {"temperature": [0, 0.7]},
    {"do_sample": np.array([False, True])},
]  # fmt: skip
DETERMINISTIC: list[dict[str, Any]] = [
    {"temperature": 0}, {"temperature": 0.7, "seed": 3}, {"do_sample": False},
    {"do_sample": False, "temperature": 1.0}, {"do_sample": True, "random_state": 0},
    {"do_sample": np.array(False), "temperature": 1.0}, {"temperature": np.zeros(2)},
    {"temperature": "low"}, {"temperature": None}, {"dropout": 0.0}, {"training": False},
    {"seed": 0}, {"generation": {"temperature": 1.0}, "seed": 1},
]  # fmt: skip


def constant(rows: Array, **params: Any) -> Array:
    return np.ones(len(rows))


@pytest.mark.parametrize("params", STOCHASTIC, ids=str)
def test_stochastic_parameters_are_refused(params: dict[str, Any]) -> None:
    cache = cached(constant)
    with pytest.raises(ValueError, match="makes the model stochastic"):
        cache.predict(table(2), **params)
    assert len(cache) == 0
    forced = cached(constant, allow_stochastic=True)
    assert forced.predict(table(2), **params).tolist() == [1, 1]
    assert len(forced) == 2


@pytest.mark.parametrize("params", DETERMINISTIC, ids=str)
def test_deterministic_parameters_are_not(params: dict[str, Any]) -> None:
    cache = cached(constant)
    cache.predict(table(2), **params)
    assert len(cache) == 2


def test_a_model_in_training_mode_is_refused() -> None:
    class Trained(Weighted):
        training = True

    model = Trained()
    cache = cached(model)
    with pytest.raises(ValueError, match=r"in training mode: call its eval\(\)"):
        cache.predict(table(2))
    assert len(cache) == model.asked == 0
    model.training = False
    cache.predict(table(2))
    assert len(cache) == 2


MASKED = np.ma.masked_array(table(2), mask=True)


@pytest.mark.parametrize(
    "inputs", [MASKED, "text", b"bytes", {"a": 1}, 5, None, iter([1])], ids=str
)
def test_inputs_of_unknown_kinds(inputs: Any) -> None:
    with pytest.raises(TypeError, match="inputs must be an array or a list of inputs, not"):
        cached(constant).predict(inputs)


def test_inputs_without_rows() -> None:
    with pytest.raises(ValueError, match="inputs must be an array of rows"):
        cached(constant).predict(np.array(1.0))
    with pytest.raises(TypeError):
        cached(constant).predict([object()])
    with pytest.raises(TypeError):
        cached(constant).predict(table(2), callback=print)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"maxsize": None}, ValueError, "maxsize or max_bytes is required"),
        ({"maxsize": 0}, ValueError, "maxsize must be"),
        ({"ttl": 0}, ValueError, "ttl must be"),
        ({"model": ""}, ValueError, "model must"),
        ({"model": 3}, TypeError, "model must be"),
        ({"version": None}, TypeError, "version must be"),
        ({"salt": 3}, TypeError, "salt must be"),
        ({"below": Cache(3)}, TypeError, "below must be a TieredCache, not Cache"),
        ({"allow_stochastic": 1}, TypeError, "allow_stochastic must be a bool, not int"),
        ({"predict": 3}, TypeError, "predict must be callable or have a method predict, not int"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        cached(**{"predict": constant} | options)


def test_a_cache_below_loads_nothing() -> None:
    with (
        TieredCache(10, loader=lambda key: MISSING) as below,
        pytest.raises(ValueError, match="below must have no loader"),
    ):
        cached(constant, below=below)


def test_a_version_that_is_none_draws_a_warning_once() -> None:
    with pytest.warns(UserWarning, match="Nightly"):
        cache = cached(constant, model="of a moving version", version="Nightly")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.predict(table(3), scale=2)
