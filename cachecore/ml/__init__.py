"""What ML services cache: one module for each thing, each usable alone, loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cachecore.ml.embeddings import EmbeddingCache, EmbeddingStats
    from cachecore.ml.fingerprints import fingerprint
    from cachecore.ml.pipeline import Pipeline, Stage
    from cachecore.ml.results import ResultCache
    from cachecore.ml.savings import Savings
    from cachecore.ml.versions import model_version

__all__ = [
    "EmbeddingCache",
    "EmbeddingStats",
    "Pipeline",
    "ResultCache",
    "Savings",
    "Stage",
    "fingerprint",
    "model_version",
]
# Where they are. Loaded when first asked for: some need a package that need not be installed.
_LATER = {
    "EmbeddingCache": "embeddings",
    "EmbeddingStats": "embeddings",
    "Pipeline": "pipeline",
    "ResultCache": "results",
    "Savings": "savings",
    "Stage": "pipeline",
    "fingerprint": "fingerprints",
    "model_version": "versions",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return value
