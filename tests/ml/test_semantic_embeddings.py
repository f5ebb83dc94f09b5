"""What SemanticCache makes of what `embed` returns: any array of numbers, or an error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cachecore.ml import SemanticCache
from ml.texts import ALIKE, ASKED, OTHER, cosine, trigrams


@pytest.fixture(params=["exact", "usearch"])
def index(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _fails(query: str) -> Any:
    raise AssertionError(query)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        ([[1.0, NAN]], ValueError, "not finite, for 'tea'"),
        ([[INF, 1.0]], ValueError, "not finite"),
        ([[0.0, 0.0]], ValueError, "zero, for 'tea'"),
        ([1.0, 2.0], ValueError, r"shape \(1, dim\), not \(2,\)"),
        ([[1.0, 2.0]] * 2, ValueError, r"shape \(1, dim\), not \(2, 2\)"),
        (np.zeros((0, 2)), ValueError, "shape"),
        (np.zeros((1, 0)), ValueError, "shape"),
        (None, ValueError, "shape"),
        ([["a", "b"]], TypeError, "numbers"),
        ([[None, 1.0]], TypeError, "numbers"),
        ([[1.0, 2.0], [1.0]], ValueError, "embed must return rows of one length"),
        ([[1.0, 2.0, 3.0]], ValueError, "2 columns, not 3"),
    ],
)
def test_a_bad_embedding_is_an_error_and_nothing_is_kept(
    returned: Any, error: type[Exception], message: str
) -> None:
    answers: list[Any] = [[[1.0, 1.0]]]
    cache = SemanticCache(lambda texts: answers[0], threshold=0.9, maxsize=10)
    cache.set("coffee", 1)
    answers[0] = returned
    for call in (
        lambda: cache.set("tea", 2),
        lambda: cache.get("tea"),
        lambda: cache.get_or_compute("tea", _fails),
        lambda: cache.nearest("tea"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert len(cache) == len(cache._neighbours) == 1
    assert cache.stats().misses == 0
    assert cache.get("coffee") is not None


def test_one_bad_row_of_a_batch_keeps_nothing_of_it() -> None:
    rows = np.array([[1.0, 0.0], [NAN, 1.0], [0.0, 1.0]])
    cache = SemanticCache(lambda texts: rows[: len(texts)], threshold=0.9, maxsize=10)
    with pytest.raises(ValueError, match="'b'"):
        cache.set_many([("a", 1), ("b", 2), ("c", 3)])
    assert len(cache) == 0


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e-300, 1e300])
def test_embeddings_of_any_length_do(scale: float, index: str) -> None:
    cache = SemanticCache(
        lambda texts: trigrams(texts) * scale, threshold=0.9, maxsize=10, index=index
    )
    cache.set(ASKED, 1)
    hit = cache.get(ALIKE)
    assert hit is not None
    assert hit.similarity == pytest.approx(cosine(ASKED, ALIKE), abs=1e-6)


def test_integers_and_lists_do_as_embeddings() -> None:
    cache = SemanticCache(
        lambda texts: trigrams(texts).astype(int).tolist(), threshold=0.9, maxsize=10
    )
    cache.set(ASKED, 1)
    assert cache.get(ALIKE) is not None
    assert cache.dim == 512


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.astype(">f8"),
        lambda rows: rows.astype(np.float16),
        lambda rows: np.repeat(rows, 2, axis=1)[:, ::2],
        np.asfortranarray,
    ],
)
def test_arrays_of_any_byte_order_and_strides_do(change: Any) -> None:
    cache = SemanticCache(lambda texts: change(trigrams(texts)), threshold=0.9, maxsize=10)
    cache.set_many({ASKED: 1, OTHER: 2})
    hit = cache.get(ALIKE)
    assert hit is not None
    assert hit.similarity == pytest.approx(cosine(ASKED, ALIKE), abs=1e-6)
