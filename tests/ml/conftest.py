"""What the tests of FeatureCache are given; what needs PyTorch is run where that is installed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from cachecore.ml import FeatureCache
from ml.featured import HANGS, Source
from support import Clock

collect_ignore = [] if find_spec("torch") else ["torch"]  # ci/examples.sh has it


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
        return asyncio.run(asyncio.wait_for(cache.aget_features(*args, **options), HANGS))

    return run
