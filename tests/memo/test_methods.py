"""Memoized methods, and other things that are called in unusual ways."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from cachecore import memoize
from memo.helpers import recorder


class Base:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    @memoize
    def method(self, x: int, *, n: int = 0) -> tuple[object, int, int]:
        """What it does."""
        self.calls.append((x, n))
        return self, x, n

    @classmethod
    @memoize
    def of_class(cls, x: int) -> tuple[type, int]:
        return cls, x

    @staticmethod
    @memoize
    def of_nobody(x: int) -> int:
        return x


class Derived(Base):
    pass


class Overriding(Base):
    @memoize
    def method(self, x: int, *, n: int = 0) -> tuple[object, int, int]:
        return super().method(x + 1, n=n)


def test_methods_are_bound() -> None:
    a, b = Base(), Derived()
    for owner in (a, b):
        method: Any = owner.method
        for _ in range(2):
            assert owner.method(1, n=2) == method(1, n=2) == (owner, 1, 2)
            assert Base.method(owner, 1, n=2) == (owner, 1, 2)
            assert method.__func__ is Base.method is Derived.method
            assert method.__self__ is owner
        assert owner.calls == [(1, 2)]
    assert Base.method.cache_invalidate(a, 1, n=2)
    a.method(1, n=2)
    assert len(a.calls) == 2


def test_overridden_methods() -> None:
    owner = Overriding()
    assert owner.method(1) == owner.method(1) == (owner, 2, 0)
    assert owner.calls == [(2, 0)]
    assert len(Overriding.method.cache) == 1


def test_class_and_static_methods() -> None:
    for owner in (Base, Derived, Base(), Derived()):
        cls = owner if isinstance(owner, type) else type(owner)
        of_class: Any = owner.of_class  # mypy does not bind what is under a classmethod
        assert of_class(1) == of_class(1) == (cls, 1)
        of_nobody: Any = owner.of_nobody
        assert of_nobody(1) == 1
    assert Base.of_nobody.cache_info() == (3, 1, 128, 1)
    assert of_class.cache_info() == (6, 2, 128, 2)


def test_descriptor_protocol() -> None:
    function = Base.__dict__["method"]
    owner = Base()
    assert function.__get__(None, Base) is function
    assert function.__get__(owner, Base)(5) == function.__get__(owner)(5) == (owner, 5, 0)
    assert function.__call__(owner, 5) == (owner, 5, 0)


CALLABLES: list[Callable[..., Any]] = [
    len, str.upper, "a-b".split, partial(int, base=16), dict.fromkeys, int, type("C", (), {}),
    type("Callable", (), {"__call__": lambda self, x: x})(),
]  # fmt: skip


@pytest.mark.parametrize("function", CALLABLES, ids=repr)
def test_anything_callable_can_be_memoized(function: Callable[..., Any]) -> None:
    memoized = memoize(function)
    args = () if isinstance(function, type) and function is not int else ("12",)
    if function == "a-b".split:
        args = ("-",)
    first = memoized(*args)
    assert memoized(*args) is first
    assert memoized.cache_info() == (1, 1, 128, 1)
    assert memoized.__wrapped__ is function


def test_a_stack_of_decorators() -> None:
    calls: list[int] = []

    @memoize(maxsize=1)
    @memoize
    def function(x: int) -> int:
        calls.append(x)
        return x

    assert [function(i % 2) for i in range(6)] == [0, 1, 0, 1, 0, 1]
    assert calls == [0, 1]


def test_through_the_other_ways_to_call() -> None:
    function, _ = recorder()
    assert list(map(function, "aab")) == [1, 1, 2]
    assert partial(function, "a")() == partial(function, "b")() - 1 == 1
    assert function(*["a"]) == 1
    assert max(["a", "b"], key=function) == "b"
