"""Threads: one cache under eight of them, single flight, callbacks that let others run."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from cachecore import Cache
from support import LONG, Clock, Key, Value, check, wait_for_waiters, yield_to_others

THREADS = 8


def run_together(work: Callable[[int], None], threads: int = THREADS) -> None:
    """Run work(0), work(1) ... at the same time; raises what any of them raised."""
    errors: list[BaseException] = []
    gate = threading.Barrier(threads)

    def run(number: int) -> None:
        gate.wait()
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    members = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for member in members:
        member.start()
    for member in members:
        member.join()
    if errors:
        raise errors[0]


@pytest.mark.deadline(240)
@pytest.mark.parametrize("kind", ["plain", "reentrant", "expiring", "bytes"])
def test_eight_threads_on_one_cache(kind: str) -> None:
    """Each value carries its key, so that a foreign one would be seen. CACHECORE_TESTS=long: a minute."""
    sys.setswitchinterval(1e-6)
    sys.unraisablehook = lambda caught: os._exit(9)
    clock = Clock()
    rng = random.Random(1)
    lively = kind == "reentrant"

    def meddle(*_: object) -> None:
        if rng.random() < 0.02:
            yield_to_others()
        if rng.random() < 0.02:
            cache.get(rng.randrange(300))
            cache.delete(rng.randrange(300))
        if rng.random() < 0.005:
            cache[rng.randrange(300), "extra"] = Value("extra")

    def key(n: int) -> Any:
        return Key(n, hash=n % 30, on_eq=meddle) if lively else (n if n % 2 else f"key:{n}")

    def value(n: int) -> Value:
        return Value(n, meddle if lively else None)

    def timer() -> float:
        return clock.now

    cache: Cache[Any, Any] = Cache(
        100,
        max_bytes=15_000 if kind == "bytes" else None,
        ttl=1 if kind == "expiring" else None,
        timer=timer if kind == "expiring" else None,
        on_evict=meddle if lively else None,
    )
    end = time.monotonic() + 60 if LONG else None
    steps = 2_000 if lively else 15_000

    def rightful(n: int, found: Any) -> None:
        assert found is None or found.payload == n

    def work(number: int) -> None:
        rng = random.Random(number)
        step = 0
        while step < steps if end is None else time.monotonic() < end:
            step += 1
            n = rng.randrange(300)
            choice = rng.randrange(12)
            if choice < 4:
                rightful(n, cache.get(key(n)))
            elif choice < 7:
                cache[key(n)] = value(n)
            elif choice == 7:
                asked = [rng.randrange(300) for _ in range(40)]
                for one, found in zip(asked, cache.get_many([key(n) for n in asked]), strict=True):
                    rightful(one, found)
            elif choice == 8:
                rightful(n, cache.pop(key(n), None))
            elif choice == 9:
                rightful(n, cache.setdefault(key(n), value(n)))
            elif choice == 10:
                rightful(n, cache.get_or_set(key(n), lambda n=n: value(n)))  # type: ignore[misc]
            elif number == 0 and step % 50 == 0:
                cache.clear()
            elif number == 1:
                cache.resize(rng.choice([20, 100]))
                cache.expire()
                clock.advance(0.01)
            else:
                try:
                    for held, found in cache.items():
                        rightful(held.name if isinstance(held, Key) else found.payload, found)
                except RuntimeError as error:
                    assert "changed" in str(error)
            if step % 500 == 0:
                check(cache)

    try:
        run_together(work)
    finally:
        sys.setswitchinterval(0.005)
    check(cache)


def test_released_values_that_let_others_run() -> None:
    """A value's __del__ re-enters, collects garbage and lets go of the GIL while six threads work."""
    sys.setswitchinterval(1e-6)

    def release() -> None:
        yield_to_others()
        cache.get(5)
        cache.pop(random.randrange(50), None)
        if random.random() < 0.01:
            gc.collect(0)

    cache: Cache[Any, Any] = Cache(20)

    def work(number: int) -> None:
        for n in range(3000):
            cache[n % 50] = Value(n, release)
            if n % 100 == number:
                cache.clear()

    run_together(work, threads=6)
    check(cache)
    cache.clear()


def test_a_factory_is_called_once_for_a_key_however_many_ask() -> None:
    cache: Cache[str, object] = Cache(100)
    calls: list[str] = []
    results: dict[int, object] = {}
    others_wait = threading.Event()

    def factory() -> object:
        calls.append("k")
        assert others_wait.wait(30)
        return object()

    def work(number: int) -> None:
        if number == 0:
            wait_for_waiters(THREADS - 2)  # all but this one and the one who computes
            others_wait.set()
        else:
            results[number] = cache.get_or_set("k", factory)

    run_together(work)
    assert calls == ["k"]
    assert len(results) == THREADS - 1
    assert set(map(id, results.values())) == {id(cache["k"])}
    check(cache)


def test_factories_of_different_keys_run_at_the_same_time() -> None:
    cache: Cache[int, int] = Cache(100)
    together = threading.Barrier(THREADS, timeout=30)

    def work(number: int) -> None:
        assert cache.get_or_set(number, lambda: together.wait() * 0 + number) == number

    run_together(work)
    assert len(cache) == THREADS


def test_an_exception_reaches_those_who_wait_and_is_not_kept() -> None:
    cache: Cache[str, int] = Cache(100)
    calls: list[int] = []
    caught: list[BaseException] = []
    go = threading.Event()

    def fail() -> int:
        calls.append(1)
        assert go.wait(30)
        raise LookupError("source is down")

    def work(number: int) -> None:
        if number == 0:
            wait_for_waiters(THREADS - 2)
            go.set()
            return
        try:
            cache.get_or_set("k", fail)
        except LookupError as error:
            caught.append(error)

    run_together(work)
    assert len(caught) == THREADS - 1
    assert calls == [1]
    assert "k" not in cache
    assert cache.get_or_set("k", lambda: 5) == 5


def test_a_waiter_takes_over_when_the_computing_thread_is_stopped() -> None:
    cache: Cache[str, int] = Cache(100)
    others_wait = threading.Event()
    calls: list[int] = []
    outcomes: list[object] = []

    def compute() -> int:
        calls.append(1)
        if len(calls) == 1:
            assert others_wait.wait(30)
            raise KeyboardInterrupt
        return 7

    def work(number: int) -> None:
        if number == 0:
            wait_for_waiters(THREADS - 2)
            others_wait.set()
            return
        try:
            outcomes.append(cache.get_or_set("k", compute))
        except KeyboardInterrupt:
            outcomes.append("stopped")

    run_together(work)
    assert outcomes.count("stopped") == 1
    assert outcomes.count(7) == THREADS - 2
    assert len(calls) == 2
    assert cache["k"] == 7


def test_threads_that_would_wait_for_each_other_do_not() -> None:
    """A's factory asks for B's key, and B's for A's."""
    cache: Cache[str, str] = Cache(100)
    both = threading.Barrier(2, timeout=30)
    met: set[str] = set()

    def compute(mine: str, other: str) -> str:
        if mine not in met:
            met.add(mine)
            both.wait()
        return mine + cache.get_or_set(other, lambda: other)

    def work(number: int) -> None:
        mine, other = ("a", "b") if number else ("b", "a")
        assert cache.get_or_set(mine, lambda: compute(mine, other)).startswith(mine)

    run_together(work, threads=2)
    check(cache)


def test_a_value_deleted_during_its_computation_is_still_returned() -> None:
    cache: Cache[str, int] = Cache(100)

    def compute() -> int:
        cache.delete("k")
        cache.clear()
        return 3

    assert cache.get_or_set("k", compute) == 3
    assert cache["k"] == 3


def test_a_timer_read_by_two_threads_at_once_has_not_gone_backwards() -> None:
    """One thread is stopped between reading the time and returning it, and another overtakes it."""
    now = 100.0
    slow_has_read, go_on = threading.Event(), threading.Event()
    slow: threading.Thread

    def timer() -> float:
        reading = now
        if threading.current_thread() is slow:
            slow_has_read.set()
            assert go_on.wait(30)
        return reading

    cache: Cache[str, int] = Cache(8, ttl=10, timer=timer)
    results: list[object] = []

    def ask() -> None:
        try:
            results.append(cache.get("k"))
        except ValueError as error:
            results.append(error)

    slow = threading.Thread(target=ask)
    cache["k"] = 1
    slow.start()
    assert slow_has_read.wait(30)
    now = 101.0
    assert cache.get("k") == 1
    go_on.set()
    slow.join()
    assert results == [1]
    check(cache)


def test_a_snapshot_is_whole_while_others_write() -> None:
    """copy(), == and items() of a cache that other threads change: an entry is old or new."""
    sys.setswitchinterval(1e-6)
    cache: Cache[int, tuple[int, int]] = Cache(100)
    stop = threading.Event()

    def work(number: int) -> None:
        if number:
            for step in range(20_000):
                cache[step % 200] = (step % 200, step)
            stop.set()
            return
        while not stop.is_set():
            twin = cache.copy()
            check(twin)
            assert all(key == value[0] for key, value in twin.items())
            cache.hottest(10)
            assert all(0 <= key < 200 for key in cache.get_many([0]) if isinstance(key, int))

    run_together(work, threads=4)
    check(cache)
