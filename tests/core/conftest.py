"""Fixtures for the tests of Cache: a clock, and caches whose invariants are checked at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cachecore import Cache
from support import Clock, MakeCache, check


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make() -> Iterator[MakeCache]:
    """Give Cache itself, but for a check of every cache it made when the test is over."""
    made: list[Cache[Any, Any]] = []

    def make_cache(*args: Any, **kwargs: Any) -> Cache[Any, Any]:
        made.append(Cache(*args, **kwargs))
        return made[-1]

    yield make_cache
    for cache in made:
        check(cache)
