"""The decorator's arguments, and what a decorated function looks like from outside."""

from __future__ import annotations

import asyncio
import copy
import inspect
import math
import pickle
from functools import partial, wraps
from typing import Any

import pytest

from cachecore import Cache, memoize
from memo.helpers import recorder


@memoize
def documented(x: int, y: int = 0, *, z: int = 1) -> int:
    """Add them up."""
    return x + y + z


@memoize(maxsize=5, max_bytes="1MB", ttl=60, typed=True)
async def fetch(x: int) -> int:
    """Return it."""
    return x


class Owner:
    @memoize
    def method(self, x: int) -> int:
        return x

    @memoize
    async def amethod(self, x: int) -> int:
        return x

    class Inner:  # noqa: D106 - its name is what matters
        @memoize
        def method(self, x: int) -> int:
            return x


# --- arguments of the decorator ---


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"maxsize": None}, ValueError, "maxsize"),
        ({"maxsize": 0}, ValueError, "maxsize"),
        ({"maxsize": -1}, ValueError, "maxsize"),
        ({"maxsize": 2**63}, ValueError, "maxsize"),
        ({"maxsize": True}, TypeError, "maxsize"),
        ({"maxsize": 1.5}, TypeError, "maxsize"),
        ({"maxsize": "128"}, TypeError, "maxsize"),
        ({"max_bytes": "4XB"}, ValueError, "max_bytes"),
        ({"max_bytes": 0}, ValueError, "max_bytes"),
        ({"max_bytes": 1.5}, TypeError, "max_bytes"),
        ({"ttl": 0}, ValueError, "ttl"),
        ({"ttl": -1}, ValueError, "ttl"),
        ({"ttl": math.nan}, ValueError, "ttl"),
        ({"ttl": "1"}, TypeError, "ttl"),
        ({"key": 5}, TypeError, "key"),
        ({"key": "name"}, TypeError, "key"),
        ({"typed": 1}, TypeError, "typed"),
        ({"typed": None}, TypeError, "typed"),
        ({"typed": True, "key": len}, ValueError, "typed"),
        ({"maxsze": 3}, TypeError, "maxsze"),
    ],
)
def test_bad_arguments_are_named(
    options: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=rf"\b{named}\b"):
        memoize(**options)
    if "maxsize" not in options:
        with pytest.raises(error, match=rf"\b{named}\b"):
            memoize(len, **options)


def test_only_the_first_argument_is_positional() -> None:
    with pytest.raises(TypeError, match="positional"):
        memoize(10, 1000)  # type: ignore[call-overload]


def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


a_class_method: Any = classmethod(lambda cls: None)


@pytest.mark.parametrize("function", [5, "f", None, a_class_method, generator, async_generator])
def test_what_cannot_be_memoized(function: Any) -> None:
    with pytest.raises(TypeError, match="function must"):
        memoize(10)(function)


def test_defaults_and_parameters() -> None:
    expected = {"maxsize": 128, "max_bytes": None, "ttl": None, "key": None, "typed": False}
    for decorated in (memoize(len), memoize()(len), memoize(128)(len), memoize(maxsize=128)(len)):
        assert decorated.cache_parameters() == expected
    given = memoize(None, max_bytes="1KB", ttl=1.5, key=hash)(len)
    assert given.cache_parameters() == {
        "maxsize": None, "max_bytes": 1024, "ttl": 1.5, "key": hash, "typed": False,
    }  # fmt: skip
    assert fetch.cache_parameters() == {
        "maxsize": 5, "max_bytes": 2**20, "ttl": 60, "key": None, "typed": True,
    }  # fmt: skip


def test_a_decorator_used_twice_makes_two_caches() -> None:
    decorate = memoize(10)
    one, other = decorate(len), decorate(len)
    one("abc")
    assert (len(one.cache), len(other.cache)) == (1, 0)


# --- attributes ---


def test_attributes_of_the_function() -> None:
    assert documented.__name__ == "documented"
    assert documented.__doc__ == "Add them up."
    assert documented.__module__ == __name__
    assert documented.__qualname__ == "documented"
    assert Owner.Inner.method.__qualname__ == "Owner.Inner.method"
    assert (
        str(inspect.signature(documented)) == "(x: 'int', y: 'int' = 0, *, z: 'int' = 1) -> 'int'"
    )
    assert inspect.getsource(documented).startswith("@memoize\ndef documented")
    assert documented.__wrapped__(1, 2, z=3) == 6
    assert documented.cache_info().misses == 0


def test_attributes_can_be_set_and_are_taken_over() -> None:
    def function() -> None:
        """Do nothing."""

    function.tag = [1]  # type: ignore[attr-defined]
    function.cache = "not this one"  # type: ignore[attr-defined]
    decorated: Any = memoize(function)
    assert decorated.tag is function.tag  # type: ignore[attr-defined]
    assert isinstance(decorated.cache, Cache)
    decorated.more = 2
    assert decorated.more == 2

    @wraps(decorated)
    def outer() -> None:
        decorated()

    assert outer.__doc__ == "Do nothing."
    assert inspect.unwrap(outer) is function
    with pytest.raises(AttributeError):
        decorated.cache = Cache(1)


def test_callables_without_a_name() -> None:
    decorated: Any = memoize(partial(int, base=2))
    assert decorated("101") == 5
    assert not hasattr(decorated, "__name__")
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(decorated)


@pytest.mark.parametrize("function", [documented, fetch, Owner.method, Owner.Inner.method])
def test_copies_and_pickles_are_the_function_itself(function: Any) -> None:
    assert copy.copy(function) is copy.deepcopy(function) is copy.deepcopy([function])[0]
    assert copy.copy(function) is function
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(function, protocol)) is function


def test_coroutine_functions_are_recognised() -> None:
    functions: list[Any] = [fetch, Owner.amethod, Owner().amethod]
    assert all(map(inspect.iscoroutinefunction, functions))
    functions = [documented, Owner.method, Owner().method, memoize(len)]
    assert not any(map(inspect.iscoroutinefunction, functions))


def test_coroutine_functions_of_other_kinds() -> None:
    class Callable:
        async def __call__(self, x: int) -> int:
            return x

    for function in (Callable(), partial(fetch.__wrapped__), Owner().amethod):
        decorated: Any = memoize(function)
        assert [asyncio.run(decorated(3)) for _ in range(2)] == [3, 3]
        assert decorated.cache_info().hits == 1


def test_it_is_callable_and_hashable_and_equal_to_itself_only() -> None:
    one, other = memoize(len), memoize(len)
    assert callable(one)
    assert one == one
    assert one != other
    assert len({one, other, one}) == 2


# --- the cache behind it ---


def test_the_cache_is_a_real_one() -> None:
    function, _ = recorder()
    function("a")
    function("b", 1)
    assert function.cache.maxsize == 128
    assert function.cache["a"] == 1
    assert function.cache[function.cache_key("b", 1)] == 2
    function.cache["c"] = "put there"
    assert function("c") == "put there"
    function.cache.set(function.cache_key(5, n=6), "and there")
    assert function(5, n=6) == "and there"
    del function.cache["a"]
    assert function("a") == 3
    function.cache.resize(1)
    assert function.cache_info()[2:] == (1, 1)
    assert function.cache.name == "recorder.<locals>.function"
    function.cache.ttl = 60
    function("new")
    assert 0 < function.cache.get_ttl("new") <= 60


def test_cache_info_counts_calls() -> None:
    function, _ = recorder()
    for text in "abcabca":
        function(text)
    info = function.cache_info()
    assert info == (4, 3, 128, 3)
    assert (info.hits, info.misses, info.maxsize, info.currsize) == info
    assert repr(info) == "CacheInfo(hits=4, misses=3, maxsize=128, currsize=3)"


def test_cache_clear_forgets_results_and_counts() -> None:
    function, _ = recorder()
    function("a")
    function("a")
    function.cache_clear()
    assert function.cache_info() == (0, 0, 128, 0)
    assert function("a") == 2
    assert function.cache_info() == (0, 1, 128, 1)
    assert function.cache.stats().hits == 1  # the cache's own counts go on


def test_cache_invalidate_forgets_one_result() -> None:
    function, _ = recorder()
    for args, kwargs in ((("a",), {}), (("a", 1), {}), ((), {"self": 1}), (((1, 2),), {"n": "x"})):
        assert not function.cache_invalidate(*args, **kwargs)
        before = function(*args, **kwargs)
        assert function.cache_invalidate(*args, **kwargs)
        assert not function.cache_invalidate(*args, **kwargs)
        assert function(*args, **kwargs) == before + 1
    assert len(function.cache) == 4


def test_keys_can_be_compared_hashed_and_read() -> None:
    function, _ = recorder()
    other, _ = recorder()
    key = function.cache_key(1, "a", n=(2,))
    assert key == function.cache_key(1, "a", n=(2,)) == other.cache_key(1.0, "a", n=(2,))
    assert hash(key) == hash(function.cache_key(1.0, "a", n=(2.0,)))
    assert key != function.cache_key(1, "a", (2,))
    assert key != (1, "a", (2,))
    assert repr(key) == "CallKey(1, 'a', n=(2,))"
    assert repr(function.cache_key()) == "CallKey()"
    with pytest.raises(TypeError):
        sorted([key, key])
    assert [function.cache_key(plain) for plain in ("a", b"a", 5)] == ["a", b"a", 5]


def test_key_objects_cannot_be_made_otherwise() -> None:
    with pytest.raises(TypeError, match="cannot create"):
        type(recorder()[0].cache_key())()
