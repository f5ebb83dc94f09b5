"""CPython's own tests of functools.lru_cache, run on memoize where they apply to it."""

from __future__ import annotations

import functools
import unittest
from typing import Any

import test.test_functools

from cachecore import memoize


class Functools:
    """What these tests use of functools, with memoize for lru_cache."""

    WRAPPER_ASSIGNMENTS = functools.WRAPPER_ASSIGNMENTS
    partial = functools.partial

    @staticmethod
    def _CacheInfo(**counts: Any) -> tuple[Any, ...]:  # noqa: N802 - its name in functools
        return tuple(counts.values())

    @staticmethod
    def lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:
        # No bound means here: one of bytes that is out of reach.
        return memoize(maxsize, max_bytes="1TB" if maxsize is None else None, typed=typed)


@memoize
def cached_function(x: int, y: int) -> int:
    return 3 * x + y


class TestLRU(test.test_functools.TestLRU, unittest.TestCase):  # type: ignore[misc]
    module = Functools
    cached_func = (cached_function,)

    @memoize
    def cached_meth(self, x: int, y: int) -> int:
        return 3 * x + y

    @staticmethod
    @memoize
    def cached_staticmeth(x: int, y: int) -> int:
        return 3 * x + y


# Tests that expect what is otherwise here, and what that is.
OTHERWISE_HERE = {
    "test_lru": "a cache of no entries is refused, and entries leave in another order",
    "test_lru_with_maxsize_negative": "a negative maxsize is refused",
    "test_lru_method": "entries leave in another order",
    "test_lru_cache_parameters": "there are more parameters",
    "test_lru_cache_threaded2": "threads do not compute the same key at the same time",
}
for name in OTHERWISE_HERE:
    assert hasattr(TestLRU, name)
    setattr(TestLRU, name, None)
