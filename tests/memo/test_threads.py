"""Calls from many threads: one at a time for each key, and nobody waits for ever."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from threading import Barrier, Event, local, main_thread
from typing import Any

import pytest

from cachecore import Cache, memoize
from memo.helpers import DEADLINE, Eventually, Gate, Spawn


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_one_call_for_all_who_ask(spawn: Spawn, eventually: Eventually) -> None:
    gate = Gate()

    @memoize
    def function(*args: Any) -> object:
        return [gate.pass_through()]

    for args in (("a",), ("a", 1), ((1, 2),)):
        function.cache_clear()
        gate.__init__()  # type: ignore[misc]
        asked = [spawn(partial(function, *args)) for _ in range(8)]
        eventually(lambda: function.cache_info().misses == 8)
        gate.open.set()
        results = [outcome.result(DEADLINE) for outcome in asked]
        assert results[0] == [1]
        assert all(result is results[0] for result in results)
        assert function(*args) is results[0]
        assert function.cache_info() == (1, 8, 128, 1)


def test_a_race_for_many_keys(spawn: Spawn) -> None:
    barrier = Barrier(6)
    calls: list[Any] = []

    @memoize(maxsize=10_000)
    def function(*args: int) -> tuple[int, ...]:
        calls.append(args)
        return args

    def ask() -> None:
        for i in range(300):
            if i % 50 == 0:
                barrier.wait(DEADLINE)
            assert function(i) == (i,)
            assert function(i, i) == (i, i)

    for outcome in [spawn(ask) for _ in range(6)]:
        outcome.result(DEADLINE)
    assert len(calls) == len(set(calls)) == 600
    hits, misses, _, entries = function.cache_info()
    assert hits + misses == 3600
    assert entries == 600
    function.cache._check()


def test_different_keys_do_not_wait_for_each_other(spawn: Spawn) -> None:
    barrier = Barrier(4)

    @memoize
    def function(x: int) -> int:
        barrier.wait(DEADLINE)
        return x

    asked = [spawn(partial(function, i)) for i in range(4)]
    assert [outcome.result(DEADLINE) for outcome in asked] == [0, 1, 2, 3]


def test_an_exception_reaches_all_who_waited(spawn: Spawn, eventually: Eventually) -> None:
    gate = Gate()
    error = ValueError("no such thing")

    @memoize
    def function(x: str) -> object:
        gate.pass_through()
        raise error

    asked = [spawn(partial(function, "a")) for _ in range(4)]
    eventually(lambda: function.cache_info().misses == 4)
    gate.open.set()
    assert all(outcome.exception(DEADLINE) is error for outcome in asked)
    assert gate.calls == 1
    with pytest.raises(ValueError, match="no such thing"):
        function("a")
    assert gate.calls == 2


def test_when_the_caller_is_interrupted_one_who_waits_takes_over(
    spawn: Spawn, eventually: Eventually
) -> None:
    gate = Gate()

    @memoize
    def function(x: str) -> int:
        number = gate.pass_through()
        if number == 1:
            raise KeyboardInterrupt
        return number

    first = spawn(partial(function, "a"))
    assert gate.begun.wait(DEADLINE)
    others = [spawn(partial(function, "a")) for _ in range(3)]
    eventually(lambda: function.cache_info().misses == 4)
    gate.open.set()
    assert isinstance(first.exception(DEADLINE), KeyboardInterrupt)
    assert [outcome.result(DEADLINE) for outcome in others] == [2, 2, 2]


def test_who_waits_can_be_interrupted(spawn: Spawn, eventually: Eventually) -> None:
    gate, interrupted = Gate(), Event()

    def interrupt(number: int, frame: object) -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    @memoize
    def function(x: str) -> int:
        return gate.pass_through()

    def send() -> None:
        eventually(lambda: function.cache_info().misses == 2)
        while not interrupted.is_set():  # the first may come just before the wait begins
            signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)

    first = spawn(partial(function, "a"))
    assert gate.begun.wait(DEADLINE)
    before = signal.signal(signal.SIGINT, interrupt)
    sender = spawn(send)
    try:
        with pytest.raises(KeyboardInterrupt):
            function("a")
        sender.result(DEADLINE)
    finally:
        interrupted.set()
        signal.signal(signal.SIGINT, before)
    gate.open.set()
    assert first.result(DEADLINE) == function("a") == 1


def test_recursion_while_others_wait(spawn: Spawn, eventually: Eventually) -> None:
    gate, inside = Gate(), local()

    @memoize
    def function(x: str) -> str:
        if getattr(inside, "again", False):
            return "inner"
        gate.pass_through()
        inside.again = True
        return function(x) + " in outer"

    asked = [spawn(partial(function, "a")) for _ in range(3)]
    eventually(lambda: function.cache_info().misses == 3)
    gate.open.set()
    assert [outcome.result(DEADLINE) for outcome in asked] == ["inner in outer"] * 3
    assert gate.calls == 1


@pytest.mark.parametrize("length", [2, 3])
def test_threads_that_would_wait_in_a_circle(spawn: Spawn, length: int) -> None:
    """Function i, called by thread i, calls function i + 1, all at once; the last the first."""
    barrier, inside = Barrier(length), local()

    def make(i: int) -> Any:
        @memoize
        def function(x: str) -> int:
            if getattr(inside, "depth", 0) == length:
                return 1
            inside.depth = getattr(inside, "depth", 0) + 1
            if inside.depth == 1:
                barrier.wait(DEADLINE)
            return 1 + int(functions[(i + 1) % length](x))

        return function

    functions = [make(i) for i in range(length)]
    asked = [spawn(partial(function, "a")) for function in functions]
    for outcome in asked:
        assert outcome.result(DEADLINE) >= 1


def test_a_circle_through_a_cache(spawn: Spawn) -> None:
    barrier, inside = Barrier(2), local()
    cache: Cache[str, int] = Cache(10)

    def enter() -> bool:
        deep = getattr(inside, "deep", False)
        inside.deep = True
        if not deep:
            barrier.wait(DEADLINE)
        return deep

    @memoize
    def function(x: str) -> int:
        return 1 if enter() else cache.get_or_set(x, load)

    def load() -> int:
        return 1 if enter() else function("a")

    asked = [spawn(partial(function, "a")), spawn(lambda: cache.get_or_set("a", load))]
    assert [outcome.result(DEADLINE) for outcome in asked] == [1, 1]


# --- forgetting what is under way ---


@pytest.mark.parametrize("way", ["cache_invalidate", "cache_clear"])
def test_an_outdated_call_is_neither_kept_nor_joined(
    spawn: Spawn, eventually: Eventually, way: str
) -> None:
    gates = [Gate(), Gate()]
    calls = iter(gates)

    @memoize
    def function(x: str) -> Gate:
        gate = next(calls)
        gate.pass_through()
        return gate

    before = [spawn(partial(function, "a")) for _ in range(2)]
    eventually(lambda: function.cache_info().misses == 2)
    if way == "cache_clear":
        function.cache_clear()
    else:
        assert not function.cache_invalidate("a")
    misses = function.cache_info().misses
    after = [spawn(partial(function, "a")) for _ in range(2)]
    eventually(lambda: function.cache_info().misses == misses + 2)
    gates[0].open.set()
    assert [outcome.result(DEADLINE) for outcome in before] == [gates[0]] * 2
    assert len(function.cache) == 0
    gates[1].open.set()
    assert [outcome.result(DEADLINE) for outcome in after] == [gates[1]] * 2
    assert function("a") is gates[1]


def test_invalidating_another_key_changes_nothing(spawn: Spawn, eventually: Eventually) -> None:
    gate = Gate()

    @memoize
    def function(x: str) -> int:
        return gate.pass_through()

    asked = spawn(partial(function, "a"))
    assert gate.begun.wait(DEADLINE)
    function.cache_invalidate("b")
    gate.open.set()
    assert asked.result(DEADLINE) == function("a") == gate.calls == 1


def test_a_function_that_clears_its_own_cache() -> None:
    @memoize
    def function(x: int) -> int:
        function.cache_clear()
        return x

    assert [function(1), function(1)] == [1, 1]
    assert len(function.cache) == 0


def test_clearing_all_the_time(spawn: Spawn) -> None:
    stop = Event()

    @memoize(maxsize=20)
    def function(*args: int) -> tuple[int, ...]:
        return args

    def disturb() -> None:
        while not stop.is_set():
            function.cache_clear()
            function.cache_invalidate(3)
            function.cache_invalidate(3, 3)

    def ask() -> None:
        for i in range(5000):
            assert function(i % 30) == (i % 30,)
            assert function(i % 30, i % 30) == (i % 30, i % 30)

    disturber = spawn(disturb)
    try:
        for outcome in [spawn(ask) for _ in range(3)]:
            outcome.result(DEADLINE)
    finally:
        stop.set()
    disturber.result(DEADLINE)
    function.cache._check()


# --- fork ---


def in_a_child(act: Callable[[], bool]) -> None:
    """Fork, and fail when `act` does in the child, or is not done in time."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        done = False
        try:
            done = act()
        finally:
            os._exit(0 if done else 1)
    os.close(writer)  # the child's end of the pipe closes when it ends
    ended = bool(select.select([reader], [], [], DEADLINE)[0])
    if not ended:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(reader)
    assert (ended, status) == (True, 0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_does_not_wait_for_a_thread_of_its_parent(spawn: Spawn) -> None:
    gate = Gate()

    @memoize
    def function(x: str) -> int:
        return gate.pass_through()

    asked = spawn(partial(function, "a"))
    assert gate.begun.wait(DEADLINE)

    def use() -> bool:
        gate.open.set()
        return function("a") == function("a") == 2 and function.cache_info().hits == 1

    in_a_child(use)
    gate.open.set()
    assert asked.result(DEADLINE) == function("a") == 1


def test_a_fork_in_the_middle_of_a_call() -> None:
    @memoize
    def function(x: str) -> str:
        if x == "a":
            in_a_child(lambda: function("b") == function("b") == "b")
        return x

    assert function("a") == function("a") == "a"
    assert function.cache_info() == (1, 1, 128, 1)
