"""What ML services cache: one module for each thing, each usable alone, loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cachecore.ml.feature_rows import Feature
    from cachecore.ml.features import FeatureCache
    from cachecore.ml.fingerprints import fingerprint
    from cachecore.ml.versions import model_version

__all__ = [
    "Feature",
    "FeatureCache",
    "fingerprint",
    "model_version",
]
# Where they are. Loaded when first asked for: some need a package that need not be installed.
_LATER = {
    "Feature": "feature_rows",
    "FeatureCache": "features",
    "fingerprint": "fingerprints",
    "model_version": "versions",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return value
