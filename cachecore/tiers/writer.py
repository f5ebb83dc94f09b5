"""Writer: the thread that does on a tier what waits in a backlog, and those who help it."""

from __future__ import annotations

import atexit
import os
import threading
import time
import warnings

from cachecore._backlog import Backlog, Operation, tell_of
from cachecore.errors import TierError, TierTimeoutError
from cachecore.tiers.base import Item, Tier

IDLE = 5.0  # seconds until a thread without work ends
BACKOFF = 0.05, 1.0  # seconds that a failure is waited out, at first and at most


class Writer:
    """Does what waits in `backlog`, up to `batch` operations at a time, each after `delay` seconds.

    What fails is tried again. Whoever holds `writing` can be sure that nothing is being done;
    `room` is notified when something has been.
    """

    def __init__(
        self,
        tier: Tier,
        backlog: Backlog,
        name: str,
        *,
        delay: float,
        batch: int,
        close_timeout: float,
    ) -> None:
        self._tier, self._backlog, self._name = tier, backlog, name
        self._delay, self._batch, self._close_timeout = delay, batch, close_timeout
        self.written = self.failed = 0
        self.closed = False
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()  # of the thread's begin and end
        self._thread: threading.Thread | None = None
        self._wake, self._stop = threading.Event(), threading.Event()
        self.writing = threading.Lock()
        self.room = threading.Condition()

    def here(self) -> None:
        """To be called first: in the child of a fork there is no thread, and nobody frees locks."""
        if self._process != os.getpid():
            self._begin()

    def flush(self, timeout: float | None = None) -> None:
        """See `WriteBehind.flush`."""
        self.here()
        end = None if timeout is None else time.monotonic() + timeout
        if not self.writing.acquire(timeout=-1 if end is None else end - time.monotonic()):
            raise TierTimeoutError(f"{self._name}: the tier is still busy with a batch")
        try:
            left = self._backlog.waiting()
            while left > 0:
                if end is not None and time.monotonic() > end:
                    raise TierTimeoutError(f"{self._name}: there was no time for {left} operations")
                left -= self._write(min(left, self._batch)) or left
        finally:
            self.writing.release()

    def _write(self, most: int) -> int:
        """Have the next operations done, while holding `writing`; how many were taken."""
        backlog = self._backlog
        taken = backlog.take(most)
        ended = False
        try:
            items, deletions = [], []
            for key, operation in taken:
                data, left = data_of(operation), operation.lifetime
                if data is not None and (left is None or left > 0):
                    items.append(Item(key, data, left))
                    continue
                deletions.append(key)
                if data is None and operation.is_item:  # it cannot be encoded
                    self._lose([operation])
            if deletions:
                self._tier.delete_many(deletions)
            if items:
                self._tier.set_many(items)
            ended = True
            self.written += len(taken)
        except TierError:
            self.failed += 1
            raise
        except Exception:  # a fault, which trying again would meet again
            ended = True
            self._lose([operation for _, operation in taken])
            raise
        finally:
            if ended:
                backlog.done(taken)
            else:
                backlog.back(taken)
            with self.room:
                self.room.notify_all()
        return len(taken)

    def _lose(self, operations: list[Operation]) -> None:
        self._backlog.lost += len(operations)
        self._backlog.lost_bytes += sum(operation.size for operation in operations)

    def start(self) -> None:
        """Have a thread work until nothing waits."""
        self.here()
        with self._lock:
            self._backlog.idle = False
            if self._thread is not None:
                self._wake.set()
                return
            thread = threading.Thread(target=self._work, name=f"{self._name}: writer", daemon=True)
            try:
                thread.start()
            except BaseException as error:
                self._backlog.idle = True  # the next call tries again
                if isinstance(error, RuntimeError):  # there are too many threads
                    return
                raise
            self._thread = thread
            atexit.register(self.finish)

    def _work(self) -> None:
        pause, backoff, backlog = self._delay, BACKOFF[0], self._backlog
        while not self._stop.wait(pause):
            pause = self._delay
            try:
                left = backlog.waiting()
                while left > 0:
                    with self.writing:
                        left -= self._write(min(left, self._batch)) or left
            except TierError:
                pause = backoff = min(2 * backoff, BACKOFF[1])
            except BaseException as error:  # without this thread everything would wait for ever
                tell_of(error, self._work)
            else:
                backoff = BACKOFF[0]
            if backlog.rest() and not self._is_woken():
                return

    def _is_woken(self) -> bool:
        """Wait for work; False when there was none for long, and this thread is to end."""
        while not self._wake.wait(IDLE):
            with self._lock:
                if not self._wake.is_set():
                    self._thread = None
                    atexit.unregister(self.finish)
                    return False
        self._wake.clear()
        return True

    def finish(self) -> None:
        """Have done what waits, for as long as that may take, and take nothing any more."""
        self.here()
        with self._lock:
            if self.closed:
                return
            self.closed = True
        self._stop.set()
        self._wake.set()
        end = time.monotonic() + self._close_timeout
        try:
            while len(self._backlog) and (left := end - time.monotonic()) > 0:
                try:
                    self.flush(left)
                except TierError:
                    time.sleep(min(BACKOFF[0], left))
                except Exception as error:
                    tell_of(error, self.finish)
        finally:
            lost = self._backlog.close()
            atexit.unregister(self.finish)
        if lost:
            message = (
                f"{self._name} was closed while {lost} operations waited for it: they are lost"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=3)


def data_of(operation: Operation) -> bytes | None:
    """What is to be kept; None: nothing, or what it should be made of does not allow it."""
    if not operation.is_item:
        return None
    data = operation.data
    if not callable(data):
        return data
    try:
        return data()
    except Exception as error:
        tell_of(error, data)
        return None
