"""What ML services cache is counted too, each in its own terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachecore import TieredCache
from cachecore.integrations.prometheus import CacheCollector
from cachecore.ml import (
    EmbeddingCache,
    Feature,
    FeatureCache,
    PrefixCache,
    ResultCache,
    SemanticCache,
    WeightStore,
)
from integrations.watched import scrape, value


class Told:
    """What a scrape tells of one cache."""

    def __init__(self, cache: Any) -> None:
        collector = CacheCollector(None)
        collector.add(cache, "c")
        self._found = scrape(collector)
        assert not collector.unread

    def __call__(self, metric: str, **labels: str) -> float:
        return value(self._found, metric, cache="c", **labels)

    def results(self, tier: str = "l0") -> tuple[float, float]:
        return (
            self("requests_total", tier=tier, result="hit"),
            self("requests_total", tier=tier, result="miss"),
        )

    def event(self, name: str) -> float:
        return self("events_total", tier="l0", event=name)

    def level(self, name: str) -> float:
        return self("level", tier="l0", of=name)


def encode(texts: list[str]) -> Any:
    return np.array([[len(text), text.count("a"), 1, 0] for text in texts], np.float32)


def test_embeddings() -> None:
    with TieredCache(100, namespace="below") as below:
        cache = EmbeddingCache(encode, model="m", version=1, dim=4, maxsize=2, below=below)
        cache.embed(["a", "b", "c"])
        cache.embed(["a", "b", "c"])
        told, stats = Told(cache), cache.stats()
    assert told.results() == (stats.hits, stats.misses)
    assert told("requests_total", tier="below", result="hit") == stats.below > 0
    assert told("requests_total", tier="loader", result="hit") == stats.encoded == 3
    assert told("load_duration_seconds_count") == stats.calls == 1
    assert told("load_duration_seconds_sum") == stats.seconds > 0
    assert told("load_duration_seconds_bucket", le="+Inf") == 1
    assert (told("entries"), told("max_entries")) == (stats.entries, 2)


def test_results() -> None:
    cache = ResultCache(np.negative, model="m", version=1, maxsize=100)
    cache.predict(np.arange(10.0))
    cache.predict(np.arange(5.0))
    told = Told(cache)
    assert told.results() == (5, 10)
    assert told("inserts_total") == told("entries") == 10


def test_features() -> None:
    cache = FeatureCache(
        [Feature("price", "f4", "static"), Feature("clicks", "i4", 60)], maxsize=10,
        loader=lambda entities, names: {name: [1] * len(entities) for name in names},
    )  # fmt: skip
    cache.get_features(["a", "b"])
    cache.get_features(["a", "c"], ["price"])
    told, stats = Told(cache), cache.stats()
    assert told.results() == (stats.l0.hits, stats.l0.misses)
    assert told("entries") == 3
    assert told.event("loader_calls") == 2
    for feature, hits, misses in (("price", 1, 3), ("clicks", 0, 2)):
        assert told("feature_events_total", feature=feature, event="hits") == hits
        assert told("feature_events_total", feature=feature, event="misses") == misses


def test_prefixes_are_counted_in_tokens() -> None:
    cache = PrefixCache(block=4, max_bytes="1MB")
    cache.put(range(8), [b"one", b"two"])
    cache.match(range(12))
    told, stats = Told(cache), cache.stats()
    assert told.results() == (stats.matched_tokens, stats.asked_tokens - stats.matched_tokens)
    assert told.results() == (8, 4)
    assert (told("entries"), told("bytes")) == (2, stats.bytes)
    assert told("max_bytes") == 1 << 20
    assert told.event("lookups") == 1
    assert told.event("spilled") == 0


def test_semantic_hits_are_counted_in_queries() -> None:
    cache = SemanticCache(encode, threshold=0.999, maxsize=10)
    cache.set("what is a cache", "an answer")
    assert cache.get("what is a cache") is not None
    assert cache.get("what is a cachE") is not None
    assert cache.get("x") is None
    told, stats = Told(cache), cache.stats()
    assert told.results() == (2, 1)
    assert told.event("exact_hits") == stats.exact_hits == 1
    assert told.event("semantic_hits") == stats.semantic_hits == 1
    assert told("entries") == 1


def test_weights(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.ones(5000))
    store = WeightStore(tmp_path, budget="1MB")
    for name in store:
        store[name].sum()
    told, stats = Told(store), store.stats()
    assert told.results() == (stats.hits, stats.misses)
    assert told("entries") == stats.hot + stats.pinned == 2
    assert told("bytes") == stats.hot_bytes + stats.pinned_bytes
    assert told.level("tensors") == 2
    assert told.level("nbytes") == stats.nbytes
    assert told.event("drops") == 0
    store.close()


def test_an_encoder_is_watched_by_its_cache() -> None:
    class Model:
        encode = staticmethod(encode)

    wrapped = EmbeddingCache.wrap(Model(), version=1, dim=4)
    with pytest.raises(TypeError, match="must allow weak references, which CachedEncoder does not"):
        CacheCollector(None).add(wrapped, "c")
    assert Told(wrapped.embeddings)("entries") == 0
