"""EmbeddingCache: what a model or a caller does wrong is an error, and nothing of it is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cachecore.ml import EmbeddingCache
from ml.embedding_models import DIM, OutOfMemoryError, Trigrams, equal, over


def raising(texts: list[str]) -> Any:
    raise OutOfMemoryError("on the device")


def with_item(item: float) -> Callable[[list[str]], Any]:
    def encode(texts: list[str]) -> Any:
        rows = Trigrams().rows(texts)
        rows[-1, 3] = item
        return rows

    return encode


async def later(texts: list[str]) -> Any:
    return Trigrams().rows(texts)


WRONG: dict[str, tuple[Callable[[list[str]], Any], type[Exception], str]] = {
    "raises": (raising, OutOfMemoryError, "on the device"),
    "too few": (lambda texts: Trigrams().rows(texts)[1:], ValueError, r"shape \(2, 16\) for 3"),
    "too many": (lambda texts: Trigrams().rows([*texts, "z"]), ValueError, r"\(4, 16\) for 3"),
    "no rows": (lambda texts: np.zeros((0, DIM)), ValueError, "expected"),
    "wide": (lambda texts: np.zeros((len(texts), DIM + 1)), ValueError, r"\(3, 17\)"),
    "flat": (lambda texts: np.zeros(DIM), ValueError, "shape"),
    "ragged": (lambda texts: [[1.0]] + [[1.0] * DIM] * 2, ValueError, "16 numbers each"),
    "NaN": (with_item(np.nan), ValueError, "NaN or infinity for input 2 of 3"),
    "infinity": (with_item(-np.inf), ValueError, "NaN or infinity"),
    "too large": (lambda texts: np.full((len(texts), DIM), 1e300), ValueError, "NaN or infinity"),
    "None": (lambda texts: None, TypeError, "NoneType"),
    "text": (lambda texts: "rows", TypeError, "str"),
    "objects": (lambda texts: np.full((len(texts), DIM), None), TypeError, "object"),
    "complex": (lambda texts: np.zeros((len(texts), DIM), complex), TypeError, "complex128"),
    "coroutine": (lambda texts: later(list(texts)), TypeError, "make it a coroutine function"),
    "coroutine function": (later, TypeError, "asynchronous"),
    "masked": (lambda texts: np.ma.masked_less(Trigrams().rows(texts), 2), ValueError, "masked"),
    "generator": (lambda texts: (text for text in texts), TypeError, "generator"),
}


@pytest.mark.parametrize("name", WRONG)
def test_nothing_is_kept_of_what_a_model_does_wrong(name: str) -> None:
    encode, kind, words = WRONG[name]
    working = Trigrams()
    cache = over(working)
    cache.embed(["kept"])
    broken = cache.variant(encode, None)
    with pytest.raises(kind, match=words):
        broken.embed(["kept", "a", "b", "c"])
    with pytest.raises(kind):
        broken.embed_one("a")
    assert list(cache.cache) == ["kept"]
    assert cache.stats().encoded == 1
    assert equal(cache.embed(["a", "kept"]), working.rows(["a", "kept"]))


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"dim": 0}, ValueError, "dim"),
        ({"dim": 2.0}, TypeError, "dim"),
        ({"dtype": "U3"}, TypeError, "dtype"),
        ({"dtype": complex}, TypeError, "dtype"),
        ({"dtype": bool}, TypeError, "dtype"),
        ({"dtype": [("a", "f4")]}, TypeError, "dtype"),
        ({"model": 3}, TypeError, "model"),
        ({"version": None}, TypeError, "version"),
        ({"salt": 1}, TypeError, "salt"),
        ({"maxsize": 0}, ValueError, "maxsize"),
        ({"max_bytes": "much"}, ValueError, "max_bytes"),
        ({"ttl": -1}, ValueError, "ttl"),
        ({"below": {}}, TypeError, "below"),
    ],
)
def test_bad_settings(settings: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        over(Trigrams(), **settings)


def test_an_encoder_may_use_up_its_list() -> None:
    def encode(texts: list[str]) -> Any:
        return [model.row(texts.pop(0)) for _ in range(len(texts))]

    model = Trigrams()
    assert equal(over(encode).embed(["a", "b"]), model.rows(["a", "b"]))


def test_bad_inputs() -> None:
    model = Trigrams()
    cache = over(model)
    with pytest.raises(TypeError, match="encode must be callable, not int"):
        over(3)
    for text in ("one", b"one", bytearray(b"one"), memoryview(b"one"), {"one": "text"}, 3, None):
        with pytest.raises(TypeError, match="inputs must be an iterable of inputs"):
            cache.embed(text)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        cache.embed(["a", object()])
    with pytest.raises(TypeError):
        cache.embed_one(object())
    for batch in (0, True, 1.5):
        with pytest.raises((TypeError, ValueError), match="batch"):
            cache.precompute(["a"], batch=batch)  # type: ignore[arg-type]
    assert model.calls == []
    assert len(cache.cache) == 0


def test_a_version_that_says_when_draws_a_warning() -> None:
    with pytest.warns(UserWarning, match="2031-07-19") as caught:
        EmbeddingCache(Trigrams(), model="trigrams", version="2031-07-19", dim=DIM)
    assert caught[0].filename == __file__
