"""SIGINT: KeyboardInterrupt comes out of whatever was going on; nothing stays held or broken."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cachecore import Cache, _flight, memoize
from support import Clock, Key, check, wait_for_waiters


def interrupt(*_: object) -> Any:
    signal.raise_signal(signal.SIGINT)


ACTS: dict[str, Callable[[Cache[Any, Any], Any], object]] = {
    "c[k]": lambda c, k: c[k],
    "get": lambda c, k: c.get(k),
    "set": lambda c, k: c.set(k, "new"),
    "setdefault": lambda c, k: c.setdefault(k, "new"),
    "get_or_set": lambda c, k: c.get_or_set(k, lambda: "new"),
    "get_many": lambda c, k: c.get_many([k] * 3),
    "gather": lambda c, k: c.gather([k], np.empty((1, 2))),
    "pop": lambda c, k: c.pop(k),
    "delete": lambda c, k: c.delete(k),
    "touch": lambda c, k: c.touch(k, 5),
    "in": lambda c, k: k in c,
    "update": lambda c, k: c.update([("x", 1), (k, 2)]),
}


@pytest.mark.parametrize("where", ["eq", "hash", "timer"])
def test_sigint_in_the_middle_of_an_operation(where: str) -> None:
    for act in ACTS.values():
        clock, armed = Clock(), [False]

        def timer(clock: Clock = clock, armed: list[bool] = armed) -> float:
            if armed[0]:
                interrupt()
            return clock.now

        cache: Cache[Any, Any] = Cache(8, ttl=100, timer=timer)
        stored = Key("k")
        cache[stored] = "old"
        key = Key("k", on_hash=interrupt if where == "hash" else None)
        stored.on_eq = interrupt if where == "eq" else None
        armed[0] = where == "timer"
        with pytest.raises(KeyboardInterrupt):
            act(cache, key)
        armed[0] = False
        stored.on_eq = None
        check(cache)
        assert cache[Key("k")] == "old"
        cache[Key("k")] = "next"
        assert cache[Key("k")] == "next"


def test_sigint_in_a_callback_goes_to_the_unraisable_hook() -> None:
    heard: list[object] = []
    sys.unraisablehook = lambda caught: heard.append(caught.exc_type)
    cache: Cache[Any, Any] = Cache(2, on_evict=interrupt)
    for n in range(10):
        cache[n] = n
    assert set(heard) == {KeyboardInterrupt}
    assert len(heard) == 8
    check(cache)


def test_sigint_while_waiting_for_another_threads_factory() -> None:
    cache: Cache[str, int] = Cache(8)
    started, go_on = threading.Event(), threading.Event()

    def compute() -> int:
        started.set()
        wait_for_waiters(1)
        os.kill(os.getpid(), signal.SIGINT)
        assert go_on.wait(30)
        return 1

    other = threading.Thread(target=lambda: cache.get_or_set("k", compute))
    other.start()
    assert started.wait(30)
    with pytest.raises(KeyboardInterrupt):
        cache.get_or_set("k", lambda: 2)
    go_on.set()
    other.join()
    assert cache.get_or_set("k", lambda: 2) == 1
    check(cache)


def test_sigint_in_a_factory_leaves_no_flight_behind() -> None:
    cache: Cache[str, int] = Cache(8)
    with pytest.raises(KeyboardInterrupt):
        cache.get_or_set("k", interrupt)
    assert "k" not in cache
    assert cache.get_or_set("k", lambda: 1) == 1


@pytest.mark.parametrize("way", ["get_or_set", "memoize"])
def test_a_handler_that_waits_too_while_its_thread_waits(way: str) -> None:
    begun, go_on = ({key: threading.Event() for key in "ab"} for _ in range(2))
    in_handler = threading.Event()
    heard: list[object] = []
    cache: Cache[str, str] = Cache(8)

    def compute(key: str) -> str:
        begun[key].set()
        assert go_on[key].wait(30)
        return key

    memoized = memoize(compute)

    def ask(key: str) -> str:
        return memoized(key) if way == "memoize" else cache.get_or_set(key, lambda: compute(key))

    def handle(*_: object) -> None:
        sys.setswitchinterval(60)  # nobody else runs until this thread waits
        in_handler.set()
        heard.append(ask("b"))
        sys.setswitchinterval(0.005)
        heard.append(_flight._waiters())  # this thread still waits for "a"
        go_on["a"].set()

    def conduct() -> None:
        wait_for_waiters(1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        assert in_handler.wait(30)
        go_on["b"].set()

    signal.signal(signal.SIGUSR1, handle)
    computing = [threading.Thread(target=ask, args=(key,)) for key in "ab"]
    for thread, key in zip(computing, "ab", strict=True):
        thread.start()
        assert begun[key].wait(30)
    conductor = threading.Thread(target=conduct)
    conductor.start()
    assert ask("a") == "a"
    for thread in (*computing, conductor):
        thread.join()
    assert heard == ["b", 1]
    assert _flight._waiters() == 0


def test_sigints_at_random_moments() -> None:
    """A thread interrupts the main one a few hundred times, wherever that is."""
    cache: Cache[Any, Any] = Cache(50, ttl=100)
    stop = threading.Event()
    caught = 0
    pending = threading.Semaphore(0)

    def bother() -> None:
        while not stop.is_set():
            if pending.acquire(timeout=0.01):
                os.kill(os.getpid(), signal.SIGINT)

    other = threading.Thread(target=bother)
    other.start()
    while caught < 300:
        try:
            pending.release()
            n = 0
            while True:
                n += 1
                key = Key(n % 100, hash=n % 7)
                cache[key] = n
                cache.get_or_set((key, 1), lambda: n)  # noqa: B023
                cache.get_many([key, n])
                cache.delete(key)
        except KeyboardInterrupt:
            caught += 1
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            check(cache)
            signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop.set()
    other.join()
    check(cache)
    for n in range(100):
        assert cache.get_or_set((Key(n % 100, hash=n % 7), 1), lambda: -1) is not None
