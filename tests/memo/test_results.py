"""What is kept of a call, for how long, and calls within calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cachecore import memoize
from memo.helpers import call, recorder
from support import Key


@pytest.mark.parametrize("value", [None, False, 0, NotImplemented, ..., (), "x", [1]])
def test_any_result_is_kept_and_returned_as_it_is(value: object) -> None:
    calls: list[int] = []

    @memoize
    def function(x: int) -> object:
        calls.append(x)
        return value

    assert function(1) is value
    assert function(1) is value
    assert calls == [1]


def test_exceptions_are_not_kept() -> None:
    calls: list[str] = []

    @memoize
    def function(text: str) -> int:
        calls.append(text)
        return int(text)

    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal") as caught:
            function("x")
        assert caught.value.__context__ is None
    assert function("3") == 3
    assert calls == ["x", "x", "3"]
    assert function.cache_info() == (0, 3, 128, 1)


def test_wrong_arguments_are_the_functions_to_refuse() -> None:
    @memoize
    def function(x: int) -> int:
        return x

    for args, kwargs in (call(), call(1, 2), call(y=1)):
        with pytest.raises(TypeError, match=r"function\(\)"):
            function(*args, **kwargs)
    assert len(function.cache) == 0


def test_the_first_caller_too_gets_the_snapshot_of_an_array() -> None:
    source = np.arange(6.0)

    @memoize
    def function(x: int) -> Any:
        return source

    first = function(1)
    source[:] = 0
    assert first is function(1) is function.cache[1]
    assert first.tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 9


def test_what_is_too_large_to_keep_is_returned_all_the_same() -> None:
    calls: list[int] = []

    @memoize(max_bytes=2000)
    def function(size: int) -> Any:
        calls.append(size)
        return np.zeros(size, dtype=np.int8)

    for size in (10_000, 10_000, 100, 100):
        result = function(size)
        assert len(result) == size
        assert not result.flags.writeable
    assert calls == [10_000, 10_000, 100]
    assert function.cache.stats().refused == 2


def test_results_leave_when_the_cache_is_full() -> None:
    function, _ = recorder(maxsize=10)
    for i in range(100):
        function(i)
        function(i, i)
    assert function.cache_info() == (0, 200, 10, 10)


def test_results_expire() -> None:
    function, calls = recorder(ttl=3600)
    for args, kwargs in (call("a"), call("a", 1), call((1, 2)), call(Key("k"))):
        calls.clear()
        first = function(*args, **kwargs)
        assert function(*args, **kwargs) == first
        key = function.cache_key(*args, **kwargs)
        assert 3590 < function.cache.get_ttl(key) <= 3600
        function.cache.touch(key, 1e-3)
        while key in function.cache:
            pass  # the clock is the system's: it takes some milliseconds
        assert function(*args, **kwargs) != first
        assert len(calls) == 2


# --- recursion ---


def test_recursion() -> None:
    @memoize(maxsize=1000)
    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    previous, expected = 0, 1
    for _ in range(299):
        previous, expected = expected, previous + expected
    assert fib(300) == expected
    assert fib.cache_info() == (298, 301, 1000, 301)


def test_recursion_with_the_same_arguments() -> None:
    depth = 0

    @memoize
    def function(x: str) -> str:
        nonlocal depth
        depth += 1
        return f"{depth}" if depth == 3 else function(x) + f"<{depth}"

    assert function("a") == "3<3<3"
    assert function("a") == "3<3<3"
    assert depth == 3


def test_recursion_without_end() -> None:
    @memoize
    def one(x: int) -> int:
        return other(x)

    @memoize
    def other(x: int) -> int:
        return one(x)

    with pytest.raises(RecursionError):
        one(1)
    assert len(one.cache) == len(other.cache) == 0
