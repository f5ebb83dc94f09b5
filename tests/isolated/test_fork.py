"""fork: the child's cache works within a second, whatever other threads of the parent were at."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cachecore import Cache
from support import Key, Value, check

SECONDS = 1.0  # that a child may take


def in_a_child(act: Callable[[], None]) -> None:
    """Fork, run `act` in the child, and fail when it fails or is not done in time."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            act()
            status = 0
        finally:
            os.write(writer, b"done")
            os._exit(status)
    os.close(writer)
    # Done, or dead, the child lets go of its end of the pipe. On a busy machine a second is longer.
    ended = bool(select.select([reader], [], [], SECONDS * 10)[0])
    if not ended:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(reader)
    assert ended, "the child hangs"
    assert status == 0, "the child failed"


def use(cache: Cache[Any, Any]) -> None:
    check(cache)
    for key, value in list(cache.items()):
        assert cache.get(key) is value
    for n in range(2000):
        cache["child", n] = n
        assert cache["child", n] == n
    assert cache.get_or_set("from the child", lambda: 1) == 1
    cache.get_many([("child", n) for n in range(100)])
    cache.delete_many(list(cache)[::2])
    check(cache)
    cache.clear()
    check(cache)


def test_a_child_has_its_own_cache() -> None:
    heard: list[object] = []
    cache: Cache[Any, Any] = Cache(500, ttl=1000, on_evict=lambda *leaver: heard.append(leaver))
    cache.update({n: np.full(10, n) for n in range(500)})
    before = {key: value.tobytes() for key, value in cache.items()}
    for _ in range(5):
        in_a_child(lambda: use(cache))
    assert {key: value.tobytes() for key, value in cache.items()} == before
    assert heard == []
    check(cache)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("kind", ["plain", "reentrant"])
def test_fork_while_other_threads_write(kind: str) -> None:
    cache: Cache[Any, Any] = Cache(200, on_evict=lambda *leaver: os.stat("/"))
    stop = threading.Event()

    def write(number: int) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            if kind == "plain":
                cache[n % 1000] = Value(n)
            else:  # others run, and fork, in the middle of a comparison and of a release
                key = Key(n % 300, hash=n % 10, on_eq=lambda _: os.stat("/"))
                cache[key] = Value(n, lambda: os.stat("/"))
            cache.get_or_set((number, n % 50), lambda: os.stat("/"))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(15):
            in_a_child(lambda: use(cache))
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    check(cache)


def test_fork_while_a_factory_runs_in_another_thread() -> None:
    """The thread that would finish the computation does not exist in the child."""
    cache: Cache[str, int] = Cache(8)
    started, go_on = threading.Event(), threading.Event()

    def compute() -> int:
        started.set()
        assert go_on.wait(30)
        return 1

    other = threading.Thread(target=lambda: cache.get_or_set("k", compute))
    other.start()
    assert started.wait(30)

    def ask() -> None:
        assert cache.get_or_set("k", lambda: 2) == 2
        assert cache["k"] == 2

    try:
        in_a_child(ask)
    finally:
        go_on.set()
        other.join()
    assert cache["k"] == 1


def test_fork_within_a_factory_and_within_a_comparison() -> None:
    cache: Cache[Any, Any] = Cache(8)

    def fork_and_compute() -> int:
        in_a_child(lambda: use(cache))
        return 5

    assert cache.get_or_set("k", fork_and_compute) == 5
    armed = [True]

    def fork_once(_: Key) -> None:
        if armed:
            armed.clear()
            in_a_child(lambda: use(cache))

    cache[Key(1, on_eq=fork_once)] = 1
    assert cache[Key(1)] == 1
    assert not armed
    check(cache)
