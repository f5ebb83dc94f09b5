"""Which calls are the same, and keys made by a function."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

import numpy as np
import pytest

from cachecore import memoize
from memo.helpers import Call, call, recorder
from support import Key

# Every two of them are distinct.
DISTINCT: list[Call] = [
    call(),
    call("a"), call(("a",)), call((("a",),)), call(["a"][0] + "b"), call(b"a"), call(x="a"),
    call(1), call((1,)), call(x=1), call(y=1), call(1, None), call(None, 1), call(None), call("1"),
    call(1, 2), call((1, 2)), call(2, 1), call(1, x=2), call(1, y=2), call(x=1, y=2),
    call(y=2, x=1), call(1, 2, 3), call((1, 2), 3), call(1, (2, 3)), call((1, (2, 3))),
    call(1, "x", 2), call("x", 1), call(("x", 1)), call((("x", 1),)),
    call(2**70), call(-1), call(-2), call(""), call(b""), call(float("inf")), call(2.5),
    call(frozenset()), call(frozenset([1])), call(int), call(...), call(x=None),
]  # fmt: skip


@pytest.mark.parametrize("typed", [False, True])
def test_calls_written_differently_are_distinct(typed: bool) -> None:
    function, calls = recorder(typed=typed)
    for _ in range(2):
        results = [function(*args, **kwargs) for args, kwargs in DISTINCT]
        assert results == list(range(1, len(DISTINCT) + 1))
    assert calls == DISTINCT
    assert len({function.cache_key(*args, **kwargs) for args, kwargs in DISTINCT}) == len(DISTINCT)


# Pairs of calls that are the same although their arguments are other objects.
SAME: list[tuple[Call, Call]] = [
    (call("ab" * 50), call("ab" * 50 + "")),
    (call(f"{12}a"), call(f"{12}a")),
    (call(bytes([1, 2])), call(bytes([1, 2]))),
    (call(10**30), call(10**29 * 10)),
    (call(1.5, 2), call(3 / 2, 2)),
    (call((1, (2.5, "x"))), call((1, (5 / 2, "x")))),
    (call(((((((1,),),),),),)), call(((((((1,),),),),),))),
    (call(frozenset([1, 2])), call(frozenset([2, 1]))),
    (call(1, n=f"{3}"), call(1, n=f"{3}")),
    (call(1, **{f"n{0}": 3}), call(1, **{f"n{0}": 3})),
    (call(Key("k")), call(Key("k"))),
    (call(Key("k"), n=Key("m")), call(Key("k"), n=Key("m"))),
    (call(range(3)), call(range(3))),
]


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize(("one", "other"), SAME, ids=repr)
def test_equal_arguments_make_the_same_call(one: Call, other: Call, typed: bool) -> None:
    function, calls = recorder(typed=typed)
    assert function(*one[0], **one[1]) == function(*other[0], **other[1]) == 1
    assert calls == [one]
    assert function.cache_key(*one[0], **one[1]) == function.cache_key(*other[0], **other[1])
    assert function.cache_info()[:2] == (1, 1)


def test_types_matter_when_they_are_to() -> None:
    for typed, expected in ((False, 1), (True, 3)):
        function, calls = recorder(typed=typed)
        for number in (1, 1.0, True):
            function(number, 0)
            function(0, n=number)
        assert len(calls) == 2 * expected
        for number in (1, 1.0, True):
            function(number, 0)
            function(0, n=number)
        assert len(calls) == 2 * expected


def test_types_within_an_argument_never_matter() -> None:
    function, _ = recorder(typed=True)
    assert function((1, 2)) == function((1.0, True + 1)) == 1


def test_a_number_alone_is_known_by_its_type_as_in_functools() -> None:
    function, _ = recorder()
    assert (function(1), function(1.0), function(True)) == (1, 2, 2)


def test_subclasses_of_plain_types_are_not_plain() -> None:
    class Text(str):
        __slots__ = ()

    function, _ = recorder()
    assert (function("a"), function(Text("a")), function("a"), function(Text("a"))) == (1, 2, 1, 2)


def test_nan_is_found_by_identity_as_in_a_dict() -> None:
    function, _ = recorder()
    nan = float("nan")
    assert function(nan) == function(nan) == 1
    assert function((nan,)) == function((nan,)) == 2
    assert function(float("nan")) == 3


def test_names_that_are_not_interned() -> None:
    function, _ = recorder()
    names = ["".join(["na", "me"]) for _ in range(2)]
    assert names[0] is not names[1]
    assert [function(**{name: 1}) for name in names] == [1, 1]


def test_each_argument_is_hashed_once_in_a_call() -> None:
    hashed: list[Key] = []
    function, _ = recorder(maxsize=1)
    key = Key("k", on_hash=hashed.append)
    for count, expected in enumerate([1, 1, 1], start=1):
        assert function(key, 1) == expected
        assert len(hashed) == count
    function("another")
    assert len(hashed) == 3
    function(key, 1)
    assert len(hashed) == 4


def test_unhashable_arguments() -> None:
    function, calls = recorder()
    for args, kwargs in (call([]), call(1, {}), call(n=set()), call(([],)), call(np.zeros(1))):
        with pytest.raises(TypeError, match="unhashable"):
            function(*args, **kwargs)
        with pytest.raises(TypeError, match="unhashable"):
            function.cache_key(*args, **kwargs)
        with pytest.raises(TypeError, match="unhashable"):
            function.cache_invalidate(*args, **kwargs)
    assert calls == []
    assert function.cache_info() == (0, 0, 128, 0)


def test_comparisons_and_hashes_that_raise() -> None:
    def fail(key: Key) -> None:
        raise ZeroDivisionError

    function, calls = recorder()
    key = Key("k", on_eq=fail)
    assert function(key, 1) == function(key, 1) == 1
    with pytest.raises(ZeroDivisionError):
        function(Key("other"), 1)
    with pytest.raises(ZeroDivisionError):
        function(Key("k", on_hash=fail), 1)
    assert len(calls) == 1


def test_comparisons_that_change_the_cache() -> None:
    function, calls = recorder()
    for act in (
        function.cache_clear,
        partial(function, "x"),
        partial(function, Key("k"), 2),
        partial(function.cache_invalidate, "x"),
        partial(function.cache.resize, 1),
    ):
        acting = False

        def once(key: Key, act: Any = act) -> None:
            nonlocal acting
            if not acting:
                acting = True
                act()

        function.cache_clear()
        function(Key("k", on_eq=once), 1)
        assert function(Key("k"), 1) in (len(calls), len(calls) - 1)
        assert acting
        assert function(Key("k"), 1) == function(Key("k"), 1)
        function.cache._check()


def test_many_calls_of_every_shape() -> None:
    function, calls = recorder(maxsize=3000)
    for _ in range(2):
        for i in range(500):
            function(i)
            function(str(i))
            function(i, i)
            function(i, n=i)
            function((i, i / 2))
    assert len(calls) == 2500
    assert function.cache_info() == (2500, 2500, 3000, 2500)
    function.cache._check()


# --- the key function ---


def test_key_makes_the_whole_key() -> None:
    function, _ = recorder(key=lambda x, *args, n=0: (x % 10, n))
    assert function(3) == function(13) == function(23, "ignored") == 1
    assert function(3, n=1) == function(13, "ignored", n=1) == 2
    assert dict(function.cache) == {(3, 0): 1, (3, 1): 2}
    assert function.cache_key(113, n=1) == (3, 1)
    assert function.cache_invalidate(113, n=1)
    assert function(3, n=1) == 3


@pytest.mark.parametrize("value", ["text", b"bytes", 5, 5.5, (1, 2), None, Key("k"), 2**80])
def test_key_may_return_anything_hashable(value: Hashable) -> None:
    function, _ = recorder(key=lambda *args: value)
    assert [function(i) for i in range(3)] == [1, 1, 1]
    assert list(function.cache) == [value]


def test_what_key_raises_reaches_the_caller() -> None:
    function, calls = recorder(key=lambda x: 1 // x)
    with pytest.raises(ZeroDivisionError):
        function(0)
    with pytest.raises(TypeError, match="positional argument"):
        function()
    unhashable, calls_of_it = recorder(key=lambda x: [x])
    with pytest.raises(TypeError, match="unhashable"):
        unhashable(1)
    assert calls == calls_of_it == []


def test_methods_may_leave_out_self() -> None:
    class Model:
        calls = 0

        def __init__(self, scale: int) -> None:
            self.scale = scale

        __hash__ = None  # type: ignore[assignment]

        @memoize(key=lambda self, x: (self.scale, x))
        def score(self, x: int) -> int:
            Model.calls += 1
            return self.scale * x

    assert [Model(2).score(3), Model(2).score(3), Model(5).score(3), Model(2).score(x=3)] == [
        6, 6, 15, 6,
    ]  # fmt: skip
    assert Model.calls == 2
    assert Model(2).score.cache_info()[:2] == (2, 2)
