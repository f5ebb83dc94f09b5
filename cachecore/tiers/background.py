"""Work that nobody waits for, in a few threads that are started when there is some."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

_log = logging.getLogger("cachecore")

IDLE = 5.0  # seconds that a thread without work stays

_Job = tuple[float, int, Callable[..., object], tuple[Any, ...]]  # due, tie, function, arguments


class Background:
    """Runs functions in daemon threads, now or later. Thread safe; forked, it begins anew."""

    def __init__(self, threads: int = 4, most: int = 10_000) -> None:
        self._threads, self._most = threads, most
        self.reset()

    def reset(self) -> None:
        """Forget everything: in a child process the threads are gone."""
        self._changed = threading.Condition()
        self._jobs: list[_Job] = []
        self._ties = itertools.count()
        self._started = self._idle = 0
        self._running = 0
        self._closed = False

    def submit(self, function: Callable[..., object], *args: Any, delay: float = 0.0) -> bool:
        """Have a function called `delay` seconds from now; False: there is too much to do, or it
        is closed. What it raises is logged."""  # noqa: D205, D209
        with self._changed:
            if self._closed or len(self._jobs) >= self._most:
                return False
            job = (time.monotonic() + delay, next(self._ties), function, args)
            heapq.heappush(self._jobs, job)
            if self._idle == 0 and self._started < self._threads:
                try:
                    threading.Thread(target=self._work, name="cachecore", daemon=True).start()
                    self._started += 1
                except RuntimeError:  # there are too many, or the interpreter ends
                    if self._started == 0:
                        self._jobs.remove(job)
                        heapq.heapify(self._jobs)
                        return False
            self._changed.notify()
        return True

    def close(self, timeout: float) -> bool:
        """Run what is due at once, drop what is due later; whether that is done in time."""
        with self._changed:
            self._closed = True
            now = time.monotonic()
            self._jobs = [job for job in self._jobs if job[0] <= now]
            heapq.heapify(self._jobs)
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._jobs and not self._running, timeout)

    def _work(self) -> None:
        changed = self._changed
        while True:
            with changed:
                job = self._next()
                if job is None:
                    self._started -= 1
                    return
                self._running += 1
            try:
                job[2](*job[3])
            except Exception:
                _log.exception("cachecore: background work failed")
            finally:
                del job  # whose method it is may be collected meanwhile
                with changed:
                    self._running -= 1
                    changed.notify_all()

    def _next(self) -> _Job | None:
        """The next job that is due; None: there is nothing to do, or it is closed."""
        while True:
            wait = IDLE
            if self._jobs:
                wait = self._jobs[0][0] - time.monotonic()
                if wait <= 0:
                    return heapq.heappop(self._jobs)
            elif self._closed:
                return None
            self._idle += 1
            told = self._changed.wait(wait)
            self._idle -= 1
            if not told and not self._jobs:
                return None
