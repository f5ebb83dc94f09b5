"""What the tests of FeatureCache are given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cachecore.ml import FeatureCache
from ml.featured import Source
from support import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture(params=["sync", "async"])
def get(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """get_features, or its asynchronous twin."""
    if request.param == "sync":
        return FeatureCache.get_features

    def run(cache: FeatureCache, *args: Any, **options: Any) -> Any:
        return asyncio.run(cache.aget_features(*args, **options))

    return run
