"""Single flight: of all who want one key computed, one computes and the others wait for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from threading import Lock, get_ident
from typing import Any


class _Flight:
    """One computation under way. `landed` is held until it has ended."""

    __slots__ = ("error", "landed", "owner", "process", "value")

    def __init__(self) -> None:
        self.owner = get_ident()
        self.process = os.getpid()
        self.landed = Lock()
        self.landed.acquire()
        self.value: Any = None
        self.error: BaseException | None = None


class Flights:
    """The computations under way, by key. Thread safe under the GIL: each step is one dict call."""

    __slots__ = ("_flights", "_waits")

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight] = {}
        self._waits: dict[int, _Flight] = {}  # what each waiting thread waits for

    def run(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The result of `compute()`, called once however many threads ask at a time.

        An exception reaches everyone who waited. When the computing thread is stopped by something
        that is not an `Exception` (KeyboardInterrupt, say), a waiter takes over. A thread that
        would wait for itself, directly or through others, computes on its own instead.
        """
        while True:
            mine = _Flight()
            flight = self._flights.setdefault(key, mine)
            if flight is mine:
                return self._fly(key, mine, compute)
            if flight.process != mine.process:  # whoever computed was left behind by a fork
                self._flights.pop(key, None)
                continue
            if self._waits_for(flight, mine.owner):
                return compute()
            self._waits[mine.owner] = flight
            try:
                with flight.landed:
                    pass
            finally:
                del self._waits[mine.owner]
            if flight.error is None:
                return flight.value
            if isinstance(flight.error, Exception):
                raise flight.error

    def _fly(self, key: Hashable, flight: _Flight, compute: Callable[[], Any]) -> Any:
        try:
            flight.value = compute()
        except BaseException as error:
            flight.error = error
            raise
        finally:
            try:
                self._flights.pop(key, None)
            finally:
                flight.landed.release()
        return flight.value

    def _waits_for(self, flight: _Flight | None, thread: int) -> bool:
        """True when the end of `flight` depends on `thread`."""
        seen = 0
        while flight is not None and seen <= len(self._waits):
            if flight.owner == thread:
                return True
            flight = self._waits.get(flight.owner)
            seen += 1
        return False
