"""EmbeddingCache over a Cache, a TieredCache, a VectorCache: rows outlive memory, unmixed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachecore import Cache, TieredCache, VectorCache
from cachecore.ml import EmbeddingCache, fingerprint
from cachecore.tiers import MmapTier, TierError
from ml.embedding_models import DIM, Trigrams, over

Below = Any
TEXTS = [f"text {at}" for at in range(20)]


def table(capacity: int = 1000, **settings: Any) -> VectorCache:
    return VectorCache(None, EmbeddingCache.row_dtype(DIM), capacity=capacity, **settings)


@pytest.fixture(params=["cache", "tiered", "mmap", "vectors", "shared vectors"])
def below(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Below]:
    if request.param == "cache":
        yield Cache(1000)
    elif request.param == "vectors":
        with table() as vectors:
            yield vectors
    elif request.param == "shared vectors":
        with table(path=tmp_path / "rows") as vectors:
            yield vectors
    else:
        tiers = [MmapTier(tmp_path, max_bytes="64MB")] if request.param == "mmap" else []
        cache = TieredCache(1000, tiers=tiers, namespace="embeddings")
        yield cache
        cache.close()


def asynchronously(cache: EmbeddingCache, texts: list[Any]) -> Any:
    return asyncio.run(cache.aembed(texts))


EMBED = {"embed": EmbeddingCache.embed, "aembed": asynchronously}


@pytest.mark.parametrize("how", EMBED)
def test_rows_come_from_below(below: Below, how: str) -> None:
    model, embed = Trigrams(), EMBED[how]
    inputs = [*TEXTS, b"bytes", ("a", "pair"), 7, np.arange(5)]
    expected = model.rows(inputs)
    assert np.array_equal(embed(over(model, below=below), inputs), expected)
    assert len(model.encoded) == len(inputs)
    again = over(model, below=below)
    assert np.array_equal(embed(again, inputs[::-1]), expected[::-1])
    assert len(model.encoded) == len(inputs)
    stats = again.stats()
    assert (stats.below, stats.encoded, stats.calls, stats.entries) == (24, 0, 0, 24)
    assert np.array_equal(embed(again, [*inputs, "new"])[-1], model.row("new"))
    assert len(model.encoded) == len(inputs) + 1


def test_what_differs_is_never_mixed(below: Below) -> None:
    """Versions and models side by side, tenants, and variants."""
    settings: list[dict[str, Any]] = [
        {"version": "v1"},
        {"version": "v2"},
        {"version": 1},
        {"version": "1"},
        {"model": "trigrams:v1", "version": "a"},
        {"model": "trigrams", "version": "v1:a"},
        {"salt": b"tenant"},
    ]
    models = [Trigrams(seed) for seed in range(2 * len(settings))]
    for _ in range(2):
        caches = [
            over(model, below=below, **each) for model, each in zip(models, settings, strict=False)
        ]
        caches += [
            cache.variant(model, "query")
            for cache, model in zip(caches, models[len(settings) :], strict=True)
        ]
        for cache, model in zip(caches, models, strict=True):
            assert np.array_equal(cache.embed(TEXTS), model.rows(TEXTS))
    assert all(model.calls == [TEXTS] for model in models)


@pytest.mark.parametrize("wrong", ["raises", "NaN", "too few"])
def test_nothing_is_kept_below_of_what_a_model_does_wrong(below: Below, wrong: str) -> None:
    def encode(texts: list[str]) -> Any:
        if wrong == "raises":
            raise ArithmeticError
        return np.full((len(texts) - (wrong == "too few"), DIM), np.nan)

    with pytest.raises(ArithmeticError if wrong == "raises" else ValueError):
        over(encode, below=below).embed(TEXTS)
    model = Trigrams()
    over(model, below=below).embed(TEXTS)
    assert model.encoded == TEXTS


def test_precompute_beyond_memory(below: Below) -> None:
    model = Trigrams()
    cache = over(model, below=below, maxsize=5)
    assert cache.precompute(TEXTS, batch=7) == 20
    assert np.array_equal(cache.embed(TEXTS), model.rows(TEXTS))
    assert len(model.encoded) == 20
    assert len(cache.cache) <= 5


def test_the_name_of_a_row() -> None:
    below: Cache[str, Any] = Cache(10)
    over(Trigrams(), below=below).embed(["a"])
    (name,) = below
    assert name.startswith("trigrams:v1:")
    assert bytes.fromhex(name.removeprefix("trigrams:v1:")) == fingerprint(
        "a", model="trigrams", version="v1", domain="cachecore.ml.embeddings float32"
    )


@pytest.mark.parametrize(
    "foreign",
    [
        "text", None, np.zeros(DIM), np.zeros(DIM + 1, np.float32), [0.0] * DIM,
        np.zeros((1, DIM), np.float32), b"\0" * DIM * 4,
        np.full(DIM, np.nan, np.float32),
    ],
)  # fmt: skip
def test_what_others_left_in_a_cache_is_a_miss(foreign: Any) -> None:
    below: Cache[str, Any] = Cache(10)
    model = Trigrams()
    over(model, below=below).embed(["a"])
    (name,) = below
    below[name] = foreign
    assert np.array_equal(over(model, below=below).embed(["a"]), model.rows(["a"]))
    assert len(model.calls) == 2


def test_a_row_of_another_fingerprint_and_one_with_nan_are_misses() -> None:
    """As of two inputs of which 64 bits of the fingerprint agree."""
    model, below = Trigrams(), table()
    over(model, below=below).embed(["a", "b", "c"])
    prints = [
        fingerprint(text, model="trigrams", version="v1",
                    domain="cachecore.ml.embeddings float32")
        for text in "abc"
    ]  # fmt: skip
    ids = np.frombuffer(b"".join(prints), "<i8").reshape(3, 4)[:, 0]
    rows, found = below.gather(ids)
    assert found.all()
    rows["fingerprint"][0, 3] ^= 1
    rows["row"][0] = 0
    rows["row"][1, 2] = np.nan
    below.put(ids, rows)
    again = over(model, below=below).embed(["a", "b", "c"])
    assert np.array_equal(again, model.rows(["a", "b", "c"]))
    assert model.calls == [["a", "b", "c"], ["a", "b"]]
    assert np.array_equal(over(model, below=below).embed(["a"]), model.rows(["a"]))
    assert len(model.calls) == 2


def test_a_cache_that_cannot_hold_rows_is_refused() -> None:
    for wrong in (
        VectorCache(DIM, capacity=100),
        VectorCache(None, EmbeddingCache.row_dtype(DIM + 1), capacity=100),
        VectorCache(None, EmbeddingCache.row_dtype(DIM, "float16"), capacity=100),
    ):
        with pytest.raises(ValueError, match=r'row_dtype\(16, "float32"\)'):
            over(Trigrams(), below=wrong)
    with pytest.raises(ValueError, match="without a loader"):
        over(Trigrams(), below=TieredCache(10, loader=len))


def test_a_tier_that_fails(tmp_path: Path) -> None:
    class Broken(MmapTier):
        def get_many(self, keys: Any) -> Any:
            raise TierError("no disk")

        def set_many(self, items: Any) -> Any:
            raise TierError("no disk")

    model = Trigrams()
    for _ in range(2):
        with TieredCache(10, tiers=[Broken(tmp_path, max_bytes="1MB")]) as below:
            assert np.array_equal(over(model, below=below).embed(["a"]), model.rows(["a"]))
    assert len(model.calls) == 2


def test_a_child_process_reads_what_its_parent_put(tmp_path: Path) -> None:
    model = Trigrams()
    with table(path=tmp_path / "rows") as below:
        over(model, below=below).embed(TEXTS)
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            theirs = Trigrams()
            same = np.array_equal(over(theirs, below=below).embed(TEXTS), model.rows(TEXTS))
            os._exit(0 if same and not theirs.calls else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_rows_of_other_dtypes_side_by_side() -> None:
    below: Cache[str, Any] = Cache(100)
    model = Trigrams()
    for _ in range(2):
        for dtype in ("float16", "float32", "float64"):
            rows = over(model, below=below, dtype=dtype).embed(["a"])
            assert rows.dtype == dtype
            assert np.array_equal(rows, model.rows(["a"]).astype(dtype))
    assert len(model.calls) == 3
    assert len(below) == 3
