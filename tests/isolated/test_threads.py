"""Threads: one cache under eight of them, single flight, callbacks that let others run."""

from __future__ import annotations

import contextlib
import gc
import itertools
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from cachecore import Cache, _flight
from support import LONG, Key, Value, check, check_shared, wait_for_waiters, yield_to_others

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


class Hammer:
    """One cache, and what threads do to it. Each value carries its key: a foreign one shows."""

    def __init__(self, kind: str) -> None:
        self.lively = kind == "reentrant"
        ticks = itertools.count()
        self.rng = random.Random(1)
        self.cache: Cache[Any, Any] = Cache(
            100,
            max_bytes=15_000 if kind == "bytes" else None,
            ttl=1 if kind == "expiring" else None,
            timer=(lambda: next(ticks) / 5_000) if kind == "expiring" else None,
            on_evict=self.meddle if self.lively else None,
        )

    def meddle(self, *_: object) -> None:
        """Let others run, or use the cache, in the middle of a comparison, release or callback."""
        chance, n = self.rng.random(), self.rng.randrange(300)
        if chance < 0.02:
            yield_to_others()
        elif chance < 0.04:
            self.cache.get(n)
            self.cache.delete(n)
        elif chance < 0.045:
            self.cache[n, "extra"] = Value((n, "extra"))

    def key(self, n: int) -> Any:
        if self.lively:
            return Key(n, hash=n % 30, on_eq=self.meddle)
        return n if n % 2 else f"key:{n}"

    def value(self, n: int) -> Value:
        return Value(n, self.meddle if self.lively else None)

    def rightful(self, n: object, found: Any) -> None:
        assert found is None or found.payload == n

    def set(self, n: int) -> None:
        self.cache[self.key(n)] = self.value(n)

    def get(self, n: int) -> None:
        self.rightful(n, self.cache.get(self.key(n)))

    def get_many(self, n: int) -> None:
        asked = [n * step % 300 for step in range(40)]
        found = self.cache.get_many([self.key(one) for one in asked])
        for one, value in zip(asked, found, strict=True):
            self.rightful(one, value)

    def pop(self, n: int) -> None:
        self.rightful(n, self.cache.pop(self.key(n), None))

    def setdefault(self, n: int) -> None:
        self.rightful(n, self.cache.setdefault(self.key(n), self.value(n)))

    def get_or_set(self, n: int) -> None:
        self.rightful(n, self.cache.get_or_set(self.key(n), lambda: self.value(n)))

    def iterate(self, n: int) -> None:
        with contextlib.suppress(RuntimeError):  # it changed
            for key, value in self.cache.items():
                plain = int(key[4:]) if isinstance(key, str) else key
                self.rightful(plain.name if isinstance(plain, Key) else plain, value)

    def reshape(self, n: int) -> None:
        self.cache.resize(20 if n % 2 else 100)
        self.cache.expire()
        if n % 10 == 0:
            self.cache.clear()

    def work(self, number: int, steps: int, end: float) -> None:
        rng = random.Random(number)
        common = [self.get, self.set, self.get_many, self.pop, self.setdefault, self.get_or_set]
        rare = [self.iterate, self.reshape]
        for step in itertools.count():
            if step >= steps and time.monotonic() >= end:
                break
            act = rng.choice(rare if rng.random() < 0.02 else common)
            act(rng.randrange(300))
            if step % 500 == 0:
                check_shared(self.cache)


@pytest.mark.deadline(240)
@pytest.mark.parametrize("kind", ["plain", "reentrant", "expiring", "bytes"])
def test_eight_threads_on_one_cache(kind: str) -> None:
    """For a minute when CACHECORE_TESTS=long."""
    sys.setswitchinterval(1e-6)
    surprises: list[object] = []
    sys.unraisablehook = surprises.append
    hammer = Hammer(kind)
    end = time.monotonic() + (60 if LONG else 0)
    run_together(lambda number: hammer.work(number, 2_000 if hammer.lively else 10_000, end))
    check(hammer.cache)
    assert surprises == []


def test_released_values_that_let_others_run() -> None:
    """A value's __del__ re-enters, collects garbage and lets go of the GIL; six threads."""
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


@pytest.mark.parametrize("threshold", range(1, 21))
def test_a_thread_that_is_overtaken_in_its_first_get_or_set(threshold: int) -> None:
    """By one that a collection, which may come at any allocation, lets run."""
    cache: Cache[str, int] = Cache(8)
    calls: list[int] = []
    turn = threading.Event()

    def compute() -> int:
        calls.append(1)
        while turn.is_set() and len(calls) == 1 and other.is_alive() and not _flight._waiters():
            yield_to_others()
        return len(calls)

    def ask() -> None:
        assert turn.wait(30)
        cache.get_or_set("k", compute)

    def overtake(*_: object) -> None:
        turn.set()
        while other.is_alive() and not calls and not _flight._waiters():
            yield_to_others()

    other = threading.Thread(target=ask)
    other.start()
    gc.collect()
    gc.callbacks.append(overtake)
    gc.set_threshold(gc.get_count()[0] + threshold)
    assert cache.get_or_set("k", compute) == 1
    gc.callbacks.clear()
    turn.set()
    other.join()
    assert len(calls) == 1


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
            assert all(0 <= key < 200 for key, _ in cache.hottest(10))

    run_together(work, threads=4)
    check(cache)
