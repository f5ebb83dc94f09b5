"""Arguments that make no sense: an error that names the argument, a cache that did not change."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from cachecore import Cache
from support import Clock, MakeCache

BAD_BOUNDS: list[Any] = [
    0, -1, -(2**63), 2**63, 2**64, 10**30, 1.5, 4.0, math.nan, math.inf, True, False, [], b"4",
    object(), Decimal(4), np.float64(4),
]  # fmt: skip
BAD_SIZES: list[Any] = [
    "4XB", "", " ", "GB", "-1", "-4GB", "0", "0GB", "0.0001KB", "1e9", "4 G B", "four", "inf",
    "nan", "1..5", "0x10", "9" * 30, "9" * 400, "8589934592GB", "4GB4",
]  # fmt: skip
BAD_SECONDS: list[Any] = [
    0, 0.0, -0.0, -1, -1e300, -math.inf, math.nan, True, "5", b"5", [], object(), 1j,
    np.array([1.0, 2.0]),
]  # fmt: skip
BAD_SHARES: list[Any] = [-0.1, 1.1, 2, math.nan, math.inf, -math.inf, True, "0.5", None, [], 1j]
NOT_CALLABLE: list[Any] = [5, "len", [], object()]

CONSTRUCTION: dict[str, list[Any]] = {
    "maxsize": [*BAD_BOUNDS, "10", "4GB"],
    "max_bytes": BAD_BOUNDS + BAD_SIZES,
    "ttl": BAD_SECONDS,
    "ttl_jitter": BAD_SHARES,
    "getsizeof": NOT_CALLABLE,
    "on_evict": NOT_CALLABLE,
    "timer": [*NOT_CALLABLE, 0.0],
    "copy_arrays": [0, 1, None, "yes"],
    "name": [5, b"name", []],
    "sketch_bytes": [*BAD_BOUNDS, *BAD_SIZES, 1, 63, 2**37 + 1, "1TB"],
}


def label(value: object) -> str:
    return f"{type(value).__name__} {value!r:.20}" if type(value) is not object else "object"


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name} {label(value)}")
        for name, values in table.items()
        for value in values
    ]


@pytest.mark.parametrize(("name", "value"), cases(CONSTRUCTION))
def test_the_constructor_names_the_argument(name: str, value: Any) -> None:
    arguments = {"maxsize": 4, name: value}
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
        Cache(**arguments)
    if name == "max_bytes":
        with pytest.raises((ValueError, TypeError), match=r"\bmax_bytes\b"):
            Cache(max_bytes=value)


@pytest.mark.parametrize("arguments", [{}, {"ttl": 5}, {"maxsize": None}, {"max_bytes": None}])
def test_a_bound_is_required(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="maxsize or max_bytes"):
        Cache(**arguments)


def test_unknown_and_positional_arguments_are_refused() -> None:
    with pytest.raises(TypeError):
        Cache(4, 1000)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="max_size"):
        Cache(max_size=4)  # type: ignore[call-arg]


@pytest.mark.parametrize("maxsize", [1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, np.int64(5)])
def test_any_positive_bound_works_and_takes_no_memory_in_advance(maxsize: int) -> None:
    cache: Cache[Any, Any] = Cache(maxsize)
    assert cache.maxsize == maxsize
    cache.update(a=1)
    assert cache == {"a": 1}
    assert cache.__sizeof__() < 100_000
    cache._check()


METHODS: dict[str, tuple[str, list[Any], Callable[[Cache[Any, Any], Any], object]]] = {
    "set ttl": ("ttl", BAD_SECONDS, lambda c, bad: c.set("a", 2, ttl=bad)),
    "set of a new key": ("ttl", BAD_SECONDS, lambda c, bad: c.set("n", 2, ttl=bad)),
    "set cost": ("cost", BAD_SECONDS, lambda c, bad: c.set("a", 2, cost=bad)),
    "set_many ttl": ("ttl", BAD_SECONDS, lambda c, bad: c.set_many({"a": 2}, ttl=bad)),
    "set_many nothing": ("ttl", BAD_SECONDS, lambda c, bad: c.set_many((), ttl=bad)),
    "get_or_set ttl": ("ttl", BAD_SECONDS, lambda c, bad: c.get_or_set("n", int, ttl=bad)),
    "get_or_set": ("factory", NOT_CALLABLE, lambda c, bad: c.get_or_set("n", bad)),
    "touch": ("ttl", BAD_SECONDS, lambda c, bad: c.touch("a", bad)),
    "touch absent": ("ttl", BAD_SECONDS, lambda c, bad: c.touch("n", bad)),
    "c.ttl": ("ttl", BAD_SECONDS, lambda c, bad: setattr(c, "ttl", bad)),
    "resize": ("maxsize", [*BAD_BOUNDS, "4GB"], lambda c, bad: c.resize(bad)),
    "resize bytes": ("max_bytes", BAD_BOUNDS + BAD_SIZES, lambda c, bad: c.resize(max_bytes=bad)),
    "resize both": ("max_bytes", BAD_SIZES, lambda c, bad: c.resize(1, max_bytes=bad)),
    "hottest": ("n", BAD_BOUNDS[:4] + BAD_BOUNDS[6:], lambda c, bad: c.hottest(bad)),
}


@pytest.mark.parametrize(
    ("operation", "bad"), cases({name: method[1] for name, method in METHODS.items()})
)
def test_methods_name_the_argument_and_change_nothing(
    clock: Clock, make: MakeCache, operation: str, bad: Any
) -> None:
    cache = make(8, max_bytes=10_000, ttl=60, timer=clock)
    cache.update(a=1, b=2)
    before = dict(cache.items()), cache.get_ttl("a"), cache.maxsize, cache.max_bytes, cache.ttl
    stats = cache.stats()
    name, _, act = METHODS[operation]
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
        act(cache, bad)
    after = dict(cache.items()), cache.get_ttl("a"), cache.maxsize, cache.max_bytes, cache.ttl
    assert after == before
    assert cache.stats()._replace(misses=0) == stats._replace(misses=0)


def test_resize_needs_a_bound(make: MakeCache) -> None:
    with pytest.raises(ValueError, match="maxsize or max_bytes"):
        make(8).resize()


class Unhashable:
    __hash__ = None  # type: ignore[assignment]


class BrokenHash:
    def __hash__(self) -> int:
        raise ArithmeticError("no hash today")


class OddHash:
    def __hash__(self) -> int:
        return "odd"  # type: ignore[return-value]  # noqa: PLE0309


TAKES_A_KEY: dict[str, Callable[[Cache[Any, Any], Any], object]] = {
    "c[k]": lambda c, k: c[k],
    "c[k] = v": lambda c, k: c.__setitem__(k, 1),
    "del": lambda c, k: c.__delitem__(k),
    "in": lambda c, k: k in c,
    "get": lambda c, k: c.get(k),
    "peek": lambda c, k: c.peek(k),
    "set": lambda c, k: c.set(k, 1),
    "get_many": lambda c, k: c.get_many([k]),
    "set_many": lambda c, k: c.set_many([(k, 1)]),
    "delete": lambda c, k: c.delete(k),
    "delete_many": lambda c, k: c.delete_many([k]),
    "pop": lambda c, k: c.pop(k, None),
    "setdefault": lambda c, k: c.setdefault(k, 1),
    "get_or_set": lambda c, k: c.get_or_set(k, lambda: 1),
    "gather": lambda c, k: c.gather([k], np.empty((1, 2))),
    "touch": lambda c, k: c.touch(k, 5),
    "get_ttl": lambda c, k: c.get_ttl(k),
}


@pytest.mark.parametrize("operation", TAKES_A_KEY)
@pytest.mark.parametrize(
    ("key", "error"),
    [
        ([], TypeError),
        ({}, TypeError),
        (Unhashable(), TypeError),
        ((1, []), TypeError),
        (BrokenHash(), ArithmeticError),
        (OddHash(), TypeError),
        (np.zeros(2), TypeError),
    ],
    ids=["list", "dict", "Unhashable", "tuple of list", "BrokenHash", "OddHash", "array"],
)
def test_a_key_must_have_a_hash(
    make: MakeCache, operation: str, key: Any, error: type[Exception]
) -> None:
    cache = make(8)
    cache["a"] = 1
    stats = cache.stats()
    with pytest.raises(error) as caught:
        TAKES_A_KEY[operation](cache, key)
    with pytest.raises(error) as from_dict:
        {}[key]
    assert str(caught.value) == str(from_dict.value)
    assert cache == {"a": 1}
    assert cache.stats() == stats


@pytest.mark.parametrize("operation", [name for name in TAKES_A_KEY if name != "gather"])
def test_errors_of_comparisons_are_the_same_everywhere(make: MakeCache, operation: str) -> None:
    class Stubborn:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            raise ArithmeticError("never compare")

    cache = make(8)
    stubborn = Stubborn()
    cache[stubborn] = 1
    stats = cache.stats()
    with pytest.raises(ArithmeticError, match="never compare"):
        TAKES_A_KEY[operation](cache, Stubborn())
    assert cache.stats() == stats
    assert cache[stubborn] == 1


@pytest.mark.parametrize(
    ("size", "error"),
    [
        (-1, ValueError), (2**62, ValueError), (2**64, ValueError), (10**30, ValueError),
        (math.nan, ValueError), (math.inf, (ValueError, OverflowError)), (None, TypeError),
        ("5", TypeError), (True, TypeError),
    ],
)  # fmt: skip
@pytest.mark.parametrize("bounds", [{"maxsize": 8}, {"max_bytes": 10_000}])
def test_getsizeof_must_return_a_size(
    make: MakeCache, bounds: dict[str, Any], size: Any, error: Any
) -> None:
    cache = make(**bounds, getsizeof=lambda value: size if value == "bad" else 5)
    cache["a"] = "good"
    stats = cache.stats()
    for key in ("a", "new"):
        with pytest.raises(error, match=None if size == math.inf else "getsizeof|NaN"):
            cache[key] = "bad"
    assert cache == {"a": "good"}
    assert cache.stats() == stats


def test_an_error_of_getsizeof_passes_through_and_changes_nothing(make: MakeCache) -> None:
    def fail(value: object) -> int:
        if value == "bad":
            raise LookupError("cannot weigh this")
        return 1

    cache = make(max_bytes=1000, getsizeof=fail)
    cache["a"] = "good"
    for act in (
        lambda: cache.set("a", "bad"), lambda: cache.setdefault("b", "bad"),
        lambda: cache.get_or_set("c", lambda: "bad"), lambda: cache.update(a="bad"),
    ):  # fmt: skip
        with pytest.raises(LookupError, match="cannot weigh"):
            act()
        assert cache == {"a": "good"}
    unsized = make(8, getsizeof=None)
    unsized["a"] = "bad"
    unsized.resize(max_bytes=1000)
    assert unsized == {"a": "bad"}


def test_pop_takes_one_default(make: MakeCache) -> None:
    cache: Any = make(8)
    for arguments in ((), (1, 2, 3)):
        with pytest.raises(TypeError):
            cache.pop(*arguments)
    with pytest.raises(TypeError):
        cache.pop(1, default=2)


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.get(),
        lambda c: c.get("a", 1, 2),
        lambda c: c.get("a", 1, default=2),
        lambda c: c.get("a", key="a"),
        lambda c: c.get("a", other=1),
        lambda c: c.set("a"),
        lambda c: c.set("a", 1, 5),
        lambda c: c.set("a", 1, tll=5),
        lambda c: c.get_many(),
        lambda c: c.set_many({}, 5),
        lambda c: c.get_or_set("a", int, 5),
        lambda c: c.touch("a"),
        lambda c: c.update({}, {}),
    ],
)
def test_wrong_calls_are_type_errors(make: MakeCache, call: Callable[[Any], object]) -> None:
    cache = make(8)
    cache["a"] = 1
    with pytest.raises(TypeError):
        call(cache)
    assert cache == {"a": 1}
