"""Threads for calls that may hang: their caller waits for so long and no longer.

The threads are daemons: one that hangs does not keep the process from ending, as those of
`concurrent.futures` would. They are started as they are needed, and end when they idle.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from cachecore.errors import TierError, TierTimeoutError

T = TypeVar("T")

IDLE = 5.0  # seconds until a thread without work ends


class Workers:
    """At most `most` threads; what they do not get to begin in time is not begun.

    Thread safe. In the child of a fork it starts anew.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._calls: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = (
            SimpleQueue()
        )
        self._threads = self._stuck = 0
        self._pending = 0  # calls that have not ended

    @property
    def stuck(self) -> int:
        """How many threads are in calls that nobody waits for any more."""
        return self._stuck

    def submit(self, call: Callable[..., T], *args: Any) -> Future[T]:
        """Have a thread do it; TierTimeoutError when all of them hang."""
        if self._process != os.getpid():
            self._begin()
        future: Future[T] = Future()
        with self._lock:
            if self._stuck >= self._most:
                raise TierTimeoutError(f"{self._name}: all {self._most} threads hang")
            self._calls.put((future, call, args))
            self._pending += 1
            if self._threads >= min(self._pending, self._most):
                return future
            self._threads += 1
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter ends
            with self._lock:
                self._threads -= 1
            future.cancel()
            raise TierError(f"{self._name}: {error}") from error
        return future

    def give_up(self, future: Future[Any]) -> None:
        """Nobody waits for it any more; it is not begun if it has not been."""
        if future.cancel():
            return
        lock = self._lock

        def free(_: Future[Any]) -> None:
            with lock:
                self._stuck -= 1

        with lock:
            self._stuck += 1
        future.add_done_callback(free)  # at once if it has just ended

    def run(self, seconds: float, call: Callable[..., T], *args: Any) -> T:
        """What the call returns or raises; TierTimeoutError when that takes too long."""
        future = self.submit(call, *args)
        try:
            return future.result(seconds)
        except BaseException as error:
            if future.done():  # it may have raised a TimeoutError of its own
                return future.result()
            self.give_up(future)
            if isinstance(error, TimeoutError):
                raise TierTimeoutError(f"{self._name}: no answer in {seconds} seconds") from None
            raise

    def _work(self) -> None:
        calls, lock = self._calls, self._lock
        while True:
            try:
                future, call, args = calls.get(timeout=IDLE)
            except Empty:
                with lock:
                    if calls.empty():
                        self._threads -= 1
                        return
                continue
            if future.set_running_or_notify_cancel():
                try:
                    result = call(*args)
                except BaseException as error:
                    future.set_exception(error)
                    del error  # its traceback leads to this frame
                else:
                    future.set_result(result)
                    del result
            del future, call, args
            with lock:
                self._pending -= 1
