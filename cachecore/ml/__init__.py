"""What ML services cache: one module for each thing, each usable alone, loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cachecore.ml.attention import blocks_of_past, past_of_blocks
    from cachecore.ml.calibration import Calibration
    from cachecore.ml.embeddings import EmbeddingCache, EmbeddingStats
    from cachecore.ml.feature_rows import Feature
    from cachecore.ml.features import FeatureCache
    from cachecore.ml.fingerprints import fingerprint
    from cachecore.ml.guards import word_guard
    from cachecore.ml.pipeline import Pipeline, Stage
    from cachecore.ml.prefixes import PrefixCache, PrefixStats
    from cachecore.ml.results import ResultCache
    from cachecore.ml.savings import Savings
    from cachecore.ml.semantic import SemanticCache
    from cachecore.ml.semantic_parts import Hit, SemanticStats
    from cachecore.ml.tokenizer import load_tokenizer, load_vocabulary
    from cachecore.ml.versions import model_version
    from cachecore.ml.weights import WeightStats, WeightStore

__all__ = [
    "Calibration",
    "EmbeddingCache",
    "EmbeddingStats",
    "Feature",
    "FeatureCache",
    "Hit",
    "Pipeline",
    "PrefixCache",
    "PrefixStats",
    "ResultCache",
    "Savings",
    "SemanticCache",
    "SemanticStats",
    "Stage",
    "WeightStats",
    "WeightStore",
    "blocks_of_past",
    "fingerprint",
    "load_tokenizer",
    "load_vocabulary",
    "model_version",
    "past_of_blocks",
    "word_guard",
]
# Where they are. Loaded when first asked for: some need a package that need not be installed.
_LATER = {
    "Calibration": "calibration",
    "EmbeddingCache": "embeddings",
    "EmbeddingStats": "embeddings",
    "Feature": "feature_rows",
    "FeatureCache": "features",
    "Hit": "semantic_parts",
    "Pipeline": "pipeline",
    "PrefixCache": "prefixes",
    "PrefixStats": "prefixes",
    "ResultCache": "results",
    "Savings": "savings",
    "SemanticCache": "semantic",
    "SemanticStats": "semantic_parts",
    "Stage": "pipeline",
    "WeightStats": "weights",
    "WeightStore": "weights",
    "blocks_of_past": "attention",
    "fingerprint": "fingerprints",
    "load_tokenizer": "tokenizer",
    "load_vocabulary": "tokenizer",
    "model_version": "versions",
    "past_of_blocks": "attention",
    "word_guard": "guards",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return value
